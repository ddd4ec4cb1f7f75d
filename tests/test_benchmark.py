"""benchmark.sh: what it would start, what it starts, and what it says afterwards."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import cache
from importlib import import_module
from pathlib import Path

import helpers
import pytest
import sac_rigl

import sparse_utils as su

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="benchmark.sh needs bash")

ROOT = Path(__file__).resolve().parent.parent
SCALES = ("smoke", "small", "paper")
NAMES = re.findall(r"^    ([a-z]+_\w+)\)", (ROOT / "benchmark.sh").read_text(), re.MULTILINE)
TICKETS = [name for name in NAMES if name.startswith("imp_")]  # Vischer et al.
SPACES = {"HalfCheetah": (17, 6), "Hopper": (11, 3), "Walker2d": (17, 6), "Ant": (105, 8), "Humanoid": (348, 17)}
SPACES |= {"Pendulum": (3, 1)}  # dimensions of observations and actions


def benchmark(*arguments, **environment):
    command = ["bash", str(ROOT / "benchmark.sh"), *arguments]
    variables = {"PYTHON": sys.executable, **{name: str(value) for name, value in environment.items()}}
    return subprocess.run(command, env=os.environ | variables, capture_output=True, text=True)


@cache
def listed():
    """Experiment -> its line of the list."""
    lines = benchmark("list").stdout.splitlines()
    assert lines[0].split()[:4] == ["experiment", *SCALES]
    return {line.split()[0]: line for line in lines[1:]}


@cache
def printed(name, scale):
    """An experiment's commands: the name of the script and the flags of each."""
    result = benchmark(name, scale, LAUNCH="print", PYTHON="python")
    assert result.returncode == 0
    assert all(line.startswith("left out: behavioural cloning of ") for line in result.stderr.splitlines())
    commands = [shlex.split(line) for line in result.stdout.splitlines()]
    assert all(command[:4] == ["cd", str(ROOT), "&&", "python"] for command in commands)
    assert all(re.fullmatch(r"algos/\w+\.py", command[4]) for command in commands)
    return [(Path(command[4]).stem, tuple(command[5:])) for command in commands]


@cache
def parse(script, flags):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [f"{script}.py", *flags])
        return import_module(script).parse_args()


@cache
def runs(name, scale="paper"):
    """(script, Args) of an experiment's commands, of SAC's those of the first seed. SAC's and Atari's tasks are put in
    afterwards, and Atari's seeds and files, so that few command lines need parsing. SAC's own default of
    --learning-starts is lost by that, which makes no two runs alike or different."""
    parsed = []
    for script, flags in printed(name, scale):
        if script == "dqn_atari_rigl":
            own = {"--env-id": "ALE/Pong-v5", "--seed": "1", "--run-dir": "", "--evaluate": ""}
            given = {flag: value for flag, value in zip(flags, flags[1:], strict=False) if flag in own}
            rest = [word for i, word in enumerate(flags) if word not in given and flags[i - 1] not in given]
            rest += ["--evaluate", "some.pt"] if "--evaluate" in given else []
            env_id, seed, run_dir, evaluate = (own | given).values()
            more = {"env_id": env_id, "seed": int(seed), "run_dir": run_dir, "evaluate": evaluate}
            parsed.append((script, replace(parse(script, tuple(rest)), **more)))
        elif script != "sac_rigl":
            parsed.append((script, parse(script, flags)))
        elif flags[2:4] == ("--seed", "1"):
            parsed.append((script, replace(parse(script, flags[2:]), env_id=flags[1])))
    return parsed


def identity(script, args):
    """The same for the same results, wherever the folder is."""
    return script, *((flag, value) for flag, value in vars(args).items() if flag not in su.FREE_FLAGS)


def folder(script, args):
    """The folder of a run in runs/, or what makes its name where --run-dir does not; of --evaluate, its checkpoint."""
    return args.run_dir.removeprefix("runs/") or getattr(args, "evaluate", "") or identity(script, args)


def folders(name, scale="paper"):
    return {folder(script, args): args for script, args in runs(name, scale)}


def apart(first, second):
    """The flags in which two runs differ, but for the folder."""
    return {flag for flag, value in vars(first).items() if vars(second)[flag] != value} - {"run_dir"}


