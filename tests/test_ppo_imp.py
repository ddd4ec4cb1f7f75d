"""algos/ppo_imp.py: real runs of the command with tiny networks, and its parts."""

import json
import math
import os
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import gymnasium as gym
import helpers
import numpy as np
import ppo_imp
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from helpers import Done, read_csv, ticket
from ppo_imp import Args
from torch.distributions import Categorical, Independent, Normal

import envs.vector
import sparse_utils as su

SCRIPT = Path(ppo_imp.__file__)
# 3 rounds of 8 rollouts
TINY = "--hidden-sizes 8 8 --total-timesteps 1024 --num-steps 32 --rounds 2 --eval-interval 512 --eval-episodes 20"
# 2 rounds of 4 rollouts with Gaussian actions; the defaults of unknown tasks are those of MuJoCo
GAUSSIAN = "--env-id ShortPendulum-v0 --hidden-sizes 8 8 --num-envs 4 --num-steps 32 --num-minibatches 4"
GAUSSIAN += " --update-epochs 2 --total-timesteps 512 --rounds 1 --eval-interval 256 --eval-episodes 20"


def run(flags: str, status: int = 0) -> Done:
    return helpers.run_here(SCRIPT, flags, status)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("ppo_imp") / "run"
    helpers.run(SCRIPT, f"{TINY} --seeds 1 2 --run-dir {folder}")
    return folder


