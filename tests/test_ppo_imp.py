"""algos/ppo_imp.py: its parts against brute force, what its networks see, and what it alone can do."""

import copy
import math
import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import helpers
import numpy as np
import ppo_imp
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from helpers import Done, read_csv, ticket
from ppo_imp import Args
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.distributions import Categorical, Independent, Normal

import envs.vector
import sparse_utils as su
from envs.view import View

SCRIPT = Path(ppo_imp.__file__)
# 4 rollouts in a round
TINY = "--hidden-sizes 8 8 --total-timesteps 512 --num-steps 32 --eval-interval 256 --eval-episodes 4 --seeds 1"
# 4 rollouts with Gaussian actions; the defaults of unknown tasks are those of MuJoCo
GAUSSIAN = "--env-id ShortPendulum-v0 --hidden-sizes 8 8 --num-envs 4 --num-steps 32 --num-minibatches 4"
GAUSSIAN += " --update-epochs 2 --total-timesteps 512 --eval-interval 256 --eval-episodes 10"


def run(flags: str, status: int = 0) -> Done:
    return helpers.run_main(ppo_imp, flags, status)


def rollouts(flags: str, monkeypatch) -> tuple[list[dict[str, torch.Tensor]], torch.nn.ModuleDict]:
    """What a run collects, each [T, R, N, ...], with values and advantages; and its networks."""
    by_run, gae, taken, found = ppo_imp.by_run, ppo_imp.gae, [], []

    def look_at_rollout(x):
        taken.append(x.clone())
        return by_run(x)

    def look_at_advantages(*args):
        advantages = gae(*args)
        names = ("reward", "values", "next_values", "terminated", "ended")
        found.append({"advantages": advantages, **dict(zip(names, args, strict=False))})
        return advantages

    monkeypatch.setattr(ppo_imp, "by_run", look_at_rollout)
    monkeypatch.setattr(ppo_imp, "gae", look_at_advantages)
    nets = run(flags).variables["nets"]
    names = ("obs", "next_obs", "action", "reward", "terminated", "ended", "actor_out", "advantages")
    stores = [dict(zip(names, taken[8 * i :], strict=False)) for i in range(len(found))]
    return [{**store, **rest} for store, rest in zip(stores, found, strict=True)], nets


# ---- Runs ----------------------------------------------------------------------------------------------------------


def test_prune_both_is_one_threshold_over_both_networks(tmp_path):
    run(f"{TINY} --rounds 1 --prune both --conditions ticket --run-dir {tmp_path}")
    t, dense = ticket(tmp_path, 1, "ticket"), ticket(tmp_path, 0, "dense")["best"]
    kept = torch.cat([dense[name][mask == 1].abs() for name, mask in t["masks"].items()])
    gone = torch.cat([dense[name][mask == 0].abs() for name, mask in t["masks"].items()])
    assert kept.min() >= gone.max() and {name.split(".")[0] for name in t["masks"]} == {"actor", "critic"}
    assert t["result"]["remaining"] == math.ceil(0.8 * 216)
    out = run(f"{TINY} --dry-run --prune both --rounds 2").stdout
    assert "weights of the actor and critic in rounds 0 to 2: 216 173 139\n" in out  # 216 = 112 + 104


