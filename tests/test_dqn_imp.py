"""algos/dqn_imp.py: its replay memory against brute force, its parts, and real runs with tiny networks."""

import os
import signal
from pathlib import Path

import dqn_imp
import gymnasium as gym
import helpers
import imageio.v3 as imageio
import numpy as np
import pytest
import torch
from dqn_imp import Args, Replay
from gymnasium.spaces import Box
from helpers import Done, read_csv, ticket

import envs.vector
import sparse_utils as su

SCRIPT = Path(dqn_imp.__file__)
TINY = "--env-id CartPole-v1 --hidden-sizes 8 8 --total-timesteps 640 --eval-interval 320 --rounds 2"
TINY += " --learning-starts 64 --batch-size 16 --replay-ratio 4 --num-envs 2 --eval-episodes 2 --target-interval 10"


def run(flags: str, status: int = 0) -> Done:
    return helpers.run_here(SCRIPT, flags, status)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("dqn_imp") / "run"
    run(f"{TINY} --seeds 1 2 --run-dir {folder}")
    return folder


# ---- Replay ----------------------------------------------------------------------------------------------------------


class Steps(gym.Env):
    """Episodes of three steps; observation i is [i], counting on over episodes, and so is the reward."""

    observation_space, action_space = Box(-np.inf, np.inf, (1,), np.float32), gym.spaces.Discrete(2)
    i = -1

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t, self.i = 0, self.i + 1 if seed is None else 0
        return np.full(1, self.i, np.float32), {}

    def step(self, action):
        self.t, self.i = self.t + 1, self.i + 1
        ended = self.t == 3
        return np.full(1, self.i, np.float32), float(self.i), ended and self.i % 8 == 3, ended and self.i % 8 == 7, {}


gym.register("Steps-v0", entry_point=Steps)


def filled(steps: int, size: int) -> Replay:
    """What the loop of the script puts in, of two runs with one environment each."""
    vector = envs.vector.make("Steps-v0", 2, 1, next_step=True)
    replay = Replay(2, 1, size, vector.single_observation_space, 1, alpha=1.0)
    obs, real = envs.vector.reset(vector, [1, 2]), np.ones((2, 1), bool)
    for _ in range(steps):
        next_obs, reward, terminated, truncated, _ = vector.step(np.zeros(2, int))
        replay.add(obs.reshape(2, 1, 1), np.zeros((2, 1)), reward.reshape(2, 1), terminated.reshape(2, 1), real)
        real, obs = ~(terminated | truncated).reshape(2, 1), next_obs
    return replay


@pytest.mark.parametrize(("steps", "size"), [(11, 100), (26, 10)])
def test_only_real_transitions_are_sampled(steps, size):
    """Of each the next observation is the next number, a truncated one's too; the row after an episode's end and the
    newest one never come, and after the memory is full the oldest ones do not either."""
    replay = filled(steps, size)
    _, batch = replay.sample(np.random.default_rng(0).random((2, 4000)), beta=1.0)
    obs, next_obs = batch["obs"][..., 0], batch["next_obs"][..., 0]
    assert (next_obs == obs + 1).all() and (batch["reward"] == next_obs).all()
    assert (batch["terminated"] == (next_obs % 8 == 3)).all()
    rows = [i for i in range(steps) if i % 4 != 3]  # a row is a number: steps and last observations
    expected = [i for i in rows if steps - size <= i < steps - 1]
    assert np.unique(obs[0]).tolist() == expected and np.unique(obs[1]).tolist() == expected


