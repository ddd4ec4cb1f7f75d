"""What sac_rigl.py, dqn_rigl.py, dqn_atari_rigl.py and ppo_rigl.py have in common, each with all six methods: real runs
of the command, with small networks and few steps."""

import json
import math
import re
import signal
import subprocess
import time
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import dqn_atari_rigl
import dqn_imp
import dqn_rigl
import numpy as np
import ppo_rigl
import pytest
import sac_rigl
import torch
from helpers import command, kill_when, read_csv, run, run_here, said

import sparse_utils as su

METHODS = ["dense", "small", "prune", "static", "set", "rigl"]
SPARSE = METHODS[2:]


@dataclass
class Script:
    path: Path
    flags: str  # a run of a few seconds
    width: str  # what makes its networks small
    steps: list[int]  # of the evaluations
    networks: tuple[str, ...]  # with a column of sparsity for each, if there are several


SCRIPTS = {
    "sac": Script(
        Path(sac_rigl.__file__),
        "--env-id Pendulum-v1 --total-timesteps 800 --learning-starts 200 --eval-interval 200 --eval-episodes 2 "
        "--snr-interval 400 --batch-size 32 --no-cuda --update-interval 50 --checkpoint-interval 200",
        "--width-scale 0.25",
        [200, 400, 600, 800],
        ("actor", "qf1", "qf2"),
    ),
    "dqn": Script(
        Path(dqn_rigl.__file__),
        "--seeds 3 5 --total-timesteps 800 --learning-starts 200 --eval-interval 200 --eval-episodes 2 "
        "--snr-interval 400 --batch-size 32 --update-interval 50 --checkpoint-interval 200 --target-interval 70",
        "--width-scale 0.125",
        [0, 200, 400, 600, 800],
        (),
    ),
    "atari": Script(
        Path(dqn_atari_rigl.__file__),
        "--env-id ALE/Pong-v5 --total-timesteps 800 --learning-starts 200 --eval-interval 200 --eval-episodes 2 "
        "--eval-steps 0 --max-episode-steps 20 --num-envs 4 --snr-interval 400 --batch-size 8 --no-cuda "
        "--update-interval 15 --checkpoint-interval 200 --target-interval 80",
        "--width-scale 0.1",
        [200, 400, 600, 800],
        (),
    ),
    "ppo": Script(
        Path(ppo_rigl.__file__),
        "--env-id CartPole-v1 --seeds 3 5 --total-timesteps 512 --num-steps 128 --num-minibatches 4 "
        "--eval-interval 128 --eval-episodes 2 --snr-interval 256 --update-interval 20 --checkpoint-interval 128",
        "--width-scale 0.5",
        [0, 128, 256, 384, 512],
        ("actor", "critic"),
    ),
}
FLAGS_OF_ALL = {
    *("method", "sparsity", "sparsity_distribution", "dense_output_layer", "width_scale", "sparse_init"),
    *("weight_decay", "update_interval", "drop_fraction", "env_id", "seeds", "total_timesteps", "max_episode_steps"),
    *("run_dir", "fresh", "eval_interval", "eval_episodes", "snr_interval", "checkpoint_interval", "threads", "cuda"),
    *("track", "evaluate", "capture_video", "dry_run", "learning_rate", "gamma"),
}
SPARSE_KERNEL = "--kernel sparse --sparsity 0.9"  # on networks with layers that are sparse enough
SEEDS = {"sac": ["1"], "atari": ["1"], "dqn": ["3", "5"], "ppo": ["3", "5"]}


def flags(name: str, method: str, folder: Path) -> str:
    """Method small chooses its own width. SET of ppo_rigl.py has a drop fraction of 0, as tuned in the paper."""
    width = "" if method == "small" else SCRIPTS[name].width
    drop = "--drop-fraction 0.5" if method in ("set", "rigl") else ""
    return f"{SCRIPTS[name].flags} {width} {drop} --method {method} --sparsity 0.8 --threads 1 --run-dir {folder}"


