"""envs/minatar.py against the package's own environments. What it shares with others is in test_vector.py."""

import importlib
import sys

import gymnasium as gym
import numpy as np
import pytest

pytest.importorskip("minatar")

from envs.minatar import CHANNELS, COLOURS, DARK, ENV_IDS, MinAtarVectorEnv, environment_seeds, make_vec  # noqa: E402
from envs.vector import last_observations  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:.*is out of date")  # the v0 ids
every_id = pytest.mark.parametrize("env_id", ENV_IDS)
SIZES = {"Asterix": (4, 5), "Breakout": (4, 3), "Freeway": (7, 3), "Seaquest": (10, 6), "SpaceInvaders": (6, 4)}


def some_actions(envs: MinAtarVectorEnv, steps: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(envs.single_action_space.n, size=(steps, envs.num_envs))


@every_id
def test_every_row_goes_through_the_episodes_of_the_package(env_id):
    envs = make_vec(env_id, runs=2, envs_per_run=2)
    obs, _ = envs.reset(seed=[3, 2**40])
    seeds = environment_seeds(3, 2) + environment_seeds(2**40, 2)
    assert len(set(seeds)) == 4
    singles = [gym.make(env_id, disable_env_checker=True) for _ in seeds]
    firsts = [env.reset(seed=seed)[0] for env, seed in zip(singles, seeds, strict=True)]
    np.testing.assert_array_equal(obs, np.transpose(firsts, (0, 3, 1, 2)))
    if "Freeway" in env_id:  # whose episodes are 2,501 steps; those of the other games end often by themselves
        for row in (0, 2):
            envs._games[row].env.terminate_timer = singles[row].unwrapped.game.env.terminate_timer = 60 + row
    ends, total = 0, 0
    for actions in some_actions(envs, 300):
        obs, rewards, terminated, truncated, infos = envs.step(actions)
        assert not truncated.any()
        reached = last_observations(obs, terminated, infos)
        for row, env in enumerate(singles):
            expected, reward, over, *_ = env.step(actions[row])
            assert (rewards[row], terminated[row]) == (reward, over)
            np.testing.assert_array_equal(reached[row], expected.transpose(2, 0, 1))
            if over:
                np.testing.assert_array_equal(obs[row], env.reset()[0].transpose(2, 0, 1))
        ends, total = ends + terminated.sum(), total + rewards.sum()
    assert ends > 0 and (total > 0 or "Freeway" in env_id)


def test_sticky_actions_and_ramping_are_on():
    game = make_vec("MinAtar/Seaquest-v1", 1, 1)._games[0]
    assert (game.sticky_action_prob, game.env.ramping) == (0.1, True)


@every_id
def test_sizes_channels_and_actions(env_id):
    name, version = env_id[len("MinAtar/") :].split("-")
    channels, minimal = SIZES[name]
    envs = make_vec(env_id, 1, 2)
    assert envs.single_observation_space == gym.spaces.Box(0, 1, (channels, 10, 10), np.uint8)
    assert envs.single_action_space == gym.spaces.Discrete(minimal if version == "v1" else 6)
    assert len(CHANNELS[env_id]) == channels == len(set(CHANNELS[env_id]))
    assert CHANNELS.keys() == set(ENV_IDS)


def test_channels_are_in_the_order_of_the_observation():
    assert CHANNELS["MinAtar/Breakout-v1"] == ("paddle", "ball", "trail", "brick")
    obs = make_vec("MinAtar/Breakout-v1", 1, 1).reset(seed=0)[0][0]
    assert obs.sum((1, 2)).tolist() == [1, 1, 1, 30]
    assert obs[0, 9, 4] == 1 and obs[3, 1:4].all()


def test_the_time_limit_of_freeway_is_called_terminated():
    envs = make_vec("MinAtar/Freeway-v1", 1, 2)
    envs.reset(seed=0)
    for t in range(1, 2502):
        _, _, terminated, truncated, _ = envs.step(np.array([1, 0]))  # the first one walks up
        assert terminated.tolist() == [t == 2501] * 2 and not truncated.any()


def test_max_steps_truncates_and_starts_again_with_each_episode():
    envs = make_vec("MinAtar/Freeway-v1", 1, 2, max_episode_steps=7)
    envs.reset(seed=0)
    envs._games[1].env.terminate_timer = 2  # is over in step 3
    ends = []
    for t in range(1, 20):
        obs, _, terminated, truncated, infos = envs.step(np.zeros(2, np.int64))
        ended = terminated | truncated
        assert ("final_obs" in infos) == ended.any()
        ends += [(t, row, bool(terminated[row]), bool(truncated[row])) for row in np.flatnonzero(ended)]
    expected = [(3, 1, True, False), (7, 0, False, True), (10, 1, False, True), (14, 0, False, True)]
    assert ends == [*expected, (17, 1, False, True)]
    envs._games[0].env.terminate_timer = 1  # in step 21, the last one that the limit allows
    for _ in range(2):
        _, _, terminated, truncated, _ = envs.step(np.zeros(2, np.int64))
    assert (terminated.tolist(), truncated.tolist()) == ([True, False], [True, False])


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="MinAtar/Pong-v1 is not one of MinAtar/Asterix-v1"):
        make_vec("MinAtar/Pong-v1", 1, 1)
    for option in ({"max_episode_steps": 0}, {"render_mode": "human"}):
        with pytest.raises(ValueError, match=next(iter(option))):
            make_vec("MinAtar/Breakout-v1", 1, 1, **option)


def test_without_the_package_the_error_says_what_to_do(monkeypatch):
    monkeypatch.delitem(sys.modules, "envs.minatar")
    monkeypatch.setitem(sys.modules, "minatar", None)
    with pytest.raises(ImportError, match="pip install minatar"):
        importlib.import_module("envs.minatar")


def test_pictures():
    envs = make_vec("MinAtar/Breakout-v1", 1, 2, render_mode="rgb_array")
    obs, _ = envs.reset(seed=0)
    frames = envs.render()
    assert len(frames) == 2 and frames[0].shape == (160, 160, 3) and frames[0].dtype == np.uint8
    assert frames[1][9 * 16, 4 * 16].tolist() == COLOURS[1].tolist()  # the paddle
    assert frames[1][2 * 16 + 15, 15].tolist() == COLOURS[4].tolist()  # a brick
    assert frames[1][0, 0].tolist() == COLOURS[0].tolist()
    assert len(np.unique(COLOURS, axis=0)) == len(COLOURS) > max(map(len, CHANNELS.values()))


def test_what_is_not_seen_is_dark():
    """Of the channels in a cell the last one that is alive is shown; without one, the last of all in dark."""
    rng = np.random.default_rng(0)
    envs = make_vec("MinAtar/SpaceInvaders-v1", 1, 1, render_mode="rgb_array")
    envs.reset(seed=1)
    for _ in range(20):
        obs, *_ = envs.step(rng.integers(4, size=1))
    alive = rng.random(600) < 0.5
    (seen,) = envs.render_seen(alive)
    colours = set()
    for row, column in np.ndindex(10, 10):
        there = np.flatnonzero(obs[0, :, row, column])
        visible = [c for c in there if alive.reshape(6, 10, 10)[c, row, column]]
        if visible:
            colour = COLOURS[visible[-1] + 1]
        else:
            colour = (DARK * COLOURS[there[-1] + 1 if len(there) else 0]).astype(np.uint8)
        assert (seen[16 * row : 16 * row + 16, 16 * column : 16 * column + 16] == colour).all()
        colours.add(tuple(colour))
    assert len(colours) > 4  # empty cells, and things in light and in dark
