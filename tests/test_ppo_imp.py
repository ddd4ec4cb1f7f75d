"""algos/ppo_imp.py: real runs of the command with tiny networks, and its parts."""

import csv
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import ppo_imp
import pytest
import torch
from gymnasium.spaces import Discrete
from ppo_imp import Args

import sparse_utils as su

SCRIPT = Path(ppo_imp.__file__)
# 3 rounds of 8 rollouts
TINY = "--hidden-sizes 8 8 --total-timesteps 1024 --num-steps 32 --rounds 2 --eval-interval 512 --eval-episodes 2"


def command(flags: str) -> list[str]:
    return [sys.executable, str(SCRIPT), *flags.split()]


def run(flags: str, status: int = 0, cwd: Path | None = None) -> subprocess.CompletedProcess:
    done = subprocess.run(command(flags), capture_output=True, text=True, cwd=cwd, timeout=300)
    assert done.returncode == status, done.stdout + done.stderr
    return done


def read_csv(file: Path) -> list[dict[str, str]]:
    with file.open() as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("ppo_imp") / "run"
    run(f"{TINY} --seeds 1 2 --run-dir {folder}")
    return folder


def test_a_row_per_round_and_run(finished):
    rows = read_csv(finished / "results.csv")
    runs = [(int(row["round"]), row["condition"], int(row["seed"])) for row in rows]
    assert runs == [(0, "dense", s) for s in (1, 2)] + [
        (k, c, s) for k in (1, 2) for c in ppo_imp.CONDITIONS for s in (1, 2)
    ]
    total = 4 * 8 + 8 * 8 + 8 * 2
    expected = {0: total, 1: 90, 2: 72}  # ceil(0.8 * 112), ceil(0.8 * 90)
    for row in rows:
        assert int(row["remaining"]) == expected[int(row["round"])]
        assert float(row["best_return"]) >= float(row["final_return"]) > 0 and float(row["best_retest"]) > 0
        assert int(row["inputs_alive"]) == len(row["alive_inputs"].split())
    assert len(read_csv(finished / "curves.csv")) == 2 * len(rows)


def ticket(folder: Path, round_: int, condition: str, seed: int = 1) -> dict:
    return su.load_ticket(folder / "tickets" / f"round{round_:02}_{condition}_seed{seed}.pt")


def test_conditions_start_as_table_1_says(finished):
    start = ticket(finished, 0, "dense")["initial"]
    for round_ in (1, 2):
        t = {condition: ticket(finished, round_, condition) for condition in ppo_imp.CONDITIONS}
        for name in t["ticket"]["masks"]:
            active = {c: t[c]["initial"][name][t[c]["masks"][name] == 1] for c in t}
            original = start[name][t["ticket"]["masks"][name] == 1]
            assert torch.equal(active["ticket"], original)
            values = set(start[name].flatten().tolist())
            for condition in ("mask_permuted", "permuted_permuted"):
                assert set(active[condition].tolist()) <= values  # initial values, in other places
                where = t[condition]["masks"][name] == 1
                assert not torch.equal(active[condition], start[name][where])
            assert not set(active["random_reinit"].tolist()) & values
        for condition in ("ticket", "mask_permuted", "permuted_permuted"):  # critic and biases are rewound as they were
            for name, value in t[condition]["initial"].items():
                if name not in t[condition]["masks"]:
                    assert torch.equal(value, start[name])


def test_tickets_are_nested_and_random_masks_are_not(finished):
    for condition, nested in (("ticket", True), ("mask_permuted", True), ("random_reinit", False)):
        first, second = (ticket(finished, k, condition)["masks"] for k in (1, 2))
        assert all((second[name] <= first[name]).all() for name in first) == nested


def test_best_weights_are_sparse_and_only_the_actor_is_pruned(finished):
    for condition in ppo_imp.CONDITIONS:
        t = ticket(finished, 2, condition)
        assert all(name.startswith("actor") for name in t["masks"])
        for name, mask in t["masks"].items():
            assert (t["best"][name][mask == 0] == 0).all() and (t["best"][name][mask == 1] != 0).any()
        assert (t["best"]["critic.layers.0.weight"] != 0).all()


def test_prune_both_is_one_threshold_over_both_networks(tmp_path):
    run(f"{TINY} --seeds 1 --rounds 1 --prune both --conditions ticket --run-dir {tmp_path / 'run'}")
    t = ticket(tmp_path / "run", 1, "ticket")
    dense = ticket(tmp_path / "run", 0, "dense")["best"]
    kept = torch.cat([dense[name][mask == 1].abs() for name, mask in t["masks"].items()])
    gone = torch.cat([dense[name][mask == 0].abs() for name, mask in t["masks"].items()])
    assert kept.min() >= gone.max() and {name.split(".")[0] for name in t["masks"]} == {"actor", "critic"}


def test_a_run_does_not_depend_on_its_neighbours(finished, tmp_path):
    """Seed 2 alone with one condition is, bit for bit, seed 2 among eight runs."""
    run(f"{TINY} --seeds 2 --conditions permuted_permuted --run-dir {tmp_path / 'alone'}")
    for round_, condition in ((0, "dense"), (1, "permuted_permuted"), (2, "permuted_permuted")):
        alone, among = (ticket(folder, round_, condition, seed=2) for folder in (tmp_path / "alone", finished))
        assert alone["result"] == among["result"]
        for name, value in alone["best"].items():
            assert torch.equal(value, among["best"][name])


