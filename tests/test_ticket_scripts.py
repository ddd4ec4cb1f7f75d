"""What ppo_imp.py, dqn_imp.py and bc_distill.py have in common: rounds, tickets, resuming, and how their runs end."""

import itertools
import json
import math
import os
import re
import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import bc_distill
import dqn_imp
import helpers
import ppo_imp
import pytest
import torch
from helpers import Done, read_csv, said, ticket
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import envs.vector
import sparse_utils as su


@dataclass
class Script:
    name: str
    module: ModuleType
    per_round: int  # steps or updates
    between: int  # of these in an iteration
    flags: str  # four evaluations in a round of tiny networks

    def run(self, flags: str, status: int = 0) -> Done:
        return helpers.run_main(self.module, f"{SMALL} {self.flags} {flags}", status)

    def task(self, env_id: str, folder: Path) -> str:
        """Flags for a toy task; for bc_distill.py with a teacher."""
        if self.name != "bc_distill":
            return f"--env-id {env_id}"
        file = helpers.save_teacher(folder / "teacher.pt", env_id, helpers.tiny_actor(4, 2))
        return f"--env-id {env_id} --teacher {file}"


SMALL = "--hidden-sizes 8 8 --num-envs 4 --eval-episodes 4 --retest-episodes 10"
PPO = "--total-timesteps 512 --eval-interval 128 --num-steps 32 --num-minibatches 4 --update-epochs 2"
DQN = "--env-id CartPole-v1 --total-timesteps 256 --eval-interval 64 --learning-starts 32 --batch-size 16"
DQN += " --replay-ratio 4 --target-interval 5 --exploration-fraction 0.8 --buffer-size 2000"
BC = "--transitions 200 --updates 20 --eval-interval 5 --batch-size 16"
SCRIPTS = [
    Script("ppo_imp", ppo_imp, 512, 128, PPO),
    Script("dqn_imp", dqn_imp, 256, 4, DQN),
    Script("bc_distill", bc_distill, 20, 1, BC),
]


@pytest.fixture(scope="module", params=SCRIPTS, ids=lambda script: script.name)
def script(request) -> Script:
    return request.param


@pytest.fixture(scope="module")
def finished(script, tmp_path_factory) -> Path:
    """Two seeds, four conditions, three rounds."""
    folder = tmp_path_factory.mktemp(script.name) / "run"
    script.run(f"--seeds 1 2 --rounds 2 --run-dir {folder}")
    return folder


TWO_RUNS = "--seeds 1 2 --conditions ticket --rounds 1"


@pytest.fixture(scope="module")
def short(script, tmp_path_factory) -> Path:
    """Two seeds, one condition, two rounds."""
    folder = tmp_path_factory.mktemp(script.name) / "short"
    script.run(f"{TWO_RUNS} --run-dir {folder}")
    return folder


def tickets_of(folder: Path) -> dict[str, dict]:
    return {file.name: su.load_ticket(file) for file in sorted((folder / "tickets").iterdir())}


def assert_same_bytes(one: Path, other: Path) -> None:
    for name in ("results.csv", "curves.csv"):
        assert (one / name).read_bytes() == (other / name).read_bytes()


def assert_same_tickets(one: Path, other: Path) -> None:
    """Bit for bit."""
    these, those = tickets_of(one), tickets_of(other)
    assert these.keys() == those.keys()
    for name, t in these.items():
        assert t["result"] == those[name]["result"] and t.keys() == those[name].keys()
        for part in ("masks", "initial", "best", "rewind"):
            assert all(torch.equal(tensor, those[name][part][key]) for key, tensor in t.get(part, {}).items())


# ---- What a run leaves behind --------------------------------------------------------------------------------------


