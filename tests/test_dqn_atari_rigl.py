"""algos/dqn_atari_rigl.py: what is its own. What it shares with the other scripts is in test_rigl_scripts.py."""

import io
import math
from pathlib import Path

import dqn_atari_rigl
import gymnasium as gym
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from dqn_atari_rigl import Args, ImpalaNetwork, NatureNetwork, Replay
from helpers import kill_when, read_csv, run_here, run_main, said

import envs.vector
import sparse_utils as su

SCRIPT = Path(dqn_atari_rigl.__file__)
TINY = (
    "--env-id ALE/Pong-v5 --no-cuda --width-scale 0.1 --hidden-size 64 --batch-size 8 --eval-steps 0 --eval-episodes 1 "
    "--max-episode-steps 30 --snr-interval 0 --num-envs 2"
)


# ---- Networks --------------------------------------------------------------------------------------------------------


def same_pads(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Before and after: TensorFlow's rule for SAME."""
    total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def windows(x: np.ndarray, kernel: int, stride: int, fill: float) -> np.ndarray:
    """[B, C, h, w, kernel, kernel] of x [B, C, H, W], padded as TensorFlow does."""
    pads = [(0, 0), (0, 0), *(same_pads(n, kernel, stride) for n in x.shape[2:])]
    x = np.pad(x, pads, constant_values=fill)
    return np.lib.stride_tricks.sliding_window_view(x, (kernel, kernel), (2, 3))[:, :, ::stride, ::stride]


def conv(x: np.ndarray, layer: torch.nn.Conv2d, stride: int = 1) -> np.ndarray:
    weight, bias = (p.detach().double().numpy() for p in (layer.weight, layer.bias))
    return np.einsum("bchwij,ocij->bohw", windows(x, weight.shape[2], stride, 0), weight) + bias[:, None, None]


def linear(x: np.ndarray, layer: torch.nn.Linear) -> np.ndarray:
    weight, bias = (p.detach().double().numpy() for p in (layer.weight, layer.bias))
    return x.reshape(len(x), -1) @ weight.T + bias


def relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0)


def pictures(n: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(256, size=(n, 4, 84, 84), dtype=np.uint8))


def test_nature_is_the_brute_force_one_with_tensorflows_padding():
    q, obs = NatureNetwork(5, 0.1, 40, "same"), pictures(2)
    assert [same_pads(84, 8, 4), same_pads(21, 4, 2), same_pads(11, 3, 1)] == [(2, 2), (1, 2), (1, 1)]
    x = relu(conv(obs.double().numpy() / 255, q.conv1, 4))
    x = relu(conv(relu(conv(x, q.conv2, 2)), q.conv3))
    expected = linear(relu(linear(x, q.fc1)), q.fc2)
    np.testing.assert_allclose(q(obs).detach(), expected, rtol=1e-4, atol=1e-5)


def test_impala_is_the_brute_force_one_with_tensorflows_padding():
    q, obs = ImpalaNetwork(5, 0.1, 40), pictures(2)
    x = obs.double().numpy() / 255
    for stack in (q.stack1, q.stack2, q.stack3):
        x = windows(conv(x, stack.conv), 3, 2, -np.inf).max((4, 5))
        for first, second in (stack.block1, stack.block2):
            x = x + conv(relu(conv(relu(x), first)), second)
    expected = linear(relu(linear(relu(x), q.fc1)), q.fc2)
    np.testing.assert_allclose(q(obs).detach(), expected, rtol=1e-4, atol=1e-5)


# Millions of multiplications of an action by sparsity, ERK and uniform: worked out by hand from the densities.
MULTIPLICATIONS = {
    ("nature", "same"): {
        0: (16.01,) * 2,
        0.8: (5.66, 3.20),
        0.9: (2.82, 1.60),
        0.95: (1.40, 0.80),
        0.99: (0.270, 0.160),
    },
    ("nature", "valid"): {0: (9.35,) * 2, 0.8: (3.35, 1.87), 0.9: (1.66, 0.93), 0.95: (0.817, 0.467)},
    ("impala", "same"): {0: (208.8,) * 2, 0.8: (99.9, 41.8), 0.9: (53.8, 20.9), 0.95: (29.1, 10.4), 0.99: (5.61, 2.09)},
}
WEIGHTS = {("nature", "same"): 4_045_824, ("nature", "valid"): 1_686_528, ("impala", "same"): 4_356_224}


