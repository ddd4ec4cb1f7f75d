"""algos/bc_distill.py: its losses, its teachers and their transitions, its students, and the experts."""

import math
import re
import shutil
from pathlib import Path

import bc_distill
import dqn_imp
import helpers
import numpy as np
import ppo_imp
import pytest
import torch
from bc_distill import Agent, Args
from helpers import Done, read_csv, save_teacher, ticket, tiny_actor
from torch.distributions import Categorical, Independent, Normal, kl_divergence

import envs.vector
import sparse_utils as su

SCRIPT = Path(bc_distill.__file__)
EXPERTS = sorted((SCRIPT.parent / "experts").glob("*.pt"))
# 20 updates in a round
TINY = "--hidden-sizes 8 8 --transitions 400 --updates 20 --batch-size 16 --eval-interval 10 --eval-episodes 10"
TINY += " --retest-episodes 10"
TEACH = "--hidden-sizes 16 --total-timesteps 1024 --num-envs 4 --num-steps 32 --num-minibatches 4 --rounds 0"
TEACH += " --seeds 1 --retest-episodes 10"
TEACH_VALUES = "--hidden-sizes 16 --total-timesteps 320 --eval-interval 320 --learning-starts 64 --batch-size 16"
TEACH_VALUES += " --num-envs 4 --buffer-size 1000 --eval-episodes 10 --retest-episodes 10 --rounds 0 --seeds 3"
POLICIES = {"cartpole": "CartPole-v1", "gaussian": "ShortPendulum-v0", "masked": "ShortPendulum-v0"}
TASKS = POLICIES | {
    "cnn": "MinAtar/Breakout-v1",
    "mlp": "MinAtar/Breakout-v1",
    "maze": "MazeGrid-v0",
    "few": "MazeGrid-v0",
    "bytes": "MazeGridRGB-v0",
    "floats": "MazeGridEntangled-v0",
}


def run(flags: str, status: int = 0) -> Done:
    return helpers.run_main(bc_distill, flags, status)


@pytest.fixture(scope="module")
def teachers(tmp_path_factory) -> dict[str, Path]:
    """Tickets of ppo_imp.py for ``POLICIES``: of Cart-Pole; Gaussian with normalised observations; the same, but
    without one input. Tickets of dqn_imp.py for the other ``TASKS``: with convolutions and without; of bits, of some of
    these, of bytes, and of floats through the matrix of seed 3."""
    folder = tmp_path_factory.mktemp("teachers")
    pendulum = f"--normalize-obs --input-mask {helpers.save_mask(folder / 'p.pt', [0, 2], 3, 'ShortPendulum-v0')}"
    flags = {
        "gaussian": "--normalize-obs",
        "masked": pendulum,
        "cnn": "--network cnn",
        "few": f"--input-mask {helpers.save_mask(folder / 'm.pt', slice(100, 400, 7), 1200, 'MazeGrid-v0')}",
    }
    files = {}
    for name, env_id in TASKS.items():
        module, teach, seed = (ppo_imp, TEACH, 1) if name in POLICIES else (dqn_imp, TEACH_VALUES, 3)
        helpers.run_main(module, f"{teach} --env-id {env_id} {flags.get(name, '')} --run-dir {folder / name}")
        files[name] = folder / name / f"tickets/round00_dense_seed{seed}.pt"
    return files


@pytest.fixture(scope="module")
def students(teachers, tmp_path_factory) -> dict[str, Path]:
    """Folders of runs with two rounds and all conditions, for seeds 1 and 2."""
    folder = tmp_path_factory.mktemp("bc_distill")
    for name in ("gaussian", "maze", "cnn"):
        flags = f"{TINY} --env-id {TASKS[name]} --teacher {teachers[name]} --seeds 1 2 --rounds 1"
        run(f"{flags} --run-dir {folder / name}")
    return {name: folder / name for name in ("gaussian", "maze", "cnn")}


