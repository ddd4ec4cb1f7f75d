"""algos/bc_distill.py: real runs of the command with tiny students of tiny teachers, its parts, and the experts."""

import math
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import bc_distill
import dqn_imp
import gymnasium as gym
import helpers
import numpy as np
import ppo_imp
import pytest
import torch
from bc_distill import Args
from gymnasium.spaces import Box, Discrete
from helpers import Done, read_csv, ticket
from torch.distributions import Categorical, Independent, Normal, kl_divergence

import envs.vector
import sparse_utils as su

SCRIPT, PPO, DQN = (Path(module.__file__) for module in (bc_distill, ppo_imp, dqn_imp))
EXPERTS = sorted((SCRIPT.parent / "experts").glob("*.pt"))
# 3 rounds of 20 updates
TINY = "--hidden-sizes 8 8 --transitions 400 --updates 20 --batch-size 16 --rounds 2 --eval-interval 10"
TINY += " --eval-episodes 20"
TEACH = "--hidden-sizes 16 --total-timesteps 1024 --num-envs 4 --num-steps 32 --num-minibatches 4 --rounds 0"
TEACH += " --seeds 1"
TEACH_VALUES = "--hidden-sizes 16 --total-timesteps 320 --eval-interval 320 --learning-starts 64 --batch-size 16"
TEACH_VALUES += " --num-envs 4 --eval-episodes 100 --rounds 0"
VALUE_TASKS = {"cnn": "MinAtar/Breakout-v1", "mlp": "MinAtar/Breakout-v1", "maze": "MazeGrid-v0"}
VALUE_TASKS |= {"masked": "MazeGrid-v0", "bytes": "MazeGridRGB-v0", "floats": "MazeGridEntangled-v0"}


def run(flags: str, status: int = 0) -> Done:
    return helpers.run_here(SCRIPT, flags, status)


@pytest.fixture(scope="module")
def teachers(tmp_path_factory) -> dict[str, Path]:
    """Tickets of ppo_imp.py: of Cart-Pole; Gaussian with normalised observations; the same, but without one input."""
    folder = tmp_path_factory.mktemp("teachers")
    flags = {"cartpole": "--env-id CartPole-v1", "gaussian": "--env-id ShortPendulum-v0 --normalize-obs"}
    flags["masked"] = f"{flags['gaussian']} --input-mask {folder / 'mask.pt'}"
    masks = {"actor.layers.0.weight": torch.tensor([[1.0], [0], [1]])}
    su.save_ticket(folder / "mask.pt", masks, result=su.describe_ticket(masks), obs_shape=[3])
    for name, own in flags.items():
        helpers.run_here(PPO, f"{TEACH} --eval-episodes 20 {own} --run-dir {folder / name}")
    return {name: folder / name / "tickets/round00_dense_seed1.pt" for name in flags}


@pytest.fixture(scope="module")
def value_teachers(tmp_path_factory) -> dict[str, Path]:
    """Tickets of dqn_imp.py, for the tasks in ``VALUE_TASKS``: with convolutions and without; of bits, some of these,
    bytes, and floats through the matrix of seed 3."""
    folder = tmp_path_factory.mktemp("value_teachers")
    masks = {"actor.layers.0.weight": torch.zeros(1200, 1)}
    masks["actor.layers.0.weight"][100:400:7] = 1
    su.save_ticket(folder / "mask.pt", masks, result=su.describe_ticket(masks), obs_shape=[1200])
    flags = {"cnn": "--network cnn", "masked": f"--input-mask {folder / 'mask.pt'}"}
    for name, env_id in VALUE_TASKS.items():
        own = f"--env-id {env_id} {flags.get(name, '')} --run-dir {folder / name}"
        helpers.run_here(DQN, f"{TEACH_VALUES} --seeds 3 {own}")
    return {name: folder / name / "tickets/round00_dense_seed3.pt" for name in VALUE_TASKS}