def test_processes_for_environments_end_with_an_interrupted_run(tmp_path):
    """Ctrl-C in a terminal reaches them, too."""
    flags = f"{GAUSSIAN} --env-id Pendulum-v1 --seeds 1 --num-envs 2 --num-minibatches 2 --eval-episodes 2"
    flags += f" --total-timesteps 1000000 --async-envs --run-dir {tmp_path / 'run'}"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(helpers.command(SCRIPT, flags), start_new_session=True, **pipes)
    try:
        while not list((tmp_path / "run").glob("events.*")):
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)
        out, _ = process.communicate(timeout=120)  # ends when the last process that could write has ended
        assert process.returncode == 128 + signal.SIGINT and "the same command goes on from here" in out
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def test_tensorboard_shows_returns_and_losses(tmp_path, monkeypatch):
    """Returns of each seed, losses as means over the seeds of a condition, over the steps of all rounds; and these are
    what a loop over the last minibatch finds."""
    diagnostics, calls = ppo_imp.diagnostics, []
    monkeypatch.setattr(ppo_imp, "diagnostics", lambda *args: calls.append(args) or diagnostics(*args))
    run(f"{TINY} --seeds 1 2 --rounds 1 --conditions ticket random_reinit --run-dir {tmp_path}")
    events = EventAccumulator(str(tmp_path)).Reload()
    names = ("approx_kl", "clipfrac", "entropy", "explained_variance", "policy_loss", "value_loss")
    losses = {f"losses/{name}/{condition}" for name in names for condition in ("dense", "ticket", "random_reinit")}
    assert set(events.Tags()["scalars"]) >= losses | {"charts/SPS", "remaining_fraction", "return/dense/seed2"}
    curves = [row for row in read_csv(tmp_path / "curves.csv") if (row["condition"], row["seed"]) == ("ticket", "2")]
    shown = events.Scalars("return/ticket/seed2")
    assert [event.step for event in shown] == [768, 1024]
    assert [event.value for event in shown] == pytest.approx([float(row["return_mean"]) for row in curves])
    parts, batch, _ = calls[3]  # the last of round 0
    means = dict.fromkeys(names, 0.0)
    for r in range(2):
        x = parts["ratio"][r].detach().numpy()
        left = (batch["return"] - parts["value"])[r].detach().numpy()
        means["approx_kl"] += np.mean(x - 1 - np.log(x)) / 2
        means["clipfrac"] += np.mean((x > 1.2) | (x < 0.8)) / 2
        means["explained_variance"] += (1 - left.var() / batch["return"][r].numpy().var()) / 2
        means["entropy"] += parts["entropy"][r].mean().item() / 2
        means["policy_loss"] -= parts["surrogate"][r].mean().item() / 2
        means["value_loss"] += np.mean(left**2) / 4
    got = {name: events.Scalars(f"losses/{name}/dense")[-1].value for name in names}
    assert got == pytest.approx(means, rel=1e-3, abs=1e-6) and 0 < got["entropy"] <= math.log(2)


# ---- What the networks see -----------------------------------------------------------------------------------------


def test_input_mask_shows_only_living_inputs(tmp_path):
    """Cart-Pole without its second input. The columns keep counting in the whole observation, and a ticket of this run
    can mask the inputs of a third one."""
    file = helpers.save_mask(tmp_path / "t.pt", alive=[0, 2, 3])
    flags = f"{TINY} --rounds 2 --conditions ticket random_reinit --prune-fraction 0.7"
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
    out = run(f"--evaluate {tmp_path / 'run/tickets/round02_ticket_seed1.pt'} --eval-episodes 5").stdout
    assert out.startswith("CartPole-v1, --seed 1, 5 episodes")
    again = helpers.save_mask(tmp_path / "again.pt", alive=[1], dim=3, inputs=[0, 2, 3], obs_shape=[4])
    out = run(f"{TINY} --input-mask {again} --dry-run").stdout
    assert "the networks see 1 of 4 inputs: pole angle\n" in out and "(1, 1, 8)" in out
    # where inputs have no names
    file = helpers.save_mask(tmp_path / "t.pt", alive=[0, 2], dim=3, env_id="ShortPendulum-v0")
    assert "the networks see 2 of 3 inputs: 0, 2\n" in run(f"{GAUSSIAN} --input-mask {file} --dry-run").stdout


@pytest.mark.rounding
def test_statistics_are_those_of_all_observations():
    """Three updates of different sizes, each run with its own numbers, against numpy's on everything. Before them
    observations are as they are, and far outside of what was seen 10 standard deviations."""
    torch.manual_seed(0)
    view, x = View(2, Box(-1, 1, (3,)), normalize=True), torch.randn(2, 4, 3)
    torch.testing.assert_close(view(x), x)
    batches = [(10.0**k) * torch.randn(2, n, 3) + 5 * k for k, n in ((0, 8), (1, 30), (2, 5))]
    for batch in batches:
        view.update(batch)
    seen = torch.cat(batches, 1).double().numpy()
    np.testing.assert_allclose(view.mean[:, 0], seen.mean(1), rtol=1e-4)
    np.testing.assert_allclose(view.var[:, 0], seen.var(1), rtol=1e-4)
    expected = (x.numpy() - seen.mean(1, keepdims=True)) / seen.std(1, keepdims=True)
    np.testing.assert_allclose(view(x), expected, rtol=1e-3, atol=1e-3)
    assert view.count.flatten().tolist() == [43, 43] and view(x + 1e6).unique().item() == 10