def agent_and_vector(file: Path, env_id: str, runs: int, n_envs: int, matrix_seed: int = 3):
    vector = envs.vector.make(env_id, runs, n_envs, matrix_seeds=[matrix_seed] * runs)
    return Agent.of_ticket(bc_distill.load_teacher(file, env_id, vector)), vector


# ---- What a run leaves behind --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gaussian", "maze", "cnn"])
def test_students_are_sparse_tickets_of_their_teachers_kind(name, students):
    shapes = {"gaussian": [(3, 8), (8, 8), (8, 1)], "maze": [(1200, 8), (8, 8), (8, 4)]}
    shapes["cnn"] = [(16, 4, 3, 3), (16 * 8 * 8, 8), (8, 8), (8, 3)]
    total, curves = sum(map(math.prod, shapes[name])), read_csv(students[name] / "curves.csv")
    for row in read_csv(students[name] / "results.csv"):
        t = ticket(students[name], int(row["round"]), row["condition"], int(row["seed"]))
        assert [tuple(mask.shape) for mask in t["masks"].values()] == shapes[name]
        assert int(row["remaining"]) == (total if row["round"] == "0" else math.ceil(0.8 * total))
        for layer, mask in t["masks"].items():
            assert (t["best"][layer][mask == 0] == 0).all() and (t["best"][layer][mask == 1] != 0).any()
        assert t["values"] == (name != "gaussian") and t["activation"] == ("tanh" if name == "gaussian" else "relu")
        assert ("actor.log_std" in t["best"]) == (name == "gaussian")
        assert t["obs_shape"] == {"gaussian": [3], "maze": [1200], "cnn": [4, 10, 10]}[name]
        here = [c for c in curves if all(c[key] == row[key] for key in ("round", "seed", "condition"))]
        assert row["loss"] == here[-1]["loss"] and 0 < float(row["loss"]) < 5
    out = run(f"--evaluate {students[name] / 'tickets/round01_ticket_seed1.pt'} --eval-episodes 7").stdout
    assert out.startswith(f"{TASKS[name]}, --seed 1, 7 episodes: mean ")


def test_the_teachers_return_is_that_of_its_ticket(teachers, students):
    out = helpers.run_main(ppo_imp, f"--evaluate {teachers['gaussian']} --eval-episodes 20").stdout
    teacher_return = float(read_csv(students["gaussian"] / "results.csv")[0]["teacher_return"])
    assert f"20 episodes: mean {teacher_return:.1f}," in out


@pytest.mark.rounding
@pytest.mark.parametrize("name", ["gaussian", "maze", "cnn"])
def test_a_run_does_not_depend_on_its_neighbours(name, teachers, tmp_path):
    """Its weights and losses, to float rounding."""
    flags = f"{TINY} --env-id {TASKS[name]} --rounds 0 --teacher {teachers[name]} --batch-size 128"
    for folder, seeds in (("among", "1 2 3"), ("alone", "2")):
        run(f"{flags} --seeds {seeds} --run-dir {tmp_path / folder}")
    one, other = (ticket(tmp_path / folder, 0, "dense", 2) for folder in ("alone", "among"))
    assert one["result"]["loss"] == pytest.approx(other["result"]["loss"], rel=1e-4)
    for key, tensor in one["best"].items():
        torch.testing.assert_close(tensor, other["best"][key], atol=1e-4, rtol=1e-3)


def test_another_teacher_in_the_same_file_is_refused(teachers, tmp_path):
    teacher = tmp_path / "teacher.pt"
    shutil.copy(teachers["cartpole"], teacher)
    flags = f"{TINY} --seeds 1 --conditions ticket --teacher {teacher} --run-dir {tmp_path / 'run'}"
    run(f"{flags} --rounds 0")
    shutil.copy(SCRIPT.parent / "experts/CartPole-v1.pt", teacher)
    done = run(f"{flags} --rounds 1", status=2)
    assert f"{teacher} has changed since the run in {tmp_path / 'run'} began" in done.stderr
    shutil.copy(teachers["cartpole"], teacher)
    assert "going on in" in run(f"{flags} --rounds 1").stdout


