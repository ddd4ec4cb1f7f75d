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

import pytest
import sac_rigl

import sparse_utils as su

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="benchmark.sh needs bash")

ROOT = Path(__file__).resolve().parent.parent
SCALES = ("smoke", "small", "paper")
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
    """The argument lists of an experiment's commands."""
    result = benchmark(name, scale, LAUNCH="print", PYTHON="python")
    assert result.returncode == 0 and not result.stderr
    prefix = ["cd", str(ROOT), "&&", "python", "algos/sac_rigl.py"]
    commands = [shlex.split(line) for line in result.stdout.splitlines()]
    assert all(command[:5] == prefix for command in commands)
    return [command[5:] for command in commands]


@cache
def listed():
    """Experiment -> its numbers of runs, one for each scale."""
    lines = benchmark("list").stdout.splitlines()
    assert lines[0].split()[:4] == ["experiment", *SCALES]
    return {line.split()[0]: [int(n) for n in line.split()[1:4]] for line in lines[1:]}


@cache
def parse_flags(flags):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["sac_rigl.py", *flags])
        return sac_rigl.parse_args()


def parse(flags):
    """The script's Args. Seed and task are put in afterwards, so that few command lines need parsing. A task's own
    default of --learning-starts is lost by that, which makes no two runs alike or different."""
    flags, given = list(flags), {}
    for flag in ("--env-id", "--seed"):
        i = flags.index(flag)
        _, given[flag] = flags.pop(i), flags.pop(i)
    return replace(parse_flags(tuple(flags)), env_id=given["--env-id"], seed=int(given["--seed"]))


def names(flag_lists):
    return [su.run_name(parse(flags), "sac_rigl", "x") for flags in flag_lists]


# ---- What it would start ---------------------------------------------------------------------------------------------


def test_list_has_an_experiment_for_every_figure_of_sac():
    text = benchmark("list").stdout
    assert {int(n) for line in re.findall(r"figures? ([\d, ]+)", text) for n in re.findall(r"\d+", line)} == {
        *(1, 2, 3, 4, 5, 9, 12, 13, 14, 15)
    }
    assert len(listed()) == 13


@pytest.mark.parametrize("scale", SCALES)
def test_every_command_is_a_feasible_run_of_its_own(scale):
    for name, counts in listed().items():
        commands = printed(name, scale)
        assert len(commands) == counts[SCALES.index(scale)] > 0
        runs = [parse(flags) for flags in commands]
        assert all(run.threads == 1 for run in runs)
        # Two commands of the same run would meet in one folder.
        assert len({su.run_name(run, "sac_rigl", "x") for run in runs}) == len(commands), name
        for run in (run for run in runs if run.seed == 1):
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
    assert names(printed("sac_halfcheetah", "small")) == names(wanted)


def test_experiments_share_the_runs_that_they_have_in_common():
    def runs(name, **conditions):
        args = [parse(flags) for flags in printed(name, "paper")]
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

    draw = again.stdout.splitlines()[-1].removeprefix("draw: ")
    drawn = subprocess.run(["bash", "-c", draw], cwd=tmp_path, capture_output=True, text=True)
    assert drawn.returncode == 0, drawn.stderr
    assert "| Pendulum-v1 | rigl 90% | 1 |" in drawn.stdout
    assert (tmp_path / "figures" / "curves.png").stat().st_size > 0


def program(folder, body):
    """A program to stand for Python: it gets the script and the flags."""
    file = folder / "a program"
    file.write_text(f"#!/bin/sh\ncd {shlex.quote(str(folder))}\n{body}\n")
    file.chmod(0o755)
    return file


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
