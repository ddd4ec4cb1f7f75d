"""algos/dqn_rigl.py: what is its own. What it shares with sac_rigl.py and ppo_rigl.py is in test_rigl_scripts.py."""

import math
from pathlib import Path

import dqn_rigl
import gymnasium as gym
import pytest
import torch
from dqn_rigl import Args, QNetwork
from helpers import Counter, read_csv, run_here, run_main

import sparse_utils as su

SCRIPT = Path(dqn_rigl.__file__)
TINY = "--batch-size 8 --width-scale 0.03 --eval-episodes 1 --snr-interval 0"


def fixed_network(*values: list[float]) -> QNetwork:
    """Action values that do not depend on the state; a list for each run."""
    q = QNetwork(len(values), 1, len(values[0]), 4)
    for parameter in q.parameters():
        torch.nn.init.zeros_(parameter)
    q.fc3.bias.data[:, 0] = torch.tensor(values)
    return q


def test_target_bootstraps_at_a_time_limit_and_not_at_an_end():
    """Equation 2; with --double the target network's value of the action that the online network finds best."""
    q, q_target = fixed_network([5.0, 1.0], [1.0, 5.0]), fixed_network([2.0, 10.0], [4.0, 3.0])
    next_obs, reward = torch.zeros(2, 2, 1), torch.ones(2, 2)
    terminated = torch.tensor([[0.0, 1.0], [0.0, 0.0]])
    single = dqn_rigl.td_target(q, q_target, next_obs, reward, terminated, Args(gamma=0.5))
    double = dqn_rigl.td_target(q, q_target, next_obs, reward, terminated, Args(gamma=0.5, double=True))
    assert single.tolist() == [[6, 1], [3, 3]]
    assert double.tolist() == [[2, 1], [2.5, 2.5]]


def test_loss_is_squared_or_huber():
    values, action, target = torch.tensor([[[0.0, 3.0]]]), torch.tensor([[1]]), torch.tensor([[0.5]])
    assert dqn_rigl.td_loss(values, action, target, Args()).item() == 6.25
    assert dqn_rigl.td_loss(values, action, target, Args(loss="huber")).item() == 2.0


def test_snr_is_the_brute_force_one_of_each_run():
    torch.manual_seed(0)
    q, args = QNetwork(2, 3, 2, 8), Args()
    obs, action, target = torch.randn(2, 10, 3), torch.randint(2, (2, 10)), torch.randn(2, 10)
    for r, snr in enumerate(dqn_rigl.gradient_snr(q, obs, action, target, args)):
        gradients = []
        for i in range(10):
            loss = dqn_rigl.td_loss(q(obs), action, target, args)[r, i]
            gradients.append(torch.cat([g[r].flatten() for g in torch.autograd.grad(loss, list(q.parameters()))]))
        g = torch.stack(gradients)
        assert snr == pytest.approx(float((g.mean(0).abs() / (g.std(0, correction=0) + 1e-10)).mean()), rel=1e-3)


def test_the_codes_initial_weights_are_he_normal_and_only_without_fans():
    def make(**flags) -> QNetwork:
        q = QNetwork(2, 64, 3, 256)
        weights = su.prunable(q=q)
        masked = [name for name in weights if name.split(".")[1] in flags["sparse"]]
        masks = su.random_masks(weights, dict.fromkeys(masked, 0.5))
        del flags["sparse"]
        dqn_rigl.initialise(q, weights, masks, Args(seeds=(1, 2), **flags))
        assert all((weights[name][mask == 0] == 0).all() for name, mask in masks.items())
        return q

    he = make(dense_init="he", sparse="")
    for layer, fan_in in ((he.fc1, 64), (he.fc2, 256)):
        assert layer.weight.std().item() == pytest.approx(math.sqrt(2 / fan_in), rel=0.03)
        assert layer.weight.abs().max() < 2 * math.sqrt(2 / fan_in) / 0.879
    assert he.fc3.weight.abs().max() <= 0.03 and (he.fc3.bias == -0.2).all() and (he.fc1.bias == 0).all()
    assert not torch.equal(he.fc2.weight[0], he.fc2.weight[1])
    scaled = make(dense_init="he", sparse="fc1 fc2 fc3")
    assert scaled.fc3.weight.abs().max() > 0.1 and (scaled.fc3.bias == -0.2).all()
    scaled = make(dense_init="he", sparse="fc1 fc2")  # an output layer without a mask is the dense one's
    assert scaled.fc3.weight.abs().max() <= 0.03 and scaled.fc2.weight.std() > 0.055
    pruned = make(dense_init="he", sparse="fc1 fc2 fc3", method="prune")  # starts as the dense ones do
    assert pruned.fc3.weight.abs().max() <= 0.03 and pruned.fc2.weight.abs().max() < 2 * math.sqrt(2 / 256) / 0.879
    glorot = make(sparse="")
    assert glorot.fc1.weight.abs().max().item() == pytest.approx(math.sqrt(6 / (64 + 256)), rel=0.01)