@pytest.mark.parametrize(("inputs", "normalize"), [(None, False), ([1, 4], False), ([1, 4], True)])
def test_views_of_bytes_against_numpy(inputs, normalize):
    """Divided by the highest value of their space, flat, and of these some."""
    rng = np.random.default_rng(0)
    view = View(2, Box(0, 200, (2, 3, 1), np.uint8), inputs, normalize=normalize)
    obs = rng.integers(201, size=(2, 5, 2, 3, 1), dtype=np.uint8)
    expected = obs.reshape(2, 5, 6)[..., inputs or slice(None)] / np.float32(200)
    if normalize:
        view.update(torch.from_numpy(obs))
        expected = (expected - expected.mean(1, keepdims=True)) / expected.std(1, keepdims=True)
    got = view(torch.from_numpy(obs))
    assert got.dtype == torch.float32 and view.shape == (6 if inputs is None else 2,)
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.rounding
def test_gaussian_tickets_have_statistics_and_a_log_std(tmp_path):
    """The latter is never pruned; the statistics travel with the best weights, without which an agent would see other
    numbers."""
    run(f"{GAUSSIAN} --seeds 1 --rounds 1 --prune actor --run-dir {tmp_path}")
    for row in read_csv(tmp_path / "results.csv"):
        t = ticket(tmp_path, int(row["round"]), row["condition"])
        assert list(t["masks"]) == [f"actor.layers.{i}.weight" for i in range(3)]
        assert -400 < float(row["best_retest"]) < 0
        assert t["initial"]["actor.log_std"].tolist() == [[0]] and t["best"]["actor.log_std"].item() != 0
        assert row["remaining"] == ("96" if row["round"] == "0" else "77") and "density_actor.log_std" not in row
        assert t["best"]["view.count"].item() == int(row["steps_to_best"])  # of all observations until then
        assert t["initial"]["view.count"].item() == 0
    out = run(f"--evaluate {tmp_path / 'tickets/round01_random_reinit_seed1.pt'} --eval-episodes 9").stdout
    best = t["best"]

    def act(obs: np.ndarray) -> np.ndarray:
        x = ((torch.from_numpy(obs) - best["view.mean"]) / (best["view.var"] + 1e-8).sqrt()).clamp(-10, 10)
        for i in range(3):
            x = (torch.tanh(x) if i else x) @ best[f"actor.layers.{i}.weight"] + best[f"actor.layers.{i}.bias"]
        return x.numpy()[None]

    vector = envs.vector.make("ShortPendulum-v0", 1, 9)
    assert f"mean {envs.vector.play(vector, act, [1]).mean():.1f}," in out


# ---- The policy ----------------------------------------------------------------------------------------------------


FOUR = Box(-1, 1, (4,))


def networks(runs: int, hidden_sizes: tuple[int, ...], actions=Discrete(2)) -> torch.nn.ModuleDict:  # noqa: B008
    return ppo_imp.make_networks(runs, Args(hidden_sizes=hidden_sizes), FOUR, actions, None)


@pytest.mark.rounding
@pytest.mark.parametrize("gaussian", [False, True])
def test_log_prob_and_entropy_against_pytorchs_distributions(gaussian):
    torch.manual_seed(0)
    actor, out = networks(3, (8,), Box(-1, 1, (4,)) if gaussian else Discrete(4))["actor"], torch.randn(3, 50, 4)
    action = torch.randn(3, 50, 4) if gaussian else torch.randint(4, (3, 50)).float()  # stored as float
    policy = Categorical(logits=out)
    if gaussian:
        actor.log_std.data = torch.randn(3, 1, 4)
        policy = Independent(Normal(out, actor.log_std.exp()), 1)
    log_prob, entropy = ppo_imp.log_prob_and_entropy(actor, out, action)
    torch.testing.assert_close(log_prob, policy.log_prob(action))
    torch.testing.assert_close(entropy, policy.entropy())