@pytest.mark.parametrize("kind", MULTIPLICATIONS, ids="-".join)
def test_the_table_of_layers_has_the_papers_sizes(kind):
    args = Args(method="static", network=kind[0], padding=kind[1])
    q = dqn_atari_rigl.make_network(args, 6)
    weights, obs = su.prunable(q=q), pictures(1)
    assert su.count(weights) == WEIGHTS[kind]
    for sparsity, expected in MULTIPLICATIONS[kind].items():
        for distribute, millions in zip((su.erk_densities, su.uniform_densities), expected, strict=True):
            masks = su.random_masks(weights, distribute(su.layer_shapes(weights), sparsity))
            layers = su.layer_flops(q, obs, masks, "q")
            assert su.flops(q, obs, masks, "q") == tuple(map(sum, zip(*layers.values(), strict=True)))
            # an addition for each product with an active weight, as all layers have biases
            assert sum(additions for _, additions in layers.values()) / 1e6 == pytest.approx(millions, rel=0.01)


def test_the_table_is_printed_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    out = run_here(SCRIPT, "--method prune --sparsity 0.9 --dry-run").stdout.splitlines()
    first, last = (" ".join(out[i].split()) for i in (0, 5))
    assert first == "q.conv1.weight (32, 4, 8, 8) density 0.29822 2,443 weights 2,168,838 FLOPs"
    assert last == "all density 0.10000 404,585 of 4,045,824 weights"
    assert out[6] == "405,263 parameters with biases; 5,672,808 FLOPs for an action"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("network", ["nature", "impala"])
@pytest.mark.parametrize("sparsity", [0.5, 0.9, 0.99])
def test_small_is_the_nearest_width(network, sparsity):
    small = dqn_atari_rigl.make_network(Args(method="small", sparsity=sparsity, network=network), 6)
    dense = dqn_atari_rigl.make_network(Args(method="dense", network=network), 6)
    sizes = {n: su.count(dict(q.named_parameters())) for n, q in (("small", small), ("dense", dense))}
    wanted = sizes["dense"] - sparsity * su.count(su.prunable(q=dense))

    def size(units: int) -> int:
        args = Args(method="small", network=network, width_scale=units / 512)
        with torch.device("meta"):
            return su.count(dict(dqn_atari_rigl.make_network(args, 6).named_parameters()))

    units = small.fc1.out_features
    assert sizes["small"] == size(units)
    assert all(abs(size(units) - wanted) <= abs(size(n) - wanted) for n in (units - 1, units + 1))


def test_a_separate_target_and_weights_by_active_fans():
    args = Args(method="static")
    q = NatureNetwork(6, 0.5, 64, "same")
    weights = su.prunable(q=q)
    masks = su.random_masks(weights, su.erk_densities(su.layer_shapes(weights), 0.9))
    dqn_atari_rigl.initialise(q, masks, args, 1)
    assert all((weights[n][mask == 0] == 0).all() for n, mask in masks.items()) and (q.fc1.bias == 0).all()
    dense_limit = math.sqrt(6 / (q.fc1.in_features + q.fc1.out_features))
    assert q.fc1.weight.abs().max() > 2 * dense_limit
    dqn_atari_rigl.initialise(q, masks, Args(method="static", sparse_init=False), 1)
    assert 0.99 * dense_limit < q.fc1.weight.abs().max() <= dense_limit


# ---- Replay memory ---------------------------------------------------------------------------------------------------


def play_and_record(replay: Replay, steps: int, seed: int = 5) -> dict[tuple[int, int], tuple]:
    """Random play of Pong with episodes of at most 7 steps into the memory; each transition with its full stacks."""
    vector = envs.vector.make("ALE/Pong-v5", 1, replay.last.shape[1], next_step=True, max_episode_steps=7)
    rng = np.random.default_rng(seed)
    obs = envs.vector.reset(vector, [seed])
    replay.start(obs)
    first, transitions, ended = replay.t, {}, np.zeros(vector.num_envs, bool)
    for t in range(first, first + steps):
        action, terminated = rng.integers(6, size=vector.num_envs), rng.random(vector.num_envs) < 0.1
        next_obs, _, _, truncated, _ = vector.step(action)
        reward = rng.integers(-1, 2, size=vector.num_envs)
        replay.add(action, reward, terminated, ended, next_obs)
        for game in np.flatnonzero(~ended):
            parts = (obs[game], next_obs[game], action[game], reward[game], terminated[game])
            transitions[t, game] = tuple(np.copy(part) for part in parts)
        obs, ended = next_obs, truncated
    return transitions