@pytest.fixture(scope="module")
def gaussian(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("ppo_imp") / "gaussian"
    run(f"{GAUSSIAN} --seeds 1 2 --prune actor --run-dir {folder}")
    return folder


# ---- What a run leaves behind --------------------------------------------------------------------------------------


def test_a_row_per_round_and_run(finished):
    rows = read_csv(finished / "results.csv")
    runs = [(int(row["round"]), row["condition"], int(row["seed"])) for row in rows]
    assert runs == [(0, "dense", s) for s in (1, 2)] + [
        (k, c, s) for k in (1, 2) for c in su.CONDITIONS for s in (1, 2)
    ]
    total = 4 * 8 + 8 * 8 + 8 * 2
    expected = {0: total, 1: 90, 2: 72}  # ceil(0.8 * 112), ceil(0.8 * 90)
    for row in rows:
        assert int(row["remaining"]) == expected[int(row["round"])]
        assert float(row["best_return"]) >= float(row["final_return"]) > 0 and float(row["best_retest"]) > 0
        assert int(row["inputs_alive"]) == len(row["alive_inputs"].split())
    assert len(read_csv(finished / "curves.csv")) == 2 * len(rows)


def test_results_follow_from_the_curves(finished):
    """best_return is the highest evaluation of the round, final_return its last, steps_to_best the first of these."""
    curves = read_csv(finished / "curves.csv")
    for row in read_csv(finished / "results.csv"):
        own = [c for c in curves if all(c[key] == row[key] for key in ("round", "seed", "condition"))]
        assert [int(c["step"]) for c in own] == [512, 1024]
        returns = [float(c["return_mean"]) for c in own]
        assert float(row["best_return"]) == max(returns) and float(row["final_return"]) == returns[-1]
        assert int(row["steps_to_best"]) == (1024 if returns[1] > returns[0] else 512)


def test_conditions_start_as_table_1_says(finished):
    start = ticket(finished, 0, "dense")["initial"]
    for round_ in (1, 2):
        t = {condition: ticket(finished, round_, condition) for condition in su.CONDITIONS}
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
        for condition in ("ticket", "mask_permuted", "permuted_permuted"):  # critic and biases are as they were
            for name, value in t[condition]["initial"].items():
                if name not in t[condition]["masks"]:
                    assert torch.equal(value, start[name])


def test_tickets_are_nested_and_random_masks_are_not(finished):
    for condition, nested in (("ticket", True), ("mask_permuted", True), ("random_reinit", False)):
        first, second = (ticket(finished, k, condition)["masks"] for k in (1, 2))
        assert all((second[name] <= first[name]).all() for name in first) == nested


def test_best_weights_are_sparse_and_only_the_actor_is_pruned(finished):
    for condition in su.CONDITIONS:
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


def assert_same_run(one: Path, other: Path, round_: int, condition: str, seed: int) -> None:
    one, other = (ticket(folder, round_, condition, seed) for folder in (one, other))
    assert one["result"] == other["result"]
    for name, value in one["best"].items():
        assert torch.equal(value, other["best"][name])


def test_a_run_does_not_depend_on_its_neighbours(finished, tmp_path):
    """Seed 2 alone with one condition is, bit for bit, seed 2 among eight runs."""
    run(f"{TINY} --seeds 2 --conditions permuted_permuted --run-dir {tmp_path / 'alone'}")
    for round_, condition in ((0, "dense"), (1, "permuted_permuted"), (2, "permuted_permuted")):
        assert_same_run(tmp_path / "alone", finished, round_, condition, seed=2)


@pytest.mark.parametrize("flags", ["", "--dropout 0.2 --weight-decay 0.001 --no-normalize-obs"])
def test_a_gaussian_run_does_not_depend_on_its_neighbours(gaussian, tmp_path, flags):
    """One action, so an output layer with one column; normalised observations; dropout."""
    if flags:
        run(f"{GAUSSIAN} --seeds 1 2 --prune actor {flags} --run-dir {tmp_path / 'among'}")
    run(f"{GAUSSIAN} --seeds 2 --prune actor {flags} --conditions random_reinit --run-dir {tmp_path / 'alone'}")
    for round_, condition in ((0, "dense"), (1, "random_reinit")):
        assert_same_run(tmp_path / "alone", tmp_path / "among" if flags else gaussian, round_, condition, seed=2)


def test_processes_for_environments_change_nothing(tmp_path):
    """Nor does the flag belong to a run's identity."""
    flags = f"{GAUSSIAN} --rounds 0 --seeds 1 --num-envs 2 --eval-episodes 2"
    for name in ("plain", "async-envs"):
        run(f"{flags} --run-dir {tmp_path / name} {'' if name == 'plain' else '--async-envs'}")
    assert_same_run(tmp_path / "plain", tmp_path / "async-envs", 0, "dense", seed=1)
    assert "is finished" in run(f"{flags} --run-dir {tmp_path / 'async-envs'}").stdout


def test_killed_run_resumes_to_the_same_results(finished, tmp_path):
    flags = f"{TINY} --seeds 1 2 --run-dir {tmp_path / 'run'}"
    process = subprocess.Popen(helpers.command(SCRIPT, flags), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    while not (tmp_path / "run/checkpoint.pt").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert "resuming" in run(flags).stdout
    for name in ("results.csv", "curves.csv"):
        assert (tmp_path / "run" / name).read_bytes() == (finished / name).read_bytes()
    assert "is finished" in run(flags).stdout


def test_a_finished_run_goes_on_with_more_rounds(finished, tmp_path):
    """To the results of a run that had so many from the start; with fewer it is finished as it is."""
    flags = f"{TINY} --seeds 1 2 --run-dir {tmp_path / 'run'}"
    run(f"{flags} --rounds 1")
    assert "at round 2" in run(flags).stdout
    for name in ("results.csv", "curves.csv"):
        assert (tmp_path / "run" / name).read_bytes() == (finished / name).read_bytes()
    assert "is finished" in run(f"{flags} --rounds 1").stdout and "is finished" in run(flags).stdout
    config = json.loads((tmp_path / "run/config.json").read_text())
    assert [config["args"]["rounds"], *(again["args"]["rounds"] for again in config["resumed"])] == [1, 2]
    checkpoint = su.load_checkpoint(tmp_path / "run/checkpoint.pt")  # as if 60 rounds were wanted, and 2 are done
    su.save_checkpoint(tmp_path / "run/checkpoint.pt", checkpoint | {"finished": False})
    assert "is finished" in run(f"{flags} --rounds 1").stdout


def test_interrupted_run_says_how_to_go_on(tmp_path):
    flags = f"{TINY} --seeds 1 --total-timesteps 1000000 --run-dir {tmp_path / 'run'}"
    process = subprocess.Popen(
        helpers.command(SCRIPT, flags), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while not list((tmp_path / "run").glob("events.*")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM and "Traceback" not in err
    assert "stopped in round 0; the same command starts this round again" in out


def test_processes_for_environments_end_with_an_interrupted_run(tmp_path):
    """Ctrl-C in a terminal reaches them, too."""
    flags = f"{GAUSSIAN} --env-id Pendulum-v1 --seeds 1 --num-envs 2 --num-minibatches 2 --eval-episodes 2"
    flags += f" --total-timesteps 1000000 --async-envs --run-dir {tmp_path / 'run'}"
    own_group = {"start_new_session": True, "text": True}
    process = subprocess.Popen(
        helpers.command(SCRIPT, flags), stdout=subprocess.PIPE, stderr=subprocess.PIPE, **own_group
    )
    try:
        while not list((tmp_path / "run").glob("events.*")):
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)
        out, _ = process.communicate(timeout=120)  # ends when the last process that could write has ended
        assert process.returncode == 128 + signal.SIGINT and "stopped in round 0" in out
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


# ---- Tickets -------------------------------------------------------------------------------------------------------


def test_baselines_can_take_the_tickets_masks(tmp_path):
    flags = f"{TINY} --seeds 1 --conditions ticket mask_permuted --baseline-mask ticket --run-dir {tmp_path / 'run'}"
    run(flags)
    for round_ in (1, 2):
        masks = [ticket(tmp_path / "run", round_, condition)["masks"] for condition in ("ticket", "mask_permuted")]
        assert all(torch.equal(masks[0][name], masks[1][name]) for name in masks[0])


def test_rewinding_to_a_later_step(finished, tmp_path):
    """To the weights after the first rollout that reaches so many steps, which are known where they were the best of
    the round. Round 0 does not notice."""
    flags = f"{TINY} --seeds 1 --conditions ticket"
    run(f"{flags} --rounds 0 --eval-interval 128 --run-dir {tmp_path / 'look'}")
    look = ticket(tmp_path / "look", 0, "dense")
    step = look["result"]["steps_to_best"]
    assert step % 128 == 0 and step < 1024
    for steps in (step - 127, step):
        run(f"{flags} --rewind-steps {steps} --fresh --run-dir {tmp_path / 'run'}")
        assert_same_run(tmp_path / "run", finished, 0, "dense", seed=1)
        for round_ in (1, 2):
            t = ticket(tmp_path / "run", round_, "ticket")
            assert all(torch.equal(t["initial"][name], tensor) for name, tensor in look["best"].items())
    assert not torch.equal(look["initial"]["critic.layers.0.weight"], look["best"]["critic.layers.0.weight"])


def test_rewinding_to_the_last_step(tmp_path):
    flags = f"{TINY} --seeds 1 --rounds 0 --rewind-steps 1024 --eval-interval 1024"
    starts = run(f"{flags} --run-dir {tmp_path / 'run'}").variables["starts"]
    best = ticket(tmp_path / "run", 0, "dense")["best"]
    assert all(torch.equal(tensor, best[name]) for name, tensor in starts["1"].items())


def test_rewinding_to_steps_beyond_the_last_rollout(tmp_path):
    """1000 steps are 7 rollouts of 128."""
    flags = f"{TINY} --seeds 1 --rounds 1 --conditions ticket --total-timesteps 1000 --rewind-steps 1000"
    assert "after 896 steps" in run(f"{flags} --run-dir {tmp_path / 'run'}", status=2).stderr


def test_evaluating_a_ticket(finished):
    file = finished / "tickets/round02_ticket_seed1.pt"
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    out = run(f"--evaluate {file} --eval-episodes 7").stdout
    assert out.startswith("CartPole-v1, 7 episodes: mean ") and "IQM" in out and "95% interval" in out
    assert len(out.splitlines()) == 1 and run(f"--evaluate {file} --eval-episodes 7").stdout == out
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*")} == before
    t = su.load_ticket(file)
    net = ppo_imp.make_networks(1, Args(**t["args"]), (4,), Discrete(2))
    net.load_state_dict({name: tensor[None] for name, tensor in t["best"].items()})
    vector = envs.vector.make("CartPole-v1", 1, 7)
    returns = envs.vector.play(vector, ppo_imp.greedy(net, slice(None)), [1])[0]
    assert f"mean {returns.mean():.1f}," in out


def test_evaluating_a_ticket_as_its_users_do(finished, tmp_path):
    """In a folder of one's own, where nothing is written."""
    flags = f"--evaluate {finished / 'tickets/round00_dense_seed1.pt'}"
    done = helpers.run(SCRIPT, flags, cwd=tmp_path)
    assert done.stdout.startswith("CartPole-v1, 20 episodes: mean ") and not list(tmp_path.iterdir())


def test_capturing_a_video_of_a_ticket(finished, tmp_path):
    file = tmp_path / "t.pt"
    file.write_bytes((finished / "tickets/round00_dense_seed1.pt").read_bytes())
    done = run(f"--evaluate {file} --eval-episodes 2 --capture-video")
    assert "no video: " in done.stderr or f"video: {tmp_path / 't.gif'}" in done.stdout
    assert (tmp_path / "t.gif").exists() == ("no video: " not in done.stderr)


def hand_made(file: Path, alive: list[int], dim: int = 4, units: int = 5, **contents) -> Path:
    """A ticket of a network for ``dim`` inputs, of which only those in ``alive`` have weights."""
    first = torch.zeros(dim, units)
    first[alive, 1] = 1
    masks = {"actor.layers.0.weight": first, "actor.layers.1.weight": torch.ones(units, 2)}
    ticket = {"result": su.describe_ticket(masks), "script": "ppo_imp", "obs_shape": [dim], "inputs": None}
    su.save_ticket(file, masks, **ticket, **contents)
    return file


def test_input_mask_shows_only_living_inputs(tmp_path):
    """Cart-Pole without its second input. Whatever that one is, the agent does the same; the columns keep counting in
    the whole observation, and a ticket of this run can mask the inputs of a third one."""
    file = hand_made(tmp_path / "t.pt", alive=[0, 2, 3])
    flags = f"{TINY} --seeds 1 --conditions ticket random_reinit --prune-fraction 0.7"
    done = run(f"{flags} --input-mask {file} --run-dir {tmp_path / 'run'}")
    assert "the networks see 3 of 4 inputs: cart position, pole angle, pole velocity\n" in done.stdout
    rows = read_csv(tmp_path / "run/results.csv")
    assert rows[0]["alive_inputs"] == "0 2 3" and {c for row in rows for c in row["alive_inputs"]} <= set("0 23")
    for row in rows:
        t = ticket(tmp_path / "run", int(row["round"]), row["condition"])
        first = t["masks"]["actor.layers.0.weight"]
        assert first.shape == (3, 8) and t["best"]["critic.layers.0.weight"].shape == (3, 8)
        assert row["alive_inputs"].split() == [str(i) for i, w in zip((0, 2, 3), first, strict=True) if w.any()]
        assert (t["obs_shape"], t["inputs"]) == ([4], [0, 2, 3])
    variables = done.variables
    act = variables["greedy"](variables["nets"], variables["inputs"])
    obs = np.random.default_rng(0).normal(size=(10, 4))
    assert np.array_equal(act(obs), act(obs + np.array([0, 7, 0, 0])))
    stored = variables["store"]["obs"]
    assert stored.shape == (32, 2, 4, 3) and np.abs(stored[..., 1]).max() < 0.21 + 0.1  # the angle, in radians
    out = run(f"--evaluate {tmp_path / 'run/tickets/round02_ticket_seed1.pt'} --eval-episodes 5").stdout
    assert out.startswith("CartPole-v1, 5 episodes")
    again = hand_made(tmp_path / "again.pt", alive=[3])
    out = run(f"{TINY} --input-mask {again} --dry-run").stdout
    assert "the networks see 1 of 4 inputs: pole velocity\n" in out and "(1, 1, 8)" in out


def test_input_mask_of_a_masked_run(tmp_path):
    """Its alive_inputs already count in the whole observation."""
    masks = {"actor.layers.0.weight": torch.tensor([[0.0, 0], [1, 0]])}
    result = su.describe_ticket(masks, inputs=[1, 3])
    su.save_ticket(tmp_path / "t.pt", masks, result=result, script="ppo_imp", obs_shape=[4], inputs=[1, 3])
    out = run(f"{TINY} --input-mask {tmp_path / 't.pt'} --dry-run").stdout
    assert "the networks see 1 of 4 inputs: pole velocity\n" in out


def test_inputs_without_names_are_numbered(tmp_path):
    file = hand_made(tmp_path / "t.pt", alive=[0, 2], dim=3)
    out = run(f"{GAUSSIAN} --input-mask {file} --dry-run").stdout
    assert "the networks see 2 of 3 inputs: 0, 2\n" in out


def test_input_mask_with_normalised_observations(tmp_path):
    file = hand_made(tmp_path / "t.pt", alive=[2], dim=3)
    run(f"{GAUSSIAN} --seeds 1 --conditions ticket --input-mask {file} --run-dir {tmp_path / 'run'}")
    best = ticket(tmp_path / "run", 1, "ticket")["best"]
    assert best["norm.mean"].shape == (1, 1) and best["norm.count"] > 0
    flags = f"--evaluate {tmp_path / 'run/tickets/round01_ticket_seed1.pt'} --eval-episodes 5"
    assert run(flags).stdout.startswith("ShortPendulum-v0, 5 episodes")


def bad_files(tmp_path: Path, finished: Path) -> dict[str, Path]:
    """Files that are given where a ticket should be."""
    files = {name: tmp_path / f"{name}.pt" for name in ("text", "distilled", "other_task", "dead", "missing")}
    files["text"].write_text("no ticket")
    su.save_ticket(files["distilled"], {}, script="bc_distill", args=asdict(Args()), obs_shape=[4])
    hand_made(files["other_task"], alive=[0], dim=6)
    hand_made(files["dead"], alive=[])
    return files | {"checkpoint": finished / "checkpoint.pt", "folder": finished}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--evaluate {text}", "text.pt as a ticket"),
        ("--evaluate {missing}", "missing.pt as a ticket"),
        ("--evaluate {checkpoint}", "checkpoint.pt as a ticket"),
        ("--evaluate {folder}", "as a ticket"),
        ("--evaluate {distilled}", "distilled.pt is no ticket of ppo_imp.py"),
        ("--input-mask {text}", "text.pt as a ticket"),
        ("--input-mask {missing}", "missing.pt as a ticket"),
        ("--input-mask {other_task}", "other_task.pt is no ticket for the (4,) inputs of CartPole-v1"),
        ("--input-mask {other_task} --env-id ALE/Pong-v5", "is no ticket for the (4, 84, 84) inputs of ALE/Pong-v5"),
        ("--input-mask {dead}", "dead.pt reads no input any more"),
    ],
)
def test_bad_tickets_get_one_line(flags, message, finished, tmp_path, monkeypatch):
    files = bad_files(tmp_path, finished)
    monkeypatch.chdir(tmp_path)
    err = run(f"{TINY} {flags.format(**files)}", status=2).stderr
    assert message in err and len(err.splitlines()) == 1 and not (tmp_path / "runs").exists()


# ---- The command line ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--env-id CartPole", "CartPole: there is no such task. Did you mean CartPole-v1"),
        ("--env-id FrozenLake-v1", "FrozenLake-v1: the observations must be vectors or pictures"),
        ("--prune-fraction 1.0", "--prune-fraction must be in (0, 1), not 1.0"),
        ("--prune-fraction 0", "--prune-fraction must be in (0, 1), not 0"),
        ("--seeds 1 1", "--seeds must be different numbers"),
        ("--seeds -1", "--seeds must be different numbers, none negative"),
        ("--conditions random_reinit --baseline-mask ticket", "needs ticket among --conditions"),
        ("--conditions ticket ticket", "--conditions must be different ones of ticket, mask_permuted"),
        ("--num-minibatches 3", "--num-minibatches 3 does not divide 4 * 64 steps"),
        ("--num-minibatches 0", "--num-minibatches 0 does not divide 4 * 64 steps"),
        ("--rounds -1", "--rounds must be 0 or more, not -1"),
        ("--rewind-steps -1", "--rewind-steps must be 0 or more, not -1"),
        ("--threads -1", "--threads must be 0 or more, not -1"),
        ("--weight-decay -0.1", "--weight-decay must be 0 or more, not -0.1"),
        ("--learning-rate -0.1", "--learning-rate must be 0 or more, not -0.1"),
        ("--eval-interval 0", "--eval-interval must be above 0, not 0"),
        ("--eval-episodes 0", "--eval-episodes must be above 0, not 0"),
        ("--num-envs 0", "--num-envs must be above 0, not 0"),
        ("--num-steps -4", "--num-steps must be above 0, not -4"),
        ("--update-epochs 0", "--update-epochs must be above 0, not 0"),
        ("--total-timesteps 0", "--total-timesteps must be above 0, not 0"),
        ("--total-timesteps 255", "--total-timesteps 255 is less than a rollout of 4 * 64"),
        ("--hidden-sizes 0", "--hidden-sizes must be one or more numbers above 0, not (0,)"),
        ("--hidden-sizes 8 -8", "--hidden-sizes must be one or more numbers above 0, not (8, -8)"),
        ("--gamma 1.01", "--gamma must be in [0, 1], not 1.01"),
        ("--gae-lambda -0.1", "--gae-lambda must be in [0, 1], not -0.1"),
        ("--dropout 1", "--dropout must be in [0, 1), not 1"),
        ("--rewind-steps 80001", "--rewind-steps 80001 is beyond the last update, after 79872 steps"),
        ("--capture-video", "--capture-video needs --evaluate TICKET"),
        ("--run-dir /dev/null/x", "cannot use /dev/null/x as a run folder"),
    ],
)
def test_bad_input_gets_one_line(flags, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    err = run(flags, status=2).stderr
    assert message in err and len(err.splitlines()) == 1 and not list(tmp_path.iterdir())


def test_other_arguments_are_refused(finished):
    err = run(f"{TINY} --seeds 1 2 --gamma 0.9 --run-dir {finished}", status=2).stderr
    assert "--gamma 0.99 there, 0.9 now" in err and len(err.splitlines()) == 1


def test_dry_run_says_what_each_round_keeps(tmp_path, monkeypatch, finished):
    monkeypatch.chdir(tmp_path)
    out = run(f"{TINY} --dry-run").stdout
    assert "weights of the actor in rounds 0 to 2: 112 90 72\n" in out
    assert {int(row["remaining"]) for row in read_csv(finished / "results.csv")} == {112, 90, 72}
    assert "actor.layers.2.weight" in out and "critic.layers.2.weight" in out
    out = run(f"{TINY} --dry-run --prune both").stdout
    assert "weights of the actor and critic in rounds 0 to 2: 216 173 139\n" in out  # 216 = 112 + 104
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("env_id", "expected"),
    [
        ("CartPole-v1", (80_000, 64, 8, 0.8, (64, 64), "actor", False)),
        ("Acrobot-v1", (500_000, 128, 4, 0.95, (128, 64), "actor", False)),
        ("HopperBulletEnv-v0", (1_500_000, 128, 20, 0.98, (64, 64), "both", False)),
        ("Hopper-v5", (1_500_000, 128, 20, 0.98, (64, 64), "both", True)),
        ("ALE/Pong-v5", (2_500_000, 128, 20, 0.98, (512,), "actor", False)),
    ],
)
def test_defaults_follow_from_the_task(env_id, expected, monkeypatch):
    names = ("total_timesteps", "num_steps", "num_minibatches", "gae_lambda", "hidden_sizes", "prune")

    def parse(flags: str) -> Args:
        monkeypatch.setattr("sys.argv", ["ppo_imp.py", *flags.split()])
        return ppo_imp.parse_args()

    args = parse(f"--env-id {env_id}")
    assert tuple(getattr(args, name) for name in (*names, "normalize_obs")) == expected
    assert args.eval_interval == args.total_timesteps // 10
    given = parse(f"--env-id {env_id} --gae-lambda 0.5 --num-minibatches 2 --hidden-sizes 7 --no-normalize-obs")
    assert (given.gae_lambda, given.num_minibatches, given.hidden_sizes, given.normalize_obs) == (0.5, 2, (7,), False)
    assert given.total_timesteps == args.total_timesteps
    assert parse(f"--env-id {env_id} --total-timesteps 20000").eval_interval == 2000