def test_what_lands_in_the_replay_memory(tmp_path):
    """Counter-v0: episodes of three steps that end by termination and by truncation in turn. The step that ends one
    leads to its last observation, and only termination is stored as an end."""

    class TwoActions(Counter):
        action_space = gym.spaces.Discrete(2, start=3)

        def step(self, action):
            assert action in (3, 4)
            return super().step(action)

    gym.register("TwoActions-v0", TwoActions, max_episode_steps=100)
    flags = (
        f"--env-id TwoActions-v0 --total-timesteps 8 --learning-starts 7 {TINY} --seeds 1 2 --run-dir {tmp_path}/run"
    )
    replay = run_here(SCRIPT, flags).variables["replay"]  # [step, run, obs | next_obs | action | reward | terminated]
    assert replay.shape == (8, 2, 5)
    for run in (0, 1):
        assert replay[:6, run, 0].tolist() == [10, 11, 12, 20, 21, 22]
        assert replay[:6, run, 1].tolist() == [11, 12, 13, 21, 22, 23]
        assert set(replay[:, run, 2].tolist()) <= {0, 1} and (replay[:, run, 3] == 1).all()
        assert replay[:6, run, 4].tolist() == [0, 0, 1, 0, 0, 0]


@pytest.mark.parametrize(("interval", "copied"), [(60, True), (20, True), (59, False)])
def test_the_target_is_copied_every_so_many_updates(interval, copied, tmp_path):
    flags = f"--total-timesteps 80 --learning-starts 20 {TINY} --target-interval {interval}"  # 60 updates
    ended = run_here(SCRIPT, f"{flags} --method static --run-dir {tmp_path}/run").variables
    assert torch.equal(ended["q"].fc2.weight, ended["q_target"].fc2.weight) == copied


def test_epsilon_falls_from_all_random_to_its_end(tmp_path, monkeypatch):
    """Of a network that always prefers action 1."""
    monkeypatch.setattr(QNetwork, "forward", lambda self, obs: self.fc3(0 * self.hidden(obs)[-1]) + torch.arange(2))
    flags = f"--total-timesteps 900 --learning-starts 100 {TINY} --train-frequency 800 --run-dir {tmp_path}/run"
    ended = run_main(dqn_rigl, f"{flags} --exploration-steps 500 --start-e 1 --end-e 0")
    action = ended.variables["replay"][:, 0, -3]
    random, falling, greedy = action[:100], action[100:500], action[500:]
    assert 0.3 < random.mean() < 0.7 and 0.6 < falling.mean() < 0.9 and (greedy == 1).all()


@pytest.mark.parametrize(("method", "update"), [("rigl", 120), ("prune", 157)])
def test_a_diverged_run_has_no_returns_and_the_others_go_on(method, update, tmp_path, monkeypatch):
    """The gradient of the second run becomes nan once, just before update 160 prunes; what the first one learns stays
    the same."""
    flags = f"--seeds 1 2 --total-timesteps 400 --learning-starts 100 --eval-interval 100 {TINY} --update-interval 50"
    flags += f" --method {method}"
    run_main(dqn_rigl, f"{flags} --run-dir {tmp_path}/sound")
    mask_gradients, calls = su.mask_gradients, [0]

    def poisoned(weights, masks, dense=False):
        calls[0] += 1
        if calls[0] == update:
            weights["q.fc2.weight"].grad[1] = math.nan
        return mask_gradients(weights, masks, dense)

    monkeypatch.setattr(su, "mask_gradients", poisoned)
    ended = run_main(dqn_rigl, f"{flags} --run-dir {tmp_path}/run")
    assert "seed 2: diverged before step" in ended.stdout + ended.stderr
    sound, rows = (read_csv(tmp_path / name / "results.csv") for name in ("sound", "run"))
    assert [row for row in rows if row["seed"] == "1"] == [row for row in sound if row["seed"] == "1"]
    assert [row["return_mean"] == "nan" for row in rows if row["seed"] == "2"] == [False] * 3 + [True] * 2
    lines = run_here(SCRIPT, f"--evaluate {tmp_path}/run/checkpoint.pt --eval-episodes 2").stdout.splitlines()
    assert ["the agent has diverged" in line for line in lines] == [False, True]


def test_snr_is_that_of_the_last_update_before_an_evaluation(tmp_path):
    line = f"{TINY} --snr-interval 50 --eval-interval 50"  # the last of two --snr-interval counts
    line += " --total-timesteps 200 --learning-starts 101 --train-frequency 4"
    run_here(SCRIPT, f"{line} --run-dir {tmp_path}")
    snr = [row["snr"] for row in read_csv(tmp_path / "results.csv")]
    assert [value == "nan" for value in snr] == [True, True, True, False, False] and snr[3] != snr[4]


def test_a_checkpoint_is_evaluated_as_its_run_was(tmp_path):
    """With its own epsilon, unless another one is given; --seed is that of the episodes and of the video's."""
    line = f"--total-timesteps 200 --learning-starts 100 {TINY} --eval-epsilon 0 --run-dir {tmp_path}"
    run_here(SCRIPT, line)
    evaluate, out = f"--evaluate {tmp_path}/checkpoint.pt --eval-episodes 20", {}
    epsilons, videos = ["", " --eval-epsilon 0", " --eval-epsilon 1"], [f" --seed {s} --capture-video" for s in (3, 4)]
    for more in epsilons + videos:
        out[more] = run_here(SCRIPT, evaluate + more).stdout
        gif = tmp_path / "checkpoint.gif"
        out[more + " gif"] = gif.read_bytes() if gif.exists() else None
    assert out[""] == out[" --eval-epsilon 0"] != out[" --eval-epsilon 1"]
    assert out[f"{videos[0]} gif"] != out[f"{videos[1]} gif"]
