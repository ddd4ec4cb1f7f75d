"""algos/dqn_earlybird.py: its parts against brute force and torch, and real runs with tiny networks."""

import os
import shutil
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from pathlib import Path

import dqn_earlybird as eb
import helpers
import numpy as np
import pytest
import torch
from dqn_earlybird import ACROBOT, Args
from helpers import Done, read_csv

import envs.vector
import sparse_utils as su

SCRIPT = Path(eb.__file__)
TINY = "--hidden-sizes 8 8 --repetitions 2 --prune-fractions 0.2 0.6 --max-episodes 20"
TINY += " --test-episodes 4 --learning-starts 40 --buffer-size 100 --checkpoint-interval 256 --epsilon-decay 0.6"
TINY += " --stop-return 12 --stop-episodes 4"


def tiny(experiment: str) -> str:
    return f"{TINY} --experiment {experiment}" + " --prune-episodes 3 12" * (experiment in ("retrain", "finetune"))


def run(flags: str, status: int = 0) -> Done:
    return helpers.run_here(SCRIPT, flags, status)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("earlybird")
    for experiment in ("similarity", "retrain", "finetune", "exploit"):
        run(f"{tiny(experiment)} --run-dir {folder / experiment}")
    return {experiment: folder / experiment for experiment in ("similarity", "retrain", "finetune", "exploit")}


def rows(folder: Path, **wanted: object) -> list[dict[str, str]]:
    found = [row for row in read_csv(folder / "results.csv") if all(row[k] == str(v) for k, v in wanted.items())]
    assert found
    return found


# ---- Networks and optimizer ------------------------------------------------------------------------------------------


def agent_of(sizes: tuple[int, ...], runs: int, seed: int = 0) -> dict:
    generator = torch.Generator().manual_seed(seed)
    q = {n: torch.randn(t.shape, generator=generator) / 3 for n, t in eb.empty_parameters(sizes, runs).items()}
    agent = {"q": q, "target": {n: t + 0.1 for n, t in q.items()}, "updates": {"all": torch.zeros(runs)}}
    agent |= {kind: {n: torch.zeros_like(t) for n, t in q.items()} for kind in ("exp_avg", "exp_avg_sq")}
    masks = {n: (torch.rand(t.shape, generator=generator) < 0.7).float() for n, t in q.items() if "weight" in n}
    su.apply_masks(q, masks)
    return agent | {"masks": masks}


def batches(n: int, runs: int, size: int, dim: int, n_actions: int) -> list[torch.Tensor]:
    """Rows of memory [R, B, 2 * dim + 3]."""
    generator = torch.Generator().manual_seed(1)
    made = [torch.randn(runs, size, 2 * dim + 3, generator=generator) for _ in range(n)]
    for batch in made:
        batch[..., 2 * dim] = torch.randint(n_actions, (runs, size), generator=generator).float()
        batch[..., -1] = (batch[..., -1] > 1).float()
    return made


def test_learning_is_that_of_a_plain_network_with_torchs_adam():
    """Each run with masks, and with a start of its own."""
    sizes, runs, args = (3, 16, 16, 2), 5, Args()
    agent, batch_list = agent_of(sizes, runs), batches(6, runs, 8, 3, 2)
    plain = []
    for r in range(runs):
        net, target = (torch.nn.Sequential(*[layer for a, b in [(3, 16), (16, 16), (16, 2)]
                       for layer in (torch.nn.Linear(a, b), torch.nn.ReLU())][:-1]) for _ in range(2))  # fmt: skip
        for here, there in ((net, agent["q"]), (target, agent["target"])):
            for p, tensor in zip(here.parameters(), there.values(), strict=True):
                p.data = (tensor[r].T if p.dim() == 2 else tensor[r, 0]).clone()
        plain.append((net, target, torch.optim.Adam(net.parameters(), lr=args.learning_rate)))
    for k, batch in enumerate(batch_list):
        due = np.array([k >= r for r in range(runs)])  # run r starts at update r
        eb.learn(agent, batch, due, args, 3)
        for r, (net, target, optimizer) in enumerate(plain):
            if not due[r]:
                continue
            obs, next_obs, action, reward, terminated = batch[r].split([3, 3, 1, 1, 1], -1)
            future = target(next_obs).max(1, keepdim=True).values.detach()
            wanted = reward + 0.99 * future * (1 - terminated)
            optimizer.zero_grad()
            torch.nn.functional.mse_loss(net(obs).gather(1, action.long()), wanted).backward()
            for p, mask in zip(list(net.parameters())[::2], agent["masks"].values(), strict=True):
                p.grad *= mask[r].T
            optimizer.step()
    assert agent["updates"]["all"].tolist() == [6, 5, 4, 3, 2]
    for r, (net, _, _) in enumerate(plain):
        for p, tensor in zip(net.parameters(), agent["q"].values(), strict=True):
            mine = tensor[r].T if p.dim() == 2 else tensor[r, 0]
            torch.testing.assert_close(mine, p.data, rtol=1e-5, atol=1e-6)
    for name, mask in agent["masks"].items():
        assert (agent["q"][name][mask == 0] == 0).all()