# ---- Gaussian actions and normalised observations ------------------------------------------------------------------


def test_gaussian_tickets_hold_a_log_std_that_is_never_pruned(gaussian):
    rows = read_csv(gaussian / "results.csv")
    assert len(rows) == 2 + 2 * 4 and all(-400 < float(row["best_retest"]) < 0 for row in rows)
    dense = ticket(gaussian, 0, "dense")
    assert dense["initial"]["actor.log_std"].tolist() == [[0]] and dense["best"]["actor.log_std"].item() != 0
    for condition in su.CONDITIONS:
        t = ticket(gaussian, 1, condition)
        assert list(t["masks"]) == [f"actor.layers.{i}.weight" for i in range(3)]
        assert t["initial"]["actor.log_std"].tolist() == [[0]] and t["best"]["actor.log_std"].item() != 0
        assert "density_actor.log_std" not in t["result"] and t["result"]["remaining"] == math.ceil(0.8 * 96)


def test_tickets_evaluate_with_their_own_statistics(gaussian):
    """Without its statistics the agent would see other numbers; they travel with the best weights."""
    file = gaussian / "tickets/round01_ticket_seed1.pt"
    out = run(f"--evaluate {file} --eval-episodes 9").stdout
    assert run(f"--evaluate {file} --eval-episodes 9").stdout == out
    t = su.load_ticket(file)
    assert t["best"]["norm.count"].item() == t["result"]["steps_to_best"]  # of all observations until then
    assert t["initial"]["norm.count"].item() == 0
    nets = ppo_imp.make_networks(1, Args(**t["args"]), (3,), Box(-2, 2, (1,)))
    nets.load_state_dict({name: tensor[None] for name, tensor in t["best"].items()})
    vector = envs.vector.make("ShortPendulum-v0", 1, 9)

    def act(obs: np.ndarray) -> np.ndarray:
        x = (torch.from_numpy(obs) - t["best"]["norm.mean"]) / (t["best"]["norm.var"] + 1e-8).sqrt()
        return nets["actor"](x.clamp(-10, 10)[None]).detach().numpy()

    assert f"mean {envs.vector.play(vector, act, [1]).mean():.1f}," in out


