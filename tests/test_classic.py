"""envs/classic.py against gymnasium's environments, and the promise that a run does not feel its neighbours."""

import io
from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.error import ResetNeeded
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers.vector import RecordEpisodeStatistics

from envs.classic import ENV_IDS, ClassicVectorEnv, make_vec

pytestmark = pytest.mark.filterwarnings("ignore:.*is out of date")  # CartPole-v0
every_task = pytest.mark.parametrize("env_id", ENV_IDS)

LIMITS = {"CartPole-v0": 200, "CartPole-v1": 500, "Acrobot-v1": 500, "MountainCar-v0": 200}
# A state from which the next step ends the episode whatever the action.
LAST = {"CartPole": [2.39, 3, 0, 0], "Acrobot": [2.05, 0.05, 2, 0], "MountainCar": [0.49, 0.05]}


def last_state(env_id: str) -> list[float]:
    return LAST[env_id.split("-")[0]]


def skilled(env_id: str, obs: np.ndarray) -> np.ndarray:
    """Actions that balance the pole to the time limit, and swing up or reach the goal well before it."""
    if "CartPole" in env_id:
        return (obs @ [0.02, 0.05, 1, 0.3] > 0).astype(np.int64)
    if "Acrobot" in env_id:
        return np.where(obs[:, 4] > 0, 0, 2)
    return np.where(obs[:, 1] >= 0, 2, 0)


def single(env_id: str, state: Any, elapsed: int) -> gym.Env:
    """gymnasium's environment in the given state."""
    env = gym.make(env_id, disable_env_checker=True)
    env.reset(seed=0)
    env.unwrapped.state, env._elapsed_steps = np.array(state, np.float64), elapsed
    return env


def place(envs: ClassicVectorEnv, states: np.ndarray, elapsed: int) -> None:
    """Put the environments into ``states`` [num_envs, dim]."""
    envs.set_state(envs.get_state() | {"physics": np.transpose(states), "elapsed": [elapsed] * envs.num_envs})


def physics(envs: ClassicVectorEnv) -> np.ndarray:
    return np.array(envs.get_state()["physics"]).T


def play(envs: ClassicVectorEnv, actions: np.ndarray) -> Iterator[tuple[np.ndarray, ...]]:
    """Step through ``actions`` [steps, num_envs]; what every step returns, final observations last."""
    for action in actions:
        *arrays, infos = envs.step(action)
        mask = infos.get("_final_obs", np.zeros(envs.num_envs, bool))
        yield *arrays, mask, np.where(mask[:, None], infos.get("final_obs", np.zeros_like(arrays[0])), np.float32(0))


def some_actions(envs: ClassicVectorEnv, steps: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(envs.single_action_space.n, size=(steps, envs.num_envs))


def assert_same(left: Any, right: Any) -> int:
    """That two plays agree bit for bit; returns in how many steps an episode ended."""
    ends = 0
    for a, b in zip(left, right, strict=True):
        for x, y in zip(a, b, strict=True):
            assert x.dtype == y.dtype
            np.testing.assert_array_equal(x, y)
        ends += (a[2] | a[3]).any()
    return ends


# ---- gymnasium's episodes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "env_id, policy, ends",
    [
        ("CartPole-v0", "random", {"terminated"}),
        ("CartPole-v0", "skilled", {"truncated"}),
        ("CartPole-v1", "random", {"terminated"}),
        ("CartPole-v1", "skilled", {"truncated"}),
        ("Acrobot-v1", "random", {"truncated"}),
        ("Acrobot-v1", "skilled", {"terminated"}),
        ("MountainCar-v0", "random", {"truncated"}),
        ("MountainCar-v0", "skilled", {"terminated"}),
    ],
)
def test_every_run_goes_through_the_episodes_of_gymnasium(env_id, policy, ends):
    seeds = [3, 14, 15]
    singles = [gym.make(env_id) for _ in seeds]
    envs = make_vec(env_id, runs=3, envs_per_run=1)
    obs, infos = envs.reset(seed=seeds)
    assert infos == {}
    # 1e-7 is a float32's last bit: gymnasium takes the cosines of Acrobot's first observation in float32.
    np.testing.assert_allclose(
        obs, [e.reset(seed=s)[0] for e, s in zip(singles, seeds, strict=True)], rtol=0, atol=1e-7
    )
    rng, seen = np.random.default_rng(0), set()
    for _ in range(1200):
        actions = rng.integers(envs.single_action_space.n, size=3) if policy == "random" else skilled(env_id, obs)
        for env, state in zip(singles, physics(envs), strict=True):
            env.unwrapped.state = state  # so that rounding does not add up: Acrobot is chaotic
        obs, rewards, terminated, truncated, infos = envs.step(actions)
        ended = terminated | truncated
        assert infos.keys() == ({"final_obs", "_final_obs"} if ended.any() else set())
        if ended.any():
            np.testing.assert_array_equal(infos["_final_obs"], ended)
            assert (infos["final_obs"].dtype, infos["final_obs"].shape) == (np.float32, obs.shape)
        for row, env in enumerate(singles):
            expected, *others = env.step(actions[row])[:4]
            assert [rewards[row], terminated[row], truncated[row]] == others
            last = infos["final_obs"][row] if ended[row] else obs[row]
            np.testing.assert_allclose(last, expected, rtol=2e-7, atol=1e-12)
            if ended[row]:
                np.testing.assert_allclose(obs[row], env.reset()[0], rtol=0, atol=1e-7)
                seen.add("terminated" if terminated[row] else "truncated")
            np.testing.assert_allclose(physics(envs)[row], env.unwrapped.state, rtol=0, atol=1e-12)
    assert seen == ends


