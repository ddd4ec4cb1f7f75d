"""envs/classic.py against gymnasium's environments. What it shares with others is in test_vector.py."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils import seeding

from envs.classic import ENV_IDS, ClassicVectorEnv, make_vec
from envs.vector import last_observations

pytestmark = pytest.mark.filterwarnings("ignore:.*is out of date")  # CartPole-v0
every_task = pytest.mark.parametrize("env_id", ENV_IDS)


LIMITS = {"CartPole-v0": 200, "CartPole-v1": 500, "Acrobot-v1": 500, "MountainCar-v0": 200}
# A state from which the next step ends the episode whatever the action.
LAST = {"CartPole": [2.39, 3, 0, 0], "Acrobot": [2.05, 0.05, 2, 0], "MountainCar": [0.49, 0.05]}


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


# ---- gymnasium's episodes --------------------------------------------------------------------------------------------


@every_task
@pytest.mark.parametrize("policy", ["random", "skilled"])
def test_every_run_goes_through_the_episodes_of_gymnasium(env_id, policy):
    """A random policy lets the pole fall, and comes to the time limit elsewhere; a skilled one the other way round."""
    seeds = [3, 14, 15]
    singles = [gym.make(env_id) for _ in seeds]
    envs = make_vec(env_id, runs=3, envs_per_run=1)
    obs, _ = envs.reset(seed=seeds)
    firsts = [env.reset(seed=seed)[0] for env, seed in zip(singles, seeds, strict=True)]
    # 1e-7 is a float32's last bit: gymnasium takes the cosines of Acrobot's first observation in float32.
    np.testing.assert_allclose(obs, firsts, rtol=0, atol=1e-7)
    rng, seen = np.random.default_rng(0), set()
    for _ in range(1200):
        actions = rng.integers(envs.single_action_space.n, size=3) if policy == "random" else skilled(env_id, obs)
        for env, state in zip(singles, physics(envs), strict=True):
            env.unwrapped.state = state  # so that rounding does not add up: Acrobot is chaotic
        obs, rewards, terminated, truncated, infos = envs.step(actions)
        ended = terminated | truncated
        reached = last_observations(obs, ended, infos)
        for row, env in enumerate(singles):
            expected, *others = env.step(actions[row])[:4]
            assert [rewards[row], terminated[row], truncated[row]] == others
            np.testing.assert_allclose(reached[row], expected, rtol=2e-7, atol=1e-12)
            if ended[row]:
                np.testing.assert_allclose(obs[row], env.reset()[0], rtol=0, atol=1e-7)
                seen.add("terminated" if terminated[row] else "truncated")
            np.testing.assert_allclose(physics(envs)[row], env.unwrapped.state, rtol=0, atol=1e-12)
    assert seen == {"terminated" if ("CartPole" in env_id) == (policy == "random") else "truncated"}


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
    actions = np.random.default_rng(0).integers(envs.single_action_space.n, size=n)
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
    steps, last = LIMITS[env_id] - 1 if elapsed == "last step" else 50, LAST[env_id.split("-")[0]]
    envs = make_vec(env_id, runs=1, envs_per_run=2)
    envs.reset(seed=0)
    place(envs, [last] * 2, steps)
    _, rewards, terminated, truncated, infos = envs.step(np.array([0, 1]))
    for row in range(2):
        obs, *others = single(env_id, last, steps).step(row)[:4]
        assert [rewards[row], terminated[row], truncated[row]] == others
        assert (terminated[row], truncated[row]) == (True, elapsed == "last step")
        np.testing.assert_allclose(infos["final_obs"][row], obs, rtol=2e-7)


# ---- One stream for each run -----------------------------------------------------------------------------------------


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


def test_a_mask_resets_the_chosen_rows_from_their_runs_streams():
    envs = make_vec("CartPole-v1", runs=2, envs_per_run=2, autoreset=False)
    envs.reset(seed=[1, 2])
    third = [seeding.np_random(seed)[0].uniform(-0.05, 0.05, (3, 4))[2] for seed in (1, 2)]
    for _ in range(60):
        envs.step(np.ones(4, np.int64))
    again, _ = envs.reset(options={"reset_mask": np.array([False, True, False, True])})
    np.testing.assert_array_equal(again[[1, 3]], np.float32(third))


def test_kept_runs_go_on_where_they_are():
    vector, n_ends = make_vec("CartPole-v0", 4, 2), 0
    vector.max_episode_steps = 20
    vector.reset(seed=1)
    for t in range(30):
        vector.step(np.array([t, t // 2, t // 3, 1]).repeat(2) % 2)
    whole = make_vec("CartPole-v0", 4, 2)
    whole.max_episode_steps = 20
    whole.set_state(vector.get_state())
    rest = vector.keep([1, 3])
    for t in range(40):
        action = np.array([0, 0, t, t // 2, 0, 0, 1, t // 2]) % 2
        here, there = whole.step(action), rest.step(action[[2, 3, 6, 7]])
        assert all((a[[2, 3, 6, 7]] == b).all() for a, b in zip(here[:4], there[:4], strict=True))
        n_ends += there[3].sum()
    assert n_ends > 2  # by the time limit


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="Pendulum-v1.*CartPole-v0, CartPole-v1, Acrobot-v1, MountainCar-v0"):
        make_vec("Pendulum-v1", 1, 1)
    envs = make_vec("CartPole-v1", 3, 2)
    envs.reset(seed=0)
    with pytest.raises(ValueError, match="'CartPole-v1', 3, 6"):
        make_vec("CartPole-v1", 2, 3).set_state(envs.get_state())
