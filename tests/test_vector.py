"""envs/: what the environments of many runs have in common, any task as one of them, and agents that play in it."""

import ctypes
import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import helpers
import numpy as np
import pytest
import torch
from gymnasium.error import ResetNeeded
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers.vector import RecordEpisodeStatistics

import sparse_utils as su
from envs import classic, mazegrid, vector
from envs.base import RunsVectorEnv
from envs.view import inputs_of_ticket

ROOT = Path(vector.__file__).parent.parent
pytestmark = pytest.mark.filterwarnings("ignore:.*is out of date")  # CartPole-v0


# Task, shape of an observation, shape of an action
TASKS = [
    ("CartPole-v1", (4,), ()),
    ("Acrobot-v1", (6,), ()),
    ("Pendulum-v1", (3,), (1,)),
    ("HalfCheetah-v5", (17,), (6,)),
    ("HopperBulletEnv-v0", (15,), (3,)),
    ("ALE/Pong-v5", (4, 84, 84), ()),
]
every_task = pytest.mark.parametrize(("env_id", "obs_shape", "action_shape"), TASKS, ids=[task[0] for task in TASKS])
OWN = ["CartPole-v1", "Acrobot-v1", "MountainCar-v0", *mazegrid.ENV_IDS]
OWN += [f"MinAtar/{game}-v1" for game in ("Asterix", "Breakout", "Freeway", "Seaquest", "SpaceInvaders")]
every_own = pytest.mark.parametrize("env_id", OWN)
ONE_OF_EACH = ["CartPole-v1", "MazeGrid-v0", "MinAtar/Freeway-v1"]


def skip_without_package(env_id: str) -> None:
    if "Bullet" in env_id:
        pytest.importorskip("pybullet", reason="pybullet has no wheels for this Python")
    if "MinAtar" in env_id:
        pytest.importorskip("minatar")


# ---- The environments of this folder, envs/base.py -------------------------------------------------------------------


def make_own(env_id: str, runs: int, envs_per_run: int, autoreset: bool = True, **options: Any) -> RunsVectorEnv:
    """One of ``OWN`` with episodes of at most 60 steps; entangled inputs have the matrices 0, 1, ..."""
    skip_without_package(env_id)
    if "MazeGrid" in env_id:
        options = {"matrix_seeds": range(runs), **options}
        envs = mazegrid.make_vec(env_id, runs, envs_per_run, autoreset, **options)
    elif "MinAtar" in env_id:
        from envs import minatar

        envs = minatar.make_vec(env_id, runs, envs_per_run, autoreset, **options)
    else:
        envs = classic.make_vec(env_id, runs, envs_per_run, autoreset)
    envs.max_episode_steps = 60
    return envs


def begin(envs: RunsVectorEnv, seeds: Any) -> np.ndarray:
    """First observations; the first episodes of a run's environments reach their time limits one after the other."""
    obs, infos = envs.reset(seed=seeds)
    assert infos == {}
    if "MazeGrid" not in envs.spec.id:  # where the enemies' places follow from the step
        envs._elapsed += np.arange(envs.num_envs) % envs.envs_per_run * 7
    return obs


def some_actions(envs: RunsVectorEnv, steps: int) -> np.ndarray:
    return np.random.default_rng(0).integers(envs.single_action_space.n, size=(steps, envs.num_envs))


def play(envs: RunsVectorEnv, actions: np.ndarray) -> Iterator[tuple[np.ndarray, ...]]:
    """Step through ``actions`` [steps, num_envs]; what every step returns, in the end what each step led to."""
    for action in actions:
        *arrays, infos = envs.step(action)
        ended = arrays[2] | arrays[3]
        if not envs.autoreset or not ended.any():
            assert infos == {}
            yield *arrays, arrays[0]
        else:
            assert np.array_equal(infos["_final_obs"], ended) and infos["final_obs"].dtype == arrays[0].dtype
            yield *arrays, vector.last_observations(arrays[0], ended, infos)


def assert_same(left: Any, right: Any) -> int:
    """That two plays agree bit for bit; returns in how many steps an episode ended."""
    ends = 0
    for a, b in zip(left, right, strict=True):
        for x, y in zip(a, b, strict=True):
            assert x.dtype == y.dtype
            np.testing.assert_array_equal(x, y)
        ends += (a[2] | a[3]).any()
    return ends