def test_sampling_is_proportional_and_weighted():
    replay = filled(9, 100)  # transitions 0, 1, 2, 4, 5, 6
    priorities = {0: 1.0, 1: 2.0, 2: 3.0, 4: 4.0, 5: 0.5, 6: 1.5}
    for place, p in priorities.items():
        replay.update(np.full((2, 1), place), np.full((2, 1), p - 1e-6))
    place, batch = replay.sample(np.random.default_rng(0).random((2, 24_000)), beta=0.5)
    probability = {place: p / 12 for place, p in priorities.items()}
    for i, p in probability.items():
        assert (place[0] == i).mean() == pytest.approx(p, abs=1e-3)
        weight = (6 * p) ** -0.5 / (6 * 0.5 / 12) ** -0.5  # by the largest, that of the rarest
        assert batch["weight"][0][place[0] == i] == pytest.approx(weight, rel=1e-5)
    assert replay.largest == pytest.approx(4.0)


def test_a_run_that_has_diverged_leaves_the_others_alone():
    """What it draws then is still in the memory, and the other run draws as before."""
    uniform = np.random.default_rng(0).random((2, 1000))
    replay, diverged = filled(9, 100), filled(9, 100)
    places = np.array([[0, 1], [2, 4]])
    replay.update(places, np.array([[1.0, 2.0], [3.0, 4.0]]))
    diverged.update(places, np.array([[np.nan, np.inf], [3.0, 4.0]]))
    there, _ = diverged.sample(uniform, beta=0.5)
    assert np.array_equal(there[1], replay.sample(uniform, beta=0.5)[0][1])
    assert set(there[0]) <= {0, 1, 2, 4, 5, 6} and np.isfinite(diverged.largest).all()


def test_bits_are_unpacked_as_they_were():
    space = Box(0, 1, (13,), np.uint8)
    replay = Replay(1, 2, 40, space, 13, alpha=0.6)
    rows = np.random.default_rng(0).integers(2, size=(5, 1, 2, 13), dtype=np.uint8)
    for obs in rows:
        replay.add(obs, np.zeros((1, 2)), np.zeros((1, 2)), np.zeros((1, 2), bool), np.ones((1, 2), bool))
    place, batch = replay.sample(np.random.default_rng(1).random((1, 64)), beta=0.4)
    flat = rows.reshape(10, 13)
    assert replay.obs.shape[-1] == 2 and place.max() < 8
    assert (batch["obs"][0] == flat[place[0]]).all() and (batch["next_obs"][0] == flat[place[0] + 2]).all()


def test_a_hundred_thousand_mazes_take_less_than_20_megabytes():
    replay = Replay(1, 16, 100_000, Box(0, 1, (1200,), np.uint8), 1200, alpha=0.6)
    assert sum(a.nbytes for a in (replay.obs, replay.action, replay.reward, replay.terminated, replay.priority)) < 20e6


# ---- Parts -----------------------------------------------------------------------------------------------------------


def test_double_dqn_target():
    q_next, q_target = torch.tensor([[[1.0, 3.0], [5.0, 2.0]]]), torch.tensor([[[10.0, 20.0], [30.0, 40.0]]])
    target = dqn_imp.td_target(q_next, q_target, torch.tensor([[1.0, 1.0]]), torch.tensor([[0.0, 1.0]]), gamma=0.5)
    assert target.tolist() == [[11.0, 1.0]]


def test_networks_are_that_many_networks_and_bytes_are_scaled():
    args = Args(network="cnn", hidden_sizes=(6,))
    q = dqn_imp.QNetwork(2, Box(0, 255, (3, 10, 10), np.uint8), (3, 10, 10), 4, args)
    x = torch.randint(256, (2, 5, 300), dtype=torch.uint8)
    for r in range(2):
        state = su.unstack(q, r)
        h = torch.conv2d(x[r].view(5, 3, 10, 10) / 255, state["layers.0.weight"], state["layers.0.bias"]).relu()
        h = (h.flatten(1) @ state["layers.1.weight"].T + state["layers.1.bias"]).relu()
        out = h @ state["layers.2.weight"].T + state["layers.2.bias"]
        torch.testing.assert_close(q(x)[r], out, atol=1e-5, rtol=1e-4)


# ---- Runs ------------------------------------------------------------------------------------------------------------