@pytest.mark.parametrize(
    "env_id, low, high, atol",
    [
        ("CartPole-v1", [-2.4, -4, -0.2, -4], [2.4, 4, 0.2, 4], 1e-12),
        # Within one step rounding can grow by a factor of thousands at these velocities.
        ("Acrobot-v1", [-np.pi, -np.pi, -12.5, -28], [np.pi, np.pi, 12.5, 28], 1e-10),
        ("MountainCar-v0", [-1.2, -0.07], [0.6, 0.07], 1e-12),
    ],
)
def test_a_step_from_anywhere_is_that_of_gymnasium(env_id, low, high, atol):
    """Also where angles are wrapped, velocities cut off and the car hits the wall."""
    n = 600
    envs = make_vec(env_id, runs=1, envs_per_run=n, autoreset=False)
    envs.reset(seed=0)
    states = np.random.default_rng(1).uniform(low, high, (n, len(low)))
    if env_id == "Acrobot-v1":  # terminal states would be frozen
        over = -np.cos(states[:, 0]) - np.cos(states[:, 0] + states[:, 1]) > 1
        states[over, :2] /= 8
    if env_id == "MountainCar-v0":
        over = (states[:, 0] >= 0.5) & (states[:, 1] >= 0)
        states[over, 1] *= -1
    place(envs, states, elapsed=7)
    actions = some_actions(envs, 1)[0]
    obs, rewards, terminated, truncated, _ = envs.step(actions)
    after = physics(envs)
    env = single(env_id, states[0], 7)
    for row in range(n):
        env.unwrapped.reset()
        env.unwrapped.state = states[row].copy()
        expected = env.unwrapped.step(actions[row])
        np.testing.assert_allclose(after[row], env.unwrapped.state, rtol=0, atol=atol)
        np.testing.assert_allclose(obs[row], expected[0], rtol=2e-7, atol=atol)
        assert (rewards[row], terminated[row], truncated[row]) == expected[1:4]
    assert 0 < terminated.sum() < n
    if env_id == "Acrobot-v1":
        assert (np.abs(after[:, 2:]) == [4 * np.pi, 9 * np.pi]).any(0).all()
        assert (np.abs(after[:, :2] - states[:, :2]) > np.pi).any(0).all()
    if env_id == "MountainCar-v0":
        assert ((after[:, 0] == -1.2) & (after[:, 1] == 0)).any()
        assert (np.abs(after[:, 1]) == 0.07).any()
        assert ((after[:, 0] > 0.5) & ~terminated).any()