@dataclass
class Run:
    name: str
    method: str
    folder: Path
    variables: dict  # of the script, when it was finished
    stdout: str

    @property
    def rows(self) -> list[dict[str, float]]:
        """results.csv of the first seed."""
        rows = [{key: float(value) for key, value in row.items()} for row in read_csv(self.folder / "results.csv")]
        return [row for row in rows if row.get("seed", 1) == float(SEEDS[self.name][0])]


@pytest.fixture(scope="module", params=[(name, method) for name in SCRIPTS for method in METHODS], ids="-".join)
def done(request, tmp_path_factory) -> Run:
    name, method = request.param
    folder = tmp_path_factory.mktemp("runs") / f"{name}-{method}"
    ended = run_here(SCRIPTS[name].path, flags(name, method, folder))
    return Run(name, method, folder, ended.variables, ended.stdout)


def test_a_run_leaves_what_the_readme_says(done):
    """A row for each evaluation and seed, with the same names in all scripts, and the files of a run folder."""
    script, rows = SCRIPTS[done.name], done.rows
    assert [row["step"] for row in rows] == script.steps
    every_row = read_csv(done.folder / "results.csv")
    assert [row.get("seed", "1") for row in every_row] == SEEDS[done.name] * len(script.steps)
    assert all(row["return_n"] == 2 and math.isfinite(row["return_mean"]) for row in rows)
    parts = [f"_{part}" for part in ("actor", "critic")] if script.networks else [""]
    measured = [f"{what}{part}" for what in ("snr", "dead", "dormant", "rank") for part in parts]
    own = [f"sparsity_{network}" for network in script.networks]
    names = ["step", *(["seed"] if "seed" in rows[0] else []), "return_mean", "return_std", "return_n", "sparsity"]
    assert list(rows[0]) == [*names, *own, "parameters", "acting_flops", *measured, "turnover"]
    readme = (Path(__file__).parent.parent / "README.md").read_text()
    section = re.search(r"## Sparse-training runs\n(.*?)\n## ", readme, re.S)[1]
    described = re.findall(r"`([\w*]+)`", "".join(re.findall(r"^\|(.*?)\|", section, re.M)))
    assert all(any(fnmatch(column, name) for name in described) for column in rows[0])
    last = rows[-1]
    assert all(0 < last[f"snr{part}"] < 10 for part in parts)
    assert all(0 <= last[f"dead{part}"] <= last[f"dormant{part}"] < 1 and last[f"rank{part}"] >= 1 for part in parts)
    config = json.loads((done.folder / "config.json").read_text())
    assert config["args"]["method"] == done.method and config["args"].keys() >= FLAGS_OF_ALL
    assert any(file.name.startswith("events.") for file in done.folder.iterdir())
    timing = read_csv(done.folder / "timing.csv")
    assert [int(row["step"]) for row in timing] == script.steps and float(timing[-1]["update"]) > 0
    assert f"evaluations): {last['return_mean']:z.1f}"[:16] in done.stdout or len(SEEDS[done.name]) > 1


def test_sparsity_over_training(done):
    """Static, SET and RigL have theirs from the start and never more or fewer weights; pruning gets there."""
    rows, n = done.rows, len(SCRIPTS[done.name].steps)
    names = ["sparsity", *(f"sparsity_{network}" for network in SCRIPTS[done.name].networks)]
    for name in names:
        values = [row[name] for row in rows]
        if done.method in ("dense", "small"):
            assert values == [0] * n
        elif done.method == "prune":
            assert values[0] == 0 and values == sorted(values) and len(set(values)) >= 3
            assert values[-1] == pytest.approx(0.8, abs=3e-3)
        else:
            assert len(set(values)) == 1 and values[0] == pytest.approx(0.8, abs=3e-3)
    parameters = [row["parameters"] for row in rows]
    assert parameters == sorted(parameters, reverse=True)
    assert (max(row["turnover"] for row in rows) > 0) == (done.method in ("set", "rigl"))


