"""ppo_rigl.py: its advantages, losses and statistics against brute force, and what each flag of the released code does.
What it shares with sac_rigl.py and dqn_rigl.py is in test_rigl_scripts.py."""

import math
from pathlib import Path

import gymnasium as gym
import numpy as np
import ppo_rigl
import pytest
import torch
from helpers import read_csv, run_here, run_main, said
from ppo_rigl import Args

import envs.vector
import sparse_utils as su

SCRIPT = Path(ppo_rigl.__file__)
TINY = "--num-steps 64 --num-minibatches 4 --update-epochs 2 --eval-episodes 2 --width-scale 0.2 --update-interval 3"


def networks(args: Args, env_id: str = "CartPole-v1"):
    """Those of a script's start, with its masks."""
    vector = envs.vector.make(env_id, len(args.seeds), 1)
    nets = ppo_rigl.make_networks(len(args.seeds), args, vector)
    weights = su.prunable(actor=nets["actor"], critic=nets["critic"])
    masks = su.random_masks(weights, dict.fromkeys(weights, 0.5), su.generators(args.seeds, 0))
    return nets, weights, masks


def rollouts(monkeypatch, flags: str, tmp_path: Path) -> tuple[list[dict], dict]:
    """What ``gae`` and ``ppo_losses`` got and gave in a run on Counter-v0, whose episodes are 3 steps and end by
    termination and truncation in turn, and the run's variables."""
    calls = []

    def recorded(name):
        function = getattr(ppo_rigl, name)

        def wrapper(*inputs):
            calls.append({"name": name, "inputs": inputs, "output": function(*inputs)})
            return calls[-1]["output"]

        monkeypatch.setattr(ppo_rigl, name, wrapper)

    recorded("gae")
    recorded("ppo_losses")
    line = f"{TINY} --env-id Counter-v0 --total-timesteps 64 --max-episode-steps 100 --run-dir {tmp_path} {flags}"
    return calls, run_main(ppo_rigl, line).variables


@pytest.mark.parametrize("time_limits", ["bootstrap", "terminal"])
def test_gae_is_the_sum_of_discounted_errors(time_limits):
    """By the definition, a double sum within each episode; 3 time limits and 3 ends in 40 steps of two runs."""
    rng = np.random.default_rng(0)
    rewards, values, next_values = rng.normal(size=(3, 40, 2, 1)).astype(np.float32)
    ended, terminated = np.zeros((2, 40, 2, 1), np.float32)
    ended[[5, 12, 13, 20, 33, 39]] = terminated[[12, 13, 33]] = 1
    no_future = ended if time_limits == "terminal" else terminated
    args = Args(gamma=0.9, gae_lambda=0.7)
    got = ppo_rigl.gae(rewards, values, next_values, no_future, ended, args)
    for r in range(2):
        for t in range(40):
            total, factor = 0.0, 1.0
            for k in range(t, 40):
                future = 0 if no_future[k, r, 0] else 0.9 * next_values[k, r, 0]
                total += factor * (rewards[k, r, 0] + future - values[k, r, 0])
                factor *= 0.9 * 0.7
                if ended[k, r, 0]:
                    break
            assert got[t, r, 0] == pytest.approx(total, abs=1e-5)


