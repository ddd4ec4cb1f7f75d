"""envs/vector.py: any task as one vector environment of many runs, and agents that play in it."""

import subprocess
import sys
from pathlib import Path

import gymnasium as gym
import helpers
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from envs import vector
from envs.classic import ENV_IDS, ClassicVectorEnv

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


def skip_without_package(env_id: str) -> None:
    if "Bullet" in env_id:
        pytest.importorskip("pybullet", reason="pybullet has no wheels for this Python")


# ---- Making it -----------------------------------------------------------------------------------------------------


@every_task
def test_make(env_id, obs_shape, action_shape):
    skip_without_package(env_id)
    envs = vector.make(env_id, runs=2, envs_per_run=3)
    assert envs.num_envs == 6 and envs.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP
    assert envs.single_observation_space.shape == obs_shape and envs.single_action_space.shape == action_shape
    assert isinstance(envs, ClassicVectorEnv) == (env_id in ENV_IDS)
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


@pytest.mark.parametrize(
    ("env_id", "message"),
    [
        ("NoSuchTask-v0", "NoSuchTask-v0: there is no such task."),
        ("CartPole", "CartPole: there is no such task. Did you mean CartPole-v1"),
        ("Pendulum", "Pendulum: there is no such task. Did you mean Pendulum-v1"),
        ("Pendulum-v7", "Pendulum-v7: there is no such task. Did you mean Pendulum-v1"),
        ("HalfCheeta-v5", "Did you mean HalfCheetah-v5"),
        ("ALE/Pon-v5", "Did you mean: `Pong`?"),
        ("ALE/Pong", "Did you mean ALE/Pong-v5"),
        ("Maze-v0", "Did you mean MazeGrid-v0"),
        ("Breakout-v1", "MinAtar/Breakout-v1"),
        ("no_such_module:Task-v0", "no_such_module"),
        ("FrozenLake-v1", "FrozenLake-v1: the observations must be vectors or pictures, not Discrete(16)"),
        ("Blackjack-v1", "Blackjack-v1: the observations must be vectors or pictures, not Tuple("),
        ("Toy-dict-v0", "Toy-dict-v0: the observations must be vectors or pictures, not Dict("),
        ("Toy-matrix-v0", "Toy-matrix-v0: the observations must be vectors or pictures, not Box("),
        ("Toy-multi-v0", "Toy-multi-v0: the actions must be Discrete or Box, not MultiDiscrete("),
    ],
)
def test_bad_tasks_get_one_line(env_id, message):
    with pytest.raises(ValueError) as error:
        vector.make(env_id, 1, 1)
    assert message in str(error.value) and "\n" not in str(error.value)


class Spaces(helpers.Counter):
    def __init__(self, obs_space: gym.Space, action_space: gym.Space):
        self.observation_space, self.action_space = obs_space, action_space


number = gym.spaces.Box(-1, 1, (1,))
for name, spaces in {
    "Toy-dict-v0": (gym.spaces.Dict({"a": number}), number),
    "Toy-matrix-v0": (gym.spaces.Box(-1, 1, (2, 2)), number),
    "Toy-multi-v0": (number, gym.spaces.MultiDiscrete([2, 3])),
}.items():
    kwargs = dict(zip(("obs_space", "action_space"), spaces, strict=True))
    gym.register(name, entry_point=Spaces, kwargs=kwargs, disable_env_checker=True)


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


# ---- Runs do not feel each other -----------------------------------------------------------------------------------


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
        action[own] = (
            draw * space.n if isinstance(space, gym.spaces.Discrete) else space.low + draw * (space.high - space.low)
        )
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


def test_reset_starts_over():
    for env_id in ("CartPole-v1", "ShortPendulum-v0"):
        envs = vector.make(env_id, 2, 2)
        first = vector.reset(envs, [3, 4])
        for _ in range(5):
            envs.step(envs.action_space.sample())
        assert np.array_equal(vector.reset(envs, [3, 4]), first)
        assert not np.array_equal(vector.reset(envs, [3, 5]), first)


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


# ---- What a step returns -------------------------------------------------------------------------------------------


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


def test_to_rows_clips_box_actions():
    space = gym.spaces.Box(np.array([-1.0, -2], np.float32), np.array([1.0, 0.5], np.float32))
    action = np.array([[[3.0, 3], [-3, -3]], [[0.25, 0], [-1, 0.75]], [[0, -5], [9, 0]]])  # [R, N, dim]
    rows = vector.to_rows(action, space)
    assert rows.tolist() == [[1, 0.5], [-1, -2], [0.25, 0], [-1, 0.5], [0, -2], [1, 0]]


def test_to_rows_of_discrete_actions():
    assert vector.to_rows(np.array([[0, 3], [2, 1]]), gym.spaces.Discrete(4)).tolist() == [0, 3, 2, 1]


# ---- Playing -------------------------------------------------------------------------------------------------------


class Worth(gym.Env):
    """The first episode has ``length`` steps of reward 1; each step of later ones is worth 1000."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, length: int, by_time_limit: bool):
        self.length, self.by_time_limit, self.reward = length, by_time_limit, 0.001

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t, self.reward = 0, 1000 * self.reward
        return np.full(1, self.length, np.float32), {}

    def step(self, action):
        assert action == self.length % 2, "an action of another environment"
        self.t += 1
        end = self.t == self.length
        return np.full(1, self.length, np.float32), self.reward, end and not self.by_time_limit, end, {}


def test_play_counts_the_first_episode_of_each_environment():
    """The shorter ones play on, and what they earn then does not count."""
    makers = [lambda n=n: Worth(n, by_time_limit=n % 3 == 0) for n in (2, 7, 3, 1, 12, 5)]
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
        assert [bool(terminated[0] | truncated[0]) for _, _, terminated, truncated, _ in seen] == [
            t == 2 for t in range(5)
        ]
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
    import envs.mazegrid  # noqa: F401 (registers the ids)

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