# ---- Teacher and transitions ---------------------------------------------------------------------------------------

VALUES = {"script": "dqn_imp", "args": {"env_id": "CartPole-v1", "end_e": 0.3}}


def constant(n_in: int, out: list[float], log_std: float | None = None) -> dict[str, torch.Tensor]:
    """An actor whose output is ``out`` whatever it sees."""
    actor = {name: torch.zeros_like(tensor) for name, tensor in tiny_actor(n_in, len(out), 1.0, log_std).items()}
    actor["layers.1.bias"] = torch.tensor([out])
    return actor if log_std is None else actor | {"log_std": torch.full((1, len(out)), log_std)}


def collected(file: Path, env_id: str, seeds: tuple[int, ...], **flags) -> tuple[torch.Tensor, torch.Tensor]:
    args = Args(env_id=env_id, seeds=seeds, **{"transitions": 120, "num_envs": 3, **flags})
    agent, vector = agent_and_vector(file, env_id, len(seeds), args.num_envs)
    nets = agent.copies(len(seeds), vector.single_observation_space)
    epsilon = su.load_ticket(file)["args"]["end_e"] if agent.values else 0.0
    return bc_distill.collect(nets, vector, args, epsilon)


@pytest.mark.rounding
@pytest.mark.parametrize("name", TASKS)
def test_transitions_follow_from_their_seed(teachers, name):
    """What is seen, packed, and the teacher's outputs there: the same each time, and whatever seeds are beside it."""
    env_id = TASKS[name]
    stored, outputs = collected(teachers[name], env_id, (5, 2))
    again = collected(teachers[name], env_id, (5, 2))
    assert torch.equal(stored, again[0]) and torch.equal(outputs, again[1])
    alone = collected(teachers[name], env_id, (2,))
    torch.testing.assert_close(stored[1:], alone[0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(outputs[1:], alone[1], atol=1e-4, rtol=1e-3)
    width = {"cnn": 50, "mlp": 50, "maze": 150, "few": 150, "bytes": 600, "floats": 1200, "cartpole": 4}.get(name, 3)
    assert stored.shape == (2, 120, width)
    agent, vector = agent_and_vector(teachers[name], env_id, 2, 3)
    space = vector.single_observation_space
    assert stored.dtype == (torch.uint8 if space.dtype == np.uint8 else torch.float32)
    nets = agent.copies(2, space)
    torch.testing.assert_close(nets["actor"](nets["view"](bc_distill.unpack(stored, space))), outputs)
    if name in POLICIES:
        assert not torch.equal(stored[0], stored[1]) and len(torch.unique(stored[0], dim=0)) == 120


@pytest.mark.rounding
@pytest.mark.parametrize("name", TASKS)
def test_teachers_do_what_they_did_in_their_own_script(teachers, name):
    """Outputs for random observations, and the actions of evaluations, the random ones too."""
    t, env_id, rng = su.load_ticket(teachers[name]), TASKS[name], np.random.default_rng(0)
    agent, vector = agent_and_vector(teachers[name], env_id, 2, 1)
    space, actions = vector.single_observation_space, vector.single_action_space
    obs = rng.normal(size=(2000, *space.shape)).astype(np.float32)
    if space.dtype == np.uint8:
        obs = rng.integers(int(space.high.max()) + 1, size=obs.shape, dtype=np.uint8)
    expected_inputs = {"masked": [0, 2], "few": list(range(100, 400, 7))}
    assert agent.inputs == t["inputs"] == expected_inputs.get(name)
    if name in POLICIES:
        theirs = ppo_imp.make_networks(2, ppo_imp.Args(**t["args"]), space, actions, t["inputs"])
    else:
        theirs = dqn_imp.make_networks(2, dqn_imp.Args(**t["args"]), space, int(actions.n), t["inputs"])
    theirs.load_state_dict({key: tensor.expand(2, *tensor.shape) for key, tensor in t["best"].items()})
    ours, x = agent.copies(2, space), torch.from_numpy(obs.reshape(2, 1000, -1))
    out = theirs["actor"](theirs["view"](x))
    torch.testing.assert_close(ours["actor"](ours["view"](x)), out, atol=1e-5, rtol=1e-4)
    act = ppo_imp.greedy(theirs) if name in POLICIES else dqn_imp.policy(theirs, 0.001, [4, 5])
    got, expected = bc_distill.greedy(ours, [4, 5])(obs), act(obs)
    if agent.gaussian:
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
    else:
        assert (got == expected).mean() > 0.999 and (name in POLICIES or (got != out.argmax(-1).numpy()).any())
    assert out.std() > 0.01 and not any(p.requires_grad for p in ours.parameters())


def test_entangled_students_have_the_matrix_of_their_teacher(teachers, tmp_path, monkeypatch):
    """That of seed 3, where the teacher was trained: in all environments but the one that is asked for its spaces."""
    made, make = [], envs.vector.make

    def record(*args, **kwargs):
        made.append(kwargs["matrix_seeds"])
        return make(*args, **kwargs)

    monkeypatch.setattr(envs.vector, "make", record)
    flags = f"{TINY} --env-id MazeGridEntangled-v0 --seeds 1 2 --rounds 1 --conditions ticket --transitions 48"
    run(f"{flags} --teacher {teachers['floats']} --run-dir {tmp_path / 'run'}")
    assert made[0] == [0] and len(made) >= 5 and {seed for seeds in made[1:] for seed in seeds} == {3}
    made.clear()
    file = tmp_path / "run/tickets/round01_ticket_seed1.pt"
    out = run(f"--evaluate {file} --eval-episodes 2 --capture-video").stdout
    assert out.startswith("MazeGridEntangled-v0, --seed 1, 2 episodes: mean ") and made == [[3], [3]]


@pytest.mark.rounding
def test_transitions_are_those_of_the_tasks(teachers):
    """In time order, environment beside environment: the state after three rows follows from the one before."""
    stored, _ = collected(teachers["cartpole"], "CartPole-v1", (1,), transitions=30)
    x, v = stored[0].view(10, 3, 4)[..., 0], stored[0].view(10, 3, 4)[..., 1]
    torch.testing.assert_close(x[1:], x[:-1] + 0.02 * v[:-1])


@pytest.mark.parametrize("kind", ["policy", "gaussian", "values"])
def test_the_teacher_plays_its_stochastic_policy(kind, tmp_path, monkeypatch):
    """With action values it is epsilon-greedy, with the last epsilon of its training: 0.3."""
    actions, to_rows = [], envs.vector.to_rows
    monkeypatch.setattr(envs.vector, "to_rows", lambda action, space: actions.append(action) or to_rows(action, space))
    n_in, env_id = (3, "ShortPendulum-v0") if kind == "gaussian" else (4, "CartPole-v1")
    out = {"policy": [math.log(0.3), math.log(0.7)], "gaussian": [0.3], "values": [0.2, 0.1]}[kind]
    actor = constant(n_in, out, log_std=-1.0 if kind == "gaussian" else None)
    file = save_teacher(tmp_path / "t.pt", env_id, actor, **(VALUES if kind == "values" else {"n_in": n_in}))
    stored, outputs = collected(file, env_id, (1, 2), transitions=3000)
    drawn = np.array(actions).reshape(1000, 2, 3)  # [T, S, N]
    mean, std = {"policy": (0.7, 0.21**0.5), "gaussian": (0.3, math.exp(-1)), "values": (0.15, 0.1275**0.5)}[kind]
    assert drawn.mean((0, 2)) == pytest.approx([mean] * 2, abs=0.03)
    assert drawn.std((0, 2)) == pytest.approx([std] * 2, rel=0.1)
    assert abs(np.corrcoef(drawn[:, 0].flatten(), drawn[:, 1].flatten())[0, 1]) < 0.1  # independent
    assert torch.equal(outputs, torch.tensor(out).expand(2, 3000, len(out))) and len(torch.unique(stored)) > 1000


def test_bad_teachers_get_one_line(teachers, tmp_path, monkeypatch):
    """Before there is a run folder."""
    messages = {
        "--teacher {missing}": "no teacher {missing}: train one with ppo_imp.py --env-id CartPole-v1",
        "--env-id MazeGrid-v0": "MazeGrid-v0.pt: train one with dqn_imp.py --env-id MazeGrid-v0 and name a file",
        "--teacher {student}": "{student} is no ticket of ppo_imp.py or dqn_imp.py",
        "--teacher {gaussian}": "is a teacher for observations (3,); CartPole-v1 has (4,)",
        "--env-id Pixels-v0 --teacher {pixels}": "is a teacher for observations (4, 84, 84)",
        "--env-id Three-v0 --teacher {cartpole}": "for other actions than those of Three-v0: Discrete(3)",
        "--teacher {box}": "for other actions than those of CartPole-v1: Discrete(2)",
        "--env-id FromFive-v0 --teacher {cartpole}": "is a teacher for CartPole-v1, not for FromFive-v0",
    }
    files = teachers | {"missing": tmp_path / "missing.pt"}
    for name, env_id, actor, contents in (
        ("student", "CartPole-v1", tiny_actor(4, 2), {"script": "bc_distill"}),
        ("box", "Floats-v0", tiny_actor(4, 2, log_std=0.0), {}),
        ("pixels", "Pixels-v0", tiny_actor(4, 2), {"obs_shape": [4, 84, 84]}),
    ):
        files[name] = save_teacher(tmp_path / f"{name}.pt", env_id, actor, **contents)
    monkeypatch.chdir(tmp_path)
    for flags, message in messages.items():
        err = run(f"{TINY} {flags.format(**files)}", status=2).stderr
        assert message.format(**files) in err and len(err.splitlines()) == 1 and not Path("runs").exists()


# ---- Distillation --------------------------------------------------------------------------------------------------


@pytest.mark.rounding
def test_loss_of_discrete_policies_is_the_cross_entropy():
    """Against PyTorch's distributions: H(teacher, student) = H(teacher) + KL(teacher || student)."""
    torch.manual_seed(0)
    actor, x, target = bc_distill.Network(3, (4, 8, 5), gaussian=False), torch.randn(3, 20, 4), torch.randn(3, 20, 5)
    loss = bc_distill.distillation_loss(actor, x, target, None)
    teacher, student = Categorical(logits=target), Categorical(logits=actor(x))
    torch.testing.assert_close(loss, (teacher.entropy() + kl_divergence(teacher, student)).mean(1))


@pytest.mark.rounding
def test_loss_of_gaussian_policies_is_the_divergence_from_the_teacher():
    """KL(teacher || student), not the other way round, summed over the actions' dimensions."""
    torch.manual_seed(0)
    actor, x, target = bc_distill.Network(3, (4, 8, 2), gaussian=True), torch.randn(3, 20, 4), torch.randn(3, 20, 2)
    actor.log_std.data, teacher_log_std = torch.randn(3, 1, 2), torch.tensor([[[-1.0, 0.5]]])
    loss = bc_distill.distillation_loss(actor, x, target, teacher_log_std)
    teacher = Independent(Normal(target, teacher_log_std.exp()), 1)
    student = Independent(Normal(actor(x), actor.log_std.exp()), 1)
    torch.testing.assert_close(loss, kl_divergence(teacher, student).mean(1))
    assert not torch.allclose(loss, kl_divergence(student, teacher).mean(1), rtol=0.1)


@pytest.mark.rounding
def test_loss_of_action_values_is_the_huber_loss():
    """With delta 1, a parabola that goes on as a line: the mean over all actions' values."""
    torch.manual_seed(0)
    actor, x = bc_distill.Network(3, (4, 8, 5), gaussian=False, values=True), torch.randn(3, 20, 4)
    target = 2 * torch.randn(3, 20, 5)
    loss = bc_distill.distillation_loss(actor, x, target, None)
    far = (actor(x) - target).abs()
    assert (far > 1).any() and (far < 1).any()
    torch.testing.assert_close(loss, torch.where(far < 1, far**2 / 2, far - 0.5).mean((1, 2)))


@pytest.mark.parametrize("kind", ["policy", "gaussian", "values"])
def test_students_learn_their_teacher(kind, tmp_path):
    """The cross-entropy falls to the teacher's entropy, the KL divergence and the Huber loss to zero; and then the
    student does as the teacher does."""
    env_id, actor, contents = {
        "policy": ("CartPole-v1", tiny_actor(4, 2, scale=1.5), {}),
        "gaussian": ("ShortPendulum-v0", tiny_actor(3, 1, scale=0.3, log_std=-1.0), {"n_in": 3}),
        "values": ("CartPole-v1", tiny_actor(4, 2), VALUES),
    }[kind]
    flags = f"--env-id {env_id} --rounds 0 --seeds 3 --hidden-sizes 32 --transitions 1000 --updates 600 --num-envs 4"
    flags += " --batch-size 64 --eval-interval 100 --eval-episodes 10 --learning-rate 0.01"
    file = save_teacher(tmp_path / "t.pt", env_id, actor, **contents)
    done = run(f"{flags} --teacher {file} --run-dir {tmp_path / 'run'}").variables
    losses = [float(row["loss"]) for row in read_csv(tmp_path / "run/curves.csv")]
    nets, wanted = done["nets"], done["data"]["outputs"]
    out = nets["actor"](nets["view"](done["data"]["stored"]))
    least = Categorical(logits=wanted).entropy().mean().item() if kind == "policy" else 0
    end, start = {"policy": (0.02, 0.03), "gaussian": (0.02, 0.1), "values": (0.002, 0.01)}[kind]
    assert least - 0.01 < losses[-1] < least + end < least + start < losses[0]
    if kind != "policy":
        assert (out - wanted).abs().mean() < (0.3 if kind == "gaussian" else 0.1) * wanted.std()
    if kind == "gaussian":
        assert nets["actor"].log_std.item() == pytest.approx(-1, abs=0.2) and wanted.std() > 0.2
    else:
        assert (out.argmax(-1) == wanted.argmax(-1)).float().mean() > 0.9


# ---- The command line ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "hidden_sizes"), [("cnn", (128, 64)), ("mlp", (1024, 512))])
def test_sizes_follow_from_the_teachers_network(teachers, name, hidden_sizes, monkeypatch):
    """Table 10."""
    flags = f"bc_distill.py --env-id MinAtar/Breakout-v1 --teacher {teachers[name]}".split()
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
    assert bc_distill.teacher_file("", env_id) == file and t["result"]["round"] == 0
    agent, vector = agent_and_vector(file, env_id, 1, 1)
    assert all(tensor.isfinite().all() for tensor in agent.parameters.values())
    obs = envs.vector.reset(vector, [1])
    assert np.isfinite(bc_distill.greedy(agent.copies(1, vector.single_observation_space), [1])(obs)).all()
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
    out = helpers.run_main(ppo_imp, f"--evaluate {SCRIPT.parent / 'experts/CartPole-v1.pt'}").stdout
    assert "20 episodes: mean 500.0" in out


@pytest.mark.slow
def test_students_of_the_cart_pole_expert(tmp_path):
    """Dense, and with a fifth of the weights gone: as good as the expert, whose return is the highest possible."""
    helpers.run(SCRIPT, f"--seeds 1 2 3 --rounds 1 --conditions ticket --run-dir {tmp_path / 'run'}")
    rows = read_csv(tmp_path / "run/results.csv")
    assert len(rows) == 6 and all(float(row["best_retest"]) > 450 for row in rows)