def check(replay: Replay, transitions: dict[tuple[int, int], tuple], draws: int = 4000) -> set[tuple[int, int]]:
    """Every place that is drawn holds that transition. Returns the places."""
    places = replay.draw(draws, np.random.default_rng(0))
    drawn = set(zip(places[0].tolist(), places[1].tolist(), strict=True))
    where = sorted(drawn)
    batch = replay.batch(*np.array(where).T, torch.device("cpu"))
    for i, place in enumerate(where):
        for stored, true in zip(batch, transitions[place], strict=True):
            np.testing.assert_array_equal(stored[i].numpy(), true)
    return drawn


def test_the_memory_holds_what_was_played():
    """Before it is full, after it has wrapped around, and after a resumption: every transition that is drawn is the one
    that was played, with zeros before an episode's first frame, and all that are there are drawn, equally often."""
    replay = Replay(50, 3, "cpu")
    transitions = play_and_record(replay, 40)
    assert check(replay, transitions) == set(transitions)
    replay = Replay(50, 3, "cpu")
    transitions = play_and_record(replay, 173)
    drawn = check(replay, transitions)
    assert drawn == {(t, game) for t, game in transitions if t >= 173 + 4 - 50} and len(drawn) > 110
    t, game = replay.draw(60_000, np.random.default_rng(1))
    counts = np.unique(3 * t + game, return_counts=True)[1]
    assert len(counts) == len(drawn) and (abs(counts / counts.mean() - 1) < 0.25).all()
    first = [stacks[0] for (_, _), stacks in sorted(transitions.items())][:3]
    assert all((stack[:3] == 0).all() and stack[3].any() for stack in first)

    state = torch_round_trip(replay.get_state())
    again = Replay(50, 3, "cpu")
    again.set_state(state)
    assert check_resumed(again, transitions) and not state["frames"]
    more = play_and_record(again, 20, seed=6)
    both = {**{place: one for place, one in transitions.items() if place[0] != 172}, **more}
    assert check(again, both) == {(t, game) for t, game in both if t >= 193 + 4 - 50}


def torch_round_trip(state: dict) -> dict:
    file = io.BytesIO()
    torch.save(state, file)
    assert len(file.getvalue()) < 1.02 * 50 * 3 * 84 * 84 + 20_000  # each frame once
    file.seek(0)
    return torch.load(file, weights_only=True)


def check_resumed(replay: Replay, transitions: dict) -> bool:
    """What was there before, but for the frames after the last row, which are not saved."""
    places = [(t, game) for t, game in transitions if 173 + 4 - 50 <= t < 172]
    obs = replay.batch(*np.array(places).T, torch.device("cpu"))[0]
    return all(np.array_equal(obs[i], transitions[place][0]) for i, place in enumerate(places))


def test_a_million_transitions_take_7_gigabytes(monkeypatch, tmp_path):
    """Its size is said before it is allocated, and one line if it does not fit."""
    monkeypatch.chdir(tmp_path)
    pages = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 6 * 10**9 // 4096}
    monkeypatch.setattr("os.sysconf", pages.__getitem__)
    ended = run_here(SCRIPT, "--method dense --no-cuda", status=2)
    assert ended.stdout.splitlines()[-1] == "replay memory: 7.06 GB on cpu"
    expected = "error: the replay memory needs 7.1 GB of 6.0 GB of memory: a smaller --buffer-size takes less"
    assert ended.stderr.strip() == expected and not list(tmp_path.iterdir())
    replay = Replay(100, 2, "cpu")
    n_bytes = sum(getattr(replay, name).nbytes for name in (*Replay.SMALL, "frames"))
    assert n_bytes == 200 * (84 * 84 + 5) and 5_000 * n_bytes <= 7.1e9


# ---- The first updates -----------------------------------------------------------------------------------------------


def float64_values(parameters: dict[str, torch.Tensor], obs: np.ndarray) -> torch.Tensor:
    """Action values of the Nature CNN in double precision, written out."""
    x = torch.from_numpy(obs.astype(np.float64)) / 255
    for i, (stride, pads) in enumerate([(4, (2, 2, 2, 2)), (2, (1, 2, 1, 2)), (1, (1, 1, 1, 1))], start=1):
        weight, bias = parameters[f"conv{i}.weight"], parameters[f"conv{i}.bias"]
        x = torch.relu(F.conv2d(F.pad(x, pads), weight, bias, stride))
    x = torch.relu(x.flatten(1) @ parameters["fc1.weight"].T + parameters["fc1.bias"])
    return x @ parameters["fc2.weight"].T + parameters["fc2.bias"]