def test_noise_makes_samples_of_the_policy():
    generator = np.random.default_rng(0)
    actor, logits = networks(2, (8,))["actor"], torch.tensor([[0.0, 1.0, -1.0], [2.0, 0.0, 0.0]])[:, None]
    noise = torch.from_numpy(generator.gumbel(size=(2, 20_000, 3)))
    action = ppo_imp.add_noise(actor, logits.expand(2, 20_000, 3), noise)
    for r in range(2):
        share = torch.bincount(action[r], minlength=3) / 20_000
        torch.testing.assert_close(share, torch.softmax(logits[r, 0], -1), atol=0.02, rtol=0)
    actor = networks(2, (8,), Box(-1, 1, (2,)))["actor"]
    actor.log_std.data = torch.tensor([[[0.0, 1.0]], [[-1.0, 0.5]]])
    mean, noise = torch.randn(2, 5, 2), torch.randn(2, 5, 2)
    torch.testing.assert_close(ppo_imp.add_noise(actor, mean, noise), mean + actor.log_std.exp() * noise)


def test_gaussian_actions_are_drawn_from_the_policy(tmp_path, monkeypatch):
    """Its noise has variance 1 and is another one in each environment and step."""
    flags = f"{GAUSSIAN} --seeds 1 --rounds 0 --learning-rate 0 --num-steps 1000 --total-timesteps 4000"
    (rollout,), nets = rollouts(f"{flags} --no-normalize-obs --run-dir {tmp_path}", monkeypatch)
    with torch.no_grad():
        mean = nets["actor"](rollout["obs"].reshape(1, 4000, 3))
    torch.testing.assert_close(rollout["actor_out"].reshape(1, 4000, 1), mean)  # of which the old policy is made
    noise = (rollout["action"].reshape(4000) - mean.flatten()).numpy()
    assert noise.mean() == pytest.approx(0, abs=0.05) and noise.std() == pytest.approx(1, abs=0.04)
    assert np.abs(np.corrcoef(noise.reshape(1000, 4).T) - np.eye(4)).max() < 0.1


# ---- The update ----------------------------------------------------------------------------------------------------


@pytest.mark.rounding
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


def test_what_lands_in_a_rollout(tmp_path, monkeypatch):
    """Each next observation is the episode's own, the last one too; only true ends, those of odd episodes, count as
    terminated, so that the values of the others are the future's."""
    flags = f"{GAUSSIAN} --no-normalize-obs --rounds 0".replace("ShortPendulum", "Counter")
    (*_, rollout), _ = rollouts(f"{flags} --seeds 1 2 --run-dir {tmp_path}", monkeypatch)
    obs, next_obs = rollout["obs"][..., 0], rollout["next_obs"][..., 0]  # [T, R, N]
    t, k = obs % 10, obs // 10
    assert obs.shape == (32, 2, 4) and torch.equal(next_obs, obs + 1)
    assert torch.equal(obs[1:], torch.where(t[:-1] == 2, 10 * (k[:-1] + 1), obs[:-1] + 1))
    terminated, truncated = (t == 2) & (k % 2 == 1), (t == 2) & (k % 2 == 0)
    assert torch.equal(rollout["ended"] == 1, t == 2) and torch.equal(rollout["terminated"] == 1, terminated)
    assert (rollout["reward"] == 1).all() and rollout["action"].shape == (32, 2, 4, 1)
    # The return of a last step is its reward, and where that was a time limit the value of where it led to
    returns, next_values = rollout["advantages"] + rollout["values"], rollout["next_values"]
    assert terminated.any() and truncated.any()
    torch.testing.assert_close(returns[terminated], torch.ones(int(terminated.sum())))
    torch.testing.assert_close(returns[truncated], 1 + 0.99 * next_values[truncated])