def test_pendulum_from_end_to_end(tmp_path):
    flags = GAUSSIAN.replace("ShortPendulum-v0", "Pendulum-v1")
    run(f"{flags} --rounds 0 --seeds 1 --run-dir {tmp_path / 'run'}")
    (row,) = read_csv(tmp_path / "run/results.csv")
    assert -2000 < float(row["best_retest"]) < -500 and row["alive_inputs"] == "0 1 2"


def test_observation_norm_is_that_of_all_observations():
    """Three updates of different sizes, each run with its own numbers, against numpy's on everything."""
    torch.manual_seed(0)
    norm = ppo_imp.ObservationNorm(2, 3)
    batches = [(10.0**k) * torch.randn(2, n, 3) + 5 * k for k, n in ((0, 8), (1, 30), (2, 5))]
    for batch in batches:
        norm.update(batch)
    seen = torch.cat(batches, 1).double().numpy()
    np.testing.assert_allclose(norm.mean[:, 0], seen.mean(1), rtol=1e-4)
    np.testing.assert_allclose(norm.var[:, 0], seen.var(1), rtol=1e-4)
    assert norm.count.flatten().tolist() == [43, 43]
    x = torch.randn(2, 4, 3)
    expected = (x.numpy() - seen.mean(1, keepdims=True)) / seen.std(1, keepdims=True)
    np.testing.assert_allclose(norm(x), expected, rtol=1e-3, atol=1e-3)