def test_inactive_weights_are_zero_everywhere(done):
    """In the networks, the targets and Adam's moments, for each run by itself, with exactly as many active weights as
    results.csv says; and the checkpoint loads with weights_only and has the same numbers."""
    checkpoint = torch.load(done.folder / "checkpoint.pt", weights_only=True)
    weights, masks = done.variables["weights"], done.variables["masks"]
    optimizers = [value for value in done.variables.values() if isinstance(value, torch.optim.Optimizer)]
    assert masks.keys() == checkpoint["masks"].keys() == (weights.keys() if done.method in SPARSE else set())
    targets = done.variables.get("target_weights", {})
    for name, mask in masks.items():
        assert torch.equal(mask, checkpoint["masks"][name]) and set(mask.unique().tolist()) <= {0.0, 1.0}
        states = [optimizer.state[weights[name]] for optimizer in optimizers if weights[name] in optimizer.state]
        assert len(states) == 1
        for tensor in (weights[name], states[0]["exp_avg"], states[0]["exp_avg_sq"], targets.get(name, mask)):
            assert tensor.shape == mask.shape and (tensor[mask == 0] == 0).all() and (tensor[mask == 1] != 0).any()
        if mask.dim() == 3:  # a network for each run, or critic
            assert len({int(of_run.sum()) for of_run in mask}) == 1
            equal = [torch.equal(mask[0], other) for other in mask[1:]]
            assert mask.mean() == 1 or not any(equal)  # each has its own
    networks = {name.split(".")[0] for name in weights}
    whole = sum(p.numel() for name in networks for p in done.variables[name].parameters())
    runs = len(SEEDS[done.name])
    assert done.rows[-1]["parameters"] == (whole - sum(int((mask == 0).sum()) for mask in masks.values())) / runs
    assert checkpoint["finished"] and len(checkpoint.get("replay", ())) == 0


@pytest.mark.parametrize("name", SCRIPTS)
def test_small_has_the_parameters_of_the_sparse_agent(name, tmp_path):
    """Within half a hidden unit of each network, biases included."""
    sizes = {}
    for method in ("small", "static"):
        task = SCRIPTS[name].flags.replace("--seeds 3 5", "")
        out = run_here(SCRIPTS[name].path, f"{task} --method {method} --sparsity 0.9 --dry-run").stdout
        sizes[method] = int(out.splitlines()[-1].split()[0].replace(",", ""))
    assert sizes["small"] == pytest.approx(sizes["static"], rel=0.02)


@pytest.mark.parametrize("name", SCRIPTS)
def test_dry_run_shows_what_pruning_leaves(name, tmp_path):
    """Not what other methods have: pruning rounds the number of weights that it keeps, they that of the others."""
    line = f"{SCRIPTS[name].flags.replace('--seeds 3 5', '')} {SCRIPTS[name].width} --method prune --sparsity 0.97"
    out = run_here(SCRIPTS[name].path, f"{line} --dry-run").stdout
    run_here(SCRIPTS[name].path, f"{line} --run-dir {tmp_path}")
    parameters = int(float(read_csv(tmp_path / "results.csv")[-1]["parameters"]))
    assert f"\n{parameters:,} parameters" in out


