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
from pathlib import Path

import bc_distill
import dqn_earlybird
import dqn_imp
import ppo_imp
import pytest
import sac_rigl

import sparse_utils as su

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="benchmark.sh needs bash")

ROOT = Path(__file__).resolve().parent.parent
SCALES = ("smoke", "small", "paper")
SCRIPTS = {"sac_rigl": sac_rigl, "ppo_imp": ppo_imp, "bc_distill": bc_distill, "dqn_imp": dqn_imp}
SCRIPTS |= {"dqn_earlybird": dqn_earlybird}
SPACES = {  # dimensions of observations and actions
    "HalfCheetah-v5": (17, 6),
    "Hopper-v5": (11, 3),
    "Walker2d-v5": (17, 6),
    "Ant-v5": (105, 8),
    "Humanoid-v5": (348, 17),
    "Pendulum-v1": (3, 1),
}


def benchmark(*arguments, **environment):
    command = ["bash", str(ROOT / "benchmark.sh"), *arguments]
    variables = {"PYTHON": sys.executable, **{name: str(value) for name, value in environment.items()}}
    return subprocess.run(command, env=os.environ | variables, capture_output=True, text=True)


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
def listed():
    """Experiment -> its numbers of runs, one for each scale."""
    lines = benchmark("list").stdout.splitlines()
    assert lines[0].split()[:4] == ["experiment", *SCALES]
    return {line.split()[0]: [int(n) for n in line.split()[1:4]] for line in lines[1:]}


@cache
def parse_flags(script, flags):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [f"{script}.py", *flags])
        return SCRIPTS[script].parse_args()


def parse(script, flags):
    """The script's Args. Seed and task of sac_rigl are put in afterwards, so that few command lines need parsing. A
    task's own default of --learning-starts is lost by that, which makes no two runs alike or different."""
    if script != "sac_rigl":
        return parse_flags(script, flags)
    flags, given = list(flags), {}
    for flag in ("--env-id", "--seed"):
        i = flags.index(flag)
        _, given[flag] = flags.pop(i), flags.pop(i)
    return replace(parse_flags(script, tuple(flags)), env_id=given["--env-id"], seed=int(given["--seed"]))


def folder(script, args):
    """The folder of a run, in runs/."""
    return args.run_dir.removeprefix("runs/") or su.run_name(args, script, getattr(args, "prune", "x"))


def names(commands):
    return [folder(script, parse(script, flags)) for script, flags in commands]


def ticket_runs(name, scale="paper"):
    """(script, Args) of a lottery-ticket experiment's commands."""
    return [(script, parse(script, flags)) for script, flags in printed(name, scale)]


def apart(first, second):
    """The flags in which two runs differ, but for the folder."""
    return {flag for flag, value in vars(first).items() if vars(second)[flag] != value} - {"run_dir"}


# ---- What it would start ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prefix", "experiments", "figures"),
    [("sac_", 13, {1, 2, 3, 4, 5, 9, 12, 13, 14, 15}), ("imp_", 18, set(range(1, 16))), ("eb_", 4, {3, 4, 5, 6, 7, 8})],
)
def test_list_has_an_experiment_for_every_figure(prefix, experiments, figures):
    lines = [line for line in benchmark("list").stdout.splitlines() if line.startswith(prefix)]
    assert len(lines) == experiments
    texts = re.findall(r"figures? ([\d., ]+)", "\n".join(lines).replace("3.", ""))  # Dimofte's are 3.3 to 3.8
    assert {int(n) for text in texts for n in re.findall(r"\d+", text)} == figures


@pytest.mark.parametrize("scale", SCALES)
def test_every_command_is_a_feasible_run_of_its_own(scale):
    for name, counts in listed().items():
        commands = printed(name, scale)
        assert len(commands) == counts[SCALES.index(scale)] > 0
        runs = [parse(*command) for command in commands]
        assert all(run.threads == 1 for run in runs)
        # Two commands of the same run would meet in one folder.
        assert len(set(names(commands))) == len(commands), name
        for run in (run for run in runs if isinstance(run, sac_rigl.Args) and run.seed == 1):
            obs_dim, action_dim = SPACES[run.env_id]
            actor = obs_dim * 256 + 256 * 256 + 256 * 2 * action_dim
            critics = 2 * ((obs_dim + action_dim) * 256 + 256 * 256 + 256)
            sac_rigl.network_widths(run, obs_dim, action_dim)  # both end the program if the share is not feasible
            if run.method not in ("dense", "small"):
                sparsities = sac_rigl.network_sparsities(run, actor, critics)
                assert all(0 <= sparsity < 1 for sparsity in sparsities)