def test_observation_norm_before_and_beyond():
    """Nothing seen yet: observations as they are. Far outside of what was seen: 10 standard deviations."""
    norm, x = ppo_imp.ObservationNorm(1, 2), torch.tensor([[[0.5, -3.0]]])
    torch.testing.assert_close(norm(x), x)
    norm.update(torch.tensor([[[0.0, 1.0], [2.0, 1.0]]]))  # the second is constant
    torch.testing.assert_close(
        norm(torch.tensor([[[1000.0, 1.0], [-1000.0, 2.0], [2.0, 1.0]]])).tolist()[0][:2],
        [
            [10.0, 0.0],
            [-10.0, 10.0],
        ],
    )


def test_log_prob_and_entropy_of_categorical_actions():
    torch.manual_seed(0)
    actor = networks(3, (8,))["actor"]
    logits, action = torch.randn(3, 50, 4, dtype=torch.float64), torch.randint(4, (3, 50))
    log_prob, entropy = ppo_imp.log_prob_and_entropy(actor, logits, action.float())  # stored as float
    reference = Categorical(logits=logits)
    torch.testing.assert_close(log_prob, reference.log_prob(action))
    torch.testing.assert_close(entropy, reference.entropy())


def test_log_prob_and_entropy_of_gaussian_actions():
    torch.manual_seed(0)
    actor = ppo_imp.make_networks(3, Args(hidden_sizes=(8,)), (4,), Box(-1, 1, (2,)))["actor"]
    actor.log_std.data = torch.randn(3, 1, 2)
    mean, action = torch.randn(2, 3, 50, 2).unbind()
    log_prob, entropy = ppo_imp.log_prob_and_entropy(actor, mean, action)
    reference = Independent(Normal(mean, actor.log_std.exp()), 1)
    torch.testing.assert_close(log_prob, reference.log_prob(action))
    torch.testing.assert_close(entropy, reference.entropy())


def test_noise_makes_samples_of_the_policy():
    generator = np.random.default_rng(0)
    actor, logits = networks(2, (8,))["actor"], torch.tensor([[0.0, 1.0, -1.0], [2.0, 0.0, 0.0]])[:, None]
    noise = torch.from_numpy(generator.gumbel(size=(2, 20_000, 3)))
    action = ppo_imp.add_noise(actor, logits.expand(2, 20_000, 3), noise)
    for r in range(2):
        share = torch.bincount(action[r], minlength=3) / 20_000
        torch.testing.assert_close(share, torch.softmax(logits[r, 0], -1), atol=0.02, rtol=0)
    actor = ppo_imp.make_networks(2, Args(hidden_sizes=(8,)), (4,), Box(-1, 1, (2,)))["actor"]
    actor.log_std.data = torch.tensor([[[0.0, 1.0]], [[-1.0, 0.5]]])
    mean, noise = torch.randn(2, 5, 2), torch.randn(2, 5, 2)
    torch.testing.assert_close(ppo_imp.add_noise(actor, mean, noise), mean + actor.log_std.exp() * noise)


