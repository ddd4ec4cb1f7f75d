"""algos/dqn_imp.py: its replay memory against brute force, its parts, and what it alone can do."""

import os
import signal

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

TINY = "--env-id CartPole-v1 --hidden-sizes 8 8 --total-timesteps 640 --eval-interval 320 --learning-starts 64"
TINY += " --batch-size 16 --replay-ratio 4 --num-envs 2 --eval-episodes 2 --retest-episodes 10 --target-interval 10"
TINY += " --seeds 1 --conditions ticket --buffer-size 2000"


def run(flags: str, status: int = 0) -> Done:
    return helpers.run_main(dqn_imp, flags, status)


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


gym.register("Steps-v0", entry_point=Steps, max_episode_steps=100)


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


def test_a_run_that_goes_on_from_other_weights_draws_all_of_its_memory():
    """The errors of weights that explode are finite at first, and so large that nothing else is drawn."""
    uniform = np.random.default_rng(0).random((2, 1000))
    replay, never = filled(9, 100), filled(9, 100)
    for memory in (replay, never):
        memory.update(np.array([[5], [5]]), np.array([[1e30], [3.0]]))
    assert set(replay.sample(uniform, beta=0.5)[0][0]) == {5}
    replay.restart([0])
    place, other = replay.sample(uniform, beta=0.5)[0], never.sample(uniform, beta=0.5)[0]
    assert replay.largest.ravel().tolist() == [1, never.largest[1, 0]]
    assert np.bincount(place[0]).tolist() == pytest.approx([1000 / 6] * 3 + [0] + [1000 / 6] * 3, abs=1)
    assert np.array_equal(place[1], other[1])


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


def test_more_than_256_actions():
    """Each is sampled as the number that it was."""
    replay = Replay(1, 1, 700, Box(-1, 1, (1,)), 300, alpha=0.6)
    for action in range(300):
        replay.add(np.zeros((1, 1, 1)), *(np.full((1, 1), x) for x in (action, action, False)), np.ones((1, 1), bool))
    _, batch = replay.sample(np.random.default_rng(0).random((1, 4000)), beta=0.4)
    assert (batch["action"] == batch["reward"]).all() and batch["action"].max() == 298
    assert torch.from_numpy(batch["action"]).long().max() == 298


# ---- Parts -----------------------------------------------------------------------------------------------------------


@pytest.mark.rounding
def test_double_dqn_target():
    q_next, q_target = torch.tensor([[[1.0, 3.0], [5.0, 2.0]]]), torch.tensor([[[10.0, 20.0], [30.0, 40.0]]])
    target = dqn_imp.td_target(q_next, q_target, torch.tensor([[1.0, 1.0]]), torch.tensor([[0.0, 1.0]]), gamma=0.5)
    assert target.tolist() == [[11.0, 1.0]]


@pytest.mark.rounding
@pytest.mark.parametrize("network", ["mlp", "cnn"])
def test_networks_are_that_many_networks_and_bytes_are_scaled(network, tmp_path):
    """Against plain ones of PyTorch's layers."""
    space, nn = Box(0, 255, (3, 10, 10), np.uint8), torch.nn
    nets = dqn_imp.make_networks(2, Args(network=network, hidden_sizes=(6,)), space, 4, None)
    x = torch.randint(256, (2, 5, 300), dtype=torch.uint8)
    n_in, first = 300, []
    if network == "cnn":
        n_in, first = 16 * 8 * 8, [nn.Unflatten(1, (3, 10, 10)), nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Flatten()]
    for r in range(2):
        plain = nn.Sequential(*first[1:], nn.Linear(n_in, 6), nn.ReLU(), nn.Linear(6, 4))
        plain.load_state_dict(helpers.plain(su.copy_slice(nets.state_dict(), r), tmp_path))
        whole = nn.Sequential(*first[:1], plain)
        torch.testing.assert_close(nets["actor"](nets["view"](x))[r], whole(x[r] / 255), atol=1e-5, rtol=1e-4)


