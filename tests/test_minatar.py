"""envs/minatar.py against the package's own environments, and the promise that a run does not feel its neighbours."""

import importlib
import io
import sys
from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers.vector import RecordEpisodeStatistics

pytest.importorskip("minatar")

from envs.minatar import CHANNELS, COLOURS, DARK, ENV_IDS, MinAtarVectorEnv, environment_seeds, make_vec  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:.*is out of date")  # the v0 ids
every_game = pytest.mark.parametrize("env_id", [env_id for env_id in ENV_IDS if env_id.endswith("v1")])
every_id = pytest.mark.parametrize("env_id", ENV_IDS)
SIZES = {"Asterix": (4, 5), "Breakout": (4, 3), "Freeway": (7, 3), "Seaquest": (10, 6), "SpaceInvaders": (6, 4)}


def some_actions(envs: MinAtarVectorEnv, steps: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(envs.single_action_space.n, size=(steps, envs.num_envs))


def play(envs: MinAtarVectorEnv, actions: np.ndarray) -> Iterator[tuple[np.ndarray, ...]]:
    """Step through ``actions`` [steps, num_envs]; what every step returns, final observations last."""
    for action in actions:
        *arrays, infos = envs.step(action)
        mask = infos.get("_final_obs", np.zeros(envs.num_envs, bool))
        yield *arrays, mask, np.where(mask[:, None, None, None], infos.get("final_obs", arrays[0]), arrays[0])


def assert_same(left: Any, right: Any) -> int:
    """That two plays agree bit for bit; returns in how many steps an episode ended."""
    ends = 0
    for a, b in zip(left, right, strict=True):
        for x, y in zip(a, b, strict=True):
            assert x.dtype == y.dtype
            np.testing.assert_array_equal(x, y)
        ends += (a[2] | a[3]).any()
    return ends


def near_the_end(envs: MinAtarVectorEnv) -> MinAtarVectorEnv:
    """Freeway's episodes take 2,501 steps: let some be over soon. The other games end often by themselves."""
    if "Freeway" in envs.spec.id:
        for row in range(0, envs.num_envs, 2):
            envs._games[row].env.terminate_timer = 60 + row
    return envs


# ---- The package's episodes ----------------------------------------------------------------------------------------


@every_id
def test_every_row_goes_through_the_episodes_of_the_package(env_id):
    envs = make_vec(env_id, runs=2, envs_per_run=2)
    obs, infos = envs.reset(seed=[3, 2**40])
    assert infos == {}
    seeds = environment_seeds(3, 2) + environment_seeds(2**40, 2)
    assert len(set(seeds)) == 4
    singles = [gym.make(env_id, disable_env_checker=True) for _ in seeds]
    firsts = [env.reset(seed=seed)[0] for env, seed in zip(singles, seeds, strict=True)]
    np.testing.assert_array_equal(obs, np.transpose(firsts, (0, 3, 1, 2)))
    near_the_end(envs)
    for row, env in enumerate(singles):
        if "Freeway" in env_id and row % 2 == 0:
            env.unwrapped.game.env.terminate_timer = 60 + row
    ends, total = 0, 0
    for actions in some_actions(envs, 300):
        obs, rewards, terminated, truncated, infos = envs.step(actions)
        assert infos.keys() == ({"final_obs", "_final_obs"} if terminated.any() else set())
        assert not truncated.any()
        if terminated.any():
            np.testing.assert_array_equal(infos["_final_obs"], terminated)
            assert (infos["final_obs"].dtype, infos["final_obs"].shape) == (np.uint8, obs.shape)
        for row, env in enumerate(singles):
            expected, reward, over, *_ = env.step(actions[row])
            assert (rewards[row], terminated[row]) == (reward, over)
            last = infos["final_obs"][row] if over else obs[row]
            np.testing.assert_array_equal(last, expected.transpose(2, 0, 1))
            if over:
                np.testing.assert_array_equal(obs[row], env.reset()[0].transpose(2, 0, 1))
        ends, total = ends + terminated.sum(), total + rewards.sum()
    assert ends > 0 and (total > 0 or "Freeway" in env_id)


@pytest.mark.parametrize("sticky, ramping", [(0.0, True), (0.5, False)])
def test_the_options_of_the_package(sticky, ramping):
    options = {"sticky_action_prob": sticky, "difficulty_ramping": ramping}
    envs = make_vec("MinAtar/Asterix-v1", 1, 1, **options)
    env = gym.make("MinAtar/Asterix-v1", disable_env_checker=True, **options)
    envs.reset(seed=5)
    env.reset(seed=environment_seeds(5, 1)[0])
    for action in some_actions(envs, 150):
        obs, _, terminated, _, infos = envs.step(action)
        expected, _, over, *_ = env.step(action[0])
        np.testing.assert_array_equal((infos["final_obs"] if over else obs)[0], expected.transpose(2, 0, 1))
        assert terminated.item() == over
        if over:
            env.reset()
    assert envs._games[0].env.ramping == ramping


def test_sticky_actions_and_ramping_are_on_by_default():
    game = make_vec("MinAtar/Seaquest-v1", 1, 1)._games[0]
    assert (game.sticky_action_prob, game.env.ramping) == (0.1, True)
    envs = make_vec("MinAtar/Breakout-v0", 1, 50, sticky_action_prob=1.0)
    before = envs.reset(seed=0)[0]
    after = envs.step(np.ones(50, np.int64))[0]  # left, but the first last action is none
    np.testing.assert_array_equal(after[:, 0], before[:, 0])


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


# ---- One stream for each environment -------------------------------------------------------------------------------


@every_game
def test_a_run_among_others_is_the_run_alone(env_id):
    together = make_vec(env_id, runs=4, envs_per_run=2)
    seeds = [int(s) for s in np.random.SeedSequence(1).generate_state(4)]
    first, _ = together.reset(seed=seeds)
    near_the_end(together)
    actions = some_actions(together, 250)
    history = list(play(together, actions))
    for r in (0, 3):
        alone = make_vec(env_id, 1, 2)
        rows = slice(r * 2, (r + 1) * 2)
        np.testing.assert_array_equal(alone.reset(seed=[seeds[r]])[0], first[rows])
        if "Freeway" in env_id:
            alone._games[0].env.terminate_timer = 60 + rows.start
        mine = ([array[rows] for array in step] for step in history)
        assert assert_same(mine, play(alone, actions[:, rows])) > 0
        assert alone.get_state()["streams"] == together.get_state()["streams"][rows]


@every_game
def test_runs_with_the_same_seed_are_the_same_also_when_seeded_again(env_id):
    envs = make_vec(env_id, runs=3, envs_per_run=2)
    first, _ = envs.reset(seed=[8, 2, 8])
    actions = np.tile(some_actions(make_vec(env_id, 1, 2), 200), (1, 3))
    history = list(play(envs, actions))
    for step in history:
        for array in step:
            np.testing.assert_array_equal(array[:2], array[4:])
    assert any(not np.array_equal(step[0][:2], step[0][2:4]) for step in history)
    assert any(not np.array_equal(step[0][0], step[0][1]) for step in history)
    np.testing.assert_array_equal(envs.reset(seed=[8, 2, 8])[0], first)
    assert_same(history, play(envs, actions))


def test_seeds_can_be_counted_from_a_number_and_streams_go_on_without_one():
    envs = make_vec("MinAtar/Freeway-v1", 3, 2)  # its first observations are drawn
    listed, _ = envs.reset(seed=[6, 7, 8])
    next_listed, _ = envs.reset()
    assert not np.array_equal(listed, next_listed)
    for seed in (6, np.int64(6), np.arange(6, 9)):
        np.testing.assert_array_equal(envs.reset(seed=seed)[0], listed)
        np.testing.assert_array_equal(envs.reset()[0], next_listed)
    fresh = [make_vec("MinAtar/Freeway-v1", 3, 2).reset()[0] for _ in range(2)]
    rows = np.concatenate([listed, next_listed, *fresh])
    assert len(np.unique(rows.reshape(24, -1), axis=0)) == 24  # without any seed nothing repeats


# ---- Ends of episodes ----------------------------------------------------------------------------------------------


def test_max_steps_truncates_and_starts_again_with_each_episode():
    envs = make_vec("MinAtar/Freeway-v1", 1, 2, max_steps=7)
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


@every_game
def test_without_autoreset_ended_rows_are_frozen(env_id):
    envs, resetting = (make_vec(env_id, 2, 2, autoreset, max_steps=150) for autoreset in (False, True))
    np.testing.assert_array_equal(envs.reset(seed=4)[0], resetting.reset(seed=4)[0])
    near_the_end(envs), near_the_end(resetting)
    done, last, streams = np.zeros(4, bool), {}, {}
    actions = some_actions(envs, 170)
    for a, b in zip(play(envs, actions), play(resetting, actions), strict=True):
        obs, rewards, terminated, truncated, has_final, _ = a
        assert not has_final.any()
        np.testing.assert_array_equal(rewards[done], 0)
        for row in np.flatnonzero(done):
            np.testing.assert_array_equal(np.r_[obs[row].ravel(), terminated[row], truncated[row]], last[row])
        first_end = ~done & b[4]
        np.testing.assert_array_equal(obs[~done], b[5][~done])
        for ours, theirs in zip(a[1:4], b[1:4], strict=True):
            np.testing.assert_array_equal(ours[~done], theirs[~done])
        for row in np.flatnonzero(first_end):
            last[row] = np.r_[obs[row].ravel(), terminated[row], truncated[row]]
            streams[row] = envs.get_state()["streams"][row]
        done |= terminated | truncated
    assert done.all() and terminated.any()
    assert [streams[row] for row in range(4)] == envs.get_state()["streams"]  # a frozen row draws nothing


def test_a_mask_resets_the_chosen_rows():
    envs = make_vec("MinAtar/Breakout-v1", 2, 2, autoreset=False)
    envs.reset(seed=1)
    for _ in range(60):
        obs, _, terminated, _, _ = envs.step(np.zeros(4, np.int64))
    assert terminated.all()
    elapsed = envs.get_state()["elapsed"]
    again, infos = envs.reset(options={"reset_mask": np.array([False, True, False, True])})
    assert infos == {}
    np.testing.assert_array_equal(again[[0, 2]], obs[[0, 2]])
    assert again[[1, 3], 3].sum((1, 2)).tolist() == [30, 30]
    assert envs.get_state()["elapsed"] == [elapsed[0], 0, elapsed[2], 0]
    obs, _, terminated, _, _ = envs.step(np.zeros(4, np.int64))
    assert terminated.tolist() == [True, False, True, False]
    np.testing.assert_array_equal(obs[[0, 2]], again[[0, 2]])
    unchanged, _ = envs.reset(options={"reset_mask": np.zeros(4, bool)})
    np.testing.assert_array_equal(unchanged, obs)
    envs.reset()  # without a mask, all rows are live again
    assert not envs.step(np.zeros(4, np.int64))[2].any()


# ---- Checkpoints ---------------------------------------------------------------------------------------------------


@every_game
@pytest.mark.parametrize("autoreset", [True, False])
def test_a_saved_state_goes_on_bit_for_bit(env_id, autoreset):
    envs = make_vec(env_id, 2, 2, autoreset, max_steps=180)
    envs.reset(seed=[1, 2**40])
    actions, start = some_actions(envs, 220), 37 if autoreset else 4  # when no row is frozen yet
    list(play(envs, actions[:start]))
    file = io.BytesIO()
    state = envs.get_state()
    torch.save(state, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=True)
    assert loaded == state
    restored = make_vec(env_id, 2, 2, autoreset, max_steps=180)
    restored.set_state(loaded)
    assert restored.get_state() == state
    unchanged = restored.reset(options={"reset_mask": np.zeros(4, bool)})[0]
    np.testing.assert_array_equal(unchanged, envs.reset(options={"reset_mask": np.zeros(4, bool)})[0])
    assert assert_same(play(envs, actions[start:]), play(restored, actions[start:])) > 0
    assert restored.get_state() == envs.get_state() != state
    assert loaded == state  # stepping does not write into what was saved


# ---- Errors and the interface --------------------------------------------------------------------------------------


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="MinAtar/Pong-v1 is not one of MinAtar/Asterix-v1"):
        make_vec("MinAtar/Pong-v1", 1, 1)
    for sizes in ((0, 4), (4, 0), (-1, 1)):
        with pytest.raises(ValueError, match="at least 1"):
            make_vec("MinAtar/Breakout-v1", *sizes)
    for option in ({"sticky_action_prob": 1.5}, {"max_steps": 0}, {"render_mode": "human"}):
        with pytest.raises(ValueError, match=next(iter(option))):
            make_vec("MinAtar/Breakout-v1", 1, 1, **option)
    envs = make_vec("MinAtar/Breakout-v1", 3, 2)
    for call in (lambda: envs.step(np.zeros(6, np.int64)), envs.get_state, envs.render):
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
    for action in (3, -1):
        with pytest.raises(ValueError, match="below 3 and not negative"):
            envs.step(np.full(6, action))
    with pytest.raises(TypeError):
        envs.step(np.zeros(6))
    for other in (make_vec("MinAtar/Breakout-v0", 3, 2), make_vec("MinAtar/Breakout-v1", 3, 1)):
        with pytest.raises(ValueError, match=r"'MinAtar/Breakout-v1', 6"):
            other.set_state(before)
    assert envs.get_state() == before  # nothing of this had an effect