def log(script, flags):
    """The name of a run's log: what tells its command from the experiment's others."""
    text = " ".join([f"{script}.py", *flags]).split(" --total-timesteps")[0].split(" --seeds")[0]
    return re.sub("[ /]", "_", text.replace("--", "")) + ".txt"


# ---- What it would start ---------------------------------------------------------------------------------------------


def test_list_has_an_experiment_for_every_figure():
    wanted = {"sac_": {1, 2, 3, 4, 5, 9, 12, 13, 14, 15}, "imp_": set(range(1, 16)), "eb_": {3, 4, 5, 6, 7, 8}}
    wanted |= {"dqn_": {5, 8, 14}, "ppo_": {1, 2, 9, 12, 16}, "atari_": {1, 2, 6, 10, 11, 12, 17, 18}}
    for prefix, figures in wanted.items():
        lines = [line.replace("3.", "") for name, line in listed().items() if name.startswith(prefix)]  # 3.3 to 3.8
        texts = re.findall(r"figures? ([\d., ]+)", "\n".join(lines))
        assert {int(n) for text in texts for n in re.findall(r"\d+", text)} == figures
    assert list(listed()) == NAMES  # each has a comment as it should be


@pytest.mark.parametrize("scale", SCALES)
def test_every_command_is_a_feasible_run_of_its_own(scale):
    for name, line in listed().items():
        commands = printed(name, scale)
        assert len(commands) == int(line.split()[1 + SCALES.index(scale)]) > 0
        # Two commands of the same run would meet in one folder. As SAC has the same ones for each seed, one will do.
        rest = {(script, flags[:2] + flags[4:] if script == "sac_rigl" else flags) for script, flags in commands}
        seeds = {flags[3] if script == "sac_rigl" else "all" for script, flags in commands}
        assert len(commands) == len(set(commands)) == len(rest) * len(seeds)
        assert len(rest) == len(runs(name, scale)) == len(folders(name, scale)), name
        # Nor may they write into one log; a file's name has at most 255 characters.
        assert len({log(*command) for command in commands}) == len(commands)
        assert max(len(log(*command)) for command in commands) < 150
        for script, run in runs(name, scale):
            assert run.threads == 1
            if script == "sac_rigl":
                obs_dim, action_dim = SPACES[run.env_id.split("-")[0]]
                actor = obs_dim * 256 + 256 * 256 + 256 * 2 * action_dim
                critics = 2 * ((obs_dim + action_dim) * 256 + 256 * 256 + 256)
                sac_rigl.network_widths(run, obs_dim, action_dim)  # both end the program if the share is not feasible
                if run.method not in ("dense", "small"):
                    assert all(0 <= sparsity < 1 for sparsity in su.network_sparsities(run, actor, critics))


def test_halfcheetah_is_the_table_of_the_documentation_seed_by_seed():
    sparse = [f"{method} --sparsity 0.9" for method in ("rigl", "static", "set", "prune", "small")]
    methods = ["dense", *sparse, "rigl --sparsity 0.9 --update-interval 200"]
    start, end = "--env-id HalfCheetah-v5 --seed", "--total-timesteps 200000 --threads 1"
    commands = [" ".join(flags) for _, flags in printed("sac_halfcheetah", "small")]
    assert commands == [f"{start} {seed} --method {method} {end}" for seed in (1, 2, 3) for method in methods]


def test_experiments_share_the_runs_that_they_have_in_common():
    def shared(name, other="sac_scaling", **which):
        own = {run for run, args in folders(name).items() if vars(args).items() >= which.items()}
        return own and own <= folders(other).keys()

    assert shared("sac_iqm", sparsity=0.9)
    assert shared("sac_snr", sparsity=0.8)
    assert shared("sac_actor_share", actor_share=None)
    assert shared("sac_scaling", "sac_scaling_uniform", method="dense")
    assert shared("sac_scaling", "sac_scaling_uniform", method="small")
    assert shared("sac_distribution", sparsity_distribution="erk")
    assert shared("sac_distribution", "sac_scaling_uniform", sparsity_distribution="uniform")
    assert shared("sac_weight_decay", method="rigl", weight_decay=1e-6)
    assert shared("sac_weight_decay", method="dense", weight_decay=1e-4)
    assert shared("sac_init", method="rigl", sparse_init=True, sparsity_distribution="erk")
    assert shared("sac_drop_fraction", method="set", drop_fraction=0.3)
    assert shared("sac_update_interval", method="prune", update_interval=1000)
    assert shared("sac_batch_size", batch_size=256)
    assert shared("sac_output_layer", dense_output_layer=False, sparsity_distribution="erk")