@pytest.mark.rounding
def test_an_update_learns_the_double_dqn_target(tmp_path, monkeypatch):
    """The first update of a run, by hand: what is wanted of values, and the new priorities."""
    sample, update, smooth_l1, seen = Replay.sample, Replay.update, dqn_imp.F.smooth_l1_loss, []

    def note(x, to):
        seen.append(x)
        return to

    monkeypatch.setattr(Replay, "sample", lambda *args: note((args[2], drawn := sample(*args)), drawn))
    monkeypatch.setattr(dqn_imp.F, "smooth_l1_loss", lambda *args, **kw: note(args, smooth_l1(*args, **kw)))
    monkeypatch.setattr(Replay, "update", lambda *args: note(args, update(*args)))
    evaluated, losses = su.Rounds.evaluated, []
    monkeypatch.setattr(su.Rounds, "evaluated", lambda *args: losses.append(args[-1]) or evaluated(*args))
    run(f"{TINY} --seeds 1 2 --rounds 0 --run-dir {tmp_path}")
    (beta, (places, sampled)), (value, wanted), (_, updated, td_error) = seen[:3]
    batch = {name: torch.from_numpy(x) for name, x in sampled.items()}
    for r, seed in enumerate((1, 2)):
        nn = torch.nn
        q = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
        q.load_state_dict(helpers.plain(ticket(tmp_path, 0, "dense", seed)["initial"], tmp_path))
        future = q(batch["next_obs"][r]).max(1).values * ~batch["terminated"][r]  # the target network is the same
        torch.testing.assert_close(wanted[r], batch["reward"][r] + 0.99 * future, atol=1e-5, rtol=1e-4)
        chosen = q(batch["obs"][r])[torch.arange(16), batch["action"][r].long()]
        torch.testing.assert_close(value[r], chosen, atol=1e-5, rtol=1e-4)
    np.testing.assert_allclose(td_error, (wanted - value).detach().numpy(), rtol=1e-6)
    assert np.array_equal(places, updated) and beta == pytest.approx(0.4 + 0.6 * 64 / 640)
    (last_beta, (_, sampled)), (value, wanted), _ = seen[-3:]
    assert last_beta == pytest.approx(1)
    error = (wanted - value).abs().detach()
    huber = torch.where(error < 1, error**2 / 2, error - 0.5)
    torch.testing.assert_close(losses[-1]["losses/td_loss"], (torch.from_numpy(sampled["weight"]) * huber).mean(1))


# ---- Runs ------------------------------------------------------------------------------------------------------------


def updates_of(monkeypatch) -> list[int]:
    """A number for each update from now on."""
    mask_gradients, calls = su.mask_gradients, []
    monkeypatch.setattr(su, "mask_gradients", lambda *args: calls.append(0) or mask_gradients(*args))
    return calls


@pytest.mark.parametrize(("ratio", "updates"), [(4, 145), (1, 37)])
def test_replay_ratio_is_samples_per_step(tmp_path, monkeypatch, ratio, updates):
    """640 steps, of which the first 62 come before learning: an update after each 16 / ratio of 64, 68 .. 640."""
    calls = updates_of(monkeypatch)
    run(f"{TINY} --rounds 0 --replay-ratio {ratio} --run-dir {tmp_path}")
    assert len(calls) == updates


@pytest.mark.parametrize("interval", [10, 1])
def test_the_target_network_is_a_copy_from_a_while_ago(tmp_path, monkeypatch, interval):
    """145 updates, the last copy after 140 of them; and a copy after each leaves no difference."""
    save, saved = su.save_checkpoint, []
    monkeypatch.setattr(
        su, "save_checkpoint", lambda file, state: saved.append((file.name, state)) or save(file, state)
    )
    run(f"{TINY} --rounds 0 --eval-interval 640 --target-interval {interval} --run-dir {tmp_path}")
    (state,) = (state for name, state in saved if name == "round.pt")
    same = all(torch.equal(tensor, state["target"][name]) for name, tensor in state["nets"].items())
    assert same == (interval == 1) and state["updates"] == 145


def test_agents_see_only_the_inputs_of_a_ticket(tmp_path):
    """Of entangled observations each seed has its own matrix, so input 3 of one is nothing to another."""
    file = helpers.save_mask(tmp_path / "two.pt", [1, 3], env_id="CartPole-v0")  # another version of the task
    run(f"{TINY} --rounds 0 --input-mask {file} --run-dir {tmp_path / 'run'}")
    seen = ticket(tmp_path / "run", 0, "dense")
    assert seen["inputs"] == [1, 3] and seen["masks"]["actor.layers.0.weight"].shape == (2, 8)
    assert seen["result"]["alive_inputs"] == "1 3"
    helpers.save_mask(file, [1, 3], dim=1200, env_id="MazeGridEntangled-v0", seed=2)
    flags = f"{TINY} --env-id MazeGridEntangled-v0 --input-mask {file} --dry-run --seeds"
    assert "it is of seed 2, and each seed of MazeGridEntangled-v0 has" in run(f"{flags} 1", status=2).stderr
    assert "the networks see 2 of 1200 inputs" in run(f"{flags} 2").stdout