def test_actions_are_drawn_from_the_policy(tmp_path):
    """Of an agent that does not learn and is sure of itself in some states and not in others."""
    flags = "--seeds 1 --rounds 0 --hidden-sizes 32 --init he --learning-rate 0 --num-steps 4000 --num-minibatches 1"
    flags += f" --update-epochs 1 --total-timesteps 16000 --eval-episodes 100 --run-dir {tmp_path / 'run'}"
    variables = run(flags).variables
    with torch.no_grad():
        logits = variables["nets"]["actor"](torch.from_numpy(variables["store"]["obs"].reshape(1, 16_000, 4)))
    probability = torch.softmax(logits[0], -1)
    likely = probability.argmax(-1).numpy() == variables["store"]["action"].flatten()
    assert probability.amax(-1).mean() > 0.65 and probability.amax(-1).std() > 0.05
    assert likely.mean() == pytest.approx(probability.amax(-1).mean().item(), abs=0.012)  # 3 standard errors


def test_gaussian_actions_are_drawn_from_the_policy(tmp_path):
    """Its noise has variance 1 and is another one in each environment, dimension and step."""
    flags = f"{GAUSSIAN} --seeds 1 --rounds 0 --learning-rate 0 --num-steps 1000 --total-timesteps 4000"
    variables = run(f"{flags} --no-normalize-obs --run-dir {tmp_path / 'run'}").variables
    with torch.no_grad():
        mean = variables["nets"]["actor"](torch.from_numpy(variables["store"]["obs"].reshape(1, 4000, 3)))
    noise = variables["store"]["action"].reshape(4000) - mean.flatten().numpy()
    assert noise.mean() == pytest.approx(0, abs=0.05) and noise.std() == pytest.approx(1, abs=0.04)
    assert np.abs(np.corrcoef(noise.reshape(1000, 4).T) - np.eye(4)).max() < 0.1


# ---- The update ----------------------------------------------------------------------------------------------------


def networks(runs: int, hidden_sizes: tuple[int, ...]) -> torch.nn.ModuleDict:
    return ppo_imp.make_networks(runs, Args(hidden_sizes=hidden_sizes), (4,), Discrete(2))


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


def test_what_lands_in_a_rollout(tmp_path):
    """Each next observation is the episode's own, the last one too; only true ends, those of odd episodes, count as
    terminated, so that the values of the others are the future's."""
    flags = f"{GAUSSIAN} --no-normalize-obs --rounds 0 --eval-episodes 100".replace("ShortPendulum", "Counter")
    variables = run(f"{flags} --seeds 1 2 --run-dir {tmp_path / 'run'}").variables
    store = variables["store"]
    obs, next_obs = store["obs"][..., 0], store["next_obs"][..., 0]  # [T, R, N]
    t, k = obs % 10, obs // 10
    assert obs.shape == (32, 2, 4) and np.array_equal(next_obs, obs + 1)
    assert np.array_equal(obs[1:], np.where(t[:-1] == 2, 10 * (k[:-1] + 1), obs[:-1] + 1))
    assert np.array_equal(store["ended"], t == 2) and np.array_equal(store["terminated"], (t == 2) & (k % 2 == 1))
    assert (store["reward"] == 1).all() and store["action"].shape == (32, 2, 4, 1)
    # The return of a last step is its reward, and where that was a time limit the value of where it led to
    returns, next_values = variables["advantages"] + variables["values"], variables["next_values"]
    terminated, truncated = (torch.from_numpy((t == 2) & (k % 2 == odd)) for odd in (1, 0))
    assert terminated.any() and truncated.any()
    torch.testing.assert_close(returns[terminated], torch.ones(int(terminated.sum())))
    torch.testing.assert_close(returns[truncated], 1 + 0.99 * next_values[truncated])


@pytest.mark.parametrize("gaussian_actions", [False, True])
def test_ppo_loss_against_a_loop(gaussian_actions):
    """Of each run, with ratios on both sides of both ends of the clip, and advantages of both signs."""
    torch.manual_seed(0)
    args = Args(hidden_sizes=(8,), clip_coef=0.1, ent_coef=0.03, vf_coef=0.7)
    nets = ppo_imp.make_networks(2, args, (4,), Box(-1, 1, (2,)) if gaussian_actions else Discrete(3))
    obs = torch.randn(2, 40, 4)
    action = torch.randn(2, 40, 2) if gaussian_actions else torch.randint(3, (2, 40)).float()
    log_prob, _ = ppo_imp.log_prob_and_entropy(nets["actor"], nets["actor"](obs), action)
    batch = {"obs": obs, "action": action, "log_prob": log_prob.detach() + 0.2 * torch.randn(2, 40)}
    batch |= {"advantage": torch.randn(2, 40), "return": torch.randn(2, 40)}
    loss = ppo_imp.ppo_loss(nets, batch, {}, args)
    assert loss.shape == (2,)
    branches = set()
    for r in range(2):
        total = 0.0
        for i in range(40):
            out, value = (nets[name](obs)[r, i].detach() for name in ("actor", "critic"))
            if gaussian_actions:
                policy = Independent(Normal(out, nets["actor"].log_std[r, 0].detach().exp()), 1)
            else:
                policy = Categorical(logits=out)
            ratio = float((policy.log_prob(action[r, i]) - batch["log_prob"][r, i]).exp())
            a = float(batch["advantage"][r, i])
            gain = min(ratio, 1.1) * a if a > 0 else max(ratio, 0.9) * a
            branches.add((a > 0, ratio > 1.1, ratio < 0.9))
            error = float(value) - float(batch["return"][r, i])
            total += 0.7 * 0.5 * error**2 - gain - 0.03 * float(policy.entropy())
        assert loss[r].item() == pytest.approx(total / 40, rel=1e-4)
    assert len(branches) == 6


def test_runs_do_not_share_gradients():
    nets = networks(2, (8,))
    batch = {"obs": torch.randn(2, 6, 4), "action": torch.ones(2, 6), "log_prob": torch.zeros(2, 6)}
    batch |= {"advantage": torch.randn(2, 6), "return": torch.randn(2, 6)}
    ppo_imp.ppo_loss(nets, batch, {}, Args())[1].backward()
    assert all((p.grad[0] == 0).all() and (p.grad[1] != 0).any() for p in nets.parameters())