def test_killed_run_resumes_to_the_same_results(finished, tmp_path):
    flags = f"{TINY} --seeds 1 2 --run-dir {tmp_path / 'run'}"
    process = subprocess.Popen(command(flags), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    while not (tmp_path / "run/checkpoint.pt").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert "resuming" in run(flags).stdout
    for name in ("results.csv", "curves.csv"):
        assert (tmp_path / "run" / name).read_bytes() == (finished / name).read_bytes()
    assert "is finished" in run(flags).stdout


def test_baselines_can_take_the_tickets_masks(tmp_path):
    flags = f"{TINY} --seeds 1 --conditions ticket mask_permuted --baseline-mask ticket --run-dir {tmp_path / 'run'}"
    run(flags)
    for round_ in (1, 2):
        masks = [ticket(tmp_path / "run", round_, condition)["masks"] for condition in ("ticket", "mask_permuted")]
        assert all(torch.equal(masks[0][name], masks[1][name]) for name in masks[0])


def test_rewinding_to_a_later_step(tmp_path):
    run(f"{TINY} --seeds 1 --rounds 1 --conditions ticket --rewind-steps 300 --run-dir {tmp_path / 'run'}")
    first, second = (ticket(tmp_path / "run", k, c)["initial"] for k, c in ((0, "dense"), (1, "ticket")))
    assert not torch.equal(first["critic.layers.0.weight"], second["critic.layers.0.weight"])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--env-id CartPole", "CartPole: there is no such task. Did you mean CartPole-v1"),
        ("--prune-fraction 1.0", "--prune-fraction must be in (0, 1), not 1.0"),
        ("--seeds 1 1", "--seeds must be different numbers"),
        ("--conditions random_reinit --baseline-mask ticket", "needs ticket among --conditions"),
        ("--num-minibatches 3", "--num-minibatches 3 does not divide 4 * 64 steps"),
    ],
)
def test_bad_input_gets_one_line(flags, message, tmp_path):
    err = run(flags, status=2, cwd=tmp_path).stderr
    assert message in err and len(err.splitlines()) == 1 and not list(tmp_path.iterdir())


def networks(runs: int, hidden_sizes: tuple[int, ...]) -> torch.nn.ModuleDict:
    return ppo_imp.make_networks(runs, Args(hidden_sizes=hidden_sizes), (4,), Discrete(2))


# ---- Parts -----------------------------------------------------------------------------------------------------------


def test_gae_against_the_definition():
    """The sum over l of (gamma * lambda)^l * delta, to the end of the episode; no future after a true end only."""
    torch.manual_seed(0)
    rewards, values, next_values = torch.randn(3, 6, 1, dtype=torch.float64).unbind()
    terminated = torch.tensor([0.0, 0, 1, 0, 0, 0], dtype=torch.float64)[:, None]
    ended = torch.tensor([0.0, 0, 1, 0, 1, 0], dtype=torch.float64)[:, None]  # a time limit at t = 4
    args = Args(gamma=0.9, gae_lambda=0.7)
    got = ppo_imp.gae(rewards, values, next_values, terminated, ended, args)
    for t in range(6):
        total, weight = 0.0, 1.0
        for k in range(t, 6):
            total += weight * (rewards[k] + 0.9 * next_values[k] * (1 - terminated[k]) - values[k]).item()
            weight *= 0.9 * 0.7
            if ended[k]:
                break
        assert got[t].item() == pytest.approx(total)


def test_gradients_are_clipped_per_run():
    p, q = torch.zeros(3, 2, 2, requires_grad=True), torch.zeros(3, 1, 2, requires_grad=True)
    p.grad, q.grad = torch.ones_like(p), torch.ones_like(q)
    p.grad[1], q.grad[1] = 1e-3, 1e-3
    ppo_imp.clip_gradients([p, q], 0.5)
    norms = torch.stack([p.grad.flatten(1).square().sum(1), q.grad.flatten(1).square().sum(1)]).sum(0).sqrt()
    assert norms.tolist() == pytest.approx([0.5, 1e-3 * 6**0.5, 0.5], rel=1e-3)


@pytest.mark.parametrize(("init", "limit"), [("kaiming", 1 / 4), ("he", (6 / 16) ** 0.5), ("xavier", (6 / 48) ** 0.5)])
def test_initial_weights_fill_their_range(init, limit):
    parameters = dict(networks(1, (16, 32)).named_parameters())
    weight = su.initial_parameters(parameters, init, 1.0, torch.Generator().manual_seed(0))["actor.layers.1.weight"]
    assert 0.95 * limit < weight.abs().max() <= limit and weight.std() == pytest.approx(limit / 3**0.5, rel=0.1)


def test_input_init_scale_scales_first_layers_only():
    plain, scaled = (
        su.initial_parameters(
            dict(networks(1, (8, 8)).named_parameters()), "kaiming", s, torch.Generator().manual_seed(0)
        )
        for s in (1.0, 0.1)
    )
    for name, w in plain.items():
        factor = 0.1 if "layers.0.weight" in name else 1.0
        assert torch.allclose(scaled[name], factor * w)


def test_batched_network_is_that_many_networks():
    nets = networks(3, (8, 8))
    x = torch.randn(3, 5, 4)
    out = nets["actor"](x)
    for r in range(3):
        state = su.unstack(nets["actor"], r)
        h = x[r]
        for layer in range(3):
            h = h @ state[f"layers.{layer}.weight"].T + state[f"layers.{layer}.bias"]
            h = torch.tanh(h) if layer < 2 else h
        assert torch.allclose(out[r], h, atol=1e-5)


@pytest.mark.slow
def test_dense_agent_and_ticket_solve_cartpole(tmp_path):
    """500 is the most that Cart-Pole gives; a random policy gets about 20."""
    run(f"--seeds 1 2 3 --rounds 1 --conditions ticket --run-dir {tmp_path / 'run'}")
    rows = read_csv(tmp_path / "run/results.csv")
    assert np.mean([float(row["best_retest"]) for row in rows]) > 450