@pytest.mark.parametrize(  # Atari's games cannot be restored
    ("name", "method", "more"),
    [(name, method, "") for name in ("sac", "dqn", "ppo") for method in ("rigl", "prune", "set")]
    + [(name, method, SPARSE_KERNEL) for name in ("sac", "dqn") for method in ("rigl", "prune")],
)
def test_a_killed_run_resumes_to_the_same_results(name, method, more, tmp_path):
    """kill -9 after a checkpoint: the rows are those of the run that nobody stopped, bit for bit."""
    script, rows = SCRIPTS[name], 2 * len(SEEDS[name]) + 1
    whole, line = (f"{flags(name, method, tmp_path / folder)} {more}" for folder in ("whole", "run"))
    run_here(script.path, whole)
    results = tmp_path / "run/results.csv"
    kill_when(lambda: results.exists() and len(results.read_text().splitlines()) > rows, script.path, line)
    run_here(script.path, line)
    assert results.read_bytes() == (tmp_path / "whole/results.csv").read_bytes()


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_signal_saves_and_a_finished_run_says_so(name, tmp_path):
    script = SCRIPTS[name]
    line = flags(name, "static", tmp_path / "run")
    process = subprocess.Popen(command(script.path, line), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    results = tmp_path / "run/results.csv"
    # some evaluate before the first step, and a run that ends there has nothing to resume
    while not results.exists() or int(read_csv(results)[-1]["step"]) == 0:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate()
    assert process.returncode == 128 + signal.SIGTERM and "the same command goes on from there" in out
    assert not torch.load(tmp_path / "run/checkpoint.pt", weights_only=True)["finished"]
    assert "resuming at step" in run_here(script.path, line).stdout
    assert "is finished" in run_here(script.path, f"{line} --threads 2").stdout
    assert "there, 0.9 now" in run_here(script.path, f"{line} --gamma 0.9", status=2).stderr
    out = run_here(script.path, f"--evaluate {tmp_path}/run/checkpoint.pt --eval-episodes 3 --seed 9").stdout
    assert out.count("--seed 9, 3 episodes: mean ") == len(SEEDS[name]) == len(out.splitlines())


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_signal_in_the_last_evaluation_costs_nothing(name, tmp_path, monkeypatch):
    """The run is not finished: the same command makes up for the evaluation. timing.csv knows of all the time."""
    script, calls, interruptible = SCRIPTS[name], [], su.StopSignal.interruptible

    def ended(self: su.StopSignal, *call: object) -> object:
        calls.append(call)
        if len(calls) < len(script.steps):
            return interruptible(self, *call)
        self.signal = signal.SIGTERM
        return None

    line = flags(name, "static", tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(su.StopSignal, "interruptible", ended)
        assert "the same command goes on from there" in run_here(script.path, line, status=143).stdout
    saved = torch.load(tmp_path / "run/checkpoint.pt", weights_only=True)
    assert not saved["finished"] and saved["step"] == script.steps[-1] and saved["seconds"]["update"] > 0
    done = run_here(script.path, line).stdout
    rows = read_csv(tmp_path / "run/results.csv")
    assert [int(row["step"]) for row in rows[:: len(SEEDS[name])]] == script.steps and "final score" in done
    assert float(read_csv(tmp_path / "run/timing.csv")[-1]["update"]) == saved["seconds"]["update"]
    assert "is finished" in run_here(script.path, line).stdout


@pytest.mark.parametrize("name", SCRIPTS)
@pytest.mark.parametrize("method", ["dense", "rigl", "prune"])
def test_weights_that_diverge_end_the_run_with_one_line(name, method, tmp_path):
    err = run_here(SCRIPTS[name].path, flags(name, method, tmp_path) + " --learning-rate 1e38", status=1).stderr
    assert "Traceback" not in err and "diverged" in err.splitlines()[-1]


def test_weights_that_diverge_just_before_sac_prunes(tmp_path, monkeypatch):
    """At update 120, which is no multiple of --update-interval."""
    mask_gradients, calls = su.mask_gradients, []

    def poisoned(weights, masks, dense=False):
        calls.append(0)
        if len(calls) == 2 * 118:
            next(iter(weights.values())).grad.fill_(math.nan)
        return mask_gradients(weights, masks, dense)

    monkeypatch.setattr(su, "mask_gradients", poisoned)
    err = run_here(SCRIPTS["sac"].path, flags("sac", "prune", tmp_path), status=1).stderr
    assert "Traceback" not in err and "diverged" in err.splitlines()[-1]


@pytest.mark.parametrize("name", SCRIPTS)
@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("--env-id CartPol-v1", "CartPol"),
        ("--sparsity 1.0", "--sparsity must be in [0, 1), not 1.0"),
        ("--drop-fraction 1.5", "--drop-fraction must be in [0, 1], not 1.5"),
        ("--seeds 1 -1", "--seeds must be 0 or more"),
        ("--method small --dense-output-layer", "--dense-output-layer does not go with --method small"),
        ("--run-dir /dev/null/x", "cannot use /dev/null/x as a run folder"),
        ("--evaluate nowhere.pt", "cannot read nowhere.pt as a checkpoint: No such file"),
    ],
)
def test_bad_input_is_said_before_anything_is_written(name, bad, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    err = said(run_here(SCRIPTS[name].path, bad, status=2).stderr)
    assert message in err and "Traceback" not in err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["dqn", "ppo"])