@every_own
def test_a_run_among_others_is_the_run_alone(env_id):
    """Seeded again it starts over, and two runs with one seed and the same actions are the same."""
    seeds = [3, 2**40, 3, 5]
    together = make_own(env_id, 4, 2, matrix_seeds=seeds) if "Entangled" in env_id else make_own(env_id, 4, 2)
    first, actions = begin(together, seeds), some_actions(together, 150)
    actions[:, 4:6] = actions[:, :2]
    history = list(play(together, actions))
    streams = together.get_state().get("streams", [])
    for r in (0, 1, 2, 3):
        alone, rows = make_own(env_id, 1, 2), slice(2 * r, 2 * r + 2)
        if "Entangled" in env_id:
            alone = make_own(env_id, 1, 2, matrix_seeds=[seeds[r]])
        np.testing.assert_array_equal(begin(alone, [seeds[r]]), first[rows])
        mine = ([array[rows] for array in step] for step in history)
        assert assert_same(mine, play(alone, actions[:, rows])) > 1
        n = len(streams) // 4
        assert alone.get_state().get("streams", []) == streams[n * r : n * r + n]
    assert_same(([x[:2] for x in step] for step in history), ([x[4:6] for x in step] for step in history))
    if "MazeGrid" not in env_id:  # where nothing is random
        assert any(not np.array_equal(step[0][:2], step[0][2:4]) for step in history)
        assert any(not np.array_equal(step[0][0], step[0][1]) for step in history)
    np.testing.assert_array_equal(begin(together, seeds), first)
    assert_same(history, play(together, actions))


@pytest.mark.parametrize("env_id", ["CartPole-v1", "MinAtar/Freeway-v1"])
def test_seeds_can_be_counted_from_a_number_and_streams_go_on_without_one(env_id):
    envs = make_own(env_id, 3, 2)  # whose first observations are drawn
    listed, _ = envs.reset(seed=[6, 7, 8])
    next_listed, _ = envs.reset()
    for seed in (6, np.int64(6), np.arange(6, 9)):
        np.testing.assert_array_equal(envs.reset(seed=seed)[0], listed)
        np.testing.assert_array_equal(envs.reset()[0], next_listed)
    fresh = [make_own(env_id, 3, 2).reset()[0] for _ in range(2)]
    rows = np.concatenate([listed, next_listed, *fresh])
    assert len(np.unique(rows.reshape(24, -1), axis=0)) == 24  # without any seed nothing repeats


@every_own
def test_without_autoreset_ended_rows_are_frozen(env_id):
    envs, resetting = make_own(env_id, 2, 3, autoreset=False), make_own(env_id, 2, 3)
    np.testing.assert_array_equal(begin(envs, 4), begin(resetting, 4))
    actions, done, last = some_actions(envs, 70), np.zeros(6, bool), {}
    for a, b in zip(play(envs, actions), play(resetting, actions), strict=True):
        obs, rewards, terminated, truncated, _ = a
        np.testing.assert_array_equal(rewards[done], 0)
        for row in np.flatnonzero(done):
            np.testing.assert_array_equal(np.r_[obs[row].ravel(), terminated[row], truncated[row]], last[row])
        # Up to its end, an episode is that of the environment with autoreset.
        for ours, theirs in zip(a[1:], b[1:], strict=True):
            np.testing.assert_array_equal(ours[~done], theirs[~done])
        for row in np.flatnonzero(~done & (terminated | truncated)):
            last[row] = np.r_[obs[row].ravel(), terminated[row], truncated[row]]
        done |= terminated | truncated
    assert done.all()
    state = envs.get_state()
    envs.step(actions[0])
    assert envs.get_state() == state  # a frozen row draws nothing


@every_own
def test_a_mask_resets_the_chosen_rows(env_id):
    envs = make_own(env_id, 2, 2, autoreset=False)
    begin(envs, [1, 2])
    for actions in some_actions(envs, 60):
        obs, _, terminated, truncated, _ = envs.step(actions)
    assert (terminated | truncated).all()
    elapsed = envs.get_state()["elapsed"]
    again, infos = envs.reset(options={"reset_mask": np.array([False, True, False, True])})
    assert infos == {} and envs.get_state()["elapsed"] == [elapsed[0], 0, elapsed[2], 0]
    np.testing.assert_array_equal(again[[0, 2]], obs[[0, 2]])
    assert not any(np.array_equal(again[row], obs[row]) for row in (1, 3))
    obs, _, terminated, truncated, _ = envs.step(np.zeros(4, np.int64))
    assert (terminated | truncated).tolist() == [True, False, True, False]
    np.testing.assert_array_equal(obs[[0, 2]], again[[0, 2]])
    unchanged, _ = envs.reset(options={"reset_mask": np.zeros(4, bool)})
    np.testing.assert_array_equal(unchanged, obs)
    envs.reset()  # without a mask, all rows are live again
    *_, terminated, truncated, _ = envs.step(np.zeros(4, np.int64))
    assert not (terminated | truncated).any()