def test_adam_is_torchs_also_after_a_restart():
    """Same bits as its fused kernel, for runs with different numbers of updates."""
    agent = agent_of((4, 8, 2), 3)
    plain = [{name: tensor[r].clone().requires_grad_() for name, tensor in agent["q"].items()} for r in range(3)]
    optimizers = [torch.optim.Adam(list(p.values()), lr=0.01, fused=True) for p in plain]
    for k in range(5):
        gradients = {
            name: torch.randn(t.shape, generator=torch.Generator().manual_seed(k)) for name, t in agent["q"].items()
        }
        if k == 3:  # run 1 starts anew
            masks = {name: mask[1] for name, mask in agent["masks"].items()}
            eb.prune(agent, 1, masks, None, new_adam=True)
            optimizers[1] = torch.optim.Adam(list(plain[1].values()), lr=0.01, fused=True)
        turn = [0, 1, 2] if k % 2 else [0, 1]
        eb.adam(agent["q"], gradients, agent["exp_avg"], agent["exp_avg_sq"], agent["updates"]["all"], turn, 0.01)
        for r in turn:
            for name, p in plain[r].items():
                p.grad = gradients[name][r].clone()
            if k == 3 and r == 1:
                for name, mask in masks.items():
                    plain[1][name].data *= mask
            optimizers[r].step()
    assert agent["updates"]["all"].tolist() == [5, 2, 2]
    for r in range(3):
        for name, p in plain[r].items():
            assert torch.equal(agent["q"][name][r], p.data), (r, name)


@pytest.mark.parametrize(("sizes", "args"), [((4, 128, 128, 2), Args()), ((6, 128, 3), replace(Args(), **ACROBOT))])
def test_a_network_learns_the_same_bits_alone_and_beside_others(sizes, args):
    """With the sizes of the paper, more runs than an update takes at once, and one thread or two."""
    runs, dim = eb.CHUNK + 9, sizes[0]
    together, batch_list = agent_of(sizes, runs), batches(3, runs, args.batch_size, dim, sizes[-1])
    for k, batch in enumerate(batch_list):
        eb.learn(together, batch, np.arange(runs) != 5 * (k < 2), args, dim)
    with ThreadPoolExecutor(2, initializer=eb.one_thread) as pool:
        threads = agent_of(sizes, runs)
        for k, batch in enumerate(batch_list):
            eb.learn(threads, batch, np.arange(runs) != 5 * (k < 2), args, dim, pool.map)
    assert all(torch.equal(threads["q"][name], tensor) for name, tensor in together["q"].items())
    for some in ([0], [7], [eb.CHUNK + 8], [3, 4, 9, 33]):
        alone = {kind: {n: t[some] for n, t in tensors.items()} for kind, tensors in agent_of(sizes, runs).items()}
        for k, batch in enumerate(batch_list):
            eb.learn(alone, batch[some], np.array(some) != 5 * (k < 2), args, dim)
        for kind, tensors in alone.items():
            for name, tensor in tensors.items():
                assert torch.equal(tensor, together[kind][name][some]), (some, kind, name)
        obs = batch_list[0][:, :1, :dim]
        assert torch.equal(eb.q_values(alone["q"], obs[some]), eb.q_values(together["q"], obs)[some])