def test_ticket_experiments_share_the_runs_that_they_have_in_common():
    folder_of, args_of = {}, {}
    for name in TICKETS:
        for scale in SCALES:
            for script, args in runs(name, scale):
                run = identity(script, args)
                assert folder_of.setdefault(run, folder(script, args)) == folder_of[run], (name, scale)
                assert not apart(args_of.setdefault(folder(script, args), args), args), (name, scale)

    def shared(first, second, scale="paper"):
        return folders(first, scale).keys() & folders(second, scale).keys()

    for name in ("imp_on_policy", "imp_rl_bc", "imp_prune_critic", "imp_retrain_bullet"):
        assert shared("imp_inputs_bullet", name) == folders("imp_inputs_bullet").keys()
    for name in ("imp_inputs", "imp_retrain", "imp_sizes", "imp_regularisation", "imp_rewind"):
        assert len(shared(name, "imp_rl_bc")) == (
            4 if name == "imp_sizes" else 2
        )  # with its cloning, or PPO's two tasks
        assert shared(name, "imp_rl_bc", "small")
    for name in ("imp_goggles", "imp_retrain_goggles", "imp_regularisation", "imp_rewind"):
        assert shared("imp_off_policy", name) == folders("imp_off_policy").keys()
    assert shared("imp_goggles_minatar", "imp_minatar") == folders("imp_goggles_minatar").keys()


def test_ticket_runs_at_paper_scale_are_those_of_the_scripts_defaults():
    seeds = ("--seeds", *map(str, range(1, 11)))
    for script, args in runs("imp_rl_bc"):
        assert not apart(args, parse(script, ("--env-id", args.env_id, *seeds)))
    bullet = {f"{body}BulletEnv-v0" for body in ("HalfCheetah", "Hopper", "Walker2D", "Ant")}
    tasks = {args.env_id for script, args in runs("imp_rl_bc") if script == "ppo_imp"}
    assert tasks == {"CartPole-v1", "Acrobot-v1"} | bullet
    atari = [args for _, args in runs("imp_on_policy") if args.env_id.startswith("ALE/")]
    assert atari and all(args.seeds == (1, 2, 3, 4, 5) and args.prune == "actor" for args in atari)
    for name in TICKETS:
        assert {args.rounds for _, args in runs(name)} <= ({0, 20} if "retrain" in name else {20})
        assert all(args.seeds == (1, 2, 3, 4, 5) for script, args in runs(name) if script == "dqn_imp")


def test_atari_at_paper_scale_has_the_papers_games_and_budget():
    for name in ("atari_scaling", "atari_resnet_scaling", "atari_agents"):
        of_name = [args for _, args in runs(name)]
        assert len({args.env_id for args in of_name}) == 15 and {args.seed for args in of_name} == set(range(1, 10))
        for args in of_name[:50]:
            flags = ("--env-id", args.env_id, "--seed", str(args.seed), "--method", args.method)
            default = parse("dqn_atari_rigl", (*flags, "--network", args.network, "--sparsity", str(args.sparsity)))
            assert not apart(args, default)