@every_own
@pytest.mark.parametrize("autoreset", [True, False])
def test_a_saved_state_goes_on_bit_for_bit(env_id, autoreset):
    envs, restored = (make_own(env_id, 2, 2, autoreset) for _ in range(2))
    begin(envs, [1, 2**40])
    actions, file = some_actions(envs, 170), io.BytesIO()
    start = 40 if autoreset else 8  # when some row is not frozen yet
    list(play(envs, actions[:start]))
    state = envs.get_state()
    torch.save(state, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=True)
    restored.set_state(loaded)
    assert loaded == state == restored.get_state()
    nothing = {"reset_mask": np.zeros(4, bool)}
    np.testing.assert_array_equal(restored.reset(options=nothing)[0], envs.reset(options=nothing)[0])
    assert assert_same(play(envs, actions[start:]), play(restored, actions[start:])) > 0
    assert restored.get_state() == envs.get_state() != state
    assert loaded == state  # stepping does not write into what was saved


@every_own
def test_they_are_vector_environments_of_gymnasium(env_id):
    """What they have returned they never write again, and wrappers see whole episodes."""
    envs = make_own(env_id, 3, 2)
    assert isinstance(envs, gym.vector.VectorEnv)
    assert (envs.spec.id, envs.num_envs, envs.unwrapped) == (env_id, 6, envs)
    assert envs.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP
    assert make_own(env_id, 3, 2, autoreset=False).metadata["autoreset_mode"] == AutoresetMode.DISABLED
    if "MinAtar" not in env_id:  # whose own have the channels last
        theirs = gym.make_vec(env_id, num_envs=6, vectorization_mode="sync")
        for name in ("observation_space", "action_space", "single_observation_space", "single_action_space"):
            assert getattr(envs, name) == getattr(theirs, name)
    envs = RecordEpisodeStatistics(envs)
    kept, copies, lengths, lived = [envs.reset(seed=0)[0]], [], [], np.zeros(6, int)
    for action in some_actions(envs.unwrapped, 130):
        obs, *others, infos = envs.step(action)
        assert envs.observation_space.contains(obs) and obs.flags.c_contiguous
        assert [(array.dtype, array.shape) for array in others] == [(t, (6,)) for t in (np.float64, bool, bool)]
        kept += [obs, *others, infos.get("final_obs", obs)]
        copies += [array.copy() for array in kept[len(copies) :]]
        ended, lived = others[1] | others[2], lived + 1
        if ended.any():
            assert infos["episode"]["l"][ended].tolist() == lived[ended].tolist()
            lengths += lived[ended].tolist()
            lived[ended] = 0
    assert len(lengths) > 6 and max(lengths) <= 60
    for x, y in zip(kept, copies, strict=True):
        np.testing.assert_array_equal(x, y)
    envs.close()


@pytest.mark.parametrize("env_id", ONE_OF_EACH)
def test_bad_input_is_refused(env_id):
    """And has no effect."""
    envs = make_own(env_id, 3, 2)
    n, mask = envs.single_action_space.n, {"reset_mask": np.ones(6, bool)}
    for call in (lambda: envs.step(np.zeros(6, np.int64)), envs.get_state, lambda: envs.reset(options=mask)):
        with pytest.raises(ResetNeeded):
            call()
    envs.reset(seed=0)
    before = envs.get_state()
    wrong = {
        "2 seeds for 3 runs": {"seed": [1, 2]},
        "cannot be combined with reset_mask": {"seed": 0, "options": mask},
        "reset option is 'reset_mask'": {"options": {"low": -0.1}},
        r"bool \[6\], not bool": {"options": {"reset_mask": np.ones(5, bool)}},
        r"bool \[6\], not float": {"options": {"reset_mask": np.ones(6)}},
    }
    for message, arguments in wrong.items():
        with pytest.raises(ValueError, match=message):
            envs.reset(**arguments)
    wrong = {r"shape \[6\]": (np.zeros(5, int), np.zeros((6, 1), int)), f"below {n}": (np.full(6, n), np.full(6, -1))}
    for message, both in wrong.items():
        for actions in both:
            with pytest.raises(ValueError, match=message):
                envs.step(actions)
    others = {"CartPole-v1": "CartPole-v0", "MazeGrid-v0": "MazeGridRGB-v0", "MinAtar/Freeway-v1": "MinAtar/Freeway-v0"}
    for other in (make_own(others[env_id], 3, 2), make_own(env_id, 3, 1)):
        with pytest.raises(ValueError, match=f"'{env_id}'.* 6"):
            other.set_state(before)
    assert envs.get_state() == before