def test_rounds_rows_and_tickets(finished):
    rows = read_csv(finished / "results.csv")
    total = 4 * 8 + 8 * 8 + 8 * 2
    assert len(rows) == 2 + 2 * 8 and {int(row["remaining"]) for row in rows} == {total, 90, 72}
    for condition in su.CONDITIONS:
        t = ticket(finished, 2, condition)
        for name, mask in t["masks"].items():
            assert (t["best"][name][mask == 0] == 0).all() and (t["best"][name][mask == 1] != 0).any()


def test_a_run_does_not_depend_on_its_neighbours(finished, tmp_path):
    run(f"{TINY} --seeds 2 --conditions permuted_permuted --run-dir {tmp_path / 'alone'}")
    for round_, condition in ((0, "dense"), (2, "permuted_permuted")):
        alone, among = (ticket(folder, round_, condition, seed=2) for folder in (tmp_path / "alone", finished))
        assert alone["result"] == among["result"]
        assert all(torch.equal(value, among["best"][name]) for name, value in alone["best"].items())


def test_tickets_are_pruned_nets_at_their_initial_weights(finished):
    """20% of what is left over all layers, the smallest of the best checkpoint; from round to round."""
    before = ticket(finished, 0, "dense")
    first = before["initial"]
    for round_ in (1, 2):
        now = ticket(finished, round_, "ticket")
        masks = su.prune_ticket(before["best"], before["masks"], 0.2)
        assert all(torch.equal(mask, now["masks"][name]) for name, mask in masks.items())
        assert all(torch.equal(value, now["initial"][name]) for name, value in first.items())
        before = now
    for condition in su.CONDITIONS[1:]:
        other = ticket(finished, 2, condition)
        assert sum(int(mask.sum()) for mask in other["masks"].values()) == 72
        assert not all(torch.equal(value, other["initial"][name]) for name, value in first.items())


def test_rewinding_is_to_the_weights_of_that_step(tmp_path):
    """A round of half the length, with the same exploration in steps, has the same weights at its end."""
    flags = f"{TINY} --seeds 1 --conditions ticket --priority-beta 1"
    run(f"{flags} --rounds 1 --rewind-steps 320 --run-dir {tmp_path / 'long'}")
    run(f"{flags} --rounds 0 --total-timesteps 320 --exploration-fraction 0.4 --run-dir {tmp_path / 'short'}")
    start, end = ticket(tmp_path / "long", 1, "ticket")["initial"], ticket(tmp_path / "short", 0, "dense")["best"]
    assert all(torch.equal(value, start[name]) for name, value in end.items())


def test_the_target_network_is_a_copy_from_a_while_ago(tmp_path):
    """144 updates, the last copy after 140 of them; and a copy after each leaves no difference."""
    for interval, same in ((10, False), (1, True)):
        flags = f"{TINY} --seeds 1 --rounds 0 --eval-interval 640 --target-interval {interval} --fresh"
        done = run(f"{flags} --run-dir {tmp_path / 'run'}").variables
        pairs = zip(done["q"].parameters(), done["q_target"].parameters(), strict=True)
        assert all(torch.equal(p, target) for p, target in pairs) == same


def test_weight_decay_and_dropout_change_what_is_learned(tmp_path):
    """Decay on weights alone: these become smaller. With dropout other weights result, from the same first ones."""
    best = {}
    for name, flags in (("plain", ""), ("decay", "--weight-decay 1"), ("dropout", "--dropout 0.5")):
        run(f"{TINY} --seeds 1 --rounds 0 {flags} --run-dir {tmp_path / name}")
        t = ticket(tmp_path / name, 0, "dense")
        assert all(torch.equal(value, t["initial"][key]) for key, value in best.get("initial", t["initial"]).items())
        best |= {"initial": t["initial"], name: t["best"]}
    for key in ("actor.layers.0.weight", "actor.layers.1.weight"):
        assert best["decay"][key].norm() < 0.9 * best["plain"][key].norm()
        assert not torch.equal(best["dropout"][key], best["plain"][key])