@pytest.mark.parametrize("scale", SCALES)
def test_noise_is_that_of_the_agents_before(scale):
    trained = {f"{args.run_dir}/checkpoint.pt": args for _, args in runs("atari_agents", scale)}
    played = [args for _, args in runs("atari_noise", scale)]
    assert {args.evaluate for args in played} == trained.keys() and len({a.observation_noise for a in played}) == 1
    assert {args.method for args in trained.values()} >= {"dense", "rigl"}


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", ["imp_rl_bc", "imp_sizes"])
def test_cloning_is_started_for_the_tasks_that_have_an_expert(name, scale):
    tasks, cloned = [{a.env_id for s, a in runs(name, scale) if s == script} for script in ("ppo_imp", "bc_distill")]
    assert "CartPole-v1" in cloned == {env for env in tasks if (ROOT / f"algos/experts/{env}.pt").exists()}


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("imp_prune_critic", [{"prune"}]),
        ("imp_regularisation", [{"weight_decay"}, {"dropout"}]),
        ("imp_rewind", [{"rewind_steps"}]),
        ("imp_inputs", [{"input_init_scale", "conditions"}, {"init", "conditions"}]),
        ("imp_sizes", [{"hidden_sizes", "conditions"}]),
        ("imp_retrain", [{"input_mask", "rounds"}]),
        ("imp_retrain_bullet", [{"input_mask", "rounds"}]),
        ("imp_retrain_goggles", [{"input_mask", "rounds"}]),
        ("imp_swapped", [{"hidden_sizes"}]),
    ],
)
def test_ticket_runs_differ_from_the_default_in_what_the_figure_is_about(name, flags, scale):
    default, variants = {}, {}
    for script, args in runs(name, scale):  # a task's first run is its default
        first = default.setdefault((script, args.env_id), args)
        if args is not first:
            variants.setdefault((script, args.env_id), []).append(apart(first, args))
    assert all(key in variants for key in default if key[0] == "ppo_imp" and name != "imp_swapped")
    found = [differences for task in variants.values() for differences in task]
    assert all(differences in flags for differences in found) and all(differences in found for differences in flags)


def test_rewinding_is_to_shares_of_the_budget_and_bullet_prunes_the_critic():
    shares = {}
    for _, args in runs("imp_rewind"):
        shares.setdefault(args.env_id, []).append(args.rewind_steps / args.total_timesteps)
    assert shares == dict.fromkeys(("CartPole-v1", "Acrobot-v1", "MazeGrid-v0"), [0, 0.02, 0.08, 0.8])
    both, actor = [[a.env_id for _, a in runs("imp_prune_critic") if a.prune == prune] for prune in ("both", "actor")]
    assert both == actor and len(both) == 4 and all("Bullet" in env for env in both)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize(
    ("name", "before", "flag", "file"),
    [
        ("imp_retrain", "imp_inputs", "input_mask", r"round(\d\d)_ticket_seed1\.pt"),
        ("imp_retrain_bullet", "imp_inputs_bullet", "input_mask", r"round(\d\d)_ticket_seed1\.pt"),
        ("imp_retrain_goggles", "imp_goggles", "input_mask", r"round(\d\d)_ticket_seed1\.pt"),
        ("imp_minatar_bc", "imp_minatar", "teacher", r"round(00)_dense_seed1\.pt"),
    ],
)
def test_tickets_that_an_experiment_reads_are_those_of_the_one_before(name, before, flag, file, scale):
    there, read = folders(before, scale), []
    for args in (args for _, args in runs(name, scale) if getattr(args, flag)):
        top, run, tickets, ticket = Path(getattr(args, flag)).parts
        assert (top, tickets) == ("runs", "tickets") and there[run].env_id == args.env_id and 1 in there[run].seeds
        round_ = int(re.fullmatch(file, ticket)[1])
        assert round_ == 0 if flag == "teacher" else 0 < round_ <= there[run].rounds
        assert there[run].input_init_scale == (0.1 if name == "imp_retrain" else 1)
        read.append(run)
    assert len(read) == len(set(read)) > 0
    if name == "imp_minatar_bc":
        assert set(read) == there.keys() and {args.network for args in there.values()} == {"mlp", "cnn"}


# ---- What it starts --------------------------------------------------------------------------------------------------


def program(folder, body):
    """A program to stand for Python: it gets the script and the flags."""
    file = folder / "a program"
    file.write_text(f"#!/bin/sh\n{body}\n")
    file.chmod(0o755)
    return file


def table(result):
    """passed, failed, skipped"""
    lines = result.stdout.splitlines()
    head = next(i for i, line in enumerate(lines) if line.endswith(" passed  failed skipped"))
    return [int(n) for n in lines[head + 1].split()[2:]]