def test_gradients_are_clipped_per_run():
    p, q = torch.zeros(3, 2, 2, requires_grad=True), torch.zeros(3, 1, 2, requires_grad=True)
    p.grad, q.grad = torch.ones_like(p), torch.ones_like(q)
    p.grad[1], q.grad[1] = 1e-3, 1e-3
    su.clip_run_gradients({"p": p, "q": q}, 0.5)
    norms = torch.stack([p.grad.flatten(1).square().sum(1), q.grad.flatten(1).square().sum(1)]).sum(0).sqrt()
    assert norms.tolist() == pytest.approx([0.5, 1e-3 * 6**0.5, 0.5], rel=1e-3)


@pytest.mark.parametrize("weight_decay", [0.0, 0.01])
def test_weight_decay_is_for_weights_alone(weight_decay):
    nets = ppo_imp.make_networks(2, Args(hidden_sizes=(8, 6)), (4,), Box(-1, 1, (2,)))
    parameters = dict(nets.named_parameters())
    optimizer = su.run_adam(parameters, 5e-4, weight_decay, eps=1e-5)
    decay_of = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert len(decay_of) == sum(len(group["params"]) for group in optimizer.param_groups) == len(parameters)
    for name, p in parameters.items():
        assert decay_of[id(p)] == (weight_decay if name.endswith("weight") else 0)
    assert all(group["eps"] == 1e-5 and group["lr"] == 5e-4 for group in optimizer.param_groups)


def test_the_optimizer_is_adam():
    """Of all its groups, whichever kernel they take: against PyTorch's plain one on the same gradients."""
    torch.manual_seed(0)
    nets, twin = networks(2, (16, 6)), networks(2, (16, 6))
    twin.load_state_dict(nets.state_dict())
    ours = su.run_adam(dict(nets.named_parameters()), 5e-4, eps=1e-5)
    assert len(ours.param_groups) == 2
    plain = torch.optim.Adam(twin.parameters(), lr=5e-4, eps=1e-5, foreach=False)
    for _ in range(3):
        for p, q in zip(nets.parameters(), twin.parameters(), strict=True):
            p.grad = torch.randn_like(p)
            q.grad = p.grad.clone()
        ours.step()
        plain.step()
    for p, q in zip(nets.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p, q)


def test_learning_rate_falls_to_the_last_update(tmp_path):
    """8 rollouts: the last one learns at an eighth of the first one's rate."""
    for flags, expected in (("", 5e-4 / 8), ("--no-anneal-lr", 5e-4)):
        optimizer = run(f"{TINY} --seeds 1 --rounds 0 {flags} --fresh --run-dir {tmp_path / 'run'}").variables[
            "optimizer"
        ]
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([expected] * 2)


# ---- Dropout -------------------------------------------------------------------------------------------------------


def dropout(
    seed_list: list[int], stream_of: list[int], p: float, batch_size: int = 500
) -> dict[str, list[torch.Tensor]]:
    streams = [np.random.default_rng(seed) for seed in seed_list]
    return {name: su.dropout_factors(streams, stream_of, batch_size, (40, 30), p) for name in ("actor", "critic")}


def test_dropout_factors():
    """0 at rate p and else 1 / (1 - p), so 1 on average; runs of one seed share them, others do not."""
    kept = dropout([1, 2], [0, 1, 0], 0.3)
    for name in ("actor", "critic"):
        assert [x.shape for x in kept[name]] == [(3, 500, 40), (3, 500, 30)]
        for x in kept[name]:
            assert x.dtype == torch.float32 and torch.isclose(x.max(), torch.tensor(1 / 0.7))
            assert set(x.unique().tolist()) == {0.0, x.max().item()}
            assert (x == 0).float().mean().item() == pytest.approx(0.3, abs=0.01)
            assert x.mean().item() == pytest.approx(1, abs=0.02)
            assert torch.equal(x[0], x[2]) and not torch.equal(x[0], x[1])
            assert not torch.equal(x[0, 0], x[0, 1])  # each example has its own
    assert not torch.equal(kept["actor"][0], kept["critic"][0])


def test_without_dropout_nothing_is_drawn():
    """So the streams are those of a run from before there was dropout."""
    streams = [np.random.default_rng(1)]
    assert su.dropout_factors(streams, [0], 8, (64, 64), 0.0) == []
    assert streams[0].random() == np.random.default_rng(1).random()


def test_dropped_units_are_out():
    """A factor of 0 on a hidden unit is a network without it; the output layer has none."""
    torch.manual_seed(0)
    actor = networks(1, (6, 5))["actor"]
    x, kept = torch.randn(1, 3, 4), [torch.full((1, 3, 6), 2.0), torch.ones(1, 3, 5)]
    kept[0][..., 2] = 0
    h = 2 * torch.tanh(actor.layers[0](x))
    h[..., 2] = 0
    torch.testing.assert_close(actor(x, kept), actor.layers[2](torch.tanh(actor.layers[1](h))))
    assert not torch.allclose(actor(x, kept), actor(x))


def test_dropout_of_a_picture_network_is_after_its_convolutions():
    nets = ppo_imp.make_networks(1, Args(hidden_sizes=(6,)), (4, 84, 84), Discrete(3))
    x = torch.randint(256, (1, 2, 4, 84, 84), dtype=torch.uint8)
    kept = [torch.zeros(1, 2, 6)]
    torch.testing.assert_close(nets["actor"](x, kept), nets["actor"].layers[-1].bias.expand(1, 2, 3))


def test_dropout_and_weight_decay_change_what_is_learned(finished, tmp_path):
    plain = ticket(finished, 0, "dense")["best"]
    for flags in ("--dropout 0.2", "--weight-decay 0.01"):
        run(f"{TINY} --seeds 1 --rounds 1 --conditions ticket {flags} --fresh --run-dir {tmp_path / 'run'}")
        best, t = ticket(tmp_path / "run", 0, "dense")["best"], ticket(tmp_path / "run", 1, "ticket")
        assert not torch.equal(best["actor.layers.1.weight"], plain["actor.layers.1.weight"])
        for name, mask in t["masks"].items():  # decay and all
            assert (t["best"][name][mask == 0] == 0).all()


# ---- Networks ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("init", "limit"), [("kaiming", 1 / 4), ("he", 0.375**0.5), ("xavier", 0.125**0.5)])
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
    for name, n_out in (("actor", 2), ("critic", 1)):
        out = nets[name](x)
        assert out.shape == (3, 5, n_out)
        for r in range(3):
            state = su.unstack(nets[name], r)
            h = x[r]
            for layer in range(3):
                h = h @ state[f"layers.{layer}.weight"].T + state[f"layers.{layer}.bias"]
                h = torch.tanh(h) if layer < 2 else h
            assert torch.allclose(out[r], h, atol=1e-5)