def test_a_row_per_round_and_run(script, finished):
    """best_return is the highest evaluation of the round, final_return its last, steps_to_best the first of these."""
    rows, curves = read_csv(finished / "results.csv"), read_csv(finished / "curves.csv")
    runs = [(int(row["round"]), row["condition"], int(row["seed"])) for row in rows]
    later = [(k, condition, seed) for k in (1, 2) for condition in su.CONDITIONS for seed in (1, 2)]
    assert runs == [(0, "dense", 1), (0, "dense", 2), *later]
    steps = [script.per_round * k // 4 for k in (1, 2, 3, 4)]
    for row in rows:
        here = [c for c in curves if all(c[key] == row[key] for key in ("round", "seed", "condition"))]
        assert [int(c["step"]) for c in here] == steps
        returns = [float(c["return_mean"]) for c in here]
        assert float(row["best_return"]) == max(returns) and float(row["final_return"]) == returns[-1]
        assert int(row["steps_to_best"]) == steps[returns.index(max(returns))] and row["diverged"] == "0"
        assert 8 < float(row["best_retest"]) < 500 and int(row["inputs_alive"]) == len(row["alive_inputs"].split())
    assert len(curves) == 4 * len(rows)
    assert not (finished / "round.pt").exists() and not (finished / "transitions.pt").exists()


def test_columns_are_those_of_the_readme(script, finished):
    readme = (Path(__file__).parent.parent / "README.md").read_text()
    section = re.search(r"## Ticket runs\n(.*?)\n## ", readme, re.S)[1]
    curves = re.findall(r"`(\w+)`", re.search(r"per evaluation: (.*?)`results.csv`", section, re.S)[1])
    names = re.findall(r"`([\w*]+)`", "".join(re.findall(r"^\|(.*?)\|", section.split("column of ")[1], re.M)))
    if script.name != "bc_distill":
        curves, names = curves[:-1], names[:-2]
    layers = [f"density_actor.layers.{i}" for i in range(3)]
    header = itertools.chain(*(layers if name == "density_*" else [name] for name in names))
    assert list(read_csv(finished / "results.csv")[0]) == list(header)
    assert list(read_csv(finished / "curves.csv")[0]) == curves


def test_conditions_start_as_table_1_says(script, finished):
    start = ticket(finished, 0, "dense")["initial"]
    for round_ in (1, 2):
        t = {condition: ticket(finished, round_, condition) for condition in su.CONDITIONS}
        for name in t["ticket"]["masks"]:
            active = {c: t[c]["initial"][name][t[c]["masks"][name] == 1] for c in t}
            assert torch.equal(active["ticket"], start[name][t["ticket"]["masks"][name] == 1])
            values = set(start[name].flatten().tolist())
            for condition in ("mask_permuted", "permuted_permuted"):
                assert set(active[condition].tolist()) <= values  # initial values, in other places
                assert not torch.equal(active[condition], start[name][t[condition]["masks"][name] == 1])
            assert not set(active["random_reinit"].tolist()) & values
            assert all((t[c]["initial"][name][t[c]["masks"][name] == 0] == 0).all() for c in t)  # a ticket to train
        for condition in su.CONDITIONS[:3]:  # what is not pruned is as it was
            others = t[condition]["initial"].keys() - t[condition]["masks"]
            assert others and all(torch.equal(t[condition]["initial"][name], start[name]) for name in others)


def test_tickets_are_sparse_and_nested(script, finished):
    """20% of what is left over all layers goes, the smallest of the best weights; what is gone is exactly zero."""
    left = {0: 4 * 8 + 8 * 8 + 8 * 2, 1: 90, 2: 72}  # ceil(0.8 * 112), ceil(0.8 * 90)
    for name, t in tickets_of(finished).items():
        assert t["result"]["remaining"] == left[t["result"]["round"]] == sum(int(m.sum()) for m in t["masks"].values())
        assert list(t["masks"]) == [f"actor.layers.{i}.weight" for i in range(3)], name
        for layer, mask in t["masks"].items():
            assert (t["best"][layer][mask == 0] == 0).all() and (t["best"][layer][mask == 1] != 0).any()
    for condition, nested in (("ticket", True), ("mask_permuted", True), ("random_reinit", False)):
        dense, first, second = (ticket(finished, k, condition if k else "dense") for k in (0, 1, 2))
        for before, now in ((dense, first), (first, second)):
            pruned = su.prune_ticket(before["best"], before["masks"], 0.2)
            assert all(torch.equal(pruned[layer], now["masks"][layer]) for layer in pruned) == nested
        assert all((second["masks"][layer] <= first["masks"][layer]).all() for layer in first["masks"]) == nested


def test_baselines_can_take_the_tickets_masks(script, tmp_path):
    script.run(f"--seeds 1 --rounds 2 --conditions ticket mask_permuted --baseline-mask ticket --run-dir {tmp_path}")
    for round_ in (1, 2):
        one, other = (ticket(tmp_path, round_, condition)["masks"] for condition in ("ticket", "mask_permuted"))
        assert all(torch.equal(mask, other[name]) for name, mask in one.items())


@pytest.mark.parametrize("part", [0.5, 1.0])
def test_rewinding_to_a_later_step(script, short, part, tmp_path, monkeypatch):
    """To the weights that round 0 was saved with at this step. Round 0 does not notice."""
    save, there, step = su.save_checkpoint, {}, int(part * script.per_round)

    def look(file, checkpoint):
        if file.name == "round.pt" and (checkpoint["round"], checkpoint["done"]) == (0, step):
            there.update({name: tensor.clone() for name, tensor in checkpoint["nets"].items()})
        save(file, checkpoint)

    monkeypatch.setattr(su, "save_checkpoint", look)
    script.run(f"{TWO_RUNS} --rewind-steps {step - script.between + 1} --run-dir {tmp_path}")
    assert read_csv(tmp_path / "results.csv")[:2] == read_csv(short / "results.csv")[:2]
    assert not all(torch.equal(t[0], ticket(tmp_path, 0, "dense")["initial"][name]) for name, t in there.items())
    for r, seed in enumerate((1, 2)):
        t = ticket(tmp_path, 1, "ticket", seed)
        masks = t["masks"]
        assert there and all(torch.equal(t["initial"][n], w[r] * masks.get(n, 1)) for n, w in there.items())


# ---- Going on --------------------------------------------------------------------------------------------------------


class Killed(BaseException):
    pass


def test_a_run_killed_at_any_write_goes_on_to_the_same_results(script, short, tmp_path, monkeypatch):
    """Start k comes to its k-th write of a file and no further, until one comes to the end."""
    write, left = su.write_atomically, 0

    def until_killed(file, how):
        nonlocal left
        left -= 1
        if left < 0:
            raise Killed
        write(file, how)

    if script.name == "ppo_imp":  # once a process, by SIGKILL
        file, flags = Path(script.module.__file__), f"{SMALL} {script.flags} {TWO_RUNS} --run-dir run"
        helpers.kill_when((tmp_path / "run/round.pt").exists, file, flags, tmp_path)
    monkeypatch.setattr(su, "write_atomically", until_killed)
    for left in itertools.count():  # noqa: B007 (until_killed counts it down)
        starts = left
        try:
            done = script.run(f"{TWO_RUNS} --run-dir {tmp_path / 'run'}")
            break
        except Killed:
            continue
    assert starts > 3 and "going on in" in done.stdout
    assert_same_bytes(tmp_path / "run", short)
    assert_same_tickets(tmp_path / "run", short)


def stop_at(place: str, n: int, patched: pytest.MonkeyPatch) -> None:
    """SIGTERM at the n-th update, or within the n-th evaluation or retest."""
    owner, name = (su, "mask_gradients") if place == "update" else (envs.vector, place)
    function, calls, acts = getattr(owner, name), itertools.count(1), itertools.count(1)

    def stopped(first, second, *args):
        here, act = next(calls) == n, second

        def act_or_stop(obs):
            if next(acts) == 3:
                os.kill(os.getpid(), signal.SIGTERM)
            return act(obs)

        if here and place == "update":
            os.kill(os.getpid(), signal.SIGTERM)
        elif here:
            second = act_or_stop
        return function(first, second, *args)

    patched.setattr(owner, name, stopped)


@pytest.mark.parametrize("task", ["", "--env-id MazeGrid-v0 --eval-episodes 20"])
def test_a_run_stopped_anywhere_goes_on_to_the_same_results(script, short, task, tmp_path_factory, monkeypatch):
    """Again and again, in an update, an evaluation and a retest of both rounds; what was not finished is dropped.
    MazeGrid is for the bits in dqn_imp.py's memory."""
    tmp_path, flags = tmp_path_factory.mktemp("stopped"), f"{TWO_RUNS} {task}"
    if task:
        if script.name != "dqn_imp":
            pytest.skip("dqn_imp.py has it")
        short = tmp_path_factory.mktemp("whole")
        script.run(f"{flags} --run-dir {short}")
    places = [("update", 3), ("update", 2), ("update", 4), ("play", 2), ("retest", 1)]
    places += [("update", 9), ("update", 2), ("play", 1), ("retest", 1)]
    for place, n in places:
        with monkeypatch.context() as patched:
            stop_at(place, n, patched)
            done = script.run(f"{flags} --run-dir {tmp_path}", status=128 + signal.SIGTERM)
        assert "stopped; the same command goes on from here" in done.stdout
    done = script.run(f"{flags} --run-dir {tmp_path}")
    assert f"going on in round 1 after {script.per_round}" in done.stdout
    assert_same_bytes(tmp_path, short)
    assert_same_tickets(tmp_path, short)
    shown = EventAccumulator(str(tmp_path)).Reload()  # TensorBoard has no gaps and nothing twice
    rows = [row for row in read_csv(short / "curves.csv") if (row["seed"], row["condition"]) == ("2", "ticket")]
    events = shown.Scalars("return/ticket/seed2")
    assert [event.step for event in events] == [script.per_round + int(row["step"]) for row in rows]
    assert [event.value for event in events] == pytest.approx([float(row["return_mean"]) for row in rows])


def test_a_finished_run_goes_on_with_more_rounds(script, finished, tmp_path):
    """To the results of a run that had so many from the start; with fewer it is finished as it is."""
    flags = f"--seeds 1 2 --run-dir {tmp_path}"
    script.run(f"{flags} --rounds 1")
    script.run(f"{flags} --rounds 2")
    assert_same_bytes(tmp_path, finished)
    for rounds in (1, 2):
        before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.*") if file.name != ".lock"}
        out = script.run(f"{flags} --rounds {rounds}").stdout
        assert out == f"{tmp_path} is finished; --fresh would start it over\n"
        assert all(file.stat().st_mtime_ns == when for file, when in before.items())
    config = json.loads((tmp_path / "config.json").read_text())
    assert [config["args"]["rounds"], *(again["args"]["rounds"] for again in config["resumed"])] == [1, 2]


# ---- Many runs, one program ----------------------------------------------------------------------------------------


@pytest.mark.rounding
@pytest.mark.parametrize("sizes", ["8 8", "7 5", "17 9", "cnn", "gaussian"])
def test_a_run_does_not_depend_on_its_neighbours(script, sizes, tmp_path, monkeypatch):
    """Seed 2 alone and among three: the same random numbers are drawn, and the same is learned, to float rounding."""
    others = {
        "cnn": ("dqn_imp", "--hidden-sizes 8 --env-id MinAtar/Breakout-v1 --network cnn"),
        "gaussian": ("ppo_imp", "--env-id ShortPendulum-v0 --normalize-obs --dropout 0.2 --weight-decay 0.001"),
    }
    name, flags = others.get(sizes, (script.name, f"--hidden-sizes {sizes}"))
    if name != script.name:
        pytest.skip("others are in its own file")
    streams, save = {}, su.save_checkpoint

    def look(file, checkpoint):
        if file.name == "round.pt":
            streams.setdefault(len(checkpoint["streams"]), {})[checkpoint["done"]] = checkpoint["streams"]
        save(file, checkpoint)

    monkeypatch.setattr(su, "save_checkpoint", look)
    for name, seeds in (("among", "1 2 3"), ("alone", "2")):
        script.run(f"{flags} --rounds 0 --seeds {seeds} --run-dir {tmp_path / name}")
    assert streams[1].keys() == streams[3].keys() and len(streams[1]) == 4
    assert all(alone[0] == streams[3][done][1] for done, alone in streams[1].items())
    alone, among = (ticket(tmp_path / name, 0, "dense", seed=2) for name in ("alone", "among"))
    for name, tensor in alone["best"].items():
        assert torch.equal(alone["initial"][name], among["initial"][name])
        torch.testing.assert_close(tensor, among["best"][name], atol=1e-4, rtol=1e-3)


def assert_same_numbers(row: dict[str, str], other: dict[str, str]) -> None:
    for name, value in row.items():
        if name in ("condition", "alive_inputs"):
            assert value == other[name]
        else:
            assert float(value) == pytest.approx(float(other[name]), rel=1e-4)


@pytest.mark.rounding
@pytest.mark.parametrize("how", ["a gradient is NaN", "the first weights are too large"])
def test_a_run_that_diverges_leaves_the_others_alone(script, how, tmp_path, monkeypatch):
    """Seed 2 of round 1, after its second evaluation or from its start: it is told and marked, goes on from its last
    finite weights, and these are pruned."""
    is_nan = how == "a gradient is NaN"
    condition = "ticket" if is_nan else "random_reinit"
    flags = f"--seeds 1 2 3 --conditions {condition} --rounds 2"
    mask_gradients, initial_state, calls = su.mask_gradients, su.initial_state, []
    monkeypatch.setattr(su, "mask_gradients", lambda *args: calls.append(0) or mask_gradients(*args))
    script.run(f"{flags} --run-dir {tmp_path / 'plain'}")
    updates = len(calls) // 3  # in a round
    calls.clear()

    def nan(parameters, masks):
        calls.append(0)
        if len(calls) == updates + int(0.6 * updates):
            parameters["actor.layers.1.weight"].grad[1, 0, 0] = math.nan
        return mask_gradients(parameters, masks)

    def huge(template, init, scale, generator):
        initial = initial_state(template, init, scale, generator)
        if generator.initial_seed() == su.seeds(2, 1, 0)[0]:
            initial |= {name: torch.full_like(w, 3e38) for name, w in initial.items() if name.endswith("weight")}
        return initial

    monkeypatch.setattr(su, *(("mask_gradients", nan) if is_nan else ("initial_state", huge)))
    out = script.run(f"{flags} --run-dir {tmp_path / 'run'}").stdout
    seen = script.per_round * (3 if is_nan else 1) // 4
    unit = "update" if script.name == "bc_distill" else "step"
    assert out.count("diverged") == 1 and f"round 1, seed 2, {condition}: diverged before {unit} {seen:,}" in out
    for name in ("results.csv", "curves.csv"):
        there, here = (read_csv(tmp_path / folder / name) for folder in ("plain", "run"))
        assert len(there) == len(here)
        for row, other in zip(there, here, strict=True):
            if row["round"] == "0" or row["seed"] != "2":
                assert_same_numbers(row, other)
    curves = [row for row in here if (row["round"], row["seed"]) == ("1", "2")]
    finite = [math.isfinite(float(row["return_mean"])) for row in curves]
    assert finite == ([True, True, False, True] if is_nan else [False] * 4)
    diverged = [(row["round"], row["seed"]) for row in read_csv(tmp_path / "run/results.csv") if row["diverged"] != "0"]
    assert diverged == [("1", "2")] and ticket(tmp_path / "run", 1, condition, 2)["result"]["diverged"] == seen
    first, second = (ticket(tmp_path / "run", k, condition, 2) for k in (1, 2))
    pruned = su.prune_ticket(first["best"], first["masks"], 0.2)
    assert not is_nan or all(torch.equal(mask, second["masks"][name]) for name, mask in pruned.items())
    for t in tickets_of(tmp_path / "run").values():
        assert all(tensor.isfinite().all() for tensor in t["best"].values())
        assert t["result"]["remaining"] == [112, 90, 72][t["result"]["round"]]


def test_pruning_ends_with_one_weight(script, tmp_path):
    """24 weights: 24, 3, 1."""
    flags = f"--seeds 1 --conditions ticket --hidden-sizes 4 --prune-fraction 0.9 --rounds 30 --run-dir {tmp_path}"
    assert "round 3: one weight is left, so there is nothing more to remove" in script.run(flags).stdout
    assert [row["remaining"] for row in read_csv(tmp_path / "results.csv")] == ["24", "3", "1"]
    assert "is finished" in script.run(flags).stdout
    assert "rounds 0 to 30: 24 3 1\n" in script.run(f"{flags} --dry-run").stdout


def test_a_signal_ends_an_endless_evaluation(script, tmp_path, monkeypatch):
    play, sent = envs.vector.play, []

    def send() -> None:
        sent.append(time.perf_counter())
        os.kill(os.getpid(), signal.SIGTERM)

    def endless(*args):
        threading.Timer(0.2, send).start()
        return play(*args)

    monkeypatch.setattr(envs.vector, "play", endless)
    flags = f"{script.task('Endless-v0', tmp_path)} --max-episode-steps 10000000 --seeds 1 --rounds 0"
    out = script.run(f"{flags} --run-dir {tmp_path / 'run'}", status=128 + signal.SIGTERM).stdout
    assert time.perf_counter() - sent[0] < 2 and "the same command goes on from here" in out
    if script.name != "bc_distill":  # where the teacher plays first
        assert su.load_checkpoint(tmp_path / "run/round.pt")["done"] == script.per_round // 4


# ---- Evaluating tickets --------------------------------------------------------------------------------------------


@pytest.mark.rounding
def test_evaluating_a_ticket(script, finished):
    """As a plain network of PyTorch plays, whose layers come from the same file; nothing is written."""
    file = finished / "tickets/round02_ticket_seed1.pt"
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    flags = "--eval-epsilon 0 " if script.name == "dqn_imp" else ""
    outs = [script.run(f"{flags}--evaluate {file} --eval-episodes 7 --seed {seed}").stdout for seed in (1, 1, 2)]
    assert outs[0] == outs[1] != outs[2] and all(len(out.splitlines()) == 1 for out in outs)
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*")} == before
    t, nn = su.load_ticket(file, dense=True), torch.nn
    activation = {"tanh": nn.Tanh, "relu": nn.ReLU}[t["activation"]]
    plain = nn.Sequential(nn.Linear(4, 8), activation(), nn.Linear(8, 8), activation(), nn.Linear(8, 2))
    plain.load_state_dict(t["best"]["actor"])
    vector = envs.vector.make("CartPole-v1", 1, 7)
    for seed in (1, 2):
        returns = envs.vector.play(vector, lambda obs: plain(torch.from_numpy(obs)).argmax(-1).numpy()[None], [seed])
        assert outs[seed].startswith(f"CartPole-v1, --seed {seed}, 7 episodes: mean {returns.mean():.1f}, std ")


def test_tasks_of_the_current_folder(script, tmp_path, monkeypatch):
    """my_envs.py where the user stands; with --evaluate, too."""
    monkeypatch.chdir(tmp_path)
    module, task = f"envs_of_{script.name}", f"Of_{script.name}-v0"  # a module is imported once
    kwargs = "{**helpers.TOYS['Endless-v0'], 'reward': 2.0}"
    text = f"register('{task}', helpers.Toy, kwargs={kwargs}, max_episode_steps=9)"
    Path(f"{module}.py").write_text(f"import helpers\nfrom gymnasium import register\n{text}\n")
    file = Path(script.module.__file__)
    flags = f"{SMALL} {script.flags} {script.task(f'{module}:{task}', tmp_path)} --seeds 1 --rounds 0 --run-dir run"
    helpers.run_here(file, flags)
    assert float(read_csv(Path("run/results.csv"))[0]["best_retest"]) == 18
    out = helpers.run_here(file, "--evaluate run/tickets/round00_dense_seed1.pt --max-episode-steps 5").stdout
    assert out.startswith(f"{module}:{task}, --seed 1, ") and "mean 10.0," in out


# ---- Spaces and flags ------------------------------------------------------------------------------------------------


def test_actions_that_do_not_start_at_zero(script, tmp_path):
    """And rewards that are arrays of one."""
    helpers.Toy.actions.clear()
    script.run(f"{script.task('FromFive-v0', tmp_path)} --seeds 1 --rounds 0 --run-dir {tmp_path / 'run'}")
    assert {int(action) for action in helpers.Toy.actions} == {5, 6}
    assert all(float(row["return_mean"]) == 3 for row in read_csv(tmp_path / "run/curves.csv"))


BAD = {
    "--evaluate {text}": "cannot read {text} as a ticket",
    "--evaluate {foreign}": "{foreign} is no ticket of {name}.py",
    "--env-id Endless-v0": "Endless-v0 has no time limit, so an episode might never end: give --max-episode-steps",
    "--prune-fraction 1": "--prune-fraction must be in (0, 1), not 1",
    "--rewind-steps 99999": "--rewind-steps 99999 is beyond ",
    "--seeds 1 1": "--seeds must be different numbers",
    "--conditions random_reinit --baseline-mask ticket": "--baseline-mask ticket needs ticket among --conditions",
    "--capture-video": "--capture-video needs --evaluate TICKET",
}
BAD_INPUT_MASK = {"--input-mask {other}": "no ticket for the (4,) inputs of CartPole-v1, but of Four-v0"}
BAD_IN = {
    "ppo_imp": {
        "--env-id Photo-v0": "pictures must be bytes [channels, 84, 84]; Photo-v0 has Box(",
        "--env-id Pixels-v0 --normalize-obs": "--normalize-obs is for vectors; Pixels-v0 has pictures",
        "--num-minibatches 3": "--num-minibatches 3 does not divide a rollout of 128 steps",
        "--total-timesteps 127": "--total-timesteps 127 is less than a rollout of 128",
        "--total-timesteps 1000 --rewind-steps 1000": "--rewind-steps 1000 is beyond the last update, after 896",
        **BAD_INPUT_MASK,
    },
    "dqn_imp": {
        "--env-id ShortPendulum-v0": "DQN needs Discrete actions; ShortPendulum-v0 has Box(",
        "--network cnn": "--network cnn needs pictures; CartPole-v1 has observations (4,)",
        "--num-envs 3": "--num-envs 3 does not divide the 4 steps between updates, batch_size / replay_ratio",
        "--buffer-size 11": "--buffer-size 11 must be three steps of --num-envs 4",
        "--buffer-size 90000000000": "GB of memory: a smaller --buffer-size takes less",
        "--env-id MinAtar/Breakout-v1 --network cnn --input-mask a.pt": "not for --network cnn",
        **BAD_INPUT_MASK,
    },
    "bc_distill": {"--transitions 10": "--num-envs 4 does not divide --transitions 10"},
}


def test_bad_input_gets_one_line(script, tmp_path, monkeypatch):
    """Before there is a run folder."""
    files = {name: tmp_path / f"{name}.pt" for name in ("text", "foreign", "other")}
    files["text"].write_text("no ticket")
    helpers.save_mask(files["other"], [0], env_id="Four-v0")
    helpers.save_teacher(files["foreign"], "CartPole-v1", helpers.tiny_actor(4, 2), script="another")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for flags, message in (BAD | BAD_IN[script.name]).items():
        done = script.run(flags.format(**files), status=2)
        text = said(done.stderr + done.stdout)
        assert message.format(**files, name=script.name) in text, (flags, text)
        assert len(done.stderr.splitlines()) == 1 or text.count("Error parsing Args") == 1
        assert not list(Path().iterdir()), flags


@pytest.mark.rounding
def test_weight_decay_and_dropout_change_what_is_learned(script, tmp_path):
    """Decay makes weights smaller, with dropout others result, from the same first ones; the pruned ones stay zero."""
    if script.name == "bc_distill":
        pytest.skip("has neither")
    best = []
    for flags in ("", "--dropout 0.5", "--weight-decay 1"):
        script.run(f"{TWO_RUNS} {flags} --fresh --run-dir {tmp_path}")
        dense, t = ticket(tmp_path, 0, "dense"), ticket(tmp_path, 1, "ticket")
        assert all((t["best"][name][mask == 0] == 0).all() for name, mask in t["masks"].items())
        best.append((dense["initial"], dense["best"]["actor.layers.1.weight"]))
    (first, plain), (other, dropout), (_, decay) = best
    assert all(torch.equal(tensor, other[name]) for name, tensor in first.items())
    assert not torch.equal(plain, dropout) and decay.norm() < 0.99 * plain.norm()


DEFAULTS = {  # tables 2 to 11
    "ppo_imp": {
        "names": "total_timesteps num_steps num_minibatches gae_lambda hidden_sizes prune normalize_obs",
        "--env-id CartPole-v1": (80_000, 64, 8, 0.8, (64, 64), "actor", False),
        "--env-id Acrobot-v1": (500_000, 128, 4, 0.95, (128, 64), "actor", False),
        "--env-id HopperBulletEnv-v0": (1_500_000, 128, 20, 0.98, (64, 64), "both", False),
        "--env-id Hopper-v5": (1_500_000, 128, 20, 0.98, (64, 64), "both", True),
        "--env-id ALE/Pong-v5": (2_500_000, 128, 20, 0.98, (512,), "actor", False),
    },
    "dqn_imp": {
        "names": "total_timesteps learning_rate end_e exploration_fraction hidden_sizes num_envs batch_size",
        "--env-id MazeGridRGB-v0": (5_000_000, 5e-4, 0.01, 0.2, (256, 128), 64, 256),
        "--env-id MinAtar/Breakout-v1": (15_000_000, 2.5e-4, 0.05, 0.5, (512, 256), 64, 256),
        "--env-id MinAtar/Breakout-v1 --network cnn": (15_000_000, 2.5e-4, 0.05, 0.5, (128, 64), 64, 256),
        "--env-id CartPole-v1": (200_000, 5e-4, 0.01, 0.2, (64, 64), 4, 64),
    },
    "bc_distill": {
        "names": "updates transitions learning_rate hidden_sizes num_envs eval_episodes",
        "--env-id CartPole-v1": (5_000, 10_000, 1e-3, (128, 128), 4, 20),
        "--env-id Acrobot-v1": (15_000, 200_000, 5e-4, (128, 64), 4, 20),
        "--env-id HopperBulletEnv-v0": (15_000, 500_000, 5e-4, (64, 64), 10, 10),
        "--env-id MinAtar/Breakout-v1": (15_000, 200_000, 5e-4, (1024, 512), 16, 20),
        "--env-id MazeGridEntangled-v0": (15_000, 20_000, 5e-4, (1024, 512), 16, 20),
    },
}


def test_defaults_follow_from_the_task(script, monkeypatch):
    """And flags that are given win."""
    names, *tasks = DEFAULTS[script.name].items()
    for flags, expected in tasks:
        monkeypatch.setattr("sys.argv", [script.name, *flags.split()])
        args = script.module.parse_args()
        assert tuple(getattr(args, name) for name in names[1].split()) == expected
        assert args.eval_interval == expected[0] // 10
        monkeypatch.setattr("sys.argv", [script.name, *flags.split(), "--hidden-sizes", "3", "--eval-interval", "77"])
        given = script.module.parse_args()
        assert (given.hidden_sizes, given.eval_interval, given.num_envs) == ((3,), 77, args.num_envs)