@pytest.mark.parametrize("method", ["dense", "static"])
def test_the_first_updates_are_those_of_a_brute_force_reference(method, tmp_path, monkeypatch):
    """Forty updates against a replay memory of full stacks, and DQN with Adam in double precision, written out: what
    each batch holds, the targets, losses, gradients and parameters, and when the target network is set."""
    seen = []
    batch_of, draw = Replay.batch, Replay.draw
    places = []
    monkeypatch.setattr(Replay, "draw", lambda self, n, rng: places.append(draw(self, n, rng)) or places[-1])

    def record(self, *args):
        batch = batch_of(self, *args)
        seen.append({"batch": [part.clone().numpy() for part in batch], "places": args[:2]})
        return batch

    loss_of, mask_gradients = dqn_atari_rigl.batch_loss, su.mask_gradients

    def record_loss(q, q_target, batch, gamma):
        loss, values = loss_of(q, q_target, batch, gamma)
        parameters = {name: p.detach().double() for name, p in q.named_parameters()}
        target = {name: p.double().clone() for name, p in q_target.named_parameters()}
        seen[-1] |= {"loss": loss.item(), "parameters": parameters, "target": target, "q": q}
        return loss, values

    def record_gradients(*args, **kwargs):
        scores = mask_gradients(*args, **kwargs)
        seen[-1]["gradients"] = {name: p.grad.double().clone() for name, p in seen[-1]["q"].named_parameters()}
        return scores

    played = []
    make = envs.vector.make

    def make_recorded(*args, **kwargs):
        vector = make(*args, **kwargs)
        step, games = vector.step, vector.num_envs
        vector.step = lambda action: played.append((games, np.copy(action))) or step(action)
        return vector

    monkeypatch.setattr(Replay, "batch", record)
    monkeypatch.setattr(dqn_atari_rigl, "batch_loss", record_loss)
    monkeypatch.setattr(su, "mask_gradients", record_gradients)
    monkeypatch.setattr(envs.vector, "make", make_recorded)
    flags = (
        f"{TINY} --method {method} --sparsity 0.5 --seed 3 --learning-starts 100 --total-timesteps 260 "
        f"--target-interval 120 --buffer-size 180 --exploration-steps 100 --weight-decay 0.001 --run-dir {tmp_path}"
    )
    masks = run_main(dqn_atari_rigl, flags).variables["masks"]
    updates = seen[:40]
    assert all("loss" in update for update in updates)

    # The same games again, with the actions that were taken
    vector = make("ALE/Pong-v5", 1, 2, next_step=True, max_episode_steps=30)
    obs = envs.vector.reset(vector, su.seeds(3, 3, 0))
    transitions, ended = {}, np.zeros(2, bool)
    actions = [action for games, action in played if games == 2]
    assert len(actions) == 130
    for t, action in enumerate(actions):
        next_obs, reward, terminated, truncated, _ = vector.step(action)
        for game in np.flatnonzero(~ended):
            end = [float(np.sign(reward[game])), float(terminated[game])]
            transitions[t, game] = [obs[game].copy(), next_obs[game].copy(), action[game], *end]
        obs, ended = next_obs, terminated | truncated

    parameters = {name: p.clone() for name, p in updates[0]["parameters"].items()}
    target = {name: p.clone() for name, p in parameters.items()}
    moments = {name: [torch.zeros_like(p), torch.zeros_like(p)] for name, p in parameters.items()}
    for k, update in enumerate(updates, start=1):
        step = 100 + 4 * k
        assert update["places"][0].max() < step / 2 and update["places"][0].min() >= max(0, step // 2 + 4 - 90)
        batch = zip(*(transitions[place] for place in zip(*update["places"], strict=True)), strict=True)
        true_obs, true_next, action, reward, terminated = (np.stack(part) for part in batch)
        for stored, true in zip(update["batch"], (true_obs, true_next, action, reward, terminated), strict=True):
            np.testing.assert_array_equal(stored, true)
        for name, p in target.items():
            torch.testing.assert_close(update["target"][name], p, rtol=1e-4, atol=2e-6)
        leaves = {name: p.clone().requires_grad_() for name, p in parameters.items()}
        with torch.no_grad():
            best = float64_values(target, true_next).max(1).values
            y = torch.from_numpy(reward) + 0.99 * (1 - torch.from_numpy(terminated)) * best
        error = float64_values(leaves, true_obs)[range(8), action] - y
        loss = torch.where(error.abs() < 1, 0.5 * error**2, error.abs() - 0.5).mean()
        assert update["loss"] == pytest.approx(loss.item(), rel=1e-4)
        loss.backward()
        for name, p in leaves.items():
            mask = masks[f"q.{name}"].double() if f"q.{name}" in masks else torch.ones_like(p)
            gradient = p.grad * mask
            assert torch.linalg.norm(update["gradients"][name] - gradient) <= 1e-3 * torch.linalg.norm(gradient) + 1e-9
            decayed = gradient + 0.001 * parameters[name] * ("weight" in name)
            first, second = moments[name]
            first.mul_(0.9).add_(0.1 * decayed)
            second.mul_(0.999).add_(0.001 * decayed**2)
            step_size = 2.5e-4 * (first / (1 - 0.9**k)) / ((second / (1 - 0.999**k)).sqrt() + 1e-8)
            parameters[name] = parameters[name] - step_size
        if step % 120 == 0:
            target = {name: p.clone() for name, p in parameters.items()}
        if k < len(updates):
            for name, p in parameters.items():
                difference = (updates[k]["parameters"][name] - p).abs()
                assert difference.mean() < 2e-7 and difference.max() < 1e-4  # of steps of 2.5e-4
            # the next update starts from the script's, so that rounding does not add up
            parameters = {name: p.clone() for name, p in updates[k]["parameters"].items()}
            if step % 120 == 0:
                target = {name: p.clone() for name, p in parameters.items()}


def test_bfloat16_is_the_same_to_two_digits():
    q, obs = NatureNetwork(6, 0.5, 64, "same"), pictures(4)
    exact = q(obs)
    q.bfloat16 = True
    assert q(obs).dtype == torch.float32 and not torch.equal(q(obs), exact)
    assert not torch.equal(q(obs), q(obs).bfloat16().float())  # the digits by which actions differ
    torch.testing.assert_close(q(obs), exact, rtol=0.03, atol=0.003)


def test_snr_is_measured_once_before_an_evaluation(tmp_path, monkeypatch):
    """By the last update before it, also where a step of all games makes several updates."""
    measured, snr = [], dqn_atari_rigl.gradient_snr
    monkeypatch.setattr(dqn_atari_rigl, "gradient_snr", lambda *inputs: measured.append(snr(*inputs)) or measured[-1])
    line = f"--env-id ALE/Pong-v5 {TINY} --num-envs 8 --snr-interval 80 --eval-interval 80 --total-timesteps 240"
    run_main(dqn_atari_rigl, f"{line} --learning-starts 40 --checkpoint-interval 80 --run-dir {tmp_path}")
    assert [float(row["snr"]) for row in read_csv(tmp_path / "results.csv")] == measured and len(measured) == 3


def test_snr_is_the_brute_force_one():
    q, q_target = (ImpalaNetwork(6, 0.05, 20) for _ in range(2))
    batch = (pictures(5), pictures(5), torch.arange(5), torch.ones(5), torch.tensor([0.0, 1, 0, 0, 0]))
    gradients = []
    for i in range(5):
        loss, _ = dqn_atari_rigl.batch_loss(q, q_target, tuple(part[i : i + 1] for part in batch), 0.9)
        gradients.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(q.parameters()))]))
    g = torch.stack(gradients)
    expected = float((g.mean(0).abs() / (g.std(0, correction=0) + 1e-10)).mean())
    assert dqn_atari_rigl.gradient_snr(q, q_target, batch, 0.9) == pytest.approx(expected, rel=1e-2)