def test_pruning_keeps_the_largest_weights_and_zeroes_what_belongs_to_the_others():
    agent = agent_of((4, 8, 2), 3)
    agent["masks"] = {name: torch.ones_like(mask) for name, mask in agent["masks"].items()}
    eb.learn(agent, batches(1, 3, 8, 4, 2)[0], np.ones(3, bool), Args(), 4)
    before = {kind: {n: t.clone() for n, t in tensors.items()} for kind, tensors in agent.items()}
    masks = eb.magnitude_mask(eb.weights_of(agent, 1), 0.6)
    eb.prune(agent, 1, masks, None, new_adam=False)
    size = np.abs(np.concatenate([before["q"][name][1].flatten() for name in masks]))
    threshold = np.sort(size)[-su.n_remaining(len(size), 0.6)]
    for name in agent["q"]:
        keep = (before["q"][name][1].abs() >= threshold) | ("bias" in name)
        assert torch.equal(agent["q"][name][1], before["q"][name][1] * keep)
        assert torch.equal(agent["target"][name][1], agent["q"][name][1])
        assert torch.equal(agent["exp_avg"][name][1], before["exp_avg"][name][1] * keep)
        assert torch.equal(agent["exp_avg_sq"][name][1], before["exp_avg_sq"][name][1] * keep)
        for kind in ("q", "target", "exp_avg", "exp_avg_sq"):
            assert torch.equal(agent[kind][name][[0, 2]], before[kind][name][[0, 2]])
    assert agent["updates"]["all"].tolist() == [1, 1, 1]
    start = {name: torch.full_like(t[1], 0.5) for name, t in agent["q"].items()}
    eb.prune(agent, 1, masks, start, new_adam=True)
    assert agent["updates"]["all"].tolist() == [1, 0, 1]
    for name, tensor in agent["q"].items():
        assert torch.equal(tensor[1], 0.5 * masks.get(name, torch.ones_like(tensor[1])))
        assert not agent["exp_avg"][name][1].any() and not agent["exp_avg_sq"][name][1].any()


# ---- What a run does next --------------------------------------------------------------------------------------------


def what(kind: str, pruned: bool, episode: int, streak: int, emerged: bool = False, prune_at: int = 0) -> str:
    return eb.what_next(Args(), {"kind": kind, "prune_at": prune_at}, pruned, episode, streak, emerged)


def test_early_stopping_and_its_limit():
    for kind, pruned in (("dense", False), ("winning_ticket", True), ("early_bird", True), ("exploit", True)):
        assert what(kind, pruned, 499, 9) == "go on"
        assert what(kind, pruned, 10, 10) == "stop"
        assert what(kind, pruned, 500, 0) == "stop"
    assert what("winning_ticket", False, 60, 9) == "go on"
    assert what("winning_ticket", False, 60, 10) == what("winning_ticket", False, 500, 0) == "prune"


def test_only_its_episode_prunes_an_early_bird():
    assert what("early_bird", False, 4, 10, prune_at=5) == "go on"
    assert what("early_bird", False, 5, 0, prune_at=5) == "prune"
    assert what("early_bird", False, 499, 200, prune_at=500) == "go on"
    assert what("early_bird", False, 500, 200, prune_at=500) == "prune"


def test_search_and_similarity_do_not_stop_early():
    assert what("similarity", False, 499, 50) == what("exploit", False, 499, 50) == "go on"
    assert what("similarity", False, 500, 0) == what("exploit", False, 500, 0) == "stop"
    assert what("exploit", False, 100, 0, emerged=True) == "prune"


def epsilon_floor(args: Args) -> int:
    epsilon, n = args.start_e, 0
    while epsilon > args.end_e:
        epsilon, n = max(epsilon * args.epsilon_decay, args.end_e), n + 1
    return n


def test_exploration_lasts_as_long_as_the_paper_says(tmp_path):
    """90 episodes of Cart-Pole; 4,600 steps, or about 9 episodes, of Acrobot."""
    assert epsilon_floor(Args()) == 90
    assert epsilon_floor(replace(Args(), **ACROBOT)) == 4603
    flags = "--experiment similarity --hidden-sizes 2 --repetitions 1 --prune-fractions 0.5 --test-episodes 1"
    run(f"{flags} --max-episodes 94 --learning-starts 1000 --run-dir {tmp_path / 'a'}")
    assert rows(tmp_path / "a")[0]["explored_at"] == "90"
    run(f"--env-id Acrobot-v1 {flags} --max-episodes 12 --learning-starts 2000 --run-dir {tmp_path / 'b'}")
    (row,) = rows(tmp_path / "b")
    assert 9 <= int(row["explored_at"]) <= 12
    returns = np.load(tmp_path / "b" / "returns.npz")["returns"][0, 0, :12]
    steps = np.where(returns > -500, 1 - returns, 500).cumsum()  # the last step of an episode that succeeds gives 0
    assert steps[int(row["explored_at"]) - 2] < 4603 <= steps[int(row["explored_at"]) - 1]


# ---- Experiments -----------------------------------------------------------------------------------------------------