@pytest.mark.parametrize("method", ["set", "prune"])
def test_a_run_learns_the_same_whatever_runs_train_beside_it(name, method, tmp_path):
    """To float rounding: after one update its weights are equal, and its masks to the last."""
    script, few = SCRIPTS[name], "--total-timesteps 260 --learning-starts 200" if name == "dqn" else "--update-epochs 1"
    variables = {}
    for seeds in ("3 5", "5"):
        line = f"{flags(name, method, tmp_path / seeds.replace(' ', '-'))} {few} --seeds {seeds}"
        variables[seeds] = run_here(script.path, line).variables
    both, alone = variables["3 5"], variables["5"]
    for network in {name.split(".")[0] for name in alone["weights"]}:
        for parameter, other in zip(both[network].parameters(), alone[network].parameters(), strict=True):
            torch.testing.assert_close(parameter[1:], other, rtol=1e-3, atol=1e-4)
    same = [float((both["masks"][n][1:] == alone["masks"][n]).float().mean()) for n in alone["masks"]]
    assert np.mean(same) > 0.99


@pytest.mark.parametrize(
    ("name", "method"),
    [(name, m) for name in ("sac", "dqn") for m in ("static", "rigl", "prune")] + [("atari", "rigl")],
)
def test_sparse_kernels_train_the_same_networks(name, method, tmp_path, monkeypatch):
    """To float rounding, over 100 updates (Atari: 25) with changing masks; and products really are sparse."""
    products, product = [], su.SparseProduct.apply
    monkeypatch.setattr(su.SparseProduct, "apply", lambda *tensors: products.append(1) or product(*tensors))
    few, done = f"{SPARSE_KERNEL} --total-timesteps 300 --checkpoint-interval 100 --update-interval 20", {}
    for kernel in ("sparse", "masked"):
        line = f"{flags(name, method, tmp_path / kernel)} {few} --kernel {kernel}"
        done[kernel] = Run(name, method, tmp_path / kernel, run_here(SCRIPTS[name].path, line).variables, "")
        assert (len(products) > 10) == (kernel == "sparse")
        products.clear()
    sparse, masked = done["sparse"].variables, done["masked"].variables
    for network in {name.split(".")[0] for name in masked["weights"]}:
        parameters = dict(sparse[network].named_parameters()), dict(masked[network].named_parameters())
        torch.testing.assert_close(*parameters, rtol=1e-3, atol=1e-4)
    test_inactive_weights_are_zero_everywhere(done["sparse"])
    for row, other in zip(done["sparse"].rows, done["masked"].rows, strict=True):
        sizes = [name for name in row if name.startswith(("sparsity", "parameters", "acting", "turnover"))]
        assert [row[name] for name in sizes] == pytest.approx([other[name] for name in sizes], rel=1e-2)