def test_agents_see_only_the_inputs_of_a_ticket(finished, tmp_path):
    """The ticket's first layer reads some inputs; a run with --input-mask has a network of these alone."""
    file = next(iter(sorted((finished / "tickets").glob("round02_ticket_seed1.pt"))))
    t = su.load_ticket(file)
    t["masks"]["actor.layers.0.weight"][[0, 2]] = 0
    t["result"] |= su.describe_ticket(t["masks"])
    masks = t.pop("masks")
    su.save_ticket(tmp_path / "two.pt", masks, **t)
    done = run(f"{TINY} --seeds 1 --rounds 0 --input-mask {tmp_path / 'two.pt'} --run-dir {tmp_path / 'run'}")
    assert "the networks see 2 of 4 inputs" in done.stdout
    seen = ticket(tmp_path / "run", 0, "dense")
    assert seen["inputs"] == [1, 3] and seen["masks"]["actor.layers.0.weight"].shape == (2, 8)
    assert seen["result"]["alive_inputs"] == "1 3"
    out = run(f"--evaluate {tmp_path / 'run/tickets/round00_dense_seed1.pt'} --eval-episodes 2").stdout
    assert out.startswith("CartPole-v1, 2 episodes: mean ")


def test_a_finished_run_says_so(finished):
    before = read_csv(finished / "results.csv")
    flags = f"{TINY} --seeds 1 2 --run-dir {finished}"
    assert run(flags).stdout == f"{finished} is finished; --fresh would start it over\n"
    assert "weights in rounds 0 to 2: 112 90 72" in run(f"{flags} --dry-run").stdout
    assert read_csv(finished / "results.csv") == before


class Killed(Exception):
    pass


@pytest.mark.parametrize("how", ["kill", "signal"])
@pytest.mark.parametrize("task", ["CartPole-v1", "MazeGrid-v0"])
def test_a_stopped_run_goes_on_within_the_round(task, how, tmp_path, monkeypatch):
    """Killed just after it was saved, or told to stop at another step: to the same results and tickets."""
    flags = f"{TINY} --env-id {task} --seeds 1 2 --rounds 1 --conditions ticket --eval-interval 128 --eval-episodes 50"
    run(f"{flags} --run-dir {tmp_path / 'whole'}")
    save, play, calls = su.save_checkpoint, envs.vector.play, []

    def killed_after_the_seventh(file, checkpoint):
        save(file, checkpoint)
        calls.append(file)
        if len([file for file in calls if file.name == "round.pt"]) == 7:  # the second of round 1
            raise Killed

    def signalled_at_the_ninth(*args):  # 5 evaluations of round 0 and the 2 retests after them come before
        calls.append(args)
        if len(calls) == 9:
            os.kill(os.getpid(), signal.SIGTERM)
        return play(*args)

    with monkeypatch.context() as patched:
        if how == "kill":
            patched.setattr(su, "save_checkpoint", killed_after_the_seventh)
            with pytest.raises(Killed):
                run(f"{flags} --run-dir {tmp_path / 'stopped'}")
        else:
            patched.setattr(envs.vector, "play", signalled_at_the_ninth)
            done = run(f"{flags} --run-dir {tmp_path / 'stopped'}", status=128 + signal.SIGTERM)
            assert "the same command goes on from here" in done.stdout
    done = run(f"{flags} --run-dir {tmp_path / 'stopped'}")
    assert "resuming round 1 after 256 steps" in done.stdout and not (tmp_path / "stopped/round.pt").exists()
    for file in ("results.csv", "curves.csv"):
        assert (tmp_path / "stopped" / file).read_text() == (tmp_path / "whole" / file).read_text()
    whole, stopped = (ticket(tmp_path / folder, 1, "ticket", seed=2) for folder in ("whole", "stopped"))
    assert all(torch.equal(value, stopped["best"][name]) for name, value in whole["best"].items())