def short_run(folder: Path, flags: str = "", steps: int = 260) -> dict:
    """The variables of a run that learns from step 100 on."""
    few = f"--learning-starts 100 --total-timesteps {steps} --buffer-size 400 --exploration-steps 100"
    return run_main(dqn_atari_rigl, f"{TINY} {few} {flags} --run-dir {folder}").variables


@pytest.mark.parametrize(("flags", "expected"), [("", [0, 0]), ("--cap-is-terminal", [1, 1])])
def test_the_time_limit(flags, expected, tmp_path):
    """Episodes of 30 steps, then one that starts the next: row 29 leads to the last observation, row 30 is no
    transition. What the limit ends is stored as an end if asked for."""
    replay = short_run(tmp_path, f"--method dense {flags}")["replay"]
    assert np.flatnonzero(replay.last[:130, 0]).tolist() == [30, 61, 92, 123]
    assert replay.terminated[[29, 60], 0].tolist() == expected and replay.terminated[:29].sum() == 0
    assert replay.age[[1, 2, 3, 4, 30, 31, 32], 0].tolist() == [1, 2, 3, 3, 3, 0, 1]


@pytest.mark.parametrize(("interval", "copied"), [(130, True), (52, True), (300, False)])
def test_the_target_is_set_every_so_many_steps(interval, copied, tmp_path):
    ended = short_run(tmp_path, f"--method dense --target-interval {interval}")
    assert torch.equal(ended["q"].fc2.weight, ended["q_target"].fc2.weight) == copied