@every_task
@pytest.mark.parametrize("elapsed", ["middle", "last step"])
def test_the_last_step_can_be_both_terminated_and_truncated(env_id, elapsed):
    steps = LIMITS[env_id] - 1 if elapsed == "last step" else 50
    envs = make_vec(env_id, runs=1, envs_per_run=2)
    envs.reset(seed=0)
    place(envs, [last_state(env_id)] * 2, steps)
    _, rewards, terminated, truncated, infos = envs.step(np.array([0, 1]))
    for row in range(2):
        obs, *others = single(env_id, last_state(env_id), steps).step(row)[:4]
        assert [rewards[row], terminated[row], truncated[row]] == others
        assert (terminated[row], truncated[row]) == (True, elapsed == "last step")
        np.testing.assert_allclose(infos["final_obs"][row], obs, rtol=2e-7)


@every_task
def test_the_time_limit_starts_again_with_each_episode(env_id):
    envs = make_vec(env_id, runs=1, envs_per_run=2)
    limit = LIMITS[env_id]
    envs.reset(seed=0)
    place(envs, physics(envs), limit - 2)
    place(envs, [physics(envs)[0], last_state(env_id)], limit - 2)
    actions = np.array([1, 0])
    _, _, terminated, truncated, _ = envs.step(actions)  # row 1 fails one step before the limit
    assert (terminated.tolist(), truncated.tolist()) == ([False, True], [False, False])
    _, _, terminated, truncated, _ = envs.step(actions)
    assert (terminated.tolist(), truncated.tolist()) == ([False, False], [True, False])
    assert envs.get_state()["elapsed"] == [0, 1]


# ---- One stream for each run -----------------------------------------------------------------------------------------


@every_task
def test_a_run_among_others_is_the_run_alone(env_id):
    runs, n, steps = 7, 4, 520
    seeds = [int(s) for s in np.random.SeedSequence(1).generate_state(runs)]
    together = make_vec(env_id, runs, n)
    first, _ = together.reset(seed=seeds)
    actions = some_actions(together, steps)
    history = list(play(together, actions))
    for r in (0, 3, 6):
        alone = make_vec(env_id, 1, n)
        rows = slice(r * n, (r + 1) * n)
        np.testing.assert_array_equal(alone.reset(seed=[seeds[r]])[0], first[rows])
        mine = ([array[rows] for array in step] for step in history)
        assert assert_same(mine, play(alone, actions[:, rows])) > 0
        assert alone.get_state()["streams"] == together.get_state()["streams"][r : r + 1]


def test_environments_that_end_together_start_again_in_row_order():
    envs = make_vec("MountainCar-v0", runs=2, envs_per_run=3)
    first, _ = envs.reset(seed=[5, 9])
    draws = np.stack([seeding.np_random(seed)[0].uniform(-0.6, -0.4, 6) for seed in (5, 9)]).astype(np.float32)
    np.testing.assert_array_equal(first[:, 0].reshape(2, 3), draws[:, :3])
    for _ in range(200):
        obs, _, _, truncated, _ = envs.step(np.ones(6, np.int64))
    assert truncated.all()
    np.testing.assert_array_equal(obs[:, 0].reshape(2, 3), draws[:, 3:])
    assert not obs[:, 1].any()


@every_task
def test_runs_with_the_same_seed_are_the_same(env_id):
    envs = make_vec(env_id, runs=3, envs_per_run=2)
    obs, _ = envs.reset(seed=[8, 2, 8])
    actions = np.tile(some_actions(make_vec(env_id, 1, 2), 520), (1, 3))
    ends = 0
    for step in [(obs,), *play(envs, actions)]:
        for array in step:
            np.testing.assert_array_equal(array[:2], array[4:])
        ends += len(step) > 1 and bool((step[2] | step[3])[:2].any())
    assert ends > 0
    assert not np.array_equal(obs[:2], obs[2:4])
    assert len(np.unique(obs[:, 0])) == 4  # two rows of a run are two environments


def test_seeds_can_be_counted_from_a_number_and_streams_go_on_without_one():
    envs = make_vec("CartPole-v1", runs=3, envs_per_run=2)
    listed, _ = envs.reset(seed=[6, 7, 8])
    next_listed, _ = envs.reset()
    for seed in (6, np.int64(6), np.arange(6, 9)):
        np.testing.assert_array_equal(envs.reset(seed=seed)[0], listed)
        np.testing.assert_array_equal(envs.reset()[0], next_listed)
    assert len(np.unique(np.concatenate((listed, next_listed)))) == 2 * listed.size
    fresh = [make_vec("CartPole-v1", 3, 2).reset()[0] for _ in range(2)]
    assert len(np.unique(fresh)) == 2 * listed.size  # without any seed nothing repeats