# ---- Making it -------------------------------------------------------------------------------------------------------


@every_task
def test_make(env_id, obs_shape, action_shape):
    skip_without_package(env_id)
    envs = vector.make(env_id, runs=2, envs_per_run=3)
    assert envs.num_envs == 6 and envs.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP
    assert envs.single_observation_space.shape == obs_shape and envs.single_action_space.shape == action_shape
    assert isinstance(envs, RunsVectorEnv) == (env_id in classic.ENV_IDS)
    obs = vector.reset(envs, [5, 6])
    assert obs.shape == (6, *obs_shape) and obs.dtype == envs.single_observation_space.dtype
    assert (obs.dtype == np.uint8) == ("ALE" in env_id)
    obs, reward, terminated, truncated, _ = envs.step(envs.action_space.sample())
    assert obs.shape == (6, *obs_shape) and reward.shape == terminated.shape == truncated.shape == (6,)
    envs.close()


def test_atari_is_set_as_the_docstring_says(monkeypatch):
    import ale_py.vector_env

    made = []

    class Recorder(ale_py.vector_env.AtariVectorEnv):
        def __init__(self, **kwargs):
            made.append(kwargs)
            super().__init__(**kwargs)

    monkeypatch.setattr(ale_py.vector_env, "AtariVectorEnv", Recorder)
    vector.make("ALE/MsPacman-v5", 2, 1).close()
    (options,) = made
    assert (options["game"], options["num_envs"], options["repeat_action_probability"]) == ("ms_pacman", 2, 0.25)
    assert options["noop_max"] == 0
    assert not any(options[name] for name in ("use_fire_reset", "episodic_life", "reward_clipping"))


def test_atari_rewards_are_not_clipped():
    """A pellet is 10 points."""
    envs = vector.make("ALE/MsPacman-v5", 1, 2)
    vector.reset(envs, [1])
    rewards = [envs.step(np.array([3, 2]))[1] for _ in range(100)]
    assert np.max(rewards) == 10
    envs.close()


SPACES = {
    "dict": (gym.spaces.Dict({"a": Box(-1, 1, (1,))}), helpers.TWO),
    "matrix": (Box(-np.array([[1.0, 2], [3, 4]], np.float32), 5), helpers.TWO),
    "row": (helpers.FOUR, Box(-np.arange(1.0, 41).reshape(1, 40).astype(np.float32), 5)),
    "number": (helpers.FOUR, Box(-1, 1, ())),
    "integers": (helpers.FOUR, Box(-1, 1, (2,), np.int64)),
    "equal": (helpers.FOUR, Box(np.array([-1, 1], np.float32), 1)),
}
for name, (obs_space, action_space) in SPACES.items():
    kwargs = {"obs_space": obs_space, "action_space": action_space}
    gym.register(f"Toy-{name}-v0", helpers.Toy, kwargs=kwargs, max_episode_steps=9, disable_env_checker=True)
OBS, ACTIONS = (
    "the observations must be vectors or pictures, not ",
    "the actions must be Discrete or a vector of floats",
)


@pytest.mark.parametrize(
    ("env_id", "message"),
    [
        ("CartPole", "CartPole: there is no such task. Did you mean CartPole-v1"),
        ("ALE/Pong", "Did you mean ALE/Pong-v5"),
        ("Maze-v0", "Did you mean MazeGrid-v0"),
        ("Breakout-v1", "MinAtar/Breakout-v1"),
        ("no_such_module:Task-v0", "no_such_module"),
        ("Endless-v0", "Endless-v0 has no time limit, so an episode might never end: give --max-episode-steps"),
        ("FrozenLake-v1", f"FrozenLake-v1: {OBS}Discrete(16)"),
        *((f"Toy-{name}-v0", f"Toy-{name}-v0: {OBS}") for name in ("dict", "matrix")),
        *((f"Toy-{name}-v0", f"Toy-{name}-v0: {ACTIONS}") for name in list(SPACES)[2:]),
    ],
)
def test_bad_tasks_get_one_line(env_id, message):
    with pytest.raises(ValueError) as error:
        vector.make(env_id, 1, 1)
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("next_step", [False, True])
@pytest.mark.parametrize("env_id", [*ONE_OF_EACH, "ALE/Pong-v5", "Pendulum-v1", "HopperBulletEnv-v0", "Endless-v0"])
def test_the_time_limit_can_be_another(env_id, next_step):
    """Both episodes of both environments are 6 steps, and the reset takes one in NEXT_STEP. ALE begins with a frame."""
    skip_without_package(env_id)
    envs, ends = vector.make(env_id, 1, 2, next_step=next_step, max_episode_steps=6), []
    vector.reset(envs, [1])
    for t in range(1, 16):
        _, _, terminated, truncated, _ = envs.step(np.zeros(envs.action_space.shape, envs.action_space.dtype))
        assert not terminated.any() and truncated.all() == truncated.any()
        ends += [t] if truncated.all() else []
    assert ends == ([6, 13] if next_step else [6, 12])
    envs.close()