def test_a_separate_target_has_other_weights(tmp_path):
    """Under the same masks, until it is set for the first time after learning has started: step 120 here."""
    for name, flags in (("copy", ""), ("own", "--separate-target")):
        line = f"--method static --target-interval 40 --learning-rate 0 {flags}"
        ended = short_run(tmp_path / name, line, steps=116)
        assert torch.equal(ended["q"].fc2.weight, ended["q_target"].fc2.weight) == (name == "copy")
        mask = ended["masks"]["q.fc1.weight"]
        assert ((ended["q_target"].fc1.weight != 0) == (mask == 1)).all()


@pytest.mark.parametrize(
    ("games", "flags", "steps"),
    [(1, "--method rigl", 40), (8, "--method rigl --rewire-replaces-step", 36), (2, "--method set", 40)],
)
def test_an_update_for_every_four_steps(games, flags, steps, tmp_path):
    """Of all games together. With the code's RigL, the rewirings of updates 0, 10, 20 and 30 replace an Adam step; none
    comes after 80% of them."""
    line = f"{flags} --update-interval 10 --num-envs {games} --learning-starts 96 --total-timesteps 256"
    ended = short_run(tmp_path, f"{line} --eval-interval 256 --checkpoint-interval 256")
    state = ended["optimizer"].state[ended["weights"]["q.fc1.weight"]]
    assert state["step"] == steps and ended["update"] == 39 and ended["replay"].t == 256 // games


def test_epsilon_falls_from_all_random_to_its_end(tmp_path, monkeypatch):
    """Of a network that always prefers action 1."""
    prefer = torch.tensor([0.0, 1, 0, 0, 0, 0])
    monkeypatch.setattr(NatureNetwork, "forward", lambda self, obs: self.fc2(0 * self.hidden(obs)[-1]) + prefer)
    monkeypatch.setattr(dqn_atari_rigl, "batch_loss", lambda q, *_: (0 * q(pictures(1)).sum(), torch.zeros(1)))
    flags = "--method dense --learning-starts 300 --exploration-steps 600 --start-e 1 --end-e 0 --buffer-size 1400"
    action = short_run(tmp_path, flags, steps=1400)["replay"].action
    shares = [(part == 1).mean() for part in (action[:150], action[150:450], action[450:])]
    assert 0.08 < shares[0] < 0.27 and 0.45 < shares[1] < 0.7 and shares[2] == 1


def test_rewards_are_signs_and_returns_are_not(tmp_path, monkeypatch):
    make = envs.vector.make

    def make_paid(*args, **kwargs):
        vector = make(*args, **kwargs)
        step = vector.step

        def paid(action):
            obs, reward, *rest = step(action)
            return obs, np.full_like(reward, -7), *rest

        vector.step = paid
        return vector

    monkeypatch.setattr(envs.vector, "make", make_paid)
    replay = short_run(tmp_path, "--method dense")["replay"]
    assert set(replay.reward[:130].ravel().tolist()) == {-1}
    assert [row["return_mean"] for row in read_csv(tmp_path / "results.csv")] == ["-210.0"]