@pytest.mark.rounding
def test_an_epoch_learns_from_each_step_once(tmp_path, monkeypatch):
    """Returns as they are, advantages of each run normalised, in another order in each epoch."""
    ppo_loss, batches = ppo_imp.ppo_loss, []
    monkeypatch.setattr(
        ppo_imp, "ppo_loss", lambda nets, batch, *rest: batches.append(batch) or ppo_loss(nets, batch, *rest)
    )
    flags = f"{TINY} --seeds 1 2 --rounds 0 --total-timesteps 128 --num-minibatches 4 --update-epochs 2"
    (rollout,), _ = rollouts(f"{flags} --run-dir {tmp_path}", monkeypatch)
    assert len(batches) == 8 and all(batch["return"].shape == (2, 32) for batch in batches)
    a = rollout["advantages"]  # [T, R, N]
    for r in range(2):
        expected = {"return": (a + rollout["values"])[:, r], "advantage": (a[:, r] - a[:, r].mean()) / a[:, r].std()}
        for name, values in expected.items():
            for epoch in (batches[:4], batches[4:]):
                got = torch.cat([batch[name][r] for batch in epoch])
                torch.testing.assert_close(got.sort().values, values.flatten().sort().values, atol=1e-5, rtol=1e-4)
    assert not torch.equal(batches[0]["return"], batches[4]["return"])


@pytest.mark.rounding
@pytest.mark.parametrize("gaussian_actions", [False, True])
def test_ppo_loss_against_a_loop(gaussian_actions):
    """Of each run, with ratios on both sides of both ends of the clip, and advantages of both signs."""
    torch.manual_seed(0)
    args = Args(hidden_sizes=(8,), clip_coef=0.1, ent_coef=0.03, vf_coef=0.7)
    nets = ppo_imp.make_networks(2, args, FOUR, Box(-1, 1, (2,)) if gaussian_actions else Discrete(3), None)
    obs = torch.randn(2, 40, 4)
    action = torch.randn(2, 40, 2) if gaussian_actions else torch.randint(3, (2, 40)).float()
    log_prob, _ = ppo_imp.log_prob_and_entropy(nets["actor"], nets["actor"](obs), action)
    batch = {"obs": obs, "action": action, "log_prob": log_prob.detach() + 0.2 * torch.randn(2, 40)}
    batch |= {"advantage": torch.randn(2, 40), "return": torch.randn(2, 40)}
    loss, parts = ppo_imp.ppo_loss(nets, batch, {}, args)
    assert loss.shape == (2,)
    branches = set()
    for r in range(2):
        total, means = 0.0, dict.fromkeys(("ratio", "value_error", "surrogate", "entropy"), 0.0)
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
            for name, number in zip(means, (ratio, 0.5 * error**2, gain, float(policy.entropy())), strict=True):
                means[name] += number
        assert loss[r].item() == pytest.approx(total / 40, rel=1e-4)
        for name, number in means.items():
            assert parts[name][r].mean().item() == pytest.approx(number / 40, rel=1e-4)
    assert len(branches) == 6