def test_pictures_go_through_the_nature_cnn():
    """Mnih et al. 2015, of PyTorch's own layers, on bytes scaled to [0, 1]."""
    torch.manual_seed(0)
    nets = ppo_imp.make_networks(2, Args(hidden_sizes=(16,)), (4, 84, 84), Discrete(3))
    x = torch.randint(256, (2, 3, 4, 84, 84), dtype=torch.uint8)
    nn = torch.nn
    for r in range(2):
        plain = nn.Sequential(
            *(nn.Conv2d(4, 32, 8, 4), nn.ReLU(), nn.Conv2d(32, 64, 4, 2), nn.ReLU(), nn.Conv2d(64, 64, 3), nn.ReLU()),
            *(nn.Flatten(), nn.Linear(3136, 16), nn.ReLU(), nn.Linear(16, 3)),
        )
        state = su.unstack(nets["actor"], r)
        place = {0: 0, 1: 2, 2: 4, 3: 7, 4: 9}  # of each layer among those above
        plain.load_state_dict(
            {f"{place[int(name.split('.')[1])]}.{name.split('.')[2]}": t for name, t in state.items()}
        )
        torch.testing.assert_close(nets["actor"](x)[r], plain(x[r] / 255), atol=1e-5, rtol=1e-4)


def test_atari_smoke(tmp_path, monkeypatch):
    """A rollout, an update and the ticket of a real game, with evaluations of no episode. Rewards are learned from by
    their sign: in Alien, each thing collected is 10 points."""
    actions = []

    def no_episode(vector, act, seeds):
        if not actions:
            actions.append(act(envs.vector.reset(vector, seeds)))
        return np.zeros((len(seeds), vector.num_envs // len(seeds)))

    monkeypatch.setattr(envs.vector, "play", no_episode)
    flags = "--env-id ALE/Alien-v5 --seeds 1 --rounds 1 --conditions ticket --num-envs 2 --num-steps 40"
    flags += " --num-minibatches 2 --update-epochs 1 --total-timesteps 80 --eval-episodes 2 --hidden-sizes 16"
    store = run(f"{flags} --prune both --run-dir {tmp_path / 'run'}").variables["store"]
    assert store["obs"].dtype == np.uint8 and store["obs"].shape == (40, 1, 2, 4, 84, 84)
    assert set(np.unique(store["reward"])) == {0, 1} and actions[0].shape == (1, 2)
    dense, t = ticket(tmp_path / "run", 0, "dense"), ticket(tmp_path / "run", 1, "ticket")
    assert dense["masks"]["actor.layers.0.weight"].shape == (32, 4, 8, 8)
    assert t["result"]["remaining"] == math.ceil(0.8 * dense["result"]["remaining"])
    assert t["result"]["alive_inputs"] == "0 1 2 3" and t["obs_shape"] == [4, 84, 84]
    for name, mask in t["masks"].items():
        assert (t["best"][name][mask == 0] == 0).all() and (t["best"][name][mask == 1] != 0).any()


@pytest.mark.slow
def test_atari_with_real_evaluations(tmp_path):
    flags = "--env-id ALE/Pong-v5 --seeds 1 --rounds 0 --num-envs 2 --num-steps 8 --num-minibatches 2"
    flags += (
        f" --update-epochs 1 --total-timesteps 32 --eval-episodes 20 --hidden-sizes 16 --run-dir {tmp_path / 'run'}"
    )
    run(flags)
    (row,) = read_csv(tmp_path / "run/results.csv")
    assert -21 <= float(row["best_retest"]) < 0


@pytest.mark.slow
def test_dense_agent_and_ticket_solve_cartpole(tmp_path):
    """500 is the most that Cart-Pole gives; a random policy gets about 20."""
    helpers.run(SCRIPT, f"--seeds 1 2 3 --rounds 1 --conditions ticket --run-dir {tmp_path / 'run'}")
    rows = read_csv(tmp_path / "run/results.csv")
    assert np.mean([float(row["best_retest"]) for row in rows]) > 450


class Picture(helpers.Counter):
    observation_space = Box(0, 255, (96, 96, 3), np.uint8)


def test_pictures_of_another_size_get_one_line(tmp_path, monkeypatch):
    """The Nature CNN is for 84 x 84 with the channels in front."""
    monkeypatch.chdir(tmp_path)
    gym.register("Picture-v0", entry_point=Picture, disable_env_checker=True)
    err = run("--env-id Picture-v0 --rounds 0", status=2).stderr
    assert "pictures must be bytes [channels, 84, 84]; Picture-v0 has Box(" in err and len(err.splitlines()) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("alive", [[0, 1, 2, 3, 4, 5], [1, 4]])
def test_vectors_of_bytes_are_divided_by_their_bound(tmp_path, alive):
    """In training and in evaluation, where observations are up to 200, and with an input mask."""
    file = hand_made(tmp_path / "t.pt", alive=alive, dim=6)
    flags = GAUSSIAN.replace("ShortPendulum", "Bytes")
    flags += f" --no-normalize-obs --seeds 1 --rounds 0 --input-mask {file}"
    variables = run(f"{flags} --run-dir {tmp_path / 'run'}").variables
    for name in ("obs", "next_obs"):
        x = variables["store"][name]
        assert x.dtype == np.float32 and x.shape == (32, 1, 4, len(alive)) and 0.9 < x.max() <= 1
        np.testing.assert_allclose(x * 200, np.rint(x * 200), atol=1e-4)
    act = variables["greedy"](variables["nets"], alive, variables["high"])
    obs = np.random.default_rng(0).integers(201, size=(5, 6), dtype=np.uint8)
    with torch.no_grad():
        expected = variables["nets"]["actor"](torch.from_numpy(obs[:, alive] / np.float32(200))[None])
    np.testing.assert_allclose(act(obs), expected, rtol=1e-5, atol=1e-6)
    out = run(f"--evaluate {tmp_path / 'run/tickets/round00_dense_seed1.pt'} --eval-episodes 5").stdout
    assert out.startswith("Bytes-v0, 5 episodes: mean 3.0,")