def test_tasks_that_cannot_be_saved_start_new_episodes(tmp_path, monkeypatch):
    """The step before the break has no next observation, so it must not be learned from: Steps-v0 would show it."""
    flags = f"{TINY} --env-id Steps-v0 --seeds 1 --rounds 0 --run-dir {tmp_path / 'run'}"
    play = envs.vector.play

    def stopped(*args):
        os.kill(os.getpid(), signal.SIGTERM)
        return play(*args)

    with monkeypatch.context() as patched:
        patched.setattr(envs.vector, "play", stopped)
        run(flags, status=128 + signal.SIGTERM)
    done = run(flags)
    assert "resuming round 0 after 320 steps" in done.stdout
    replay = done.variables["replay"]
    place, batch = replay.sample(np.random.default_rng(0).random((1, 4000)), beta=1.0)
    assert (batch["next_obs"] == batch["obs"] + 1).all() and len(np.unique(place)) > 300


@pytest.mark.parametrize(("ratio", "updates"), [(4, 144), (1, 36)])
def test_replay_ratio_is_samples_per_step(tmp_path, ratio, updates):
    """640 steps, of which the first 62 come before learning; 16 * updates / 578 is about the ratio."""
    done = run(f"{TINY} --seeds 1 --rounds 0 --replay-ratio {ratio} --run-dir {tmp_path / 'run'}")
    assert done.variables["updates"] == pytest.approx(updates, abs=1)


def test_mazegrid_and_minatar(tmp_path):
    flags = "--total-timesteps 512 --learning-starts 128 --batch-size 64 --eval-interval 512 --eval-episodes 20"
    flags += " --hidden-sizes 8 --rounds 1 --seeds 1 --conditions ticket --num-envs 16"
    run(f"--env-id MazeGrid-v0 {flags} --run-dir {tmp_path / 'maze'}")
    file = tmp_path / "maze/tickets/round01_ticket_seed1.pt"
    assert run(f"--evaluate {file} --eval-episodes 3").stdout.startswith("MazeGrid-v0, 3 episodes: mean ")
    assert f"video: {file.with_suffix('.gif')}" in run(f"--evaluate {file} --capture-video").stdout
    assert imageio.imread(file.with_suffix(".gif"))[0].shape == (160, 320 + 8 + 320, 3)
    run(f"--env-id MinAtar/Breakout-v1 --network cnn {flags} --run-dir {tmp_path / 'breakout'}")
    assert ticket(tmp_path / "breakout", 1, "ticket")["masks"]["actor.layers.0.weight"].shape == (16, 4, 3, 3)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--env-id Pendulum-v1", "DQN needs Discrete actions"),
        ("--network cnn", "--network cnn needs pictures"),
        ("--num-envs 24", "--num-envs 24 does not divide the 64 steps between updates"),
        ("--learning-starts 0", "--learning-starts 0 must be"),
        ("--eval-epsilon 2", "--eval-epsilon must be in [0, 1]"),
        ("--buffer-size 191", "--buffer-size 191 must be at least three steps of --num-envs 64"),
        ("--total-timesteps 30000 --rewind-steps 29985", "--rewind-steps 29985 is beyond the last step, 29952"),
        (
            "--env-id MinAtar/Breakout-v1 --network cnn --input-mask a.pt",
            "--input-mask is for fully connected networks",
        ),
    ],
)
def test_bad_input_gets_one_line(flags, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    err = run(flags, status=2).stderr
    assert message in err and len(err.splitlines()) == 1 and not list(tmp_path.iterdir())


@pytest.mark.slow
def test_learns_cartpole(tmp_path):
    """A random policy gets about 20, and the most is 500."""
    flags = "--env-id CartPole-v1 --total-timesteps 120000 --eval-interval 6000 --rounds 0 --seeds 1 2"
    run(f"{flags} --run-dir {tmp_path / 'run'}")
    assert np.mean([float(row["best_retest"]) for row in read_csv(tmp_path / "run/results.csv")]) > 300