def test_rows_of_retrain_and_finetune(finished):
    n_weights = 4 * 8 + 8 * 8 + 8 * 2
    for experiment in ("retrain", "finetune"):
        table = rows(finished[experiment])
        kinds = [row["kind"] for row in table]
        assert [kinds.count(k) for k in ("dense", "winning_ticket", "early_bird")] == [2, 4, 8]
        returns = np.load(finished[experiment] / "returns.npz")["returns"]
        assert returns.shape == (14, 2, 20)
        for number, row in enumerate(table):
            assert int(row["run"]) == number
            before, after = (returns[number, phase][~np.isnan(returns[number, phase])] for phase in (0, 1))
            before, after = ([], before) if row["kind"] == "dense" else (before, after)
            assert [len(before), len(after)] == [int(row["search_episodes"]), int(row["episodes"])]
            # On Cart-Pole a step is a point of return
            assert [sum(before), sum(after)] == [int(row["search_steps"]), int(row["steps"])]
            good = np.array(after) >= 12
            streaks = [i for i in range(4, len(good) + 1) if good[i - 4 : i].all()]
            assert streaks[:1] == [len(good)] if row["censored"] == "0" else not streaks and len(good) == 20
            fraction = float(row["fraction"])
            assert int(row["remaining"]) == su.n_remaining(n_weights, fraction)
            assert int(row["total_episodes"]) == len(before) + len(after)
            if row["kind"] == "early_bird":
                assert row["prune_at"] == row["search_episodes"]
            if row["kind"] != "dense":
                relative = float(row["from_init"]) / (2 * fraction * (1 - fraction))
                assert float(row["from_init_relative"]) == pytest.approx(relative)
    assert {row["censored"] for row in rows(finished["retrain"])} == {"0", "1"}  # both cases were there


def test_retrain_and_finetune_share_their_bases(finished):
    returns = [np.load(finished[e] / "returns.npz")["returns"] for e in ("retrain", "finetune")]
    np.testing.assert_array_equal(returns[0][:, 0], returns[1][:, 0])
    np.testing.assert_array_equal(returns[0][:6], returns[1][:6])  # dense agents and winning tickets are the same
    assert not np.array_equal(returns[0][6:, 1], returns[1][6:, 1], equal_nan=True)


def test_similarity_against_brute_force(finished):
    with np.load(finished["similarity"] / "similarity.npz") as there:
        overlap, episodes, fractions = there["overlap"], there["episodes"], there["fractions"]
    assert overlap.shape == (2, 10, 10) and episodes.tolist() == list(range(2, 21, 2))
    np.testing.assert_array_equal(overlap, overlap.swapaxes(1, 2))
    assert (overlap[:, range(10), range(10)] == 1).all()
    early = episodes <= 10  # 0.6^10 < 0.01
    for fraction, matrix in zip(fractions, overlap, strict=True):
        table = rows(finished["similarity"], fraction=float(fraction))
        pairs = [(i, j) for i in range(10) for j in range(i)]
        for name, wanted in (("all", None), ("explore", 2), ("across", 1), ("exploit", 0)):
            values = [matrix[i, j] for i, j in pairs if wanted in (None, int(early[i]) + int(early[j]))]
            assert np.mean([float(row[f"overlap_{name}"]) for row in table]) == pytest.approx(np.mean(values), abs=1e-6)
    # The masks are those of the weights: here of the first one, drawn again from the same training
    assert (1 - overlap <= 2 * np.minimum(fractions, 1 - fractions)[:, None, None] + 1e-6).all()


def test_bits_of_masks_give_the_distances_of_equation_2_5():
    masks = np.random.default_rng(0).random((6, 45)) < 0.4
    overlap = eb.overlap_of_bits(np.packbits(masks, axis=-1), 45)
    np.testing.assert_allclose(overlap, [[(a == b).mean() for b in masks] for a in masks], atol=1e-6)