def test_a_printed_command_runs_as_it_stands(tmp_path):
    (tmp_path / "o u t").mkdir()
    python = program(tmp_path, 'pwd; for word; do echo "$word"; done')
    more = ("--dry-run", "--wandb-project-name", "my project")
    result = benchmark("imp_rl_bc", "smoke", *more, LAUNCH="print", OUT=tmp_path / "o u t", PYTHON=python)
    for line, (script, flags) in zip(result.stdout.splitlines(), printed("imp_rl_bc", "smoke"), strict=True):
        words = subprocess.run(["bash", "-c", line], capture_output=True, text=True).stdout.splitlines()
        assert words == [str(tmp_path / "o u t"), str(ROOT / f"algos/{script}.py"), *flags, *more]


def test_a_run_passes_then_is_skipped_and_can_be_drawn(tmp_path):
    files = {}
    for counts in ([1, 0, 0], [0, 0, 1]):
        result = benchmark("imp_on_policy", "smoke", "--eval-episodes", "5", OUT=tmp_path)
        assert (result.returncode, table(result)) == (0, counts), result.stdout + result.stderr
        (run,) = (tmp_path / "runs" / "imp_on_policy-smoke.txt").read_text().splitlines()
        files.setdefault(run, (tmp_path / "runs" / run / "results.csv").read_bytes())
    assert files == {run: (tmp_path / "runs" / run / "results.csv").read_bytes()}
    command = result.stdout.splitlines()[-1].removeprefix("draw: ")
    drawn = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True)
    assert "| Acrobot-v1 | PPO | ticket | 1 |" in drawn.stdout, drawn.stderr


@pytest.mark.parametrize(
    ("name", "which", "quick"),
    [
        ("sac_snr", 0, "--total-timesteps 30 --learning-starts 20 --snr-interval 5"),
        ("imp_off_policy", 0, ""),
        ("imp_rl_bc", -1, ""),  # cloning
        ("eb_exploit", 0, "--max-episodes 5"),
    ],
)
def test_run_folders_are_found_in_what_the_scripts_say(tmp_path, monkeypatch, name, which, quick):
    """Of a run that ends now, and of one that was finished."""
    monkeypatch.chdir(tmp_path)
    script, flags = printed(name, "smoke")[which]
    n = len(printed(name, "smoke"))
    for counts in ([n, 0, 0], [0, 0, n]):
        said = helpers.run_here(ROOT / f"algos/{script}.py", " ".join((*flags, quick))).stdout
        result = benchmark(name, "smoke", OUT=tmp_path, PYTHON=program(tmp_path, f"cat << 'END'\n{said}END"), JOBS=2)
        assert (result.returncode, table(result)) == (0, counts), said
        (run,) = set((tmp_path / "runs" / f"{name}-smoke.txt").read_text().splitlines())
        assert (tmp_path / "runs" / run / "config.json").exists()


def test_each_run_is_booked_a_failed_one_with_its_log_and_no_more_than_jobs_run_at_once(tmp_path):
    (tmp_path / "now").mkdir()
    python = program(
        tmp_path,
        f"""touch now/$$; ls now | wc -l >> counts; sleep 0.3; rm now/$$
        case "$*" in
            *"method static"*) echo "ValueError: boom" >&2; exit 3 ;;
            *"method set"*) echo "runs/b is finished; --fresh would start it over" ;;
            *"method prune"*) echo "draw: python plot.py tickets {tmp_path}/runs/c" ;;
            *"method small"*) echo "draw: python plot.py tickets elsewhere/c d" ;;
            *) echo "final score (mean of the last 1 of 3 evaluations): 5.0 (runs/a)" ;;
        esac""",
    )
    result = benchmark("sac_halfcheetah", "smoke", OUT=tmp_path, PYTHON=python, JOBS=3)
    assert (result.returncode, table(result)) == (1, [5, 1, 1])
    (failed,) = (line for line in result.stdout.split("failed:")[1].splitlines() if line.startswith("  algos"))
    assert "--method static" in failed
    file, _, message = result.stdout.split(failed)[-1].strip().splitlines()[0].strip().partition(": ")
    assert message == "ValueError: boom" == Path(file).read_text().strip()
    # The list has the folders as they lie from it, wherever --run-dir puts them.
    listed = (tmp_path / "runs" / "sac_halfcheetah-smoke.txt").read_text().splitlines()
    assert sorted(listed) == sorted(["a", "a", "a", "b", f"{tmp_path}/runs/c", "../elsewhere/c d"])
    counts = [int(n) for n in (tmp_path / "counts").read_text().split()]
    assert len(counts) == 7 and max(counts) <= 3

    # A failure of the past does not make a run fail, nor an earlier skip make it skipped.
    python = program(tmp_path, 'echo "final score (mean of the last 1 of 3 evaluations): 5.0 (runs/a)"')
    result = benchmark("sac_halfcheetah", "smoke", OUT=tmp_path, PYTHON=python)
    assert (result.returncode, table(result)) == (0, [7, 0, 0])