HIDDEN_IN_BFLOAT16 = {
    "sac-actor": (lambda: sac_rigl.Actor(3, 2, 64), (20, 3)),
    "sac-critics": (lambda: sac_rigl.Critics(3, 2, 64), (20, 5)),
    "dqn": (lambda: dqn_rigl.QNetwork(2, 4, 3, 64), (2, 20, 4)),
    "dqn_imp": (lambda: dqn_imp.QNetwork(2, 4, (), (64, 32), 3), (2, 20, 4)),
    "dqn_imp-cnn": (lambda: dqn_imp.QNetwork(2, 100, (4, 5, 5), (64,), 3), (2, 20, 100)),
}


@pytest.mark.parametrize("name", HIDDEN_IN_BFLOAT16)
def test_bfloat16_is_the_same_to_two_digits(name):
    """Outputs are float32 numbers, with the digits by which actions differ."""
    make, shape = HIDDEN_IN_BFLOAT16[name]
    network, x = make(), torch.rand(shape)
    exact = network(x)
    network.bfloat16 = True
    rounded = network(x)
    exact, rounded = (torch.cat([*out]) if isinstance(out, tuple) else out for out in (exact, rounded))
    assert rounded.dtype == torch.float32 and not torch.equal(rounded, rounded.bfloat16().float())
    assert not torch.equal(rounded, exact)
    torch.testing.assert_close(rounded, exact, rtol=0.03, atol=0.01)


@pytest.mark.parametrize(("name", "network"), [("sac", "actor"), ("dqn", "q"), ("atari", "q")])
def test_medium_precision_is_that_of_training_and_evaluation(name, network, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)  # without it slow, but no other result
    su.bfloat16.cache_clear()
    line = f"{flags(name, 'rigl', tmp_path)} --total-timesteps 300 --matmul-precision medium"
    variables, seen, autocast = run_here(SCRIPTS[name].path, line).variables, [], torch.autocast
    targets = [variables[key] for key in ("qf", "qf_target", "q_target") if key in variables]
    assert all(net.bfloat16 for net in (variables[network], *targets))
    assert all(p.dtype == torch.float32 for p in variables[network].parameters())
    monkeypatch.setattr(torch, "autocast", lambda *a, enabled: seen.append(enabled) or autocast(*a, enabled=enabled))
    run_here(SCRIPTS[name].path, f"--evaluate {tmp_path}/checkpoint.pt --eval-episodes 1 --threads 1")
    assert seen and all(seen)


@pytest.mark.parametrize(("name", "network"), [("sac", "actor"), ("dqn", "q"), ("atari", "q")])
def test_medium_precision_is_float32_where_bfloat16_is_slow(name, network, tmp_path, monkeypatch):
    """Ten times as slow, and no other message would say why."""
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    su.bfloat16.cache_clear()
    line = f"{flags(name, 'rigl', tmp_path)} --no-cuda --total-timesteps 300 --matmul-precision medium"
    done = run_here(SCRIPTS[name].path, line)
    assert not done.variables[network].bfloat16
    assert done.stderr.count("this processor has no bfloat16, so layers stay float32\n") == 1


def test_seeds_of_sac_are_processes_with_a_folder_each(tmp_path):
    """Each is the run of that --seed; the status is the worst of theirs."""
    line = f"{SCRIPTS['sac'].flags} --width-scale 0.1 --total-timesteps 400"
    run(SCRIPTS["sac"].path, f"{line} --seeds 2 7 --run-dir {tmp_path}/both")
    run_here(SCRIPTS["sac"].path, f"{line} --seed 7 --run-dir {tmp_path}/alone")
    assert (tmp_path / "both/seed7/results.csv").read_bytes() == (tmp_path / "alone/results.csv").read_bytes()
    assert (tmp_path / "both/seed2/results.csv").read_bytes() != (tmp_path / "alone/results.csv").read_bytes()
    failed = subprocess.run(
        command(SCRIPTS["sac"].path, f"{line} --seeds 2 7 --run-dir /dev/null"), capture_output=True
    )
    assert failed.returncode == 2 and failed.stderr.count(b"cannot use") == 2