class Sides(gym.vector.VectorEnv):
    """Episodes of 10 steps; reward 5 for the action that is the bright side of the newest frame, else -5."""

    single_action_space = gym.spaces.Discrete(2)
    single_observation_space = gym.spaces.Box(0, 255, (4, 84, 84), np.uint8)
    metadata = {"autoreset_mode": gym.vector.AutoresetMode.NEXT_STEP}

    def __init__(self, n: int):
        self.num_envs = n

    def reset(self, *, seed=None, options=None):
        self.rng, self.t = np.random.default_rng(seed), np.zeros(self.num_envs, int)
        self.frames = np.zeros((self.num_envs, 4, 84, 84), np.uint8)
        return self.observe(np.zeros(self.num_envs, bool)), {}

    def observe(self, started: np.ndarray) -> np.ndarray:
        self.frames = np.concatenate([self.frames[:, 1:], np.zeros_like(self.frames[:, :1])], 1)
        self.frames[started] = 0
        self.side = self.rng.integers(2, size=self.num_envs)
        for frame, side in zip(self.frames[:, 3], self.side, strict=True):
            frame[:, 42 * side : 42 * side + 42] = 200
        return self.frames.copy()

    def step(self, action):
        starts = self.t == 10
        reward = np.where(starts, 0.0, np.where(action == self.side, 5.0, -5.0))
        self.t = np.where(starts, 0, self.t + 1)
        return self.observe(starts), reward, self.t == 10, np.zeros(self.num_envs, bool), {}


@pytest.mark.slow
@pytest.mark.parametrize("method", ["rigl", "prune"])
def test_it_learns_what_pictures_show(method, tmp_path, monkeypatch):
    """All ten right, for a return of 50, where a random agent gets 0."""
    monkeypatch.setattr(envs.vector, "make", lambda env_id, runs, n, **how: Sides(n))
    flags = f"{TINY} --method {method} --sparsity 0.5 --learning-starts 200 --eval-episodes 4 "
    flags += "--total-timesteps 1600 --eval-interval 1600 --learning-rate 0.001 --exploration-steps 400 "
    flags += "--target-interval 100 --batch-size 16 --update-interval 50 --gamma 0.9 --width-scale 0.2"
    run_main(dqn_atari_rigl, f"{flags} --run-dir {tmp_path}")
    assert float(read_csv(tmp_path / "results.csv")[0]["return_mean"]) > 45


# ---- Evaluation ------------------------------------------------------------------------------------------------------


class Countdown(gym.vector.VectorEnv):
    """Game i has episodes of i + 2 steps of reward 1 and new frames of 100; it starts with a frame of 50."""

    num_envs = 3
    single_action_space = gym.spaces.Discrete(2)
    single_observation_space = gym.spaces.Box(0, 255, (4, 84, 84), np.uint8)
    metadata = {"autoreset_mode": gym.vector.AutoresetMode.NEXT_STEP}

    def reset(self, *, seed=None, options=None):
        self.t, self.frames = np.zeros(3, int), np.zeros((3, 4, 84, 84), np.uint8)
        self.frames[:, 3] = 50
        return self.frames.copy(), {}

    def step(self, action):
        starts = self.t == np.arange(3) + 2
        self.frames = np.concatenate([self.frames[:, 1:], np.full((3, 1, 84, 84), 100, np.uint8)], 1)
        self.frames[starts, :3], self.frames[starts, 3] = 0, 50
        self.t = np.where(starts, 0, self.t + 1)
        return self.frames.copy(), np.where(starts, 0.0, 1.0), self.t == np.arange(3) + 2, np.zeros(3, bool), {}


@pytest.mark.parametrize(("steps", "returns"), [(0, [2, 3, 4]), (12, [2, 3, 4, 2, 3]), (16, [2, 3, 4, 2, 3, 2, 4])])
def test_an_evaluation_plays_whole_episodes(steps, returns):
    """Those that begin within its steps, in the order of their ends; a step that starts an episode counts."""
    played = dqn_atari_rigl.evaluate(NatureNetwork(2, 0.1, 8, "same"), Countdown(), Args(eval_steps=steps), [1])
    assert played.tolist() == returns