def test_exploit_prunes_when_two_masks_agree_after_exploration(finished, tmp_path):
    """epsilon is at its floor after 10 episodes; with xi = 1 the first mask then drawn is taken, none before."""
    run(f"{tiny('exploit')} --xi 1 --run-dir {tmp_path / 'any'}")
    table = rows(tmp_path / "any", kind="exploit")
    assert {row["search_episodes"] for row in table} == {"10"} and {row["search_censored"] for row in table} == {"0"}
    run(f"{tiny('exploit')} --xi 1 --mask-window 3 --run-dir {tmp_path / 'three'}")
    assert {row["search_episodes"] for row in rows(tmp_path / "three", kind="exploit")} == {"12"}
    run(f"{tiny('exploit')} --xi 1 --mask-history 8 --run-dir {tmp_path / 'long'}")
    assert {row["search_episodes"] for row in rows(tmp_path / "long", kind="exploit")} == {"16"}
    run(f"{tiny('exploit')} --xi 1 --end-e 1e-9 --run-dir {tmp_path / 'never'}")
    for row in rows(tmp_path / "never", kind="exploit"):
        assert row["search_episodes"] == "20" and row["search_censored"] == row["censored"] == "1"
        assert row["episodes"] == "0" and row["remaining"] == "112"
    for row in rows(finished["exploit"], kind="exploit"):
        if row["search_censored"] == "0":
            assert float(row["distance"]) < 0.1 and int(row["search_episodes"]) % 2 == 0
            fraction = float(row["fraction"])
            relative = float(row["distance"]) / (2 * fraction * (1 - fraction))
            assert float(row["distance_relative"]) == pytest.approx(relative)


def test_exploit_can_go_on_from_the_initial_weights(finished, tmp_path):
    flags = f"{tiny('exploit')} --xi 1 --repetitions 1 --prune-fractions 0.6 --learning-rate 0.02"
    flags += " --hidden-sizes 32 --max-episodes 50 --stop-return 200"
    run(f"{flags} --run-dir {tmp_path / 'latest'}")
    run(f"{flags} --finetune-from init --run-dir {tmp_path / 'init'}")
    run(f"{flags} --finetune-restarts optimizer replay epsilon --run-dir {tmp_path / 'restarts'}")
    returns = [np.load(tmp_path / name / "returns.npz")["returns"][1] for name in ("latest", "init", "restarts")]
    for other in returns[1:]:
        np.testing.assert_array_equal(returns[0][0], other[0])
        assert not np.array_equal(returns[0][1], other[1], equal_nan=True)


@pytest.mark.parametrize("experiment", ["retrain", "finetune", "exploit"])
def test_a_run_alone_is_the_run_in_the_batch(experiment, finished, tmp_path):
    """The second repetition's early birds without the first one and with fewer fractions and episodes: same bits. The
    runs beside them are fewer, and others are dropped from the batch at other times."""
    flags = f"{tiny(experiment)} --seed 2 --repetitions 1 --prune-fractions 0.6"
    run(f"{flags} --run-dir {tmp_path / 'alone'}")
    returns = {place: np.load(place / "returns.npz")["returns"] for place in (finished[experiment], tmp_path / "alone")}
    for alone in rows(tmp_path / "alone"):
        key = {name: alone[name] for name in ("kind", "seed", "fraction", "prune_at")}
        (beside,) = rows(finished[experiment], **key)
        first, second = (
            returns[tmp_path / "alone"][int(alone["run"])],
            returns[finished[experiment]][int(beside["run"])],
        )
        np.testing.assert_array_equal(first, second)
        assert {**alone, "run": ""} == {**beside, "run": ""}


# ---- Program ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("experiment", ["similarity", "exploit"])
def test_a_killed_run_goes_on_to_the_same_results(experiment, finished, tmp_path):
    """Stopped by a signal once in the middle, and once killed after its first checkpoint."""
    folder = tmp_path / "run"
    command = helpers.command(SCRIPT, f"{tiny(experiment)} --run-dir {folder} --checkpoint-interval 64")
    for number in (signal.SIGTERM, signal.SIGKILL):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        before = len(read_csv(folder / "timing.csv")) if (folder / "timing.csv").exists() else 0
        deadline = time.time() + 120
        while time.time() < deadline and process.poll() is None:
            if (folder / "timing.csv").exists() and len(read_csv(folder / "timing.csv")) > before:
                os.kill(process.pid, number)
                break
            time.sleep(0.002)
        out, _ = process.communicate(timeout=120)
        assert process.returncode == (128 + number if number == signal.SIGTERM else -number)
        assert number == signal.SIGKILL or "the same command goes on from here" in out
    done = helpers.run_here(SCRIPT, f"{tiny(experiment)} --run-dir {folder} --checkpoint-interval 64")
    assert "resuming" in done.stdout
    for name in ("results.csv", "returns.npz", *(["similarity.npz"] if experiment == "similarity" else [])):
        assert (folder / name).read_bytes() == (finished[experiment] / name).read_bytes(), name