def test_tasks_that_cannot_be_saved_start_new_episodes(tmp_path, monkeypatch):
    """The step before the break has no next observation, so it must not be learned from: Steps-v0 would show it."""
    flags = f"{TINY} --env-id Steps-v0 --rounds 0 --run-dir {tmp_path}"
    play, made, init = envs.vector.play, [], Replay.__init__
    with monkeypatch.context() as patched:
        patched.setattr(envs.vector, "play", lambda *args: os.kill(os.getpid(), signal.SIGTERM) or play(*args))
        run(flags, status=128 + signal.SIGTERM)
    monkeypatch.setattr(Replay, "__init__", lambda self, *args: made.append(self) or init(self, *args))
    assert "going on in round 0 after 320 steps" in run(flags).stdout
    place, batch = made[0].sample(np.random.default_rng(0).random((1, 4000)), beta=1.0)
    assert (batch["next_obs"] == batch["obs"] + 1).all() and len(np.unique(place)) > 300


def test_mazegrid_and_minatar(tmp_path):
    flags = "--total-timesteps 512 --learning-starts 128 --batch-size 64 --eval-interval 512 --eval-episodes 20"
    flags += " --hidden-sizes 8 --rounds 1 --retest-episodes 20 --seeds 1 --conditions ticket --num-envs 16"
    run(f"--env-id MazeGrid-v0 {flags} --run-dir {tmp_path / 'maze'}")
    file = tmp_path / "maze/tickets/round01_ticket_seed1.pt"
    assert run(f"--evaluate {file} --eval-episodes 3").stdout.startswith("MazeGrid-v0, --seed 1, 3 episodes: mean ")
    assert f"video: {file.with_suffix('.gif')}" in run(f"--evaluate {file} --capture-video").stdout
    assert imageio.imread(file.with_suffix(".gif"))[0].shape == (160, 320 + 8 + 320, 3)
    run(f"--env-id MinAtar/Breakout-v1 --network cnn {flags} --run-dir {tmp_path / 'breakout'}")
    assert ticket(tmp_path / "breakout", 1, "ticket")["masks"]["actor.layers.0.weight"].shape == (16, 4, 3, 3)


@pytest.mark.slow
def test_learns_cartpole(tmp_path):
    """A random policy gets about 20, and the most is 500; six seeds got 238 to 500 on one processor."""
    flags = "--env-id CartPole-v1 --total-timesteps 60000 --eval-interval 6000 --rounds 0 --seeds 1 2"
    run(f"{flags} --run-dir {tmp_path / 'run'}")
    assert np.mean([float(row["best_retest"]) for row in read_csv(tmp_path / "run/results.csv")]) > 150


@pytest.mark.parametrize("seeds", ["1", "1 2"])
def test_sparse_kernels_train_the_same_tickets(seeds, tmp_path, monkeypatch):
    """To float rounding, with networks of unequal densities in each layer beside each other."""
    products, product = [], su.SparseProduct.apply
    monkeypatch.setattr(su.SparseProduct, "apply", lambda *tensors: products.append(1) or product(*tensors))
    flags = (
        f"{TINY} --hidden-sizes 32 32 --seeds {seeds} --rounds 2 --prune-fraction 0.8 --conditions ticket random_reinit"
    )
    for kernel in ("masked", "sparse"):
        run(f"{flags} --kernel {kernel} --run-dir {tmp_path / kernel}")
        assert (len(products) > 0) == (kernel == "sparse")
    rows = [read_csv(tmp_path / kernel / "results.csv") for kernel in ("masked", "sparse")]
    sizes = [[(row["remaining"], row["density_actor.layers.1"]) for row in of_kernel] for of_kernel in rows]
    assert len(rows[0]) == 5 * len(seeds.split()) and sizes[0] == sizes[1]
    for condition in ("ticket", "random_reinit"):
        masked, sparse = (ticket(tmp_path / kernel, 2, condition) for kernel in ("masked", "sparse"))
        for name, mask in sparse["masks"].items():
            assert torch.equal(mask, masked["masks"][name]) and (sparse["best"][name][mask == 0] == 0).all()
        torch.testing.assert_close(sparse["best"], masked["best"], rtol=1e-3, atol=1e-4)