@pytest.fixture(scope="module")
def finished(teachers, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("bc_distill") / "run"
    helpers.run(SCRIPT, f"{TINY} --seeds 1 2 --teacher {teachers['cartpole']} --run-dir {folder}")
    return folder


@pytest.fixture(scope="module")
def gaussian(teachers, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("bc_distill") / "gaussian"
    run(f"{TINY} --env-id ShortPendulum-v0 --seeds 1 2 --teacher {teachers['gaussian']} --run-dir {folder}")
    return folder


@pytest.fixture(scope="module")
def maze(value_teachers, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("bc_distill") / "maze"
    run(f"{TINY} --env-id MazeGrid-v0 --seeds 1 2 --teacher {value_teachers['maze']} --run-dir {folder}")
    return folder


@pytest.fixture(scope="module")
def breakout(value_teachers, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("bc_distill") / "breakout"
    run(f"{TINY} --env-id MinAtar/Breakout-v1 --seeds 1 2 --teacher {value_teachers['cnn']} --run-dir {folder}")
    return folder


# ---- What a run leaves behind --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["finished", "gaussian", "maze", "breakout"])
def test_a_row_per_round_and_run(name, request):
    folder = request.getfixturevalue(name)
    rows = read_csv(folder / "results.csv")
    runs = [(int(row["round"]), row["condition"], int(row["seed"])) for row in rows]
    assert runs == [(0, "dense", s) for s in (1, 2)] + [
        (k, c, s) for k in (1, 2) for c in su.CONDITIONS for s in (1, 2)
    ]
    total = {"finished": 4 * 8 + 8 * 8 + 8 * 2, "gaussian": 3 * 8 + 8 * 8 + 8 * 1, "maze": 1200 * 8 + 8 * 8 + 8 * 4}
    total |= {"breakout": 4 * 16 * 3 * 3 + 16 * 8 * 8 * 8 + 8 * 8 + 8 * 3}
    total = total[name]
    remaining = [total, math.ceil(0.8 * total), math.ceil(0.8 * math.ceil(0.8 * total))]
    curves = read_csv(folder / "curves.csv")
    for row in rows:
        assert int(row["remaining"]) == remaining[int(row["round"])]
        own = [c for c in curves if all(c[key] == row[key] for key in ("round", "seed", "condition"))]
        assert [int(c["step"]) for c in own] == [10, 20]
        returns = [float(c["return_mean"]) for c in own]
        assert float(row["best_return"]) == max(returns) and float(row["final_return"]) == returns[-1]
        assert int(row["steps_to_best"]) == (20 if returns[1] > returns[0] else 10)
        assert row["loss"] == own[-1]["loss"] and 0 < float(row["loss"]) < 5
        assert np.isfinite(float(row["best_retest"]))
    assert len(curves) == 2 * len(rows) and len({row["teacher_return"] for row in rows}) == 1
    assert not (folder / "transitions.pt").exists()


def test_the_columns_are_those_of_ppo_imp(finished, teachers):
    """So that one plot draws both."""
    folders = finished, teachers["cartpole"].parents[1]
    bc, ppo = (list(read_csv(folder / "results.csv")[0]) for folder in folders)
    one = "density_actor.layers.2"  # this student has a layer more than its teacher
    assert bc.pop(bc.index(one)) == one and bc == [*ppo, "loss", "teacher_return"]
    bc, ppo = (list(read_csv(folder / "curves.csv")[0]) for folder in folders)
    assert bc == [*ppo, "loss"]


def test_the_teachers_return_is_that_of_its_ticket(teachers, finished, gaussian):
    for name, folder in (("cartpole", finished), ("gaussian", gaussian)):
        out = helpers.run_here(PPO, f"--evaluate {teachers[name]} --eval-episodes 20").stdout
        teacher_return = float(read_csv(folder / "results.csv")[0]["teacher_return"])
        assert f"20 episodes: mean {teacher_return:.1f}," in out


def test_conditions_start_as_table_1_says(finished):
    start = ticket(finished, 0, "dense")["initial"]
    for round_ in (1, 2):
        t = {condition: ticket(finished, round_, condition) for condition in su.CONDITIONS}
        for name in t["ticket"]["masks"]:
            active = {c: t[c]["initial"][name][t[c]["masks"][name] == 1] for c in t}
            assert torch.equal(active["ticket"], start[name][t["ticket"]["masks"][name] == 1])
            values = set(start[name].flatten().tolist())
            for condition in ("mask_permuted", "permuted_permuted"):
                assert set(active[condition].tolist()) <= values
                assert not torch.equal(active[condition], start[name][t[condition]["masks"][name] == 1])
            assert not set(active["random_reinit"].tolist()) & values
        first, second = (ticket(finished, k, "ticket")["masks"] for k in (1, 2))
        assert all((second[name] <= first[name]).all() for name in first)


@pytest.mark.parametrize("name", ["finished", "gaussian"])
def test_students_are_sparse_tickets(name, request):
    folder = request.getfixturevalue(name)
    for condition in su.CONDITIONS:
        t = ticket(folder, 2, condition)
        assert list(t["masks"]) == [f"actor.layers.{i}.weight" for i in range(3)] and t["script"] == "bc_distill"
        for layer, mask in t["masks"].items():
            assert (t["best"][layer][mask == 0] == 0).all() and (t["best"][layer][mask == 1] != 0).any()
        assert ("actor.log_std" in t["best"]) == (name == "gaussian")
        if name == "gaussian":
            assert t["initial"]["actor.log_std"].tolist() == [[0]] and t["best"]["actor.log_std"].item() != 0


def test_students_of_convolutions_have_convolutions(breakout, maze):
    t = ticket(breakout, 2, "ticket")
    assert list(t["masks"]) == [f"actor.layers.{i}.weight" for i in range(4)]
    assert [tuple(m.shape) for m in t["masks"].values()] == [(16, 4, 3, 3), (16 * 8 * 8, 8), (8, 8), (8, 3)]
    for name, mask in t["masks"].items():
        assert (t["best"][name][mask == 0] == 0).all() and (t["best"][name][mask == 1] != 0).any()
    assert t["kind"] == {"values": True, "picture": [4, 10, 10]} and t["obs_shape"] == [4, 10, 10]
    assert ticket(maze, 2, "ticket")["kind"] == {"values": True, "picture": []}


def assert_same_run(one: Path, other: Path, round_: int, condition: str, seed: int) -> None:
    one, other = (ticket(folder, round_, condition, seed) for folder in (one, other))
    assert one["result"] | {"loss": 0} == other["result"] | {"loss": 0}
    for name, value in one["best"].items():
        assert torch.equal(value, other["best"][name])


def test_a_run_does_not_depend_on_its_neighbours(finished, teachers, tmp_path):
    """Seed 2 alone with one condition is, bit for bit, seed 2 among eight runs."""
    flags = f"{TINY} --seeds 2 --conditions permuted_permuted --teacher {teachers['cartpole']}"
    run(f"{flags} --run-dir {tmp_path / 'alone'}")
    for round_, condition in ((0, "dense"), (1, "permuted_permuted"), (2, "permuted_permuted")):
        assert_same_run(tmp_path / "alone", finished, round_, condition, seed=2)


def test_a_runs_loss_does_not_depend_on_its_neighbours(finished, teachers, tmp_path):
    run(f"{TINY} --seeds 2 --rounds 0 --teacher {teachers['cartpole']} --run-dir {tmp_path / 'alone'}")
    alone, among = (ticket(folder, 0, "dense", seed=2)["result"] for folder in (tmp_path / "alone", finished))
    assert alone["loss"] == among["loss"]


@pytest.mark.parametrize("batch_size", [16, 128])
def test_a_gaussian_run_does_not_depend_on_its_neighbours(teachers, tmp_path, batch_size):
    """Of one action, so with an output layer of one column, as ppo_imp.py's critics."""
    flags = f"{TINY} --env-id ShortPendulum-v0 --rounds 1 --teacher {teachers['gaussian']} --batch-size {batch_size}"
    run(f"{flags} --seeds 1 2 --run-dir {tmp_path / 'among'}")
    run(f"{flags} --seeds 2 --conditions random_reinit --run-dir {tmp_path / 'alone'}")
    for round_, condition in ((0, "dense"), (1, "random_reinit")):
        assert_same_run(tmp_path / "alone", tmp_path / "among", round_, condition, seed=2)


def test_a_run_of_action_values_does_not_depend_on_its_neighbours(value_teachers, maze, tmp_path):
    flags = f"{TINY} --env-id MazeGrid-v0 --seeds 2 --conditions random_reinit --rounds 1"
    run(f"{flags} --teacher {value_teachers['maze']} --run-dir {tmp_path / 'alone'}")
    for round_, condition in ((0, "dense"), (1, "random_reinit")):
        assert_same_run(tmp_path / "alone", maze, round_, condition, seed=2)


def test_killed_run_resumes_to_the_same_results(finished, teachers, tmp_path):
    """With the transitions of before, which are there until the run is finished."""
    flags = f"{TINY} --seeds 1 2 --teacher {teachers['cartpole']} --run-dir {tmp_path / 'run'}"
    process = subprocess.Popen(helpers.command(SCRIPT, flags), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    while not (tmp_path / "run/checkpoint.pt").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    data = torch.load(tmp_path / "run/transitions.pt", weights_only=True)
    assert data["seen"].shape == (2, 400, 4) and data["outputs"].shape == (2, 400, 2)
    done = run(flags)
    assert "resuming" in done.stdout and "teacher plays" not in done.stderr
    assert torch.equal(done.variables["seen"], data["seen"])
    for name in ("results.csv", "curves.csv"):
        assert (tmp_path / "run" / name).read_bytes() == (finished / name).read_bytes()
    assert not (tmp_path / "run/transitions.pt").exists()
    assert "is finished" in run(flags).stdout


def test_another_teacher_in_the_same_file_is_refused(teachers, tmp_path):
    teacher = tmp_path / "teacher.pt"
    shutil.copy(teachers["cartpole"], teacher)
    flags = f"{TINY} --seeds 1 --teacher {teacher} --run-dir {tmp_path / 'run'}"
    run(f"{flags} --rounds 0")
    shutil.copy(SCRIPT.parent / "experts/CartPole-v1.pt", teacher)
    done = run(flags, status=2)
    assert f"{teacher} has changed since the run in {tmp_path / 'run'} began" in done.stderr
    shutil.copy(teachers["cartpole"], teacher)
    assert "resuming" in run(flags).stdout


def test_a_finished_run_goes_on_with_more_rounds(finished, teachers, tmp_path):
    """Its transitions are gone, and the same ones are collected again."""
    flags = f"{TINY} --seeds 1 2 --teacher {teachers['cartpole']} --run-dir {tmp_path / 'run'}"
    run(f"{flags} --rounds 1")
    assert not (tmp_path / "run/transitions.pt").exists()
    assert "at round 2" in run(flags).stdout and not (tmp_path / "run/transitions.pt").exists()
    for name in ("results.csv", "curves.csv"):
        assert (tmp_path / "run" / name).read_bytes() == (finished / name).read_bytes()


def stop_after_round_0(flags: str, monkeypatch) -> None:
    save = su.save_checkpoint

    def save_and_stop(file: Path, checkpoint: dict) -> None:
        save(file, checkpoint)
        if file.name == "checkpoint.pt":
            raise SystemExit(7)

    with monkeypatch.context() as patch:
        patch.setattr(su, "save_checkpoint", save_and_stop)
        run(flags, status=7)


def test_transitions_are_collected_again_if_they_are_gone(finished, teachers, tmp_path, monkeypatch):
    """They follow from the seeds, so that a run that lost them goes on to the same results."""
    flags = f"{TINY} --seeds 1 2 --teacher {teachers['cartpole']} --run-dir {tmp_path / 'run'}"
    stop_after_round_0(flags, monkeypatch)
    (tmp_path / "run/transitions.pt").unlink()
    done = run(flags)
    assert "resuming" in done.stdout and "teacher plays" in done.stderr
    for name in ("results.csv", "curves.csv"):
        assert (tmp_path / "run" / name).read_bytes() == (finished / name).read_bytes()


@pytest.mark.parametrize(("name", "env_id"), [("maze", "MazeGrid-v0"), ("breakout", "MinAtar/Breakout-v1")])
def test_students_of_action_values_resume(name, env_id, request, value_teachers, tmp_path, monkeypatch):
    """With the transitions of before, which are bits."""
    finished = request.getfixturevalue(name)
    teacher = value_teachers[{"maze": "maze", "breakout": "cnn"}[name]]
    flags = f"{TINY} --env-id {env_id} --seeds 1 2 --teacher {teacher} --run-dir {tmp_path / 'run'}"
    stop_after_round_0(flags, monkeypatch)
    seen = torch.load(tmp_path / "run/transitions.pt", weights_only=True)["seen"]
    assert seen.dtype == torch.uint8 and seen.shape == (2, 400, {"maze": 150, "breakout": 50}[name])
    done = run(flags)
    assert "resuming" in done.stdout and "teacher plays" not in done.stderr
    for name in ("results.csv", "curves.csv"):
        assert (tmp_path / "run" / name).read_bytes() == (finished / name).read_bytes()


def test_baselines_can_take_the_tickets_masks(teachers, tmp_path):
    flags = f"{TINY} --seeds 1 --conditions ticket mask_permuted --baseline-mask ticket"
    run(f"{flags} --teacher {teachers['cartpole']} --run-dir {tmp_path / 'run'}")
    for round_ in (1, 2):
        masks = [ticket(tmp_path / "run", round_, condition)["masks"] for condition in ("ticket", "mask_permuted")]
        assert all(torch.equal(masks[0][name], masks[1][name]) for name in masks[0])


def test_rewinding_to_a_later_update(finished, teachers, tmp_path):
    """To the weights that a round of so many updates ends with. Round 0 does not notice."""
    flags = f"{TINY} --seeds 1 --conditions ticket --teacher {teachers['cartpole']}"
    run(f"{flags} --rewind-steps 7 --run-dir {tmp_path / 'run'}")
    nets = run(f"{flags} --rounds 0 --updates 7 --run-dir {tmp_path / 'short'}").variables["nets"]
    assert_same_run(tmp_path / "run", finished, 0, "dense", seed=1)
    for round_ in (1, 2):
        t = ticket(tmp_path / "run", round_, "ticket")
        for name, tensor in nets.state_dict().items():
            assert torch.equal(t["initial"][name], tensor[0])


@pytest.mark.parametrize("name", ["finished", "gaussian", "maze", "breakout"])
def test_evaluating_a_student(name, request):
    folder = request.getfixturevalue(name)
    file = folder / "tickets/round02_ticket_seed1.pt"
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    out = run(f"--evaluate {file} --eval-episodes 7").stdout
    env_ids = {"finished": "CartPole-v1", "gaussian": "ShortPendulum-v0", "maze": "MazeGrid-v0"}
    env_id = (env_ids | {"breakout": "MinAtar/Breakout-v1"})[name]
    assert out.startswith(f"{env_id}, 7 episodes: mean ") and "IQM" in out and len(out.splitlines()) == 1
    assert run(f"--evaluate {file} --eval-episodes 7").stdout == out
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_evaluating_a_student_of_before_there_were_action_values(finished, tmp_path):
    t = ticket(finished, 1, "ticket")
    old = {name: value for name, value in t.items() if name not in ("masks", "kind", "matrix_seed")}
    old["view"] = {name: value for name, value in t["view"].items() if name != "high"}
    su.save_ticket(tmp_path / "old.pt", t["masks"], **old)
    out = run(f"--evaluate {finished / 'tickets/round01_ticket_seed1.pt'} --eval-episodes 7").stdout
    assert run(f"--evaluate {tmp_path / 'old.pt'} --eval-episodes 7").stdout == out


@pytest.mark.parametrize("name", ["finished", "breakout"])
def test_capturing_a_video_of_a_student(name, request, tmp_path):
    file = tmp_path / "t.pt"
    file.write_bytes((request.getfixturevalue(name) / "tickets/round00_dense_seed1.pt").read_bytes())
    done = run(f"--evaluate {file} --eval-episodes 2 --capture-video")
    assert "no video: " in done.stderr or f"video: {tmp_path / 't.gif'}" in done.stdout
    assert (tmp_path / "t.gif").exists() == ("no video: " not in done.stderr)


# ---- Teacher and transitions ---------------------------------------------------------------------------------------


def hand_made(file: Path, actor: dict[str, torch.Tensor], obs_dim: int = 4, **contents) -> Path:
    """A ticket as ppo_imp.py writes it, with the given actor; or with ``**VALUES`` as dqn_imp.py does."""
    best = {f"actor.{name}": tensor for name, tensor in actor.items()}
    ticket = {"best": best, "script": "ppo_imp", "obs_shape": [obs_dim], "inputs": None, "result": {"seed": 1}}
    ticket |= contents
    su.save_ticket(file, {}, **ticket)
    return file


VALUES = {"script": "dqn_imp", "args": {"end_e": 0.3}}


def linear(obs_dim: int, n_out: int, scale: float = 1.0, log_std: float | None = None) -> dict[str, torch.Tensor]:
    """An actor with a hidden layer of 16 units, drawn from normal distributions."""
    sizes, generator, actor = (obs_dim, 16, n_out), torch.Generator().manual_seed(0), {}
    for i in range(2):
        actor[f"layers.{i}.weight"] = scale * torch.randn(sizes[i], sizes[i + 1], generator=generator)
        actor[f"layers.{i}.bias"] = 0.1 * torch.randn(1, sizes[i + 1], generator=generator)
    return actor if log_std is None else {"log_std": torch.full((1, n_out), log_std), **actor}


VIEW = {"inputs": None, "high": 1.0, "mean": None, "var": None}  # all inputs as they are


def constant(obs_dim: int, out: list[float], log_std: float | None = None) -> dict[str, torch.Tensor]:
    """An actor whose output is ``out`` whatever it sees."""
    actor = {name: torch.zeros_like(tensor) for name, tensor in linear(obs_dim, len(out), 1.0, log_std).items()}
    actor["layers.1.bias"] = torch.tensor([out])
    return actor if log_std is None else actor | {"log_std": torch.full((1, len(out)), log_std)}


def collected(file: Path, env_id: str, seeds: tuple[int, ...], **flags) -> tuple[torch.Tensor, torch.Tensor]:
    args = Args(env_id=env_id, seeds=seeds, **{"transitions": 120, "num_envs": 3, **flags})
    vector = envs.vector.make(env_id, len(seeds), args.num_envs, matrix_seeds=[3] * len(seeds))
    teacher = bc_distill.load_teacher(file, env_id, vector)
    net = bc_distill.copies_of(teacher["actor"], len(seeds), **teacher["kind"])
    return bc_distill.collect(net, teacher["view"], vector, args, teacher["epsilon"])


@pytest.mark.parametrize(("name", "env_id"), [("cartpole", "CartPole-v1"), ("gaussian", "ShortPendulum-v0")])
def test_transitions_follow_from_their_seed(teachers, name, env_id):
    """The same each time, and whichever seeds are collected beside it."""
    seen, outputs = collected(teachers[name], env_id, (5, 2))
    again = collected(teachers[name], env_id, (5, 2))
    assert torch.equal(seen, again[0]) and torch.equal(outputs, again[1])
    for r, seed in enumerate((5, 2)):
        alone = collected(teachers[name], env_id, (seed,))
        assert torch.equal(seen[r], alone[0][0]) and torch.equal(outputs[r], alone[1][0])
    assert not torch.equal(seen[0], seen[1])
    assert seen.shape == (2, 120, seen.shape[2]) and len(torch.unique(seen[0], dim=0)) == 120


@pytest.mark.parametrize("name", ["gaussian", "masked"])
def test_students_see_what_the_teacher_sees(teachers, name):
    """Its inputs, normalised by its statistics at its best checkpoint; and its own actor outputs what ppo_imp.py has
    it do."""
    t = su.load_ticket(teachers[name])
    view = {"inputs": t["inputs"], "high": 1.0, "mean": t["best"]["norm.mean"], "var": t["best"]["norm.var"]}
    assert t["inputs"] == (None if name == "gaussian" else [0, 2]) and view["mean"].abs().min() > 0
    obs = np.random.default_rng(0).normal(size=(6, 3)) * [1, 1, 100]
    seen = bc_distill.see(obs, view)
    expected = (obs[:, t["inputs"] or [0, 1, 2]] - view["mean"].numpy()) / np.sqrt(view["var"].numpy())
    np.testing.assert_allclose(seen, expected.clip(-10, 10), rtol=1e-4)
    assert seen.dtype == torch.float32 and (seen.abs() == 10).any()
    vector = envs.vector.make("ShortPendulum-v0", 2, 3)
    teacher = bc_distill.load_teacher(teachers[name], "ShortPendulum-v0", vector)
    nets = ppo_imp.make_networks(1, ppo_imp.Args(**t["args"]), (seen.shape[1],), Box(-2, 2, (1,)))
    nets.load_state_dict({key: tensor[None] for key, tensor in t["best"].items()})
    theirs = ppo_imp.greedy(nets, t["inputs"] or slice(None))(obs)
    ours = bc_distill.greedy(bc_distill.copies_of(teacher["actor"], 2), teacher["view"], [1, 2])(obs)
    assert ours.shape == (2, 3, 1)
    np.testing.assert_allclose(ours.reshape(6), theirs.reshape(6), rtol=1e-5, atol=1e-6)


def test_students_see_bytes_as_the_teacher_does(tmp_path):
    """Divided by their bound: 200. They are stored as bytes."""
    file = hand_made(tmp_path / "t.pt", linear(6, 1, log_std=0.0), obs_dim=6)
    seen, outputs = collected(file, "Bytes-v0", (1,))
    assert seen.dtype == torch.uint8 and 180 < seen.max() <= 200
    net = bc_distill.copies_of(linear(6, 1, log_std=0.0), 1)
    torch.testing.assert_close(net(seen / 200), outputs)
    assert torch.equal(bc_distill.unpack(seen, 200.0, 6), seen / 200)


def test_normalised_bytes_are_stored_as_they_are_seen(tmp_path):
    best = {f"actor.{name}": tensor for name, tensor in linear(6, 1, log_std=0.0).items()}
    best |= {"norm.mean": torch.full((6,), 0.5), "norm.var": torch.full((6,), 0.25)}
    file = hand_made(tmp_path / "t.pt", {}, obs_dim=6, best=best)
    seen, outputs = collected(file, "Bytes-v0", (1,))
    assert seen.min() < -0.8 and 0.8 < seen.max() <= 1
    torch.testing.assert_close(bc_distill.copies_of(linear(6, 1, log_std=0.0), 1)(seen), outputs)


@pytest.mark.parametrize(("high", "n", "width"), [(1, 8, 1), (1, 13, 2), (200, 13, 13), (255, 6, 6)])
def test_packing_loses_nothing(high, n, width):
    obs = np.random.default_rng(0).integers(high + 1, size=(40, n), dtype=np.uint8)
    x = bc_distill.see(obs, VIEW | {"high": float(high)}).unflatten(0, (2, 20))
    packed = bc_distill.pack(x, float(high))
    assert packed.shape == (2, 20, width) and packed.dtype == torch.uint8
    assert torch.equal(bc_distill.unpack(packed, float(high), n), x)
    assert bc_distill.unpack(x, float(high), n) is x


@pytest.mark.parametrize("name", VALUE_TASKS)
def test_action_values_are_those_of_dqn_imp(value_teachers, name):
    """Of the teacher's network here and in its own script, for random observations; and so are evaluations' actions,
    the random ones too."""
    vector, t = envs.vector.make(VALUE_TASKS[name], 2, 1, matrix_seeds=[3, 3]), su.load_ticket(value_teachers[name])
    space, rng = vector.single_observation_space, np.random.default_rng(0)
    obs = rng.normal(size=(2000, *space.shape)).astype(np.float32)
    if space.dtype == np.uint8:
        obs = rng.integers(int(space.high.max()) + 1, size=obs.shape, dtype=np.uint8)
    inputs = t["inputs"] or range(math.prod(space.shape))
    assert (t["inputs"] == list(range(100, 400, 7))) == (name == "masked")
    shape, n_actions = space.shape if t["inputs"] is None else (len(inputs),), int(vector.single_action_space.n)
    q = dqn_imp.QNetwork(2, space, shape, n_actions, dqn_imp.Args(**t["args"]))
    best = {key.removeprefix("actor."): tensor for key, tensor in t["best"].items()}
    q.load_state_dict({key: tensor.expand(2, *tensor.shape) for key, tensor in best.items()})
    teacher = bc_distill.load_teacher(value_teachers[name], VALUE_TASKS[name], vector)
    net, view = bc_distill.copies_of(teacher["actor"], 2, **teacher["kind"]), teacher["view"]
    theirs = q(torch.from_numpy(obs.reshape(2, 1000, -1)[:, :, inputs]))
    assert torch.equal(net(bc_distill.see(obs, view).unflatten(0, (2, -1))), theirs) and theirs.std() > 0.01
    actions = dqn_imp.policy(q, list(inputs), 0.001, [4, 5])(obs)
    assert np.array_equal(bc_distill.greedy(net, view, [4, 5])(obs), actions)
    assert (actions != theirs.argmax(-1).numpy()).any()  # some are random


@pytest.mark.parametrize("name", VALUE_TASKS)
def test_transitions_of_action_values(value_teachers, name):
    """What the network sees, packed, and its values there: they follow from the seed, whatever the others are."""
    seen, outputs = collected(value_teachers[name], VALUE_TASKS[name], (5, 2))
    alone = collected(value_teachers[name], VALUE_TASKS[name], (2,))
    assert torch.equal(seen[1], alone[0][0]) and torch.equal(outputs[1], alone[1][0])
    vector = envs.vector.make(VALUE_TASKS[name], 1, 1, matrix_seeds=[3])
    teacher = bc_distill.load_teacher(value_teachers[name], VALUE_TASKS[name], vector)
    width = {"cnn": 50, "mlp": 50, "maze": 150, "masked": 6, "bytes": 600, "floats": 1200}[name]
    assert seen.shape == (2, 120, width) and seen.dtype == (torch.float32 if name == "floats" else torch.uint8)
    n_in = len(teacher["view"]["inputs"] or range(math.prod(vector.single_observation_space.shape)))
    x = bc_distill.unpack(seen, teacher["view"]["high"], n_in)
    torch.testing.assert_close(bc_distill.copies_of(teacher["actor"], 2, **teacher["kind"])(x), outputs)
    first = bc_distill.see(envs.vector.reset(vector, [0]), teacher["view"])
    assert "MazeGrid" not in VALUE_TASKS[name] or torch.equal(x[:, :3], first.expand(2, 3, -1))  # all begin the same
    assert teacher["epsilon"] == (0.05 if "MinAtar" in VALUE_TASKS[name] else 0.01)


def test_entangled_students_have_the_matrix_of_their_teacher(value_teachers, tmp_path, monkeypatch):
    """That of seed 3, where the teacher was trained: in all environments but the one that is asked for its spaces."""
    made, make = [], envs.vector.make

    def record(*args, **kwargs):
        made.append(kwargs["matrix_seeds"])
        return make(*args, **kwargs)

    monkeypatch.setattr(envs.vector, "make", record)
    flags = f"{TINY} --env-id MazeGridEntangled-v0 --seeds 1 2 --rounds 1 --conditions ticket"
    run(f"{flags} --teacher {value_teachers['floats']} --run-dir {tmp_path / 'run'}")
    assert made == [[0], [3], [3, 3], [3, 3], [3, 3]]  # the teacher's return, its transitions, rounds 0 and 1
    made.clear()
    file = tmp_path / "run/tickets/round01_ticket_seed1.pt"
    out = run(f"--evaluate {file} --eval-episodes 2 --capture-video").stdout
    assert out.startswith("MazeGridEntangled-v0, 2 episodes: mean ") and made == [[0], [3], [3]]


def test_transitions_are_those_of_the_tasks(teachers):
    """In time order, environment beside environment: the state after three rows follows from the one before."""
    seen, outputs = collected(teachers["cartpole"], "CartPole-v1", (1,), transitions=30)
    x, v = seen[0].view(10, 3, 4)[..., 0], seen[0].view(10, 3, 4)[..., 1]
    torch.testing.assert_close(x[1:], x[:-1] + 0.02 * v[:-1])
    best = su.load_ticket(teachers["cartpole"])["best"]
    hidden = torch.tanh(seen @ best["actor.layers.0.weight"] + best["actor.layers.0.bias"])
    torch.testing.assert_close(outputs, hidden @ best["actor.layers.1.weight"] + best["actor.layers.1.bias"])


def record_actions(monkeypatch) -> list[np.ndarray]:
    """What is given to the environments from now on."""
    actions, to_rows = [], envs.vector.to_rows

    def record(action: np.ndarray, space: gym.Space) -> np.ndarray:
        actions.append(action)
        return to_rows(action, space)

    monkeypatch.setattr(envs.vector, "to_rows", record)
    return actions


def test_the_teacher_plays_its_stochastic_policy(tmp_path, monkeypatch):
    actions = record_actions(monkeypatch)
    file = hand_made(tmp_path / "t.pt", constant(4, [math.log(0.3), math.log(0.7)]))
    collected(file, "CartPole-v1", (1, 2), transitions=3000)
    for r in range(2):
        assert np.mean([a[r] for a in actions]) == pytest.approx(0.7, abs=0.03)
    assert np.mean([a[0] == a[1] for a in actions]) == pytest.approx(0.58, abs=0.05)  # independent
    actions.clear()
    file = hand_made(tmp_path / "t.pt", constant(3, [0.3], log_std=-1.0), obs_dim=3)
    collected(file, "ShortPendulum-v0", (1, 2), transitions=3000)
    drawn = np.array(actions)  # [T, S, N, 1]
    assert drawn.mean((0, 2, 3)) == pytest.approx([0.3, 0.3], abs=0.03)
    assert drawn.std((0, 2, 3)) == pytest.approx([math.exp(-1)] * 2, rel=0.05)
    assert abs(np.corrcoef(drawn[:, 0].flatten(), drawn[:, 1].flatten())[0, 1]) < 0.1


def test_the_teacher_of_action_values_plays_epsilon_greedily(tmp_path, monkeypatch):
    """With the last epsilon of its training: 0.3."""
    actions = record_actions(monkeypatch)
    file = hand_made(tmp_path / "t.pt", constant(4, [0.2, 0.1]), **VALUES)
    seen, outputs = collected(file, "CartPole-v1", (1, 2), transitions=3000)
    drawn = np.array(actions)  # [T, S, N]
    assert drawn.mean((0, 2)) == pytest.approx([0.15, 0.15], abs=0.03)
    assert (drawn[:, 0] * drawn[:, 1]).mean() == pytest.approx(0.15**2, abs=0.015)  # independent
    assert torch.equal(outputs, torch.tensor([0.2, 0.1]).expand(2, 3000, 2)) and len(torch.unique(seen)) > 1000


def test_students_evaluate_by_mean_or_most_likely_action(tmp_path):
    obs = np.zeros((4, 3), np.float32)
    act = bc_distill.greedy(bc_distill.copies_of(constant(3, [0.0, 2.0, 1.0]), 2), VIEW, [1, 2])
    assert act(obs).tolist() == [[1, 1], [1, 1]]
    act = bc_distill.greedy(bc_distill.copies_of(constant(3, [0.25], log_std=1.0), 2), VIEW, [1, 2])
    assert act(obs).tolist() == [[[0.25], [0.25]]] * 2


def test_copies_are_that_many_networks():
    actor = linear(4, 2)
    net, x = bc_distill.copies_of(actor, 3), torch.randn(3, 5, 4)
    hidden = torch.tanh(x @ actor["layers.0.weight"] + actor["layers.0.bias"])
    torch.testing.assert_close(net(x), hidden @ actor["layers.1.weight"] + actor["layers.1.bias"])
    assert not any(p.requires_grad for p in net.parameters())
    net = bc_distill.copies_of(actor, 3, values=True)
    hidden = torch.relu(x @ actor["layers.0.weight"] + actor["layers.0.bias"])
    torch.testing.assert_close(net(x), hidden @ actor["layers.1.weight"] + actor["layers.1.bias"])


class FourInputs(helpers.Counter):
    """The observations of Cart-Pole with other actions."""

    observation_space = Box(-1, 1, (4,), np.float32)

    def __init__(self, action_space: gym.Space):
        self.action_space = action_space


for name, space in {
    "Three-v0": Discrete(3),
    "Box-v0": Box(-1, 1, (2,)),
    "BoxOf3-v0": Box(-1, 1, (3,)),
    "Two-v0": Discrete(2),
}.items():
    gym.register(name, entry_point=FourInputs, kwargs={"action_space": space}, disable_env_checker=True)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--teacher {missing}", "no teacher {missing}: train one with ppo_imp.py --env-id CartPole-v1"),
        ("--env-id ShortPendulum-v0", "experts/ShortPendulum-v0.pt: train one with ppo_imp.py --env-id ShortPend"),
        (
            "--env-id MazeGrid-v0",
            "experts/MazeGrid-v0.pt: train one with dqn_imp.py --env-id MazeGrid-v0 and name a file in tickets/",
        ),
        (
            "--env-id MinAtar/Breakout-v1",
            "experts/MinAtar-Breakout-v1.pt: train one with dqn_imp.py --env-id MinAtar/Breakout-v1 and name a file",
        ),
        ("--env-id MinAtar/NoGame-v1", "MinAtar/NoGame-v1 is not one of MinAtar/"),
        ("--teacher {text}", "cannot read {text} as a ticket"),
        ("--teacher {checkpoint}", "cannot read {checkpoint} as a ticket"),
        ("--teacher {student}", "{student} is no ticket of ppo_imp.py or dqn_imp.py"),
        ("--teacher {gaussian}", "is a teacher for observations (3,); CartPole-v1 has (4,)"),
        ("--teacher {maze}", "is a teacher for observations (1200,); CartPole-v1 has (4,)"),
        ("--env-id MinAtar/Asterix-v1 --teacher {maze}", "observations (1200,); MinAtar/Asterix-v1 has (4, 10, 10)"),
        ("--env-id MinAtar/Freeway-v1 --teacher {cnn}", "for observations (4, 10, 10); MinAtar/Freeway-v1 has (7, "),
        ("--env-id Box-v0 --teacher {values}", "is a teacher for other actions than those of Box-v0: Box("),
        ("--env-id Acrobot-v1 --teacher {cartpole}", "is a teacher for observations (4,); Acrobot-v1 has (6,)"),
        ("--env-id ALE/Pong-v5 --teacher {pictures}", "is a teacher for observations (4, 84, 84)"),
        (
            "--env-id Three-v0 --teacher {cartpole}",
            "is a teacher for other actions than those of Three-v0: Discrete(3)",
        ),
        ("--env-id Box-v0 --teacher {cartpole}", "is a teacher for other actions than those of Box-v0: Box("),
        ("--env-id BoxOf3-v0 --teacher {box}", "is a teacher for other actions than those of BoxOf3-v0: Box("),
        (
            "--env-id CartPole-v1 --teacher {box}",
            "is a teacher for other actions than those of CartPole-v1: Discrete(2)",
        ),
        ("--env-id Two-v0 --teacher {cartpole}", "is a teacher for CartPole-v1, not for Two-v0"),
        ("--evaluate {missing}", "cannot read {missing} as a ticket"),
        ("--evaluate {text}", "cannot read {text} as a ticket"),
        ("--evaluate {cartpole}", "{cartpole} is no ticket of bc_distill.py"),
    ],
)
def test_bad_teachers_get_one_line(flags, message, teachers, value_teachers, finished, tmp_path, monkeypatch):
    files = teachers | value_teachers | {"missing": tmp_path / "missing.pt", "text": tmp_path / "text.pt"}
    files |= {"checkpoint": finished / "checkpoint.pt", "student": finished / "tickets/round00_dense_seed1.pt"}
    files["text"].write_text("no ticket")
    files["box"] = hand_made(tmp_path / "box.pt", linear(4, 2, log_std=0.0))
    files["pictures"] = hand_made(tmp_path / "pictures.pt", linear(4, 6), obs_shape=[4, 84, 84])
    files["values"] = hand_made(tmp_path / "values.pt", linear(4, 2), **VALUES)
    monkeypatch.chdir(tmp_path)
    err = run(f"{TINY} {flags.format(**files)}", status=2).stderr
    assert message.format(**files) in err and len(err.splitlines()) == 1 and not (tmp_path / "runs").exists()


# ---- Distillation --------------------------------------------------------------------------------------------------


def test_loss_of_discrete_policies_is_the_cross_entropy():
    """Against PyTorch's distributions: H(teacher, student) = H(teacher) + KL(teacher || student)."""
    torch.manual_seed(0)
    actor, x, target = bc_distill.Network(3, (4, 8, 5), log_std=False), torch.randn(3, 20, 4), torch.randn(3, 20, 5)
    loss = bc_distill.distillation_loss(actor, x, target, None)
    teacher, student = Categorical(logits=target), Categorical(logits=actor(x))
    torch.testing.assert_close(loss, (teacher.entropy() + kl_divergence(teacher, student)).mean(1))


def test_loss_of_gaussian_policies_is_the_divergence_from_the_teacher():
    """KL(teacher || student), not the other way round, summed over the actions' dimensions."""
    torch.manual_seed(0)
    actor, x, target = bc_distill.Network(3, (4, 8, 2), log_std=True), torch.randn(3, 20, 4), torch.randn(3, 20, 2)
    actor.log_std.data, teacher_log_std = torch.randn(3, 1, 2), torch.tensor([[[-1.0, 0.5]]])
    loss = bc_distill.distillation_loss(actor, x, target, teacher_log_std)
    teacher = Independent(Normal(target, teacher_log_std.exp()), 1)
    student = Independent(Normal(actor(x), actor.log_std.exp()), 1)
    torch.testing.assert_close(loss, kl_divergence(teacher, student).mean(1))
    assert not torch.allclose(loss, kl_divergence(student, teacher).mean(1), rtol=0.1)


def test_loss_of_action_values_is_the_huber_loss():
    """With delta 1, of all actions' values: a parabola that goes on as a line."""
    torch.manual_seed(0)
    actor, x = bc_distill.Network(3, (4, 8, 5), log_std=False, values=True), torch.randn(3, 20, 4)
    target = 2 * torch.randn(3, 20, 5)
    loss = bc_distill.distillation_loss(actor, x, target, None)
    far = (actor(x) - target).abs()
    assert (far > 1).any() and (far < 1).any()
    torch.testing.assert_close(loss, torch.where(far < 1, far**2 / 2, far - 0.5).mean((1, 2)))
    for r in range(3):
        torch.testing.assert_close(loss[r], torch.nn.HuberLoss(delta=1.0)(actor(x)[r], target[r]))


@pytest.mark.parametrize("kind", [{}, {"values": True}, {"values": True, "picture": [1, 4, 3]}])
def test_runs_do_not_share_gradients(kind):
    actor = bc_distill.Network(2, (12, 8, 2), log_std=not kind, **kind)
    args = actor, torch.randn(2, 6, 12), torch.randn(2, 6, 2), torch.zeros(1, 1, 2)
    bc_distill.distillation_loss(*args)[1].backward()
    assert all((p.grad[0] == 0).all() and (p.grad[1] != 0).any() for p in actor.parameters())


def learn(file: Path, flags: str, tmp_path: Path) -> tuple[dict, list[float]]:
    """The variables of a run of one dense student, and its loss over 600 updates."""
    flags += " --rounds 0 --seeds 3 --hidden-sizes 32 --transitions 1000 --num-envs 4 --updates 600 --batch-size 64"
    flags += f" --eval-interval 100 --eval-episodes 100 --learning-rate 0.01 --teacher {file}"
    variables = run(f"{flags} --run-dir {tmp_path / 'run'}").variables
    return variables, [float(row["loss"]) for row in read_csv(tmp_path / "run/curves.csv")]


def test_students_learn_their_teacher(tmp_path):
    """The cross-entropy falls to the teacher's entropy; and then the student plays as the teacher does."""
    file = hand_made(tmp_path / "t.pt", linear(4, 2, scale=1.5))
    variables, losses = learn(file, "", tmp_path)
    outputs = variables["outputs"]
    entropy = Categorical(logits=outputs).entropy().mean().item()
    assert entropy - 0.01 < losses[-1] < entropy + 0.02 < entropy + 0.03 < losses[0]
    agree = variables["nets"]["actor"](variables["seen"]).argmax(-1) == outputs.argmax(-1)
    assert agree.float().mean() > 0.95


def test_gaussian_students_learn_their_teacher(tmp_path):
    """The KL divergence falls to zero, and the student's standard deviation to the teacher's."""
    file = hand_made(tmp_path / "t.pt", linear(3, 1, scale=0.3, log_std=-1.0), obs_dim=3)
    variables, losses = learn(file, "--env-id ShortPendulum-v0", tmp_path)
    assert 0 <= losses[-1] < 0.02 < 0.1 < losses[0]
    actor, outputs = variables["nets"]["actor"], variables["outputs"]
    assert actor.log_std.item() == pytest.approx(-1, abs=0.2) and outputs.std() > 0.2
    assert (actor(variables["seen"]) - outputs).abs().mean() < 0.1


def test_students_learn_action_values(tmp_path):
    """The Huber loss falls to zero, and with it the actions of the largest values become the teacher's."""
    file = hand_made(tmp_path / "t.pt", linear(4, 2), **VALUES)
    variables, losses = learn(file, "", tmp_path)
    assert 0 <= losses[-1] < 0.002 < 0.01 < losses[0]
    q, outputs = variables["nets"]["actor"](variables["seen"]), variables["outputs"]
    assert (q - outputs).abs().mean() < 0.1 * outputs.std()
    assert (q.argmax(-1) == outputs.argmax(-1)).float().mean() > 0.9


# ---- The command line ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--env-id CartPole", "CartPole: there is no such task. Did you mean CartPole-v1"),
        ("--prune-fraction 1.0", "--prune-fraction must be in (0, 1), not 1.0"),
        ("--seeds 1 1", "--seeds must be different numbers"),
        ("--seeds -1", "--seeds must be different numbers, none negative"),
        ("--conditions random_reinit --baseline-mask ticket", "needs ticket among --conditions"),
        ("--rounds -1", "--rounds must be 0 or more, not -1"),
        ("--rewind-steps -1", "--rewind-steps must be 0 or more, not -1"),
        ("--rewind-steps 5001", "--rewind-steps 5001 is beyond --updates 5000"),
        ("--threads -1", "--threads must be 0 or more, not -1"),
        ("--eval-interval 0", "--eval-interval must be above 0, not 0"),
        ("--eval-episodes 0", "--eval-episodes must be above 0, not 0"),
        ("--transitions 0", "--transitions must be above 0, not 0"),
        ("--transitions 10", "--num-envs 4 does not divide --transitions 10"),
        ("--num-envs 0", "--num-envs must be above 0, not 0"),
        ("--updates 0", "--updates must be above 0, not 0"),
        ("--batch-size -1", "--batch-size must be above 0, not -1"),
        ("--learning-rate 0", "--learning-rate must be above 0, not 0"),
        ("--hidden-sizes 0", "--hidden-sizes must be one or more numbers above 0, not (0,)"),
        ("--capture-video", "--capture-video needs --evaluate TICKET"),
        ("--run-dir /dev/null/x", "cannot use /dev/null/x as a run folder"),
    ],
)
def test_bad_input_gets_one_line(flags, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    err = run(flags, status=2).stderr
    assert message in err and len(err.splitlines()) == 1 and not list(tmp_path.iterdir())


def test_dry_run_says_what_each_round_keeps(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    out = run(f"{TINY} --dry-run").stdout  # with the expert that is here
    assert "weights in rounds 0 to 2: 112 90 72\n" in out and "actor.layers.2.weight" in out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("env_id", "expected"),
    [
        ("CartPole-v1", (10_000, 5_000, 1e-3, (128, 128), 4, 20)),
        ("Acrobot-v1", (200_000, 15_000, 5e-4, (128, 64), 4, 20)),
        ("HopperBulletEnv-v0", (500_000, 15_000, 5e-4, (64, 64), 10, 10)),
        ("MinAtar/Breakout-v1", (200_000, 15_000, 5e-4, (1024, 512), 16, 20)),
        ("MazeGridRGB-v0", (200_000, 15_000, 5e-4, (1024, 512), 16, 20)),
        ("MazeGridEntangled-v0", (20_000, 15_000, 5e-4, (1024, 512), 16, 20)),
    ],
)
def test_defaults_follow_from_the_task(env_id, expected, monkeypatch):
    """Tables 2, 4, 6 and 10."""
    monkeypatch.setattr("sys.argv", ["bc_distill.py", "--env-id", env_id])
    args = bc_distill.parse_args()
    names = ("transitions", "updates", "learning_rate", "hidden_sizes", "num_envs", "eval_episodes")
    assert tuple(getattr(args, name) for name in names) == expected
    assert args.eval_interval == args.updates // 10
    monkeypatch.setattr("sys.argv", f"bc_distill.py --env-id {env_id} --updates 7 --hidden-sizes 3".split())
    args = bc_distill.parse_args()
    assert (args.updates, args.hidden_sizes, args.transitions) == (7, (3,), expected[0])


@pytest.mark.parametrize(("name", "hidden_sizes"), [("cnn", (128, 64)), ("mlp", (1024, 512))])
def test_sizes_follow_from_the_teachers_network(value_teachers, name, hidden_sizes, monkeypatch):
    """Table 10."""
    flags = f"bc_distill.py --env-id MinAtar/Breakout-v1 --teacher {value_teachers[name]}".split()
    monkeypatch.setattr("sys.argv", flags)
    assert bc_distill.parse_args().hidden_sizes == hidden_sizes
    monkeypatch.setattr("sys.argv", [*flags, "--hidden-sizes", "3"])
    assert bc_distill.parse_args().hidden_sizes == (3,)


# ---- Experts -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", EXPERTS, ids=[file.stem for file in EXPERTS])
def test_experts_teach_their_tasks(file):
    if "Bullet" in file.stem:
        pytest.importorskip("pybullet", reason="pybullet has no wheels for this Python")
    assert file.stat().st_size < 200_000
    t = su.load_ticket(file)
    env_id, script = t["args"]["env_id"], t["script"]
    assert bc_distill.teacher_file(Args(env_id=env_id)) == file and t["result"]["round"] == 0
    teacher = bc_distill.load_teacher(file, env_id, envs.vector.make(env_id, 1, 1, matrix_seeds=[0]))
    assert all(tensor.isfinite().all() for tensor in teacher["actor"].values())
    rows = (file.parent / "README.md").read_text().splitlines()
    (row,) = (row.strip("| ").split(" | ") for row in rows if row.startswith(f"| `{file.name}`"))
    assert int(row[2]) == t["result"]["seed"] and f"python algos/{script}.py" in row[1]
    assert f"--env-id {env_id}" in row[1] or env_id == {"ppo_imp": ppo_imp, "dqn_imp": dqn_imp}[script].Args.env_id
    mean = float(row[3].replace("−", "-").replace(",", ""))
    assert mean == pytest.approx(t["result"]["best_retest"], abs=0.05 + 0.001 * abs(mean))


def test_readme_lists_no_expert_that_is_not_there():
    text = (SCRIPT.parent / "experts/README.md").read_text()
    assert set(re.findall(r"^\| `(.*?)` \|", text, re.M)) == {file.name for file in EXPERTS} != set()


def test_the_cart_pole_expert_is_one():
    out = helpers.run_here(PPO, f"--evaluate {SCRIPT.parent / 'experts/CartPole-v1.pt'}").stdout
    assert "20 episodes: mean 500.0" in out


@pytest.mark.slow
def test_students_of_the_cart_pole_expert(tmp_path):
    """Dense, and with a fifth of the weights gone: as good as the expert, whose return is the highest possible."""
    helpers.run(SCRIPT, f"--seeds 1 2 3 --rounds 1 --conditions ticket --run-dir {tmp_path / 'run'}")
    rows = read_csv(tmp_path / "run/results.csv")
    assert len(rows) == 6 and all(float(row["best_retest"]) > 450 for row in rows)