def test_without_the_package_the_error_says_what_to_do(monkeypatch):
    monkeypatch.delitem(sys.modules, "envs.minatar")
    monkeypatch.setitem(sys.modules, "minatar", None)
    with pytest.raises(ImportError, match="pip install minatar"):
        importlib.import_module("envs.minatar")


@every_game
def test_it_is_a_vector_environment_of_gymnasium(env_id):
    envs = make_vec(env_id, runs=3, envs_per_run=2)
    assert isinstance(envs, gym.vector.VectorEnv)
    assert (envs.spec.id, envs.num_envs, envs.max_episode_steps, envs.unwrapped) == (env_id, 6, None, envs)
    assert envs.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP
    assert make_vec(env_id, 3, 2, autoreset=False).metadata["autoreset_mode"] == AutoresetMode.DISABLED
    obs, _ = envs.reset(seed=0)
    step = envs.step(envs.action_space.sample())
    like = (np.uint8, np.float64, bool, bool)
    assert [array.dtype for array in step[:4]] == list(like)
    assert [array.shape for array in step[:4]] == [envs.observation_space.shape, (6,), (6,), (6,)]
    assert envs.observation_space.contains(obs) and envs.observation_space.contains(step[0])
    assert obs.flags.c_contiguous and step[0].flags.c_contiguous
    envs.close()


