"""algos/dqn_earlybird.py: its parts against brute force and torch, and real runs with tiny networks."""

import contextlib
import signal
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path

import dqn_earlybird as eb
import helpers
import numpy as np
import pytest
import torch
from dqn_earlybird import ACROBOT, Args
from helpers import read_csv, said

import sparse_utils as su

EXPERIMENTS = ("similarity", "retrain", "finetune", "exploit")
TINY = "--hidden-sizes 8 8 --repetitions 2 --prune-fractions 0.2 0.6 --max-episodes 20 --test-episodes 4"
TINY += " --learning-starts 40 --buffer-size 100 --checkpoint-interval 256 --epsilon-decay 0.6 --stop-return 12"
TINY += " --stop-episodes 4"
run = partial(helpers.run_here, Path(eb.__file__))


def tiny(experiment: str) -> str:
    return f"{TINY} --experiment {experiment}" + " --prune-episodes 3 12" * (experiment in ("retrain", "finetune"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("earlybird")
    for experiment in EXPERIMENTS:
        run(f"{tiny(experiment)} --run-dir {folder / experiment}")
    return {experiment: folder / experiment for experiment in EXPERIMENTS}


def rows(folder: Path, **wanted: object) -> list[dict[str, str]]:
    found = [row for row in read_csv(folder / "results.csv") if all(row[k] == str(v) for k, v in wanted.items())]
    assert found
    return found


def returns_of(folder: Path) -> np.ndarray:
    return np.load(folder / "returns.npz")["returns"]


def agent_of(sizes: tuple[int, ...], runs: int) -> dict:
    """With random parameters, targets and masks."""
    plan = [eb.Run(i, "dense", i, 0.0, 0) for i in range(runs)]
    agent, generator = eb.new_agent([eb.initial_parameters(sizes, run) for run in plan]), torch.Generator()
    agent["target"] = {name: tensor + 0.1 for name, tensor in agent["q"].items()}
    agent["masks"] = {n: (torch.rand(m.shape, generator=generator) < 0.7).float() for n, m in agent["masks"].items()}
    su.apply_masks(agent["q"], agent["masks"])
    return agent


def batches(n: int, runs: int, size: int, dim: int, n_actions: int) -> list[torch.Tensor]:
    """Rows of memory [R, B, 2 * dim + 3]."""
    made = torch.randn(n, runs, size, 2 * dim + 3, generator=torch.Generator().manual_seed(1))
    made[..., 2 * dim] = made[..., 2 * dim].abs().long() % n_actions
    made[..., -1] = (made[..., -1] > 1).float()
    return list(made)


def prune(agent: dict, r: int, start: dict, anew: tuple[str, ...]) -> tuple[eb.Run, dict]:
    """Prune 0.6 of the weights. With {} the initial parameters are those of now."""
    state = {"stored": np.full(3, 7), "epsilon": np.full(3, 0.3)}
    pruned = eb.Run(r, "early_bird", 1, 0.6, 5, remaining=48)
    eb.prune(Args(), pruned, r, agent, state, start or eb.rows_of(agent["q"], r), anew)
    return pruned, state


def plain(tensors: dict, r: int) -> torch.nn.Sequential:
    """Run r's network of ordinary layers."""
    first, second, third = (torch.nn.Linear(*tensor.shape[1:]) for tensor in list(tensors.values())[::2])
    net = torch.nn.Sequential(first, torch.nn.ReLU(), second, torch.nn.ReLU(), third)
    for p, tensor in zip(net.parameters(), tensors.values(), strict=True):
        p.data = (tensor[r].T if p.dim() == 2 else tensor[r, 0]).clone()
    return net


def test_learning_is_that_of_a_plain_network_with_torchs_adam():
    """Each run with masks and with a start of its own, and one with a new optimizer in the middle."""
    args, agent, nets = Args(), agent_of((3, 8, 8, 2), 3), {}
    for k, batch in enumerate(batches(6, 3, 8, 3, 2)):
        if k == 4:
            prune(agent, 1, {}, ("optimizer",))
        for r in {0: (0, 1, 2), 4: (1,)}.get(k, ()):
            net = plain(agent["q"], r)
            nets[r] = net, plain(agent["target"], r), torch.optim.Adam(net.parameters(), lr=args.learning_rate)
        due = np.array([k >= r for r in range(3)])  # run r starts at update r
        eb.learn(agent, batch, due, args, 3)
        for r in np.flatnonzero(due):
            net, target, optimizer = nets[r]
            obs, next_obs, action, reward, terminated = batch[r].split([3, 3, 1, 1, 1], -1)
            wanted = reward + 0.99 * target(next_obs).max(1, keepdim=True).values.detach() * (1 - terminated)
            optimizer.zero_grad()
            torch.nn.functional.mse_loss(net(obs).gather(1, action.long()), wanted).backward()
            for p, mask in zip(list(net.parameters())[::2], agent["masks"].values(), strict=True):
                p.grad *= mask[r].T
            optimizer.step()
    assert agent["updates"]["all"].tolist() == [6, 2, 4]
    for r, (net, _, _) in nets.items():
        for p, mine in zip(net.parameters(), plain(agent["q"], r).parameters(), strict=True):
            torch.testing.assert_close(mine, p, rtol=1e-5, atol=1e-6)
    assert all((agent["q"][name][mask == 0] == 0).all() for name, mask in agent["masks"].items())


@pytest.mark.parametrize(("sizes", "args"), [((4, 128, 128, 2), Args()), ((6, 128, 3), replace(Args(), **ACROBOT))])
def test_a_network_learns_the_same_alone_beside_others_and_on_threads(sizes, args):
    everyone = list(range(eb.CHUNK + 9))  # more runs than an update takes at once
    batch_list = batches(3, len(everyone), args.batch_size, sizes[0], sizes[-1])

    def learned(some: list[int], each=map) -> dict:
        agent = {kind: eb.rows_of(tensors, some) for kind, tensors in agent_of(sizes, len(everyone)).items()}
        for k, batch in enumerate(batch_list):
            eb.learn(agent, batch[some], np.array(some) != 5 * (k < 2), args, sizes[0], each)
        return agent["q"]

    together = learned(everyone)
    with ThreadPoolExecutor(2, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        on_threads = learned(everyone, pool.map)
    assert all(torch.equal(on_threads[name], q) for name, q in together.items())
    for some in ([0], [eb.CHUNK + 8], [3, 4, 9, 33]):
        for name, q in learned(some).items():
            torch.testing.assert_close(q, together[name][some], rtol=1e-5, atol=1e-6)


def largest(weights: dict, fraction: float) -> torch.Tensor:
    """Bool [48]: which weights of a network of two layers pruning keeps."""
    size = torch.cat([weights[name].flatten() for name in ("0.weight", "1.weight")]).abs()
    return size >= size.sort().values[-su.n_remaining(48, fraction)]


def test_pruning_keeps_the_largest_weights_and_zeroes_what_belongs_to_the_others():
    agent = agent_of((4, 8, 2), 3)
    agent["masks"] = {name: torch.ones_like(mask) for name, mask in agent["masks"].items()}
    eb.learn(agent, batches(1, 3, 8, 4, 2)[0], np.ones(3, bool), Args(), 4)
    before = deepcopy(agent)
    start = eb.initial_parameters((4, 8, 2), eb.Run(0, "dense", 9, 0.0, 0))
    pruned, state = prune(agent, 1, start, ())
    kept = largest(eb.rows_of(before["q"], 1), 0.6)
    masks = {"0.weight": kept[:32].view(4, 8), "1.weight": kept[32:].view(8, 2)}
    n_different = int((kept != largest(start, 0.6)).sum())
    assert (pruned.remaining, pruned.remaining_fraction, pruned.from_init) == (20, 20 / 48, n_different / 48)
    for name in agent["q"]:
        for kind in ("q", "exp_avg", "exp_avg_sq", "target"):
            same = before["q" if kind == "target" else kind][name][1] * masks.get(name, 1)
            assert torch.equal(agent[kind][name][1], same)
            assert torch.equal(agent[kind][name][[0, 2]], before[kind][name][[0, 2]])
    assert agent["updates"]["all"].tolist() == [1, 1, 1]
    assert state["stored"].tolist() == [7, 7, 7] and state["epsilon"].tolist() == [0.3, 0.3, 0.3]
    _, state = prune(agent, 1, start, ("weights", "optimizer", "replay", "epsilon"))
    assert agent["updates"]["all"].tolist() == [1, 0, 1]
    assert state["stored"].tolist() == [7, 0, 7] and state["epsilon"].tolist() == [0.3, 1.0, 0.3]
    for name, q in agent["q"].items():
        assert torch.equal(q[1], start[name] * (agent["masks"][name][1] if name in masks else 1))
        assert not agent["exp_avg"][name][1].any() and not agent["exp_avg_sq"][name][1].any()


def test_recipes_are_those_of_the_paper():
    args, over = Args(), ("weights", "optimizer", "replay", "epsilon")
    train, search = (eb.early_stopping, (), False), (eb.masks_agree, ("weights", "optimizer"), True)
    references = {"dense": [train], "winning_ticket": [(eb.early_stopping, over, False), train]}
    assert eb.recipes(args) == {**references, "early_bird": [(eb.episode_n, over, False), train]}
    tuned = replace(args, experiment="finetune")
    assert eb.recipes(tuned) == {**references, "early_bird": [(eb.episode_n, (), False), train]}
    exploit = replace(args, experiment="exploit", finetune_from="init")
    assert eb.recipes(exploit) == {"dense": [train], "exploit": [search, train]}


def test_exploration_lasts_as_long_as_the_paper_says(tmp_path):
    """90 episodes of Cart-Pole; 4,603 steps, or about 9 episodes, of Acrobot."""
    flags = "--experiment similarity --hidden-sizes 2 --repetitions 1 --prune-fractions 0.5 --test-episodes 1"
    run(f"{flags} --max-episodes 94 --learning-starts 1000 --run-dir {tmp_path / 'a'}")
    assert rows(tmp_path / "a")[0]["explored_at"] == "90"
    run(f"--env-id Acrobot-v1 {flags} --max-episodes 12 --learning-starts 2000 --run-dir {tmp_path / 'b'}")
    episode, returns = int(rows(tmp_path / "b")[0]["explored_at"]), returns_of(tmp_path / "b")[0, 0, :12]
    steps = np.where(returns > -500, 1 - returns, 500).cumsum()  # the last step of an episode that succeeds gives 0
    assert 9 <= episode <= 12 and steps[episode - 2] < 4603 <= steps[episode - 1]


def test_rows_of_retrain_and_finetune(finished):
    for experiment in ("retrain", "finetune"):
        table, returns = rows(finished[experiment]), returns_of(finished[experiment])
        assert [row["kind"] for row in table] == ["dense"] * 2 + ["winning_ticket"] * 4 + ["early_bird"] * 8
        for number, row in enumerate(table):
            assert int(row["run"]) == number and row["diverged"] == "0"
            before, after = (phase[~np.isnan(phase)] for phase in returns[number])
            before, after = (after, before) if row["kind"] == "dense" else (before, after)
            assert [len(before), len(after)] == [int(row["search_episodes"]), int(row["episodes"])]
            # On Cart-Pole a step is a point of return
            assert [sum(before), sum(after)] == [int(row["search_steps"]), int(row["steps"])]
            good = np.array(after) >= 12
            streaks = [i for i in range(4, len(good) + 1) if good[i - 4 : i].all()]
            assert streaks[:1] == [len(good)] if row["censored"] == "0" else not streaks and len(good) == 20
            fraction = float(row["fraction"])
            assert int(row["remaining"]) == (su.n_remaining(112, fraction) if fraction else 112)
            assert int(row["total_episodes"]) == len(before) + len(after)
            assert row["kind"] != "early_bird" or row["prune_at"] == row["search_episodes"]
            assert row["kind"] != "winning_ticket" or int(row["search_censored"]) == (before[-4:] < 12).any()
            relative = float(row["from_init"] or 0) / (2 * fraction * (1 - fraction)) if fraction else 0
            assert float(row["from_init_relative"] or 0) == pytest.approx(relative)
    assert {row["censored"] for row in rows(finished["retrain"])} == {"0", "1"}  # both cases were there
    retrain, finetune = returns_of(finished["retrain"]), returns_of(finished["finetune"])
    np.testing.assert_array_equal(retrain[:, 0, :3], finetune[:, 0, :3])  # what is pruned is the same
    assert not np.array_equal(retrain[6:, 1], finetune[6:, 1], equal_nan=True)


def test_similarity_against_brute_force(finished):
    with np.load(finished["similarity"] / "similarity.npz") as there:
        overlap, episodes, fractions = there["overlap"], there["episodes"], there["fractions"]
    assert overlap.shape == (2, 10, 10) and episodes.tolist() == list(range(2, 21, 2))
    early = episodes <= 10  # 0.6^10 < 0.01
    for fraction, matrix in zip(fractions, overlap, strict=True):
        table = rows(finished["similarity"], fraction=float(fraction))
        pairs = [(i, j) for i in range(10) for j in range(i)]
        for name, wanted in (("all", None), ("explore", 2), ("across", 1), ("exploit", 0)):
            mean = np.mean([matrix[i, j] for i, j in pairs if wanted in (None, int(early[i]) + int(early[j]))])
            assert np.mean([float(row[f"overlap_{name}"]) for row in table]) == pytest.approx(mean, abs=1e-6)
            relative = np.mean([float(row[f"distance_{name}_relative"]) for row in table])
            assert relative == pytest.approx((1 - mean) / (2 * fraction * (1 - fraction)), abs=1e-5)


def test_similarity_remembers_that_early_stopping_would_have_come(tmp_path):
    """Also if the last episodes are bad again: columns mean the same in all experiments."""
    run(f"{tiny('similarity')} --stop-episodes 2 --repetitions 8 --run-dir {tmp_path}")
    returns, seen = returns_of(tmp_path)[:, 0], set()
    for row in rows(tmp_path):
        good = returns[int(row["run"])] >= 12
        came = any(good[i - 2 : i].all() for i in range(2, len(good) + 1))
        assert (row["censored"], row["episodes"]) == (str(int(not came)), "20")
        seen.add((came, bool(good[-2:].all())))
    assert {(True, False), (False, False)} <= seen


def test_masks_of_similarity_give_the_distances_of_equation_2_5():
    args = replace(Args(), experiment="similarity", max_episodes=6, prune_fractions=(0.3, 0.8))
    similar, masks = eb.Run(0, "similarity", 1, 0.0, 0, remaining=48), []
    for similar.episode in range(1, 7):
        q = eb.initial_parameters((4, 8, 2), replace(similar, seed=similar.episode))
        eb.last_episode(args, similar, q)
        masks.append([largest(q, p) for p in args.prune_fractions])
    for p, overlap in enumerate(eb.overlaps(args, similar)):
        wanted = [[(a[p] == b[p]).float().mean() for b in masks[1::2]] for a in masks[1::2]]
        torch.testing.assert_close(overlap, torch.tensor(wanted))


def test_exploit_prunes_when_masks_agree_after_exploration(finished, tmp_path):
    """epsilon is at its floor after 10 episodes; with xi = 1 the first mask then drawn is taken, none before."""
    for flags, episodes in (("", "10"), ("--mask-window 3", "12"), ("--end-e 1e-9", "20")):
        run(f"{tiny('exploit')} --xi 1 --run-dir {tmp_path / episodes} {flags}")
        for row in rows(tmp_path / episodes, kind="exploit"):
            assert (row["search_episodes"], row["search_censored"]) == (episodes, str(int(episodes == "20")))
            # a search that finds nothing is no fine-tuning of 0 episodes
            assert episodes != "20" or (row["episodes"], row["censored"], row["remaining"]) == ("", "0", "112")
    for row in rows(finished["exploit"], kind="exploit", search_censored=0):
        fraction, distance = float(row["fraction"]), float(row["distance"])
        assert distance < 0.1 and int(row["search_episodes"]) % 2 == 0
        assert float(row["distance_relative"]) == pytest.approx(distance / (2 * fraction * (1 - fraction)))


def test_exploit_compares_the_newest_mask_with_the_one_before():
    args = replace(Args(), experiment="exploit", xi=0.2)
    searching, masks, agree = eb.Run(0, "exploit", 1, 0.5, 0, explored_at=1), [], []
    for searching.episode in range(1, 13):
        q = eb.initial_parameters((4, 8, 2), replace(searching, seed=1 + (searching.episode > 6)))
        if eb.masks_agree(args, searching, q):
            agree.append(searching.episode)
        if searching.episode % 2 == 0:
            masks.append(largest(q, 0.5))
            distance = (masks[-1] != masks[-2]).float().mean().item() if len(masks) > 1 else np.nan
            assert searching.distance == pytest.approx(distance, nan_ok=True)
    assert agree == [4, 6, 10, 12]  # two masks of the one network, and later of the other
    searching.explored_at = -1
    assert not eb.masks_agree(args, searching, q)


def test_exploit_can_go_on_from_the_initial_weights(tmp_path):
    flags = f"{tiny('exploit')} --xi 1 --learning-rate 0.02 --hidden-sizes 32 --max-episodes 50 --stop-return 200"
    for weights in ("latest", "init"):
        run(f"{flags} --finetune-from {weights} --run-dir {tmp_path / weights}")
    latest, init = (returns_of(tmp_path / weights)[2:] for weights in ("latest", "init"))
    np.testing.assert_array_equal(latest[:, 0, :10], init[:, 0, :10])
    assert not np.array_equal(latest[:, 1], init[:, 1], equal_nan=True)


def test_a_run_alone_has_the_random_numbers_that_it_has_in_the_batch(tmp_path):
    """Without learning the second repetition's runs are the same without the first one's and with fewer fractions."""
    flags, key = f"{tiny('retrain')} --learning-starts 9999", ("kind", "seed", "fraction", "prune_at")
    run(f"{flags} --run-dir {tmp_path / 'all'}")
    run(f"{flags} --seed 2 --repetitions 1 --prune-fractions 0.6 --run-dir {tmp_path / 'few'}")
    for alone in rows(tmp_path / "few"):
        (beside,) = rows(tmp_path / "all", **{name: alone[name] for name in key})
        assert {**alone, "run": ""} == {**beside, "run": ""}
        returns = returns_of(tmp_path / "few")[int(alone["run"])]
        np.testing.assert_array_equal(returns, returns_of(tmp_path / "all")[int(beside["run"])])


@pytest.mark.parametrize("start", [float("inf"), 1e30])
@pytest.mark.parametrize(("experiment", "number"), list(zip(EXPERIMENTS, (1, 9, 4, 4), strict=True)))
def test_a_run_that_diverges_ends_alone(experiment, number, start, finished, tmp_path, monkeypatch):
    """One run starts with a weight that is not finite, or with one that overflows in the first update."""
    initial_parameters, numbers = su.initial_parameters, count()

    def patched(*args, **kwargs):
        values = initial_parameters(*args, **kwargs)
        values["0.weight"][0, 0] = start if next(numbers) == number else values["0.weight"][0, 0]
        return values

    monkeypatch.setattr(su, "initial_parameters", patched)
    assert run(f"{tiny(experiment)} --run-dir {tmp_path}").stdout.count("diverged") == 1
    for row, other in zip(rows(tmp_path), rows(finished[experiment]), strict=True):
        if int(row["run"]) == number:
            assert row["test_mean"] == row["test_std"] == "nan"
            assert row["censored" if row["steps"] else "search_censored"] == "1"
            assert int(row["diverged"]) == int(row["search_steps"]) + int(row["steps"] or 0)
            assert (int(row["diverged"]) > 40) == (start == 1e30)
        else:
            numeric = [name for name, value in row.items() if value and name != "kind"]
            assert [float(row[n]) for n in numeric] == pytest.approx([float(other[n]) for n in numeric], nan_ok=True)
    returns, reference = (np.delete(returns_of(folder), number, 0) for folder in (tmp_path, finished[experiment]))
    np.testing.assert_array_equal(returns, reference)
    if experiment == "similarity":  # its mean is that of the other run
        overlap = np.load(tmp_path / "similarity.npz")["overlap"][:, *np.triu_indices(10, 1)].mean(1)
        np.testing.assert_allclose(overlap, [float(row["overlap_all"]) for row in rows(tmp_path, run=0)], rtol=1e-5)


class StopsOften:
    """StopSignal of a user who by turns kills the program, presses Ctrl-C at some step, and does so in a test."""

    stops = []

    def __init__(self):
        number, self.received = len(self.stops), 0
        self.kind, self.left = ("kill", "step", "test")[number % 3], 30 + 97 * number % 200

    def stop(self, now: bool) -> int:
        if now and not self.received:
            self.received = signal.SIGINT
            self.stops.append(self.kind)
            if self.kind == "kill":
                raise SystemExit(128 + signal.SIGINT)
        return self.received

    @property
    def signal(self) -> int:
        self.left -= 1
        return self.stop(self.left < 0 and self.kind != "test")

    def interruptible(self, function, *args):
        return None if self.stop(self.kind == "test") else function(*args)


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_a_run_that_is_stopped_often_gives_the_same_results(experiment, finished, tmp_path, monkeypatch):
    monkeypatch.setattr(su, "StopSignal", StopsOften)
    StopsOften.stops.clear()
    with contextlib.suppress(AssertionError):  # the status is 0
        while True:
            run(f"{tiny(experiment)} --run-dir {tmp_path / 'run'}", status=128 + signal.SIGINT)
    for file in (finished[experiment] / "results.csv", *finished[experiment].glob("*.npz")):
        assert (tmp_path / "run" / file.name).read_bytes() == file.read_bytes()
    assert StopsOften.stops[:3] == ["kill", "step", "test"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--prune-episodes 5 5", "--prune-episodes must be different"),
        ("--experiment exploit --end-e 0", "--end-e must be above 0"),
        ("--experiment retrain --max-episodes 100", "--max-episodes 100 is too short"),
    ],
)
def test_bad_input_is_refused_before_any_work(flags, message, tmp_path):
    done = run(f"{flags} --run-dir {tmp_path / 'run'}", status=2)
    assert message in said(done.stderr) and not (tmp_path / "run").exists()


def test_dry_run_has_the_papers_counts_and_help_the_tasks_defaults():
    for text in ("17,152 weights", "pruned by 0.8: 3,431 weights", "530 runs: 10 dense, 40 winning_ticket, 480 early"):
        assert text in run("--dry-run").stdout
    assert "50 runs: 10 dense, 40 exploit" in run("--dry-run --env-id Acrobot-v1 --experiment exploit").stdout
    text = said(run("--help --env-id Acrobot-v1").stdout)
    assert "units of the hidden layers; default 128 for Acrobot (default: 128)" in text


@pytest.mark.slow
def test_cart_pole_is_learned_and_an_early_bird_too(tmp_path):
    flags = "--repetitions 2 --prune-fractions 0.2 --prune-episodes 75"
    run(f"--experiment finetune {flags} --run-dir {tmp_path / 'run'}")
    assert np.mean([float(row["test_mean"]) for row in rows(tmp_path / "run")]) > 150
    assert len(rows(tmp_path / "run", censored=0)) >= 4 and len(rows(tmp_path / "run")) == 6