def test_too_many_bullet_environments_for_one_process():
    pytest.importorskip("pybullet", reason="pybullet has no wheels for this Python")
    with pytest.raises(ValueError, match=r"1004 .*1000"):
        vector.make("HopperBulletEnv-v0", 251, 4)


def test_bullet_prints_nothing():
    """pybullet prints when it is imported, and its physics server when the first reset connects to it."""
    pytest.importorskip("pybullet", reason="pybullet has no wheels for this Python")
    code = "from envs import vector; e = vector.make('HopperBulletEnv-v0', 1, 2); vector.reset(e, [1])"
    code += "; e.step(e.action_space.sample()); vector.reset(e, [2]); e.close()"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("env_id", ["AntBulletEnv-v0", "HopperBulletEnv-v0"])
def test_the_first_episode_of_bullet_is_like_the_next(env_id):
    """The robot's very first one would differ in the last bit of an observation."""
    skip_without_package(env_id)
    envs, episodes = vector.make(env_id, 1, 2), []
    for _ in range(2):
        generator, seen = np.random.default_rng(0), [vector.reset(envs, [5])]
        for _ in range(60):
            action = generator.uniform(-1, 1, envs.action_space.shape).astype(np.float32)
            seen += envs.step(action)[:4]
        episodes.append(seen)
    assert all(np.array_equal(one, other) for one, other in zip(*episodes, strict=True))


@pytest.mark.parametrize("library", [ctypes.CDLL, None])
def test_quiet_gives_back_what_it_took(monkeypatch, library):
    """Also if its body raises, and on Windows, where there is no library of the process."""
    skip_without_package("Bullet")
    from envs import bullet

    def streams() -> list[tuple[int, int]]:
        return [(os.fstat(number).st_dev, os.fstat(number).st_ino) for number in (1, 2)]

    before, free = streams(), os.dup(1)
    os.close(free)
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(ctypes, "CDLL", library)  # None(None) raises TypeError
        with bullet.quiet():
            inside = streams()
            raise ZeroDivisionError
    assert streams() == before and inside[0] == inside[1] != before[0]
    again = os.dup(1)
    os.close(again)
    assert again == free  # none is left open


# ---- Runs do not feel each other -------------------------------------------------------------------------------------


def trajectory(env_id: str, seeds: list[int], run: int, steps: int) -> list[np.ndarray]:
    """Observations, rewards and flags of a run's three environments, whose actions are the same in any company."""
    envs = vector.make(env_id, len(seeds), 3)
    envs.action_space.seed(len(seeds))
    own = slice(3 * run, 3 * run + 3)
    space, generator = envs.single_action_space, np.random.default_rng(0)
    seen = [vector.reset(envs, seeds)[own]]
    for _ in range(steps):
        action = np.array(envs.action_space.sample())  # of the others: any
        draw = generator.uniform(size=(3, *space.shape))
        action[own] = draw * space.n if isinstance(space, Discrete) else space.low + draw * (space.high - space.low)
        obs, reward, terminated, truncated, info = envs.step(action)
        ended = terminated | truncated
        seen += [obs[own], reward[own], terminated[own], truncated[own]]
        seen.append(vector.last_observations(obs, ended, info)[own])
    envs.close()
    return [np.array(x) for x in seen]


@pytest.mark.parametrize("env_id", [task[0] for task in TASKS] + ["ShortPendulum-v0"])
def test_a_runs_rows_follow_from_its_own_seed(env_id):
    """Three tasks go through several episodes, the second and later ones without a new seed."""
    skip_without_package(env_id)
    alone, among = trajectory(env_id, [9], 0, 70), trajectory(env_id, [4, 9, 1], 1, 70)
    assert all(np.array_equal(one, other) for one, other in zip(alone, among, strict=True))
    ended = any(flags.any() for flags in among[3::5] + among[4::5])
    assert ended == (env_id in ("CartPole-v1", "ShortPendulum-v0", "HopperBulletEnv-v0"))
    other_seed = trajectory(env_id, [4], 0, 70)
    assert not all(np.array_equal(one, other) for one, other in zip(alone, other_seed, strict=True))