def test_halfcheetah_is_the_table_of_the_documentation():
    common = "--env-id HalfCheetah-v5 --total-timesteps 200000 --sparsity 0.9"
    methods = ["dense", "rigl", "static", "set", "prune", "small", "rigl --update-interval 200"]
    wanted = [f"{common} --method {method} --seed {seed}".split() for seed in (1, 2, 3) for method in methods]
    assert names(printed("sac_halfcheetah", "small")) == names(("sac_rigl", flags) for flags in wanted)


def test_experiments_share_the_runs_that_they_have_in_common():
    def runs(name, **conditions):
        args = [parse(*command) for command in printed(name, "paper")]
        args = [a for a in args if all(getattr(a, key) == value for key, value in conditions.items())]
        assert args
        return {su.run_name(a, "sac_rigl", "x") for a in args}

    scaling = runs("sac_scaling")
    assert runs("sac_iqm", sparsity=0.9) <= scaling
    assert runs("sac_snr", sparsity=0.8) <= scaling
    assert runs("sac_actor_share", actor_share=None) <= scaling
    assert runs("sac_scaling_uniform", method="dense") == runs("sac_scaling", method="dense")
    assert runs("sac_scaling_uniform", method="small") == runs("sac_scaling", method="small")
    assert runs("sac_distribution", sparsity_distribution="erk") <= scaling
    assert runs("sac_distribution", sparsity_distribution="uniform") <= runs("sac_scaling_uniform")
    assert runs("sac_weight_decay", method="rigl", weight_decay=1e-6) <= scaling
    assert runs("sac_weight_decay", method="dense", weight_decay=1e-4) <= scaling
    assert runs("sac_init", method="rigl", sparse_init=True, sparsity_distribution="erk") <= scaling
    assert runs("sac_drop_fraction", method="set", drop_fraction=0.3) <= scaling
    assert runs("sac_update_interval", method="prune", update_interval=1000) <= scaling
    assert runs("sac_batch_size", batch_size=256) <= scaling
    assert runs("sac_output_layer", dense_output_layer=False, sparsity_distribution="erk") <= scaling


# The experiments of Vischer et al.
TICKETS = re.findall(r"^(imp_\w+)\(\) \{ # ", (ROOT / "benchmark.sh").read_text(), re.MULTILINE)


def test_ticket_experiments_share_the_runs_that_they_have_in_common():
    folder_of, args_of = {}, {}
    for name in TICKETS:
        for scale in SCALES:
            for script, args in ticket_runs(name, scale):
                run = su.run_name(args, script, "x")  # the same for the same results, wherever the folder is
                assert folder_of.setdefault(run, folder(script, args)) == folder_of[run], (name, scale)
                assert not apart(args_of.setdefault(folder(script, args), args), args), (name, scale)

    def runs(name, scale="paper"):
        return set(names(printed(name, scale)))

    assert runs("imp_inputs_bullet") <= runs("imp_on_policy") & runs("imp_rl_bc") & runs("imp_prune_critic")
    assert len(runs("imp_inputs_bullet")) == len(runs("imp_retrain_bullet") & runs("imp_inputs_bullet")) == 4
    for name in ("imp_inputs", "imp_retrain", "imp_sizes", "imp_regularisation", "imp_rewind"):
        assert len(runs(name) & runs("imp_rl_bc")) >= 2
        assert runs(name, "small") & runs("imp_rl_bc", "small")
    assert len(runs("imp_sizes") & runs("imp_rl_bc")) == 4  # PPO and behavioural cloning on both tasks
    for name in ("imp_goggles", "imp_retrain_goggles", "imp_regularisation", "imp_rewind"):
        assert runs("imp_off_policy") < runs(name) or runs("imp_off_policy") == runs(name)
    assert runs("imp_goggles_minatar") < runs("imp_minatar")