@pytest.mark.rounding
@pytest.mark.parametrize("hidden_sizes", [(8,), (16, 6, 12)])
@pytest.mark.parametrize("gaussian_actions", [False, True])
def test_gradients_by_hand_against_autograds(gaussian_actions, hidden_sizes):
    """Of all parameters, added to what is there, for plain networks and the loss in one line."""
    torch.manual_seed(0)
    args = Args(hidden_sizes=hidden_sizes, clip_coef=0.1, ent_coef=0.3, vf_coef=0.7)
    nets = ppo_imp.make_networks(3, args, FOUR, Box(-1, 1, (2,)) if gaussian_actions else Discrete(3), None)
    twin = copy.deepcopy(nets)
    obs, advantage, returns = torch.randn(3, 40, 4), torch.randn(3, 40), torch.randn(3, 40)
    action = torch.randn(3, 40, 2) if gaussian_actions else torch.randint(3, (3, 40))

    def plain(net: ppo_imp.Network) -> torch.Tensor:
        x = obs
        for layer in net.layers[:-1]:
            x = torch.tanh(x @ layer.weight + layer.bias)
        return x @ net.layers[-1].weight + net.layers[-1].bias

    log_prob, entropy = ppo_imp.log_prob_and_entropy(twin["actor"], plain(twin["actor"]), action)
    old = log_prob.detach() + 0.2 * torch.randn(3, 40)
    ratio = (log_prob - old).exp()
    surrogate = torch.min(ratio * advantage, ratio.clamp(0.9, 1.1) * advantage)
    value_error = 0.5 * (plain(twin["critic"]).squeeze(-1) - returns).square()
    expected = (0.7 * value_error - surrogate - 0.3 * entropy).mean(1)
    expected.sum().backward()
    batch = {"obs": obs, "action": action, "log_prob": old, "advantage": advantage, "return": returns}
    for times in (1, 2):
        loss, _ = ppo_imp.ppo_loss(nets, batch, {}, args)
        torch.testing.assert_close(loss, expected)
        for (name, p), q in zip(nets.named_parameters(), twin.parameters(), strict=True):
            torch.testing.assert_close(p.grad, times * q.grad, msg=lambda text, name=name: f"{name}: {text}")


def test_gradients_are_clipped_per_run():
    """As Adam's first moments say after one step: a tenth of the gradients. What ends a row stays zero."""
    p, q = torch.zeros(3, 2, 2, requires_grad=True), torch.zeros(3, 1, 2, requires_grad=True)
    optimizer = su.FlatAdam({"p": p, "q": q}, 0.1, max_norm=0.5)
    p.grad.fill_(1)
    q.grad.fill_(1)
    p.grad[1], q.grad[1] = 1e-3, 1e-3
    optimizer.step()
    moments = optimizer.state[optimizer.flat]["exp_avg"]
    assert (10 * moments.square().sum(1).sqrt()).tolist() == pytest.approx([0.5, 1e-3 * 6**0.5, 0.5], rel=1e-3)
    assert optimizer.flat.shape == (3, 16) and not optimizer.flat[:, 6:].any()
    assert torch.equal(optimizer.flat[:, :6], torch.cat([p.flatten(1), q.flatten(1)], 1)) and p.all() and q.all()


@pytest.mark.rounding
@pytest.mark.parametrize("weight_decay", [0.0, 0.01])
def test_the_optimizer_is_adam(weight_decay):
    """With decay of weights alone: against PyTorch's plain one on the same gradients, of tensors of all sizes."""
    torch.manual_seed(0)
    nets, twin = (networks(2, (16, 6), Box(-1, 1, (2,))) for _ in range(2))
    twin.load_state_dict(nets.state_dict())
    ours = su.FlatAdam(dict(nets.named_parameters()), 5e-4, weight_decay, eps=1e-5)
    decays = {name: weight_decay if name.endswith("weight") else 0.0 for name, _ in twin.named_parameters()}
    groups = [{"params": [p], "weight_decay": decays[name]} for name, p in twin.named_parameters()]
    plain = torch.optim.Adam(groups, lr=5e-4, eps=1e-5, foreach=False)
    for _ in range(3):
        for p, q in zip(nets.parameters(), twin.parameters(), strict=True):
            p.grad.normal_()
            q.grad = p.grad.clone()
        ours.step()
        plain.step()
    for p, q in zip(nets.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p, q)


def test_learning_rate_falls_to_the_last_update(tmp_path, monkeypatch):
    """4 rollouts: the last one learns at a fourth of the first one's rate."""
    run_adam, made = su.FlatAdam, []
    monkeypatch.setattr(su, "FlatAdam", lambda *args, **kwargs: made.append(run_adam(*args, **kwargs)) or made[-1])
    for flags, expected in (("", 5e-4 / 4), ("--no-anneal-lr", 5e-4)):
        run(f"{TINY} --rounds 0 {flags} --fresh --run-dir {tmp_path}")
        assert [group["lr"] for group in made[-1].param_groups] == pytest.approx([expected])


# ---- Dropout -------------------------------------------------------------------------------------------------------