@every_game
def test_what_was_returned_is_never_written_again(env_id):
    envs = make_vec(env_id, runs=1, envs_per_run=2)
    kept, copies = [], []
    obs, _ = envs.reset(seed=0)
    near_the_end(envs)
    for step in [(obs,), *play(envs, some_actions(envs, 150))]:
        kept.append(step)
        copies.append([array.copy() for array in step])
    for step, copy in zip(kept, copies, strict=True):
        for x, y in zip(step, copy, strict=True):
            np.testing.assert_array_equal(x, y)


def test_wrappers_of_gymnasium_see_whole_episodes():
    envs = RecordEpisodeStatistics(make_vec("MinAtar/Freeway-v1", 1, 2, max_steps=40))
    envs.reset(seed=0)
    lengths = []
    for _ in range(90):
        infos = envs.step(np.zeros(2, np.int64))[-1]
        if "episode" in infos:
            lengths += infos["episode"]["l"][infos["_episode"]].tolist()
    assert lengths == [40] * 4


def test_pictures():
    envs = make_vec("MinAtar/Breakout-v1", 1, 2, render_mode="rgb_array")
    obs, _ = envs.reset(seed=0)
    frames = envs.render()
    assert len(frames) == 2 and frames[0].shape == (160, 160, 3) and frames[0].dtype == np.uint8
    assert frames[1][9 * 16, 4 * 16].tolist() == COLOURS[1].tolist()  # the paddle
    assert frames[1][2 * 16 + 15, 15].tolist() == COLOURS[4].tolist()  # a brick
    assert frames[1][0, 0].tolist() == COLOURS[0].tolist()
    assert len(np.unique(COLOURS, axis=0)) == len(COLOURS) > max(map(len, CHANNELS.values()))
    silent = make_vec("MinAtar/Breakout-v1", 1, 1)
    silent.reset()
    assert silent.render() is None


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