def test_time_limits_and_frames_of_a_real_rollout(tmp_path, monkeypatch):
    """Without boundary frames all 64 are steps, and the last observation of an episode is the true one; with them each
    fourth is a reset with reward 0, which weighs nothing."""
    for flags, terminal in (("", "terminated"), ("--time-limits terminal", "ended")):
        calls, variables = rollouts(monkeypatch, flags, tmp_path / terminal)
        store = variables["store"]
        t = np.arange(64)
        assert store["ended"][:, 0, 0].tolist() == (t % 3 == 2).tolist()
        assert store["terminated"][:, 0, 0].tolist() == (t % 6 == 2).tolist()
        assert store["obs"][:, 0, 0, 0].tolist() == (10 * (t // 3 + 1) + t % 3).tolist()
        assert store["next_obs"][:, 0, 0, 0].tolist() == (10 * (t // 3 + 1) + t % 3 + 1).tolist()
        assert (store["reward"] == 1).all()
        no_future = next(call["inputs"][3] for call in calls if call["name"] == "gae")
        assert np.array_equal(no_future, store[terminal])
    _, variables = rollouts(monkeypatch, "--boundary-frames masked", tmp_path / "boundary")
    store, frame = variables["store"], t % 4 == 3
    assert store["weight"][:, 0, 0].tolist() == (~frame).tolist() == store["reward"][:, 0, 0].tolist()
    assert store["ended"][:, 0, 0].tolist() == (t % 4 == 2).tolist()
    assert store["obs"][frame, 0, 0, 0].tolist() == [10 * k + 3 for k in range(1, 17)]  # what the reset comes after
    assert store["next_obs"][frame, 0, 0, 0].tolist() == [10 * k for k in range(2, 18)]


@pytest.mark.parametrize("frames", ["masked", "scored"])
def test_boundary_frames_have_no_gradient_but_in_the_scores(frames, tmp_path, monkeypatch):
    """The gradient is that of the weighted mean; RigL's scores, with "scored", that of the mean over all."""
    gradients, scores, mask_gradients, rewire = [], [], su.mask_gradients, su.rewire

    def record_gradients(weights, *rest, **how):
        gradients.append({name: weight.grad.clone() for name, weight in weights.items()})
        return mask_gradients(weights, *rest, **how)

    def record_scores(*inputs, **how):
        scores.append(how["gradients"])
        return rewire(*inputs, **how)

    monkeypatch.setattr(su, "mask_gradients", record_gradients)
    monkeypatch.setattr(su, "rewire", record_scores)
    args, flags = Args(seeds=(1, 2), sparsity=0.5, width_scale=0.2), "--sparsity 0.5 --width-scale 0.2"
    calls, variables = rollouts(monkeypatch, f"--boundary-frames {frames} {flags} --seeds 1 2", tmp_path)
    assert len(scores) == 2 and len(gradients) == 8  # updates 0 and 3 of 8, up to 80%
    _, batch, _ = next(call for call in calls if call["name"] == "ppo_losses")["inputs"]
    assert sorted(set(batch["weight"].unique().tolist())) == [0, 1] and batch["weight"].shape == (2, 16)
    # the same losses of the initial networks
    vector = envs.vector.make("Counter-v0", 2, 1)
    nets = ppo_rigl.make_networks(2, args, vector)
    weights = su.prunable(actor=nets["actor"], critic=nets["critic"])
    masks = su.random_masks(weights, variables["densities"], su.generators(args.seeds, 0))
    ppo_rigl.initialise(nets, weights, masks, args)
    losses = ppo_rigl.ppo_losses(nets, batch, args)
    for got, weight in ((gradients[0], batch["weight"]), (scores[0], 1.0 if frames == "scored" else batch["weight"])):
        expected = torch.autograd.grad((losses * weight).sum() / 16, list(weights.values()), retain_graph=True)
        for name, gradient in zip(weights, expected, strict=True):
            torch.testing.assert_close(got[name], gradient, rtol=1e-3, atol=1e-6)


def test_losses_are_the_clipped_surrogate_and_the_squared_error():
    """Worked out by hand: two actions, a mean of 0.5 and standard deviations of 1 and 2."""
    out, log_std = torch.full((1, 1, 2), 0.5), torch.tensor([[[0.0, math.log(2)]]])
    action = torch.tensor([[[1.5, -1.5]]])
    log_prob = ppo_rigl.log_prob(out, log_std, action)
    expected = torch.distributions.Normal(out, log_std.exp()).log_prob(action).sum(-1) + math.log(2 * math.pi)
    torch.testing.assert_close(log_prob, expected)
    for ratio, advantage, loss in ((1.5, 2.0, -2.4), (1.5, -2.0, 3.0), (0.5, 2.0, -1.0), (0.5, -2.0, 1.6)):
        old = log_prob - math.log(ratio)
        got = ppo_rigl.policy_loss(out, log_std, action, old, torch.tensor([[advantage]]), 0.2)
        assert got.item() == pytest.approx(loss, rel=1e-5)
    logits = torch.tensor([[[0.0, math.log(3)]]])
    assert ppo_rigl.log_prob(logits, None, torch.ones(1, 1)).item() == pytest.approx(math.log(0.75))
    assert ppo_rigl.value_loss(torch.tensor([[[3.0]]]), torch.tensor([[1.0]])).item() == 4
    advantage = ppo_rigl.normalised(torch.tensor([[[1.0, 3.0], [10.0, 30.0]]]))
    torch.testing.assert_close(advantage, torch.tensor([[[-1.0, 1.0], [-1.0, 1.0]]]))


def test_minibatches_apart_and_together():
    rng = np.random.default_rng(0)
    apart = ppo_rigl.minibatch_order(rng, 64, Args(update_epochs=5))
    assert all(sorted(epoch) == list(range(64)) for epoch in apart)
    together = ppo_rigl.minibatch_order(rng, 64, Args(update_epochs=5, epochs="together"))
    assert together.shape == (5, 64) and np.bincount(together.ravel()).tolist() == [5] * 64
    assert not any(sorted(epoch) == list(range(64)) for epoch in together)
    # draw i can take what has flowed in by then: item j of repetition k comes after draw 64 * (k - 1) + j
    for item in range(64):
        for k, draw in enumerate(np.flatnonzero(together.ravel() == item)):
            assert draw > 64 * (k - 1) + item or k == 0


def test_statistics_are_those_of_all_that_was_seen():
    moments, x = ppo_rigl.RunningMoments(2, 3), torch.randn(2, 50, 3) * 4 + 7
    assert torch.equal(moments.normalise(x), (x / math.sqrt(1.001)).clamp(-5, 5))
    moments.update(x[:, :20])
    moments.update(x[:, 20:])
    torch.testing.assert_close(moments.mean, x.mean(1, keepdim=True))
    torch.testing.assert_close(moments.var, x.var(1, keepdim=True, correction=0))
    first = ppo_rigl.RunningMoments(1, 1, initial_variance=0.0)
    x = torch.tensor([[[0.1], [1.0]]])
    torch.testing.assert_close(first.normalise(x), torch.tensor([[[3.1622777], [5.0]]]))  # x31.6, clipped


def test_rewards_are_divided_by_the_std_of_their_discounted_sums():
    rewards, ended = np.ones((5, 1, 1), np.float32), np.zeros((5, 1, 1), np.float32)
    ended[1] = 1
    sums, left = ppo_rigl.discounted_sums(rewards, ended, np.full((1, 1), 2, np.float32), 0.5)
    assert sums.ravel().tolist() == [2, 2, 1, 1.5, 1.75] and left == 1.75


@pytest.mark.parametrize("flags", ["", "--statistics before"])
def test_the_first_ratio_is_one_unless_the_statistics_moved(flags, tmp_path, monkeypatch):
    line = f"--update-epochs 1 --num-minibatches 1 --learning-rate 0 {flags}"
    calls, variables = rollouts(monkeypatch, line, tmp_path)
    nets, batch, _ = next(call for call in calls if call["name"] == "ppo_losses")["inputs"]
    moments = variables["obs_moments"]
    assert moments.count.item() == 64
    raw = torch.from_numpy(variables["store"]["obs"][:, 0]).transpose(0, 1)
    before = ppo_rigl.RunningMoments(1, 1)
    expected = (moments if flags else before).normalise(raw)
    torch.testing.assert_close(batch["obs"].sort(1).values, expected.sort(1).values)
    # Advantages come from values with the statistics of the play, in either case
    (values,) = (call["inputs"][1] for call in calls if call["name"] == "gae")
    with torch.no_grad():
        expected = nets["critic"](before.normalise(raw)).flatten()
    torch.testing.assert_close(torch.from_numpy(values).flatten(), expected)


@pytest.mark.parametrize(("flags", "low", "high"), [("", -0.1, 0.1), ("--no-clip-actions", -9, 9)])
def test_actions_are_clipped_to_their_bounds(flags, low, high, tmp_path, monkeypatch):
    taken = []

    class Narrow(gym.Env):
        observation_space, action_space = gym.spaces.Box(-1, 1, (2,)), gym.spaces.Box(-0.1, 0.1, (2,))

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            return np.zeros(2, np.float32), {}

        def step(self, action):
            taken.append(action)
            return np.zeros(2, np.float32), 0.0, False, False, {}

    monkeypatch.setitem(gym.registry, "Narrow-v0", gym.envs.registration.EnvSpec("Narrow-v0", Narrow))
    line = f"{TINY} --env-id Narrow-v0 --max-episode-steps 5 --total-timesteps 64 --run-dir {tmp_path} {flags}"
    run_here(SCRIPT, line)
    assert low <= np.min(taken) < 0 < np.max(taken) <= high
    assert (np.abs(taken).max() > 0.5) == bool(flags)


def test_the_mean_can_be_squashed_and_acting_in_numpy_is_the_network():
    for args in (Args(seeds=(1, 2), mean="tanh", initial_std=0.5), Args(seeds=(1, 2), actor_activation="relu")):
        nets, weights, masks = networks(args, "Pendulum-v1")
        ppo_rigl.initialise(nets, weights, masks, args)
        nets["obs_moments"].update(torch.randn(2, 9, 3))
        with torch.no_grad():
            nets["actor"].fc3.weight.mul_(1000)
        obs = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
        out = nets["actor"](nets["obs_moments"].normalise(torch.from_numpy(obs).view(2, 4, 3)))
        torch.testing.assert_close(torch.from_numpy(ppo_rigl.policy(nets)(obs)), out.detach(), rtol=1e-4, atol=1e-5)
        assert (out.abs().max() <= 2) == (args.mean == "tanh")
        assert torch.allclose(nets["actor"].log_std, torch.tensor(args.initial_std).log())


def test_initial_weights():
    """Orthogonal hidden layers; the actor's last one small; by active fans only where there are masks."""
    args = Args(seeds=(1, 2), dense_init="orthogonal", sparse_init=False)
    nets, weights, _ = networks(args)
    ppo_rigl.initialise(nets, weights, {}, args)
    square = nets["critic"].fc2.weight
    torch.testing.assert_close(square @ square.mT, torch.eye(64).expand(2, 64, 64), rtol=0, atol=1e-5)
    assert nets["critic"].fc3.weight.abs().max() <= 0.03
    assert nets["actor"].fc3.weight.std().item() == pytest.approx(math.sqrt(0.1 / 64), rel=0.2)
    # With sparse_init a last layer without a mask keeps them, and those with masks go by active fans
    nets, weights, masks = networks(args)
    masks = {name: mask for name, mask in masks.items() if "fc3" not in name}
    ppo_rigl.initialise(nets, weights, masks, Args(seeds=(1, 2), dense_init="orthogonal"))
    assert nets["critic"].fc3.weight.abs().max() <= 0.03 and nets["critic"].fc2.weight.abs().max() > 0.2
    scaled = {}
    for factor in (0.1, 1.0):
        nets, weights, masks = networks(args)
        ppo_rigl.initialise(nets, weights, masks, Args(seeds=(1, 2), actor_output_scale=factor))
        scaled[factor] = nets["actor"].fc3.weight.detach()
        assert all(((w == 0) == (masks[name] == 0)).all() for name, w in weights.items())
    torch.testing.assert_close(scaled[0.1], 0.1 * scaled[1.0])


def test_steps_are_whole_rollouts_and_the_budget_is_split(tmp_path):
    run_here(SCRIPT, f"{TINY} --env-id CartPole-v1 --total-timesteps 100 --eval-interval 64 --run-dir {tmp_path}")
    assert [int(row["step"]) for row in read_csv(tmp_path / "results.csv")] == [0, 64, 128]
    line = "--env-id CartPole-v1 --sparsity 0.5 --actor-share 0.3 --dry-run"
    lines = run_here(SCRIPT, line).stdout.splitlines()
    active = [int(line.split()[-2].replace(",", "")) for line in lines[:6]]
    assert sum(active[:3]) / sum(active) == pytest.approx(0.3, abs=2e-3)
    assert (
        "is not feasible"
        in run_here(SCRIPT, line.replace("0.5 --actor-share 0.3", "0.2 --actor-share 0.9"), status=2).stderr
    )
    bad = run_here(SCRIPT, "--num-steps 100 --num-minibatches 32", status=2).stderr
    assert "--num-minibatches 32 does not divide a rollout of 100 steps" in said(bad)
    assert "needs actions within finite bounds" in run_here(SCRIPT, "--env-id CartPole-v1 --mean tanh", status=2).stderr


@pytest.mark.parametrize("method", ["rigl", "set", "prune"])
def test_a_run_that_diverges_does_not_stop_the_others(method, tmp_path, monkeypatch):
    """Its networks are zero and its returns nan from then on, said once."""
    gae = ppo_rigl.gae

    def broken(*inputs):
        advantages = gae(*inputs)
        advantages[:, 0] = np.nan
        return advantages

    monkeypatch.setattr(ppo_rigl, "gae", broken)
    line = f"{TINY} --env-id CartPole-v1 --seeds 4 5 --total-timesteps 256 --eval-interval 64 --method {method}"
    done = run_main(ppo_rigl, f"{line} --run-dir {tmp_path}")
    assert (done.stdout + done.stderr).count("seed 4: diverged") == 1
    rows = read_csv(tmp_path / "results.csv")
    assert [row["return_mean"] == "nan" for row in rows] == [False, False, *[True, False] * 4]
    for parameter in done.variables["parameters"].values():
        assert (parameter[0] == 0).all() and parameter[1].isfinite().all()
    assert all(len({int(run.sum()) for run in mask}) == 1 for mask in done.variables["masks"].values())
    said_of_it = run_here(
        SCRIPT, f"--evaluate {tmp_path}/checkpoint.pt --eval-episodes 2 --observation-noise 0 1"
    ).stdout
    assert said_of_it.count("the agent has diverged") == 2 and said_of_it.count("2 episodes: mean") == 2