@pytest.mark.parametrize("how", ["ctrl-c", "kill"])
def test_stopping_it_stops_the_runs_and_waits_for_them(tmp_path, how):
    body = """trap 'trap "" INT TERM; sleep 0.5; echo saved >> events; exit 143' INT TERM
        echo started >> events
        for i in $(seq 100); do sleep 0.3; done"""
    process = subprocess.Popen(
        ["bash", str(ROOT / "benchmark.sh"), "sac_halfcheetah", "smoke"],
        env=os.environ | {"PYTHON": str(program(tmp_path, body)), "OUT": str(tmp_path), "JOBS": "2"},
        start_new_session=True,  # a process group of its own, as a terminal gives it
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        stdout=subprocess.PIPE,
        text=True,
    )
    events = tmp_path / "events"
    while not events.exists() or events.read_text().count("\n") < 2:
        assert process.poll() is None
        time.sleep(0.05)
    if how == "ctrl-c":
        os.killpg(process.pid, signal.SIGINT)
    else:
        process.terminate()
    output, _ = process.communicate(timeout=20)
    assert process.returncode == 130 and "stopped with 7 runs to go" in output
    assert output.count("] stopped ") == 2
    assert (
        events.read_text().split() == ["started"] * 2 + ["saved"] * 2
    )  # no other one started, and it waited for these


@pytest.mark.parametrize("name", ["sac_halfcheetah", "imp_minatar_bc"])
def test_slurm_gets_one_job_for_each_command(tmp_path, name):
    program(tmp_path, f'for word; do echo "$word" >> "{tmp_path}/words"; done').rename(tmp_path / "sbatch")
    environment = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "SBATCH_ARGS": "--time=1:00:00 --mem=4G",
        "OUT": tmp_path,
    }
    assert benchmark(name, "small", LAUNCH="slurm", **environment).returncode == 0
    words = (tmp_path / "words").read_text().splitlines()
    lines = benchmark(name, "small", LAUNCH="print", OUT=tmp_path).stdout.splitlines()
    assert words.count("--time=1:00:00") == words.count("--mem=4G") == len(lines)
    wraps, logs = [[word.removeprefix(f) for word in words if word.startswith(f)] for f in ("--wrap=", "--output=")]
    assert wraps == [line.replace("&& ", "&& exec ", 1) for line in lines]
    assert logs == [str(tmp_path / "runs/logs" / f"{name}-small" / log(*run)) for run in printed(name, "small")]
    assert not (tmp_path / "runs" / f"{name}-small.txt").exists()


@pytest.mark.parametrize(
    ("name", "scale", "variable", "message"),
    [
        ("start", "small", {}, "no experiment start"),  # a function of the script, but none that starts runs
        ("sac_snr", "huge", {}, "smoke, small or paper, not huge"),
        ("sac_snr", "small", {"JOBS": "0"}, "not 0"),
        ("sac_snr", "small", {"PYTHON": "/nowhere/python"}, "no program /nowhere/python"),
    ],
)
def test_wrong_input_is_one_line_and_status_2(tmp_path, name, scale, variable, message):
    result = benchmark(name, scale, OUT=tmp_path, **variable)
    assert result.returncode == 2 and not any(tmp_path.iterdir())
    assert message in result.stderr and result.stderr.count("\n") == 1