@every_task
def test_environments_of_a_run_differ(env_id, obs_shape, action_shape):
    """Without no-ops Pong always starts alike, and then its sticky actions are random."""
    skip_without_package(env_id)
    envs = vector.make(env_id, 2, 3)
    obs = vector.reset(envs, [1, 2])
    if "ALE" in env_id:
        assert (obs == obs[0]).all()
        for t in range(60):
            obs, *_ = envs.step(np.full(6, 2 + t % 2))
    assert len({row.tobytes() for row in obs}) == 6
    envs.close()


def test_processes_change_nothing():
    here, there = vector.make("ShortPendulum-v0", 2, 1), vector.make("ShortPendulum-v0", 2, 1, processes=True)
    assert np.array_equal(vector.reset(here, [1, 2]), vector.reset(there, [1, 2]))
    for t in range(45):
        action = np.array([[np.sin(t)], [np.cos(t)]], np.float32)
        *one, info_here = here.step(action)
        *two, info_there = there.step(action)
        ended = one[2] | one[3]
        assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True)) and ended.any() == (t in (19, 39))
        reached = [vector.last_observations(x[0], ended, i) for x, i in ((one, info_here), (two, info_there))]
        assert np.array_equal(*reached)
    there.close()


# ---- What a step returns ---------------------------------------------------------------------------------------------


def test_last_observations_are_the_episodes_own():
    """Odd episodes end by termination and even ones by truncation, after three steps; then the step returns the first
    observation of the next episode, and the last one is what it led to."""
    envs = vector.make("Counter-v0", 1, 2)
    assert vector.reset(envs, [1]).tolist() == [[10], [10]]
    for t in range(1, 13):
        obs, _, terminated, truncated, info = envs.step(np.zeros((2, 1)))
        ended, k = terminated | truncated, (t - 1) // 3 + 1  # the episode that this step belongs to
        before = obs.copy()
        reached = vector.last_observations(obs, ended, info)
        assert reached.tolist() == [[10 * k + (t - 1) % 3 + 1]] * 2
        assert ended.all() == ended.any() == (t % 3 == 0)
        assert terminated.all() == (t % 3 == 0 and k % 2 == 1) and truncated.all() == (t % 3 == 0 and k % 2 == 0)
        assert obs.tolist() == ([[10 * (k + 1)]] * 2 if t % 3 == 0 else reached.tolist())
        assert np.array_equal(obs, before)  # what the agent acts on next is left alone


@pytest.mark.parametrize("env_id", ["CartPole-v1", "MountainCar-v0"])
def test_next_step_is_gymnasiums(env_id):
    """Step by step, where each run has one environment with its own seed: the step after the end of an episode is the
    start of the next one, whatever the action. Classic tasks are wrapped for that."""
    ours = vector.make(env_id, 3, 1, next_step=True)
    theirs = gym.make_vec(env_id, 3, "sync", {"autoreset_mode": AutoresetMode.NEXT_STEP})
    assert ours.metadata["autoreset_mode"] == AutoresetMode.NEXT_STEP
    assert np.array_equal(vector.reset(ours, [1, 2, 3]), theirs.reset(seed=[1, 2, 3])[0])
    ends, generator = 0, np.random.default_rng(0)
    for _ in range(430):
        action = generator.integers(theirs.single_action_space.n, size=3)
        one, other = ours.step(action)[:4], theirs.step(action)[:4]
        assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
        ends += (one[2] | one[3]).sum()
    assert ends >= 6


def test_last_observations_where_one_row_ends():
    """By hand: final_obs is an array of objects in gymnasium and of numbers in envs.classic and ALE."""
    obs, ended = np.array([[1.0, 2], [3, 4], [5, 6]]), np.array([False, True, False])
    objects = np.array([None, np.array([7.0, 8]), None], dtype=object)
    for final_obs in (objects, np.array([[0.0, 0], [7, 8], [0, 0]])):
        assert vector.last_observations(obs, ended, {"final_obs": final_obs}).tolist() == [[1, 2], [7, 8], [5, 6]]
    assert vector.last_observations(obs, np.zeros(3, bool), {}) is obs