def test_ticket_runs_at_paper_scale_are_those_of_the_scripts_defaults():
    seeds = ["--seeds", *map(str, range(1, 11))]
    for script, args in ticket_runs("imp_rl_bc"):
        assert not apart(args, parse_flags(script, ("--env-id", args.env_id, *seeds)))
    assert {args.env_id for script, args in ticket_runs("imp_rl_bc") if script == "ppo_imp"} == {
        *("CartPole-v1", "Acrobot-v1", "HalfCheetahBulletEnv-v0", "HopperBulletEnv-v0"),
        *("Walker2DBulletEnv-v0", "AntBulletEnv-v0"),
    }
    atari = [args for _, args in ticket_runs("imp_on_policy") if args.env_id.startswith("ALE/")]
    assert atari and all(args.seeds == (1, 2, 3, 4, 5) and args.prune == "actor" for args in atari)
    for name in TICKETS:
        assert {args.rounds for _, args in ticket_runs(name)} <= ({0, 20} if "retrain" in name else {20})


@pytest.mark.parametrize("scale", SCALES)
def test_cloning_is_started_for_the_tasks_that_have_an_expert(scale):
    for name in ("imp_rl_bc", "imp_sizes"):
        tasks = {args.env_id for script, args in ticket_runs(name, scale) if script == "ppo_imp"}
        cloned = {args.env_id for script, args in ticket_runs(name, scale) if script == "bc_distill"}
        assert "CartPole-v1" in cloned == {env for env in tasks if (ROOT / f"algos/experts/{env}.pt").exists()}


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
def test_ticket_runs_differ_from_the_default_in_what_the_figure_is_about(name, flags):
    for scale in SCALES:
        default, variants = {}, {}
        for script, args in ticket_runs(name, scale):  # a task's first run is its default
            first = default.setdefault((script, args.env_id), args)
            if args is not first:
                variants.setdefault((script, args.env_id), []).append(apart(first, args))
        assert all(key in variants for key in default if key[0] == "ppo_imp" and name != "imp_swapped")
        for differences in variants.values():
            assert all(difference in flags for difference in differences)
        for difference in flags:
            assert any(difference in differences for differences in variants.values()), (scale, difference)


def test_rewinding_is_to_shares_of_the_budget_and_bullet_prunes_the_critic():
    shares = {}
    for _, args in ticket_runs("imp_rewind"):
        shares.setdefault(args.env_id, []).append(args.rewind_steps / args.total_timesteps)
    assert shares.keys() == {"CartPole-v1", "Acrobot-v1", "MazeGrid-v0"}
    assert list(shares.values()) == [[0, 0.02, 0.08, 0.8]] * 3
    both, actor = [[a for _, a in ticket_runs("imp_prune_critic") if a.prune == prune] for prune in ("both", "actor")]
    assert [args.env_id for args in both] == [args.env_id for args in actor] and len(both) == 4
    assert all("Bullet" in args.env_id for args in both)


def test_inputs_of_the_retrained_are_those_of_a_run_of_the_experiment_before():
    pairs = (("imp_retrain", "imp_inputs"), ("imp_retrain_bullet", "imp_inputs_bullet"))
    for name, before in (*pairs, ("imp_retrain_goggles", "imp_goggles")):
        for scale in SCALES:
            there = {folder(script, args): args for script, args in ticket_runs(before, scale)}
            masked = [args for _, args in ticket_runs(name, scale) if args.input_mask]
            assert masked
            for args in masked:
                runs, run, tickets, file = Path(args.input_mask).parts
                round_ = int(re.fullmatch(r"round(\d\d)_ticket_seed1\.pt", file)[1])
                assert (runs, tickets) == ("runs", "tickets") and there[run].env_id == args.env_id
                assert 0 < round_ <= there[run].rounds and 1 in there[run].seeds
                assert there[run].input_init_scale == (0.1 if name == "imp_retrain" else 1)