@pytest.mark.parametrize("wrap", [False, True])
def test_noise_is_on_each_new_frame_once(wrap, monkeypatch):
    """A frame is the same in the four observations that it is part of; the first of an episode is clean."""
    seen = []
    forward = NatureNetwork.forward
    monkeypatch.setattr(NatureNetwork, "forward", lambda self, obs: seen.append(obs.clone()) or forward(self, obs))
    dqn_atari_rigl.evaluate(
        NatureNetwork(2, 0.1, 8, "same"), Countdown(), Args(eval_epsilon=0, eval_steps=20), [1], 20.0, wrap
    )
    game = [obs[2] for obs in seen[:8]]  # of five frames, and those of the next episode
    assert (game[0][3] == 50).all() and (game[0][:3] == 0).all() and (game[5][3] == 50).all()
    assert (game[5][:3] == 0).all()
    for before, after in ((0, 1), (1, 2), (2, 3), (5, 6)):
        assert torch.equal(game[after][:3], game[before][1:])
    noise = game[3][1:].double() - 100
    assert abs(float(noise.mean())) < 1 and 19 < float(noise.std()) < 21 and not torch.equal(noise[0], noise[1])


def test_noise_csv_of_a_checkpoint(tmp_path):
    short_run(tmp_path, "--method rigl")
    line = f"--evaluate {tmp_path}/checkpoint.pt --eval-steps 0 --eval-episodes 2 --max-episode-steps 20 --no-cuda"
    out = run_here(SCRIPT, f"{line} --observation-noise 0 30 --seed 4").stdout
    assert "noise 30, 2 episodes: mean " in out
    rows = read_csv(tmp_path / "noise.csv")
    cells = [[row[name] for name in ("agent", "noise", "seed", "return_n")] for row in rows]
    assert cells == [["1", "0.0", "4", "2"], ["1", "30.0", "4", "2"]]
    run_here(SCRIPT, f"{line} --observation-noise 5 --noise-wrap")
    assert [row["noise"] for row in read_csv(tmp_path / "noise_wrap.csv")] == ["5.0"]
    assert len(read_csv(tmp_path / "noise.csv")) == 2


# ---- Run folders -----------------------------------------------------------------------------------------------------


def test_a_killed_run_goes_on(tmp_path):
    """With its masks, weights, replay memory and schedule; the games begin anew."""
    flags = f"{TINY} --method rigl --learning-starts 100 --total-timesteps 400 --buffer-size 1000 "
    flags += f"--eval-interval 100 --checkpoint-interval 100 --update-interval 20 --run-dir {tmp_path}"
    kill_when((tmp_path / "checkpoint.pt").exists, SCRIPT, flags)
    saved = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    before = read_csv(tmp_path / "results.csv")[: saved["step"] // 100]
    ended = run_here(SCRIPT, flags)
    assert f"resuming at step {saved['step']}" in ended.stderr + ended.stdout
    rows = read_csv(tmp_path / "results.csv")
    assert rows[: len(before)] == before and [row["step"] for row in rows] == ["100", "200", "300", "400"]
    replay, t = ended.variables["replay"], saved["replay"]["t"]
    assert replay.t == 200 and replay.last[t - 1].all() and not replay.age[t].any()
    assert float(rows[-1]["sparsity"]) == pytest.approx(0.9, abs=3e-3)
    assert "is finished" in run_here(SCRIPT, flags).stdout


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("--env-id CartPole-v1", "dqn_atari_rigl.py plays ALE/*-v5"),
        ("--env-id ALE/Pung-v5", "ALE/Pung-v5"),
        ("--num-envs 3", "--total-timesteps 10000000 must be a multiple of --num-envs 3"),
        ("--buffer-size 15 --num-envs 2", "--buffer-size must be at least 8 for each of --num-envs 2"),
        ("--network impala --padding valid", "--padding valid is for --network nature"),
        ("--total-timesteps 20000", "--total-timesteps 20000 ends before the first update"),
        ("--observation-noise -1", "--observation-noise must be 0 or more"),
        ("--observation-noise 1", "--observation-noise needs --evaluate CHECKPOINT"),
    ],
)
def test_bad_input_is_said_before_anything_is_written(bad, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert message in said(run_here(SCRIPT, bad, status=2).stderr)
    assert not list(tmp_path.iterdir())


def test_tables_4_5_and_7(monkeypatch):
    monkeypatch.setattr("sys.argv", ["x", "--network", "impala"])
    args = dqn_atari_rigl.parse_args()
    assert (args.learning_rate, args.adam_eps, args.weight_decay) == (1e-4, 3.125e-4, 1e-5)
    monkeypatch.setattr("sys.argv", ["x"])
    args = dqn_atari_rigl.parse_args()
    assert (args.learning_rate, args.adam_eps, args.weight_decay) == (2.5e-4, 1e-8, 0)