def test_last_observations_of_atari():
    """Pong's episodes end at 21 points; the picture in which that happens is not the first one of a new game."""
    envs = vector.make("ALE/Pong-v5", 1, 2)
    first = vector.reset(envs, [1])
    ended = np.zeros(2, bool)
    while not ended.any():
        obs, _, terminated, truncated, info = envs.step(np.array([0, 3]))
        ended = terminated | truncated
    reached = vector.last_observations(obs, ended, info)
    assert reached.shape == obs.shape and reached.dtype == np.uint8
    assert np.array_equal(obs[ended][0, -1], first[0, -1]) and not np.array_equal(reached[ended][0], obs[ended][0])
    assert np.array_equal(reached[~ended], obs[~ended])
    envs.close()


def test_to_rows_puts_actions_within_their_space():
    """Box: within bounds, and NaN, of a run that has diverged, at the lower one. Discrete: numbers from its start."""
    space = Box(np.array([-1.0, -2], np.float32), np.array([1.0, 0.5], np.float32))
    action = np.array([[[3.0, 3], [-3, -3]], [[0.25, np.nan], [-1, 0.75]], [[0, -5], [np.inf, 0]]])  # [R, N, dim]
    rows = vector.to_rows(action, space)
    assert rows.tolist() == [[1, 0.5], [-1, -2], [0.25, -2], [-1, 0.5], [0, -2], [1, 0]]
    assert vector.to_rows(np.array([[0, 3], [2, 1]]), Discrete(4)).tolist() == [0, 3, 2, 1]
    assert vector.to_rows(np.array([[0, 3], [2, 1]]), Discrete(4, start=3)).tolist() == [3, 6, 5, 4]


# ---- Playing ---------------------------------------------------------------------------------------------------------


class Worth(gym.Env):
    """The first episode has ``length`` steps of reward 1; the rewards of later ones are ``later``."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, length: int, by_time_limit: bool, later: float):
        self.length, self.by_time_limit, self.rewards = length, by_time_limit, [later, 1.0]

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t, self.reward = 0, self.rewards[-1]
        self.rewards = self.rewards[:1]
        return np.full(1, self.length, np.float32), {}

    def step(self, action):
        assert action == self.length % 2, "an action of another environment"
        self.t += 1
        end = self.t == self.length
        return np.full(1, self.length, np.float32), self.reward, end and not self.by_time_limit, end, {}


@pytest.mark.parametrize("later", [1000.0, np.nan])
def test_play_counts_the_first_episode_of_each_environment(later):
    """The shorter ones play on, and what they earn then does not count."""
    makers = [lambda n=n: Worth(n, n % 3 == 0, later) for n in (2, 7, 3, 1, 12, 5)]
    envs = SyncVectorEnv(makers, autoreset_mode=AutoresetMode.SAME_STEP)
    returns = vector.play(envs, lambda obs: obs.astype(int).reshape(3, 2) % 2, [1, 2, 3])
    assert returns.tolist() == [[2, 7], [3, 1], [12, 5]]


@pytest.mark.parametrize("processes", [False, True])
def test_an_environment_of_one_episode_rests(processes):
    """It returns the last observation and nothing more until a reset with a seed; the returns are the same."""
    resting = vector.make("Counter-v0", 1, 2, first_episode=True, processes=processes)
    for first in (10, 20):
        assert vector.reset(resting, [1]).tolist() == [[first]] * 2
        seen = [resting.step(np.zeros((2, 1))) for _ in range(5)]
        assert [obs[0, 0] for obs, *_ in seen] == [first + min(t, 3) for t in range(1, 6)]
        assert [bool((step[2] | step[3])[0]) for step in seen] == [False, False, True, False, False]
        assert [reward[0] for _, reward, *_ in seen][3:] == [0, 0]
    resting.close()
    if not processes:
        plain, resting = (vector.make("ShortPendulum-v0", 2, 3, first_episode=rest) for rest in (False, True))
        returns = [vector.play(v, lambda obs: -obs[:, 1].reshape(2, 3, 1), [5, 6]) for v in (plain, resting, resting)]
        assert np.array_equal(returns[0], returns[1]) and np.array_equal(returns[1], returns[2])


def test_play_follows_from_its_seeds():
    envs = vector.make("ShortPendulum-v0", 2, 3)

    def act(obs: np.ndarray) -> np.ndarray:
        return -obs[:, 1].reshape(2, 3, 1)

    first, again = vector.play(envs, act, [5, 6]), vector.play(envs, act, [5, 6])
    other = vector.play(envs, act, [5, 7])
    assert np.array_equal(first, again) and len(np.unique(first)) == 6 and first.shape == (2, 3)
    assert np.array_equal(first[0], other[0]) and not np.array_equal(first[1], other[1])


def test_retests_are_new_episodes():
    """Up to 100 of each run at once where a step of many is cheap, else as often as it takes; with the task's flags."""
    for env_id, parts, per_run in (("CartPole-v1", 2, 100), ("ShortPendulum-v0", 44, 3)):
        envs, sizes = vector.make(env_id, 2, 3), []

        def act(obs: np.ndarray, sizes: list[int] = sizes) -> np.ndarray:
            sizes.append(len(obs))
            return (obs[:, 1] < 0).astype(int).reshape(2, -1, *((1,) if obs.shape[1] == 3 else ()))

        got = vector.retest(envs, act, [5, 6], 130, env_id, {})
        assert set(sizes) == {2 * per_run}
        keys = [np.random.SeedSequence(seed).generate_state(parts) for seed in (5, 6)]
        larger = vector.make(env_id, 2, per_run)
        again = [vector.play(larger, act, [int(key[part]) for key in keys]) for part in range(parts)]
        assert got.shape == (2, 130) and np.array_equal(got, np.concatenate(again, 1)[:, :130])
        assert len(np.unique(got)) > 10
    envs = vector.make("CartPole-v1", 2, 3, max_episode_steps=5)
    assert vector.retest(envs, act, [5, 6], 7, "CartPole-v1", {"max_episode_steps": 5}).tolist() == [[5] * 7] * 2