def test_dropout_factors():
    """0 at rate p and else 1 / (1 - p), so 1 on average; runs of one seed share them, others do not."""
    kept = su.dropout_factors([np.random.default_rng(seed) for seed in (1, 2)], [0, 1, 0], 500, (40, 30), 0.3)
    assert [x.shape for x in kept] == [(3, 500, 40), (3, 500, 30)]
    for x in kept:
        assert x.dtype == torch.float32 and x.unique().tolist() == pytest.approx([0, 1 / 0.7])
        assert (x == 0).float().mean().item() == pytest.approx(0.3, abs=0.01)
        assert torch.equal(x[0], x[2]) and not torch.equal(x[0], x[1])
        assert not torch.equal(x[0, 0], x[0, 1])  # each example has its own
    streams = [np.random.default_rng(1)]
    assert su.dropout_factors(streams, [0], 8, (64, 64), 0.0) == []
    assert streams[0].random() == np.random.default_rng(1).random()  # nothing is drawn


def test_dropped_units_are_out():
    """A factor of 0 on a hidden unit is a network without it; the output layer has none, nor have convolutions."""
    actor = networks(1, (6, 5))["actor"]
    x, kept = torch.randn(1, 3, 4), [torch.full((1, 3, 6), 2.0), torch.ones(1, 3, 5)]
    kept[0][..., 2] = 0
    h = 2 * torch.tanh(actor.layers[0](x))
    h[..., 2] = 0
    torch.testing.assert_close(actor(x, kept), actor.layers[2](torch.tanh(actor.layers[1](h))))
    actor, x = pictures(1, 6)["actor"], torch.rand(1, 2, 4, 84, 84)
    torch.testing.assert_close(actor(x, [torch.zeros(1, 2, 6)]), actor.layers[-1].bias.expand(1, 2, 3))


# ---- Networks ------------------------------------------------------------------------------------------------------


def pictures(runs: int, units: int) -> torch.nn.ModuleDict:
    space = Box(0, 255, (4, 84, 84), np.uint8)
    return ppo_imp.make_networks(runs, Args(hidden_sizes=(units,)), space, Discrete(3), None)


@pytest.mark.rounding
@pytest.mark.parametrize("picture", [False, True])
def test_networks_are_that_many_plain_ones(picture, tmp_path):
    """Of PyTorch's own layers, built from a dense ticket: tanh for vectors, with means of Gaussian actions, and the
    Nature CNN (Mnih et al. 2015) for bytes scaled to [0, 1]. So are their gradients: no run notices another. What is
    pruned is zero."""
    torch.manual_seed(0)
    nn = torch.nn
    nets = pictures(2, 16) if picture else networks(2, (8, 6), Box(-1, 1, (3,)))
    weights = su.prunable(actor=nets["actor"])
    masks = su.random_masks(weights, dict.fromkeys(weights, 0.6))
    su.apply_masks(weights, masks)
    x = torch.randint(256, (2, 3, 4, 84, 84), dtype=torch.uint8) if picture else torch.randn(2, 3, 4)
    seen = x / 255 if picture else x
    layers = nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 3)
    if picture:
        layers = nn.Conv2d(4, 32, 8, 4), nn.ReLU(), nn.Conv2d(32, 64, 4, 2), nn.ReLU(), nn.Conv2d(64, 64, 3)
        layers += nn.ReLU(), nn.Flatten(), nn.Linear(3136, 16), nn.ReLU(), nn.Linear(16, 3)
    out = nets["actor"](nets["view"](x))
    out.square().sum().backward()
    for r in range(2):
        parts = {"masks": su.copy_slice(masks, r), "initial": {}, "best": su.copy_slice(nets.state_dict(), r)}
        su.save_ticket(tmp_path / "t.pt", **parts)
        ticket = su.load_ticket(tmp_path / "t.pt", dense=True)
        plain, state = nn.Sequential(*layers), ticket["best"]["actor"]
        assert picture or state.pop("log_std").shape == (1, 3)
        plain.load_state_dict(state)  # strict: no key more or less
        plain.zero_grad()
        plain(seen[r]).square().sum().backward()
        torch.testing.assert_close(out[r], plain(seen[r]), atol=1e-5, rtol=1e-4)
        gradients = [p.grad for name, p in nets["actor"].named_parameters() if name != "log_std"]
        for gradient, (name, p) in zip(gradients, plain.named_parameters(), strict=True):
            own = p.grad.T if p.dim() == 2 else p.grad  # [in, out] here, [out, in] there
            torch.testing.assert_close(gradient[r].view(own.shape), own, atol=1e-4, rtol=1e-3)
            if name in ticket["masks"]["actor"]:
                assert torch.equal(p != 0, ticket["masks"]["actor"][name] == 1)
        assert len(ticket["masks"]["actor"]) == len(weights)
    if not picture:  # the critic has one output, on a path of its own
        *hidden, last = nets["critic"].layers
        expected = last(torch.tanh(hidden[1](torch.tanh(hidden[0](x)))))
        torch.testing.assert_close(nets["critic"](x), expected, atol=1e-5, rtol=1e-4)


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
    (rollout, _), _ = rollouts(f"{flags} --prune both --run-dir {tmp_path}", monkeypatch)
    assert rollout["obs"].dtype == torch.uint8 and rollout["obs"].shape == (40, 1, 2, 4, 84, 84)
    assert set(rollout["reward"].unique().tolist()) == {0, 1} and actions[0].shape == (1, 2)
    dense, t = ticket(tmp_path, 0, "dense"), ticket(tmp_path, 1, "ticket")
    assert dense["masks"]["actor.layers.0.weight"].shape == (32, 4, 8, 8)
    assert t["result"]["remaining"] == math.ceil(0.8 * dense["result"]["remaining"])
    assert t["result"]["alive_inputs"] == "0 1 2 3" and t["obs_shape"] == [4, 84, 84] and t["activation"] == "relu"
    for name, mask in t["masks"].items():
        assert (t["best"][name][mask == 0] == 0).all() and (t["best"][name][mask == 1] != 0).any()