def test_finished_runs_and_other_arguments(finished):
    assert "is finished" in run(f"{tiny('retrain')} --run-dir {finished['retrain']}").stdout
    done = run(f"{tiny('retrain')} --gamma 0.5 --run-dir {finished['retrain']}", status=2)
    assert "--gamma 0.99 there, 0.5 now" in done.stderr


def test_only_runs_of_the_environment_go_on():
    vector = envs.vector.make("CartPole-v0", 4, 1)
    envs.vector.reset(vector, [1, 2, 3, 4])
    for t in range(30):
        vector.step(np.array([t, t // 2, t // 3, 1]) % 2)
    rest = eb.only(vector, "CartPole-v0", [1, 3])
    for t in range(40):
        here, there = vector.step(np.array([0, t, 0, 1]) % 2), rest.step(np.array([t, 1]) % 2)
        for a, b in zip(here[:4], there[:4], strict=True):
            np.testing.assert_array_equal(a[[1, 3]], b)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--env-id CartPole-v9", "--env-id must be one of CartPole-v0"),
        ("--repetitions 0", "--repetitions must be above 0"),
        ("--prune-fractions 0.2 1", "--prune-fractions must be different fractions in (0, 1)"),
        ("--prune-fractions 0.2 0.2", "--prune-fractions must be different"),
        ("--prune-episodes 0 5", "--prune-episodes must be different numbers above 0"),
        ("--learning-starts 2000", "is more than --buffer-size 1000 holds"),
        ("--train-frequency 3", "--train-frequency must divide 256"),
        ("--start-e 0.005", "--end-e 0.01 is above --start-e 0.005"),
        ("--xi 1.5", "--xi must be in [0, 1]"),
        ("--mask-history 1", "--mask-history must be at least 2"),
        ("--experiment similarity --max-episodes 3", "too short for 2 masks"),
        ("--experiment exploit --mask-history 6 --max-episodes 10", "too short for 6 masks, 2 episodes apart"),
        ("--experiment exploit --end-e 0", "--end-e must be above 0"),
        ("--experiment exploit --prune-episodes 5", "--prune-episodes does nothing in --experiment exploit"),
        ("--experiment finetune --finetune-from init", "--finetune-from does nothing in --experiment finetune"),
        ("--experiment retrain --max-episodes 100", "--prune-episodes 500 is beyond --max-episodes 100"),
        ("--hidden-sizes 0", "--hidden-sizes must be one or more numbers above 0"),
    ],
)
def test_bad_input_is_one_line_before_any_work(flags, message, tmp_path):
    done = run(f"{flags} --run-dir {tmp_path / 'run'}", status=2)
    assert message in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_dry_run_and_the_papers_counts():
    out = run("--dry-run").stdout
    assert "17,152 weights" in out and "530 runs: 10 dense, 40 winning_ticket, 480 early_bird" in out
    assert "pruned by 0.8: 3,431 weights are left" in out
    out = run("--dry-run --env-id Acrobot-v1 --experiment exploit").stdout
    assert "1,152 weights" in out and "50 runs: 10 dense, 40 exploit" in out


def test_help_has_every_flag():
    text = run("--help").stdout
    assert "CartPole-v0, Acrobot-v1 or another task" in text
    assert all(f"--{field.name.replace('_', '-')}" in text for field in fields(Args))


def test_tables_a_and_b():
    cartpole, acrobot = Args(), replace(Args(), **ACROBOT)
    names = (
        "hidden_sizes learning_rate batch_size buffer_size learning_starts train_frequency stop_return epsilon_decay"
    )
    table = {name: (getattr(cartpole, name), getattr(acrobot, name)) for name in names.split()}
    assert list(table.values()) == [
        ((128, 128), (128,)), (2.5e-3, 1e-3), (32, 64), (1000, 2000), (200, 1000), (4, 1), (200, -100), (0.95, 0.999),
    ]  # fmt: skip
    for args in (cartpole, acrobot):
        assert (args.gamma, args.start_e, args.max_episodes, args.stop_episodes) == (0.99, 1.0, 500, 10)


@pytest.mark.slow
def test_cart_pole_is_learned_and_an_early_bird_too(tmp_path):
    flags = "--repetitions 2 --prune-fractions 0.2 --prune-episodes 75"
    run(f"--experiment finetune {flags} --run-dir {tmp_path / 'run'}")
    table = rows(tmp_path / "run")
    assert np.mean([float(row["test_mean"]) for row in table]) > 150
    assert sum(row["censored"] == "0" for row in table) >= 4 and len(table) == 6
    shutil.rmtree(tmp_path / "run")