def test_inputs_of_a_ticket_are_for_its_own_task():
    """In any version; those of entangled inputs, which mean something else to each seed, for its own seed."""

    def ask(of: str, env_id: str, n: int = 3, seeds: tuple[int, ...] = (2,), mask: torch.Tensor | None = None) -> list:
        masks = {"actor.layers.0.weight": torch.eye(3)[:, [0, 2]] if mask is None else mask}
        result = {**su.describe_ticket(masks), "seed": 2}
        ticket = {"masks": masks, "args": {"env_id": of}, "obs_shape": [3], "result": result}
        return inputs_of_ticket(ticket, env_id, Box(-1, 1, (n,)), seeds)

    assert ask("Task-v0", "Task-v1", seeds=(1, 2)) == ask("GridEntangled-v0", "GridEntangled-v0") == [0, 2]
    refused = {
        r"it is no ticket for the \(3,\) inputs of Other-v0, but of Task-v0": ("Task-v0", "Other-v0"),
        r"it is no ticket for the \(4,\) inputs of Task-v0": ("Task-v0", "Task-v0", 4),
        "it is of seed 2, and each seed of ": ("GridEntangled-v0", "GridEntangled-v0", 3, (1, 2)),
        "it has convolutions": ("Task-v0", "Task-v0", 3, (2,), torch.ones(2, 3, 3, 3)),
        "it reads no input any more": ("Task-v0", "Task-v0", 3, (2,), torch.zeros(3, 2)),
    }
    for message, args in refused.items():
        with pytest.raises(ValueError, match=message):
            ask(*args)


# ---- Pictures --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("env_id", ["CartPole-v1", "ALE/Pong-v5"])
def test_recording_writes_a_gif_or_says_why_not(env_id, tmp_path, capsys):
    """Cart-Pole is drawn by pygame, ALE by nobody: the frames are those that the agent sees."""
    import imageio.v3 as imageio

    vector.record(env_id, lambda obs: np.full((1, 1), 1), tmp_path / "a.gif")
    printed = capsys.readouterr()
    if "no video: " in printed.err:
        assert not (tmp_path / "a.gif").exists()
    else:
        assert printed.out == f"video: {tmp_path / 'a.gif'}\n"
        frames = imageio.imread(tmp_path / "a.gif")
        assert len(frames) > 2 and (frames[0] != frames[-1]).any()


def test_the_last_picture_shows_how_the_episode_ended():
    """Of the same random walk in the one maze and in the vector of one."""
    game = gym.make("MazeGrid-v0", render_mode="rgb_array")
    game.reset()
    actions, pictures, ended = np.random.default_rng(2).integers(4, size=200), [game.render()], False
    for action in actions:
        if not ended:
            *_, terminated, truncated, _ = game.step(action)
            pictures.append(game.render())
            ended = terminated or truncated
    steps, frames = iter(actions), []
    mazes = vector.make("MazeGrid-v0", 1, 1, next_step=True, render=True)
    vector.play(mazes, lambda obs: np.full((1, 1), next(steps)), [1], frames)
    assert terminated and len(frames) < 200
    np.testing.assert_array_equal(frames, pictures)