def test_teachers_are_dense_agents_of_the_experiment_before():
    for scale in SCALES:
        there = {folder(script, args): args for script, args in ticket_runs("imp_minatar", scale)}
        assert [args.network for args in there.values()] == ["mlp", "cnn"] * (len(there) // 2)
        taught = [args for _, args in ticket_runs("imp_minatar_bc", scale)]
        files = [Path(args.teacher) for args in taught]
        assert {file.parts[1] for file in files} == there.keys() and len(files) == len(there)
        for args, file in zip(taught, files, strict=True):
            assert file.parts[2:] == ("tickets", "round00_dense_seed1.pt") and 1 in there[file.parts[1]].seeds
            assert there[file.parts[1]].env_id == args.env_id


def test_a_printed_command_runs_as_it_stands(tmp_path):
    (tmp_path / "o u t").mkdir()
    result = benchmark("sac_actor_share", "paper", "--dry-run", LAUNCH="print", OUT=tmp_path / "o u t")
    line = next(c for c in result.stdout.splitlines() if "Humanoid-v5" in c and "rigl" in c and "share 0.9" in c)
    result = subprocess.run(["bash", "-c", line], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "actor.fc1.weight" in result.stdout


# ---- What it starts --------------------------------------------------------------------------------------------------


def table(result):
    """passed, failed, skipped"""
    lines = result.stdout.splitlines()
    head = next(i for i, line in enumerate(lines) if line.endswith(" passed  failed skipped"))
    return [int(n) for n in lines[head + 1].split()[2:]]


def draw(result, cwd):
    """What plot.py prints when it is started as the last line says."""
    command = result.stdout.splitlines()[-1].removeprefix("draw: ")
    drawn = subprocess.run(["bash", "-c", command], cwd=cwd, capture_output=True, text=True)
    assert drawn.returncode == 0, drawn.stderr
    return drawn.stdout


def test_runs_pass_then_are_skipped_and_can_be_drawn(tmp_path):
    quick = ["--total-timesteps", "30", "--learning-starts", "20", "--snr-interval", "5"]
    first = benchmark("sac_snr", "smoke", *quick, OUT=tmp_path, JOBS=2)
    assert (first.returncode, table(first)) == (0, [2, 0, 0]), first.stdout + first.stderr
    folders = (tmp_path / "runs" / "sac_snr-smoke.txt").read_text().split()
    assert len(set(folders)) == 2
    results = {folder: (tmp_path / "runs" / folder / "results.csv").read_bytes() for folder in folders}

    again = benchmark("sac_snr", "smoke", *quick, OUT=tmp_path, JOBS=2)
    assert (again.returncode, table(again)) == (0, [0, 0, 2])
    assert sorted((tmp_path / "runs" / "sac_snr-smoke.txt").read_text().split()) == sorted(folders)
    assert results == {folder: (tmp_path / "runs" / folder / "results.csv").read_bytes() for folder in folders}

    assert "| Pendulum-v1 | rigl 90% | 1 |" in draw(again, tmp_path)
    assert (tmp_path / "figures" / "curves.png").stat().st_size > 0


def test_ticket_runs_pass_and_can_be_drawn(tmp_path):
    """Both scripts, and a run in a named folder whose ticket another experiment reads."""
    quick = ["--eval-episodes", "5"]
    result = benchmark("imp_rl_bc", "smoke", *quick, OUT=tmp_path, JOBS=2)
    assert (result.returncode, table(result)) == (0, [2, 0, 0]), result.stdout + result.stderr
    folders = (tmp_path / "runs" / "imp_rl_bc-smoke.txt").read_text().split()
    assert sorted(folder.split("__")[1] for folder in folders) == ["bc_distill", "ppo_imp"]
    drawn = draw(result, tmp_path)
    assert "| CartPole-v1 | PPO | ticket | 1 |" in drawn
    assert "| CartPole-v1 | behavioural cloning | random_reinit | 1 |" in drawn

    # A run whose ticket is not there yet fails and says so; the other one, which two experiments share, is finished.
    result = benchmark("imp_retrain", "smoke", *quick, OUT=tmp_path, JOBS=2)
    assert (result.returncode, table(result)) == (1, [0, 1, 1]), result.stdout + result.stderr
    assert "error: cannot read runs/CartPole-v1__ppo_imp__small-input-init-smoke/tickets/round01" in result.stdout

    result = benchmark("imp_inputs", "smoke", *quick, OUT=tmp_path, JOBS=2)
    assert (result.returncode, table(result)) == (0, [2, 0, 1]), result.stdout + result.stderr
    assert "CartPole-v1__ppo_imp__small-input-init-smoke" in (
        (tmp_path / "runs" / "imp_inputs-smoke.txt").read_text().split()
    )
    assert "pole angle" in draw(result, tmp_path)
    result = benchmark("imp_retrain", "smoke", *quick, OUT=tmp_path, JOBS=2)
    assert (result.returncode, table(result)) == (0, [1, 0, 1]), result.stdout + result.stderr
    assert len(set((tmp_path / "runs" / "imp_retrain-smoke.txt").read_text().split())) == 2
    assert "input-mask runs/CartPole-v1__ppo_imp__small-input-init-smoke" in draw(result, tmp_path)


def program(folder, body):
    """A program to stand for Python: it gets the script and the flags."""
    file = folder / "a program"
    file.write_text(f"#!/bin/sh\ncd {shlex.quote(str(folder))}\n{body}\n")
    file.chmod(0o755)
    return file


@pytest.mark.parametrize("name", [*TICKETS, "sac_halfcheetah", "sac_actor_share", "sac_output_layer"])
def test_logs_have_names_of_their_own(tmp_path, name):
    program(tmp_path, 'for word; do echo "$word" >> words; done').rename(tmp_path / "sbatch")
    path = f"{tmp_path}:{os.environ['PATH']}"
    for scale in SCALES if name in TICKETS else ("smoke", "small"):
        assert benchmark(name, scale, OUT=tmp_path, LAUNCH="slurm", PATH=path).returncode == 0
        words = (tmp_path / "words").read_text().splitlines()
        (tmp_path / "words").unlink()
        logs = [Path(word.removeprefix("--output=")) for word in words if word.startswith("--output=")]
        assert len(set(logs)) == len(logs) == len(printed(name, scale))
        assert all(log.parent == tmp_path / "runs" / "logs" / f"{name}-{scale}" for log in logs)
        assert max(len(log.name) for log in logs) < 150


def test_folders_are_listed_as_they_lie_from_the_list(tmp_path):
    """Whichever line names it, and wherever --run-dir puts it."""
    lines = {
        "runs/a": "a",
        f"{tmp_path}/runs/b": f"{tmp_path}/runs/b",
        "elsewhere/c d": "../elsewhere/c d",
    }
    for run_dir, listed_as in lines.items():
        for line in (
            f"draw: python plot.py tickets {run_dir}",
            f"{run_dir} is finished; --fresh would start it over",
            f"final score (mean of the last 1 of 3 evaluations): 5.0 ({run_dir})",
        ):
            python = program(tmp_path, f"echo {shlex.quote(line)}")
            result = benchmark("imp_on_policy", "smoke", OUT=tmp_path, PYTHON=python)
            assert result.returncode == 0
            assert (tmp_path / "runs" / "imp_on_policy-smoke.txt").read_text() == f"{listed_as}\n"


def test_a_failed_run_is_named_with_its_log_and_the_others_go_on(tmp_path):
    python = program(
        tmp_path,
        """case "$*" in
            *"method static"*) echo "ValueError: boom" >&2; exit 3 ;;
            *"method set"*) echo "runs/b is finished; --fresh would start it over" ;;
            *) echo "final score (mean of the last 1 of 3 evaluations): 5.0 (runs/a)" ;;
        esac""",
    )
    result = benchmark("sac_halfcheetah", "smoke", OUT=tmp_path, PYTHON=python, JOBS=3)
    assert (result.returncode, table(result)) == (1, [5, 1, 1])
    (failed,) = (line for line in result.stdout.split("failed:")[1].splitlines() if line.startswith("  algos"))
    assert "--method static" in failed
    log, _, message = result.stdout.split(failed)[-1].strip().splitlines()[0].strip().partition(": ")
    assert message == "ValueError: boom" == Path(log).read_text().strip()
    assert sorted((tmp_path / "runs" / "sac_halfcheetah-smoke.txt").read_text().split()) == ["a"] * 5 + ["b"]

    # A failure of the past does not make a run fail, nor an earlier skip make it skipped.
    python = program(tmp_path, 'echo "final score (mean of the last 1 of 3 evaluations): 5.0 (runs/a)"')
    result = benchmark("sac_halfcheetah", "smoke", OUT=tmp_path, PYTHON=python)
    assert (result.returncode, table(result)) == (0, [7, 0, 0])


def test_never_more_than_jobs_runs_at_once(tmp_path):
    (tmp_path / "now").mkdir()
    python = program(tmp_path, "touch now/$$; ls now | wc -l >> counts; sleep 0.3; rm now/$$")
    result = benchmark("sac_halfcheetah", "smoke", OUT=tmp_path, PYTHON=python, JOBS=2)
    assert table(result) == [7, 0, 0]
    counts = [int(n) for n in (tmp_path / "counts").read_text().split()]
    assert len(counts) == 7 and max(counts) <= 2


@pytest.mark.parametrize("how", ["ctrl-c", "kill"])
def test_stopping_it_stops_the_runs_and_waits_for_them(tmp_path, how):
    python = program(
        tmp_path,
        """trap 'trap "" INT TERM; sleep 0.5; echo saved >> saved; exit 143' INT TERM
        echo started >> started
        for i in $(seq 100); do sleep 0.3; done""",
    )
    process = subprocess.Popen(
        ["bash", str(ROOT / "benchmark.sh"), "sac_halfcheetah", "smoke"],
        env=os.environ | {"PYTHON": str(python), "OUT": str(tmp_path), "JOBS": "2"},
        start_new_session=True,  # a process group of its own, as a terminal gives it
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        stdout=subprocess.PIPE,
        text=True,
    )
    while not (tmp_path / "started").exists() or (tmp_path / "started").read_text().count("\n") < 2:
        assert process.poll() is None
        time.sleep(0.05)
    if how == "ctrl-c":
        os.killpg(process.pid, signal.SIGINT)
    else:
        process.terminate()
    output, _ = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "stopped with 7 runs to go" in output
    assert output.count("] stopped ") == 2  # no other one was started
    assert (tmp_path / "saved").read_text().split() == ["saved"] * 2  # and it waited until they were done
    assert (tmp_path / "started").read_text().split() == ["started"] * 2


def test_slurm_gets_one_job_for_each_command(tmp_path):
    sbatch = program(tmp_path, 'for word; do echo "$word" >> jobs; done')
    sbatch.rename(tmp_path / "sbatch")
    path = f"{tmp_path}:{os.environ['PATH']}"
    result = benchmark(
        "sac_halfcheetah", "smoke", OUT=tmp_path, LAUNCH="slurm", SBATCH_ARGS="--time=1:00:00 --mem=4G", PATH=path
    )
    assert result.returncode == 0, result.stderr
    words = (tmp_path / "jobs").read_text().splitlines()
    assert words.count("--time=1:00:00") == words.count("--mem=4G") == 7
    lines = benchmark("sac_halfcheetah", "smoke", OUT=tmp_path, LAUNCH="print").stdout.splitlines()
    wraps = [word.removeprefix("--wrap=") for word in words if word.startswith("--wrap=")]
    assert wraps == [line.replace("&& ", "&& exec ", 1) for line in lines]
    assert not (tmp_path / "runs" / "sac_halfcheetah-smoke.txt").exists()


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        (["nothing"], {}, "no experiment nothing"),
        (["start"], {}, "no experiment start"),  # a function of the script, but none that starts runs
        (["sac_snr", "huge"], {}, "smoke, small or paper, not huge"),
        (["sac_snr"], {"LAUNCH": "rocket"}, "not rocket"),
        (["sac_snr"], {"JOBS": "0"}, "not 0"),
        (["sac_snr"], {"JOBS": "many"}, "not many"),
        (["sac_snr"], {"PYTHON": "/nowhere/python"}, "no program /nowhere/python"),
    ],
)
def test_wrong_input_is_one_line_and_status_2(tmp_path, arguments, environment, message):
    result = benchmark(*arguments, OUT=tmp_path, **environment)
    assert result.returncode == 2
    assert message in result.stderr and result.stderr.count("\n") == 1
    assert not any(tmp_path.iterdir())