# ---- Frozen rows -----------------------------------------------------------------------------------------------------


@every_task
def test_without_autoreset_ended_rows_are_frozen(env_id):
    n = 6
    envs, resetting = make_vec(env_id, 3, 2, autoreset=False), make_vec(env_id, 3, 2)
    np.testing.assert_array_equal(envs.reset(seed=4)[0], resetting.reset(seed=4)[0])
    actions = some_actions(envs, LIMITS[env_id] + 20)
    done = np.zeros(n, bool)
    last = {}
    for a, b in zip(play(envs, actions), play(resetting, actions), strict=True):
        obs, rewards, terminated, truncated, has_final, _ = a
        assert not has_final.any()
        np.testing.assert_array_equal(rewards[done], 0)
        for row in np.flatnonzero(done):
            np.testing.assert_array_equal(np.r_[obs[row], terminated[row], truncated[row]], last[row])
        # Up to its end, an episode is that of the environment with autoreset, whose last observation is final_obs.
        first_end = ~done & b[4]
        np.testing.assert_array_equal(obs[first_end], b[5][first_end])
        np.testing.assert_array_equal(obs[~done & ~b[4]], b[0][~done & ~b[4]])
        for ours, theirs in zip(a[1:4], b[1:4], strict=True):
            np.testing.assert_array_equal(ours[~done], theirs[~done])
        last |= {row: np.r_[obs[row], terminated[row], truncated[row]] for row in np.flatnonzero(first_end)}
        done |= terminated | truncated
    assert done.all()


def test_a_mask_resets_the_chosen_rows_from_their_runs_streams():
    envs = make_vec("CartPole-v1", runs=2, envs_per_run=2, autoreset=False)
    envs.reset(seed=[1, 2])
    streams = [seeding.np_random(seed)[0].uniform(-0.05, 0.05, (3, 4)) for seed in (1, 2)]
    for _ in range(60):
        obs, _, terminated, _, _ = envs.step(np.ones(4, np.int64))
    assert terminated.all()
    elapsed = envs.get_state()["elapsed"]
    again, infos = envs.reset(options={"reset_mask": np.array([False, True, False, True])})
    assert infos == {}
    np.testing.assert_array_equal(again[[0, 2]], obs[[0, 2]])
    np.testing.assert_array_equal(again[[1, 3]], np.stack([s[2] for s in streams]).astype(np.float32))
    assert envs.get_state()["elapsed"] == [elapsed[0], 0, elapsed[2], 0]
    obs, rewards, terminated, _, _ = envs.step(np.zeros(4, np.int64))
    assert (rewards.tolist(), terminated.tolist()) == ([0, 1, 0, 1], [True, False, True, False])
    np.testing.assert_array_equal(obs[[0, 2]], again[[0, 2]])
    unchanged, _ = envs.reset(options={"reset_mask": np.zeros(4, bool)})
    np.testing.assert_array_equal(unchanged, obs)
    envs.reset()  # without a mask, all rows are live again
    assert envs.step(np.zeros(4, np.int64))[1].tolist() == [1, 1, 1, 1]


# ---- Checkpoints -----------------------------------------------------------------------------------------------------


@every_task
@pytest.mark.parametrize("autoreset", [True, False])
def test_a_saved_state_goes_on_bit_for_bit(env_id, autoreset):
    envs = make_vec(env_id, 3, 2, autoreset)
    envs.reset(seed=[1, 2**40, 3])
    actions = some_actions(envs, 800)
    list(play(envs, actions[:14]))
    states = physics(envs)
    states[0] = last_state(env_id)
    place(envs, states, elapsed=14)
    list(play(envs, actions[14:15]))  # in row 0 an episode ends
    file = io.BytesIO()
    state = envs.get_state()
    torch.save(state, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=True)
    assert loaded == state
    restored = make_vec(env_id, 3, 2, autoreset)
    restored.set_state(loaded)
    assert assert_same(play(envs, actions[15:]), play(restored, actions[15:])) > 0
    assert restored.get_state() == envs.get_state() != state
    assert loaded == state  # stepping does not write into what was saved