def test_a_killed_round_of_pong_goes_on(tmp_path):
    """kill -9 after an evaluation within the round: the next start goes on from there, with the weights, the best ones
    and the curve so far. The games themselves begin anew, so what comes after is not the same."""
    flags = "--env-id ALE/Pong-v5 --seeds 1 --rounds 1 --conditions ticket --num-envs 2 --num-steps 20 --prune both"
    flags += " --num-minibatches 2 --update-epochs 1 --total-timesteps 160 --eval-interval 40 --eval-episodes 1"
    flags += f" --retest-episodes 1 --hidden-sizes 16 --max-episode-steps 30 --run-dir {tmp_path}"
    helpers.kill_when((tmp_path / "round.pt").exists, SCRIPT, flags)
    saved = torch.load(tmp_path / "round.pt", weights_only=True)
    assert (saved["round"], saved["done"]) in [(0, 40), (0, 80), (0, 120)]
    ended = helpers.run_here(SCRIPT, flags)
    assert f"going on in round 0 after {saved['done']} steps" in ended.stdout + ended.stderr
    curve = [row for row in read_csv(tmp_path / "curves.csv") if row["round"] == "0"]
    assert [int(row["step"]) for row in curve] == [40, 80, 120, 160]
    for row, before in zip(curve, saved["curves"], strict=False):
        assert row == {name: str(value) for name, value in before.items()}
    rows = read_csv(tmp_path / "results.csv")
    assert [row["condition"] for row in rows] == ["dense", "ticket"]
    assert (
        int(rows[1]["remaining"]) == math.ceil(0.8 * int(rows[0]["remaining"])) and not (tmp_path / "round.pt").exists()
    )


@pytest.mark.slow
def test_dense_agent_and_ticket_solve_cartpole(tmp_path):
    """500 is the most that Cart-Pole gives; a random policy gets about 20."""
    helpers.run(SCRIPT, f"--seeds 1 2 3 --rounds 1 --conditions ticket --run-dir {tmp_path / 'run'}")
    rows = read_csv(tmp_path / "run/results.csv")
    assert np.mean([float(row["best_retest"]) for row in rows]) > 450