# ---- Errors and the interface ----------------------------------------------------------------------------------------


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="Pendulum-v1.*CartPole-v0, CartPole-v1, Acrobot-v1, MountainCar-v0"):
        make_vec("Pendulum-v1", 1, 1)
    for sizes in ((0, 4), (4, 0), (-1, 1)):
        with pytest.raises(ValueError, match="at least 1"):
            make_vec("CartPole-v1", *sizes)
    envs = make_vec("CartPole-v1", 3, 2)
    for call in (lambda: envs.step(np.zeros(6, np.int64)), envs.get_state):
        with pytest.raises(ResetNeeded):
            call()
    with pytest.raises(ResetNeeded):
        envs.reset(options={"reset_mask": np.ones(6, bool)})
    for seeds in ([1, 2], [1, 2, 3, 4], []):
        with pytest.raises(ValueError, match=f"{len(seeds)} seeds for 3 runs"):
            envs.reset(seed=seeds)
    with pytest.raises(TypeError):
        envs.reset(seed=1.5)
    envs.reset(seed=0)
    before = envs.get_state()
    with pytest.raises(ValueError, match="reset_mask"):
        envs.reset(options={"low": -0.1})
    for mask in (np.ones(5, bool), np.ones(6)):
        with pytest.raises(ValueError, match=r"bool \[6\]"):
            envs.reset(options={"reset_mask": mask})
    with pytest.raises(ValueError, match="seed"):
        envs.reset(seed=0, options={"reset_mask": np.ones(6, bool)})
    for actions in (np.zeros(5, np.int64), np.zeros((6, 1), np.int64), 1):
        with pytest.raises(ValueError, match=r"shape \[6\]"):
            envs.step(actions)
    for action in (2, -1):
        with pytest.raises(ValueError, match="below 2 and not negative"):
            envs.step(np.full(6, action))
    with pytest.raises(TypeError):
        envs.step(np.zeros(6))
    for other in (make_vec("CartPole-v0", 3, 2), make_vec("CartPole-v1", 2, 3), make_vec("CartPole-v1", 3, 1)):
        with pytest.raises(ValueError, match=r"'CartPole-v1', 3, 6"):
            other.set_state(before)
    assert envs.get_state() == before  # nothing of this had an effect


@every_task
def test_it_is_a_vector_environment_of_gymnasium(env_id):
    envs = make_vec(env_id, runs=3, envs_per_run=2)
    theirs = gym.make_vec(env_id, num_envs=6, vectorization_mode="sync")
    assert isinstance(envs, gym.vector.VectorEnv)
    for name in ("num_envs", "observation_space", "action_space", "single_observation_space", "single_action_space"):
        assert getattr(envs, name) == getattr(theirs, name)
    assert (envs.spec.id, envs.max_episode_steps, envs.unwrapped) == (env_id, LIMITS[env_id], envs)
    assert envs.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP
    assert make_vec(env_id, 3, 2, autoreset=False).metadata["autoreset_mode"] == AutoresetMode.DISABLED
    obs, _ = envs.reset(seed=0)
    theirs.reset(seed=0)
    actions = envs.action_space.sample()
    step, their_step = envs.step(actions), theirs.step(actions)
    for array, like in zip((obs, *step[:4]), (obs, *their_step[:4]), strict=True):
        assert (array.dtype, array.shape) == (like.dtype, like.shape)
        assert array.flags.c_contiguous
    assert envs.observation_space.contains(obs) and envs.observation_space.contains(step[0])
    envs.close()


@every_task
def test_what_was_returned_is_never_written_again(env_id):
    envs = make_vec(env_id, runs=2, envs_per_run=2)
    kept, copies = [], []
    obs, _ = envs.reset(seed=0)
    for step in [(obs,), *play(envs, some_actions(envs, 510))]:
        kept.append(step)
        copies.append([array.copy() for array in step])
    for step, copy in zip(kept, copies, strict=True):
        for x, y in zip(step, copy, strict=True):
            np.testing.assert_array_equal(x, y)


def test_wrappers_of_gymnasium_see_whole_episodes():
    envs = RecordEpisodeStatistics(make_vec("CartPole-v0", runs=2, envs_per_run=2))
    obs, _ = envs.reset(seed=0)
    lengths = []
    for _ in range(450):
        obs, _, _, _, infos = envs.step(skilled("CartPole-v0", obs))
        if "episode" in infos:
            lengths += infos["episode"]["l"][infos["_episode"]].tolist()
    assert lengths == [200] * 8
