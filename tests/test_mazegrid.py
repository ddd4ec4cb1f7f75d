"""envs/mazegrid.py: the rules at hand-made positions, and the environments of many runs against the single one. What
they share with others is in test_vector.py."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from envs.mazegrid import (
    BEST_RETURN,
    COLOURS,
    DARK,
    ENV_IDS,
    LAYOUT,
    MAPS,
    SHAPE,
    MazeGridVectorEnv,
    enemy_cells,
    entangling_matrix,
    find,
    make_vec,
)
from envs.vector import last_observations

every_task = pytest.mark.parametrize("env_id", ENV_IDS)
UP, DOWN, LEFT, RIGHT = range(4)
ITEMS = find("$") + find("@")

# All coins, no poison and no enemy. A beam search over the agent's cell and the coins left found it; it kept the 300
# states of each step that have the shortest tree from the agent to all coins left.
WALK = "RRDRRRRUDRDDDLLLLLLULRRRDRRURRRRRRRDRRRRUDRLLDDDRRLLULLLLLLLLLDLLLLULLDRRRRRRURRDRRRUUUUUULUDLRRRRRUDRRRU"
WALK = ["UDLR".index(letter) for letter in WALK]
CAUGHT = [RIGHT] * 7 + [DOWN] * 2 + [LEFT] * 200  # waits at the end of the gap until enemy a comes
SPACES = {
    "MazeGrid-v0": (1200, np.uint8, 0, 1),
    "MazeGridRGB-v0": (600, np.uint8, 0, 255),
    "MazeGridEntangled-v0": (1200, np.float32, -np.inf, np.inf),
}


def make(env_id: str, runs: int, envs_per_run: int, autoreset: bool = True, **options: Any) -> MazeGridVectorEnv:
    """With matrix seeds 0, 1, ..., which the other tasks ignore."""
    return make_vec(env_id, runs, envs_per_run, autoreset, **{"matrix_seeds": range(runs)} | options)


def flat(cell: tuple[int, int]) -> int:
    return 20 * cell[0] + cell[1]


def place(envs: MazeGridVectorEnv, agent: tuple[int, int], elapsed: int, left: list[tuple[int, int]]) -> None:
    """Put all environments into one state."""
    if not envs._ready:
        envs.reset()
    n = envs.num_envs
    state = {"agent": [flat(agent)] * n, "elapsed": [elapsed] * n, "left": [sorted(map(flat, left))] * n}
    envs.set_state(envs.get_state() | state)


def place_single(env: gym.Env, agent: tuple[int, int], elapsed: int, left: list[tuple[int, int]]) -> None:
    env.reset()
    env._elapsed_steps = elapsed
    env = env.unwrapped
    env.agent, env.steps, env.coins, env.poisons = agent, elapsed, env.coins & set(left), env.poisons & set(left)
    for _ in range(elapsed // 2):
        env.move_enemies()


def some_actions(steps: int, n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(4, size=(steps, n))


def picture_of(obs: np.ndarray) -> list[str]:
    """The layout's symbols in an observation of object maps."""
    maps = obs.reshape(SHAPE)
    assert maps.sum(0).max() == 1
    cells = np.where(maps.any(0), maps.argmax(0), 6)
    return ["".join("Pab$@.#"[what] for what in row) for row in cells]


# ---- The map and its encodings ---------------------------------------------------------------------------------------


def test_the_map_has_the_sizes_and_counts_of_the_paper():
    assert (len(LAYOUT), {len(row) for row in LAYOUT}) == (10, {20})
    assert [len(find(symbol)) for symbol in "Pab$@"] == [1, 1, 1, 42, 12]
    border = LAYOUT[0] + LAYOUT[-1] + "".join(row[0] + row[-1] for row in LAYOUT)
    assert set(border) == {"#"}
    assert len(MAPS) == SHAPE[0] and SHAPE[1:] == (10, 20)
    assert BEST_RETURN == 42


def test_enemies_patrol_the_gaps_where_nothing_lies():
    cells = enemy_cells()
    assert list(cells) == ["enemy a", "enemy b"]
    for name, row, columns in (("enemy a", 3, range(6, 13)), ("enemy b", 6, range(10, 17))):
        assert (cells[name].dtype, cells[name].shape) == (bool, (10, 20))
        assert list(zip(*np.nonzero(cells[name]), strict=True)) == [(row, column) for column in columns]
        assert {LAYOUT[row][column] for column in columns} <= set(".ab")
    env = gym.make("MazeGrid-v0")
    obs, _ = env.reset()
    seen = obs.reshape(SHAPE)[1:3].astype(bool)
    for _ in range(200):
        seen |= env.step(UP)[0].reshape(SHAPE)[1:3].astype(bool)
    np.testing.assert_array_equal(seen, list(cells.values()))


def test_enemies_move_in_every_second_step_and_turn_at_walls():
    envs = make("MazeGrid-v0", 1, 1)
    maps = [envs.reset()[0].reshape(SHAPE)]
    for _ in range(49):
        maps.append(envs.step(np.array([UP]))[0].reshape(SHAPE))
    columns = [[int(np.nonzero(m[enemy])[1].item()) for m in maps] for enemy in (1, 2)]
    a = [8, 9, 10, 11, 12, 11, 10, 9, 8, 7, 6, 7] * 2 + [8]
    b = [14, 13, 12, 11, 10, 11, 12, 13, 14, 15, 16, 15] * 2 + [14]
    assert columns == [np.repeat(a, 2).tolist(), np.repeat(b, 2).tolist()]


def test_object_maps_show_each_cell_that_is_not_a_wall_once():
    obs, _ = make("MazeGrid-v0", 1, 1).reset()
    assert picture_of(obs[0]) == list(LAYOUT)
    assert obs.reshape(SHAPE).sum((1, 2)).tolist() == [1, 1, 1, 42, 12, 65]
    assert obs[0, [21, 200 + 68, 400 + 134, 600 + 23, 800 + 25, 1000 + 22]].all()  # map, row, column


def test_colours_are_those_of_the_paper():
    assert COLOURS[[0, 1, 2]].tolist() == [[0, 255, 255], [255, 0, 255], [0, 255, 0]]  # cyan, magenta, green
    assert COLOURS[[3, 4]].tolist() == [[255, 255, 0], [139, 69, 19]]  # yellow, brown
    assert COLOURS[[5, 6]].tolist() == [[0, 0, 0], [128, 128, 128]]  # black, grey
    obs, _ = make("MazeGridRGB-v0", 1, 1).reset()
    channels = obs[0].reshape(3, 10, 20)
    for row in range(10):
        for column in range(20):
            assert channels[:, row, column].tolist() == COLOURS["Pab$@.#".index(LAYOUT[row][column])].tolist()


def test_the_entangling_matrix_is_uniform_fixed_and_exact():
    matrix = entangling_matrix(3)
    assert (matrix.dtype, matrix.shape) == (np.float32, (1200, 1200))
    np.testing.assert_array_equal(matrix, entangling_matrix(3))
    assert not np.array_equal(matrix, entangling_matrix(4))
    assert -1 <= matrix.min() < -0.9999 and 0.9999 < matrix.max() <= 1
    assert abs(matrix.mean()) < 1e-3 and abs(matrix.var() - 1 / 3) < 1e-3
    assert (np.histogram(matrix, 20, (-1, 1))[0] / matrix.size).round(3).tolist() == [0.05] * 20
    np.testing.assert_array_equal(matrix * 2**16, np.rint(matrix * 2**16))


def test_each_run_has_the_matrix_of_its_seed_in_all_episodes():
    seeds = [5, 2**40, 5]
    entangled = make("MazeGridEntangled-v0", 3, 2, matrix_seeds=seeds)
    maps = make("MazeGrid-v0", 3, 2)
    obs, plain = entangled.reset(seed=[1, 2, 3])[0], maps.reset()[0]
    matrices = np.repeat([entangling_matrix(seed) for seed in seeds], 2, axis=0)
    for t, action in enumerate(some_actions(240, 6)):
        if t % 12 == 0:
            exact = np.einsum("ni,nij->nj", plain.astype(np.float64), matrices.astype(np.float64))
            np.testing.assert_array_equal(obs, exact)
        obs, plain = entangled.step(action)[0], maps.step(action)[0]
    assert not np.array_equal(obs[0], obs[2])


# ---- The rules, at hand-made positions -------------------------------------------------------------------------------


# Enemy a is in row 3 and moves from column 8 to 9 in step 2, to 10 in step 4, is in 12 after step 8, in 11 after 10.
# Enemy b is in row 6 and moves from column 14 to 13 in step 2. The numbers are agent's cell, steps made, action and
# then what is expected: reward, terminated.
CASES = {
    "a wall stops": ((1, 1), 0, UP, 0, False),
    "up": ((2, 1), 0, UP, 0, False),
    "down": ((1, 1), 0, DOWN, 0, False),
    "coin to the right": ((1, 2), 0, RIGHT, 1, False),
    "coin to the left": ((2, 5), 0, LEFT, 1, False),
    "poison": ((2, 1), 0, RIGHT, -1, False),
    "changes places with enemy a": ((3, 9), 1, LEFT, 0, True),
    "changes places with enemy a as it turns": ((3, 11), 9, RIGHT, 0, True),
    "changes places with enemy b": ((6, 13), 1, RIGHT, 0, True),
    "both move into one cell": ((3, 10), 1, LEFT, 0, True),
    "beside an enemy that stays": ((3, 9), 0, UP, 0, False),
    "steps into an enemy that stays": ((3, 10), 2, LEFT, 0, True),
    "steps down into an enemy that stays": ((2, 9), 2, DOWN, 0, True),
    "steps down as the enemy comes": ((2, 9), 1, DOWN, 0, True),
    "steps into the cell which the enemy leaves": ((3, 7), 1, RIGHT, 0, False),
    "steps down into the cell which the enemy leaves": ((2, 8), 1, DOWN, 0, False),
    "is found at a wall": ((3, 12), 7, RIGHT, 0, True),
    "steps out of the enemy's way, to a coin": ((3, 12), 7, UP, 1, False),
    "steps down out of the enemy's way, to a coin": ((3, 9), 1, DOWN, 1, False),
    "goes beside the enemy": ((3, 11), 1, RIGHT, 0, False),
    "crosses the row of b": ((6, 11), 1, UP, 0, False),
}


@pytest.mark.parametrize("case", CASES)
def test_what_a_step_does(case):
    agent, elapsed, action, reward, terminated = CASES[case]
    env, envs = gym.make("MazeGrid-v0"), make("MazeGrid-v0", 1, 1, autoreset=False)
    left = [cell for cell in ITEMS if cell != agent]
    place_single(env, agent, elapsed, left)
    place(envs, agent, elapsed, left)
    for obs, *others in (env.step(action), [array[0] for array in envs.step(np.array([action]))[:4]]):
        assert others[:3] == [reward, terminated, False]
        cells = "".join(picture_of(obs))
        after = [agent[0] + [-1, 1, 0, 0][action], agent[1] + [0, 0, -1, 1][action]]
        after = agent if LAYOUT[after[0]][after[1]] == "#" else tuple(after)
        met = terminated and cells[flat(after)] in "ab"  # an enemy hides the agent; having changed places, both show
        assert [i for i, there in enumerate(cells) if there == "P"] == [] if met else [flat(after)]
        assert cells.count("$") + cells.count("@") == len(left) - abs(reward)


def test_coins_and_poison_are_gone_when_walked_over():
    envs = make("MazeGrid-v0", 1, 1)
    envs.reset()
    actions = [RIGHT, RIGHT, LEFT, RIGHT, DOWN, LEFT, LEFT, RIGHT]
    rewards = [envs.step(np.array([action]))[1].item() for action in actions]
    assert rewards == [0, 1, 0, 0, 0, -1, 0, 0]
    assert len(envs.get_state()["left"][0]) == 52


@pytest.mark.parametrize("elapsed", [50, 199])
def test_the_last_coin_ends_the_episode_also_in_its_last_step(elapsed):
    left = [(1, 3), *find("@")]
    env, envs = gym.make("MazeGrid-v0"), make("MazeGrid-v0", 1, 2)
    place_single(env, (1, 2), elapsed, left)
    place(envs, (1, 2), elapsed, left)
    assert env.step(RIGHT)[1:4] == (1, True, elapsed == 199)
    obs, rewards, terminated, truncated, infos = envs.step(np.array([RIGHT, LEFT]))
    assert (rewards.tolist(), terminated.tolist()) == ([1, 0], [True, False])
    assert truncated.tolist() == [elapsed == 199] * 2
    assert infos["_final_obs"].tolist() == [True, elapsed == 199]
    assert infos["final_obs"][0].reshape(SHAPE).sum((1, 2)).tolist() == [1, 1, 1, 0, 12, 107]
    assert picture_of(obs[0]) == list(LAYOUT)


def test_the_walk_collects_all_coins():
    env, total = gym.make("MazeGrid-v0"), 0
    env.reset()
    for step, action in enumerate(WALK, 1):
        _, reward, terminated, truncated, _ = env.step(action)
        assert reward >= 0 and not truncated and terminated == (step == 105)
        total += reward
    assert (total, step) == (BEST_RETURN, 105)


# ---- Many runs -------------------------------------------------------------------------------------------------------


@every_task
def test_every_row_goes_through_the_episodes_of_the_single_environment(env_id):
    scripts = [WALK, CAUGHT, [UP] * 200]  # the other rows play at random
    seeds = [7, 9]
    envs = make(env_id, 2, 4, matrix_seeds=seeds)
    options = [{"matrix_seed": seeds[row // 4]} if "Entangled" in env_id else {} for row in range(8)]
    singles = [gym.make(env_id, **option) for option in options]
    obs, _ = envs.reset(seed=[1, 2])
    np.testing.assert_array_equal(obs, [env.reset()[0] for env in singles])
    rng, t, ends, returns = np.random.default_rng(0), np.zeros(8, int), set(), np.zeros(8)
    for _ in range(430):
        actions = rng.integers(4, size=8)
        actions[:3] = [script[step] for script, step in zip(scripts, t, strict=False)]
        obs, rewards, terminated, truncated, infos = envs.step(actions)
        t, ended = t + 1, terminated | truncated
        reached = last_observations(obs, ended, infos)
        returns += rewards
        for row, env in enumerate(singles):
            expected, *others = env.step(actions[row])[:4]
            assert [rewards[row], terminated[row], truncated[row]] == others
            assert expected.dtype == reached.dtype
            np.testing.assert_array_equal(reached[row], expected)
            if ended[row]:
                ends |= {(row, bool(terminated[row]), bool(truncated[row]), int(t[row]), returns[row])}
                np.testing.assert_array_equal(obs[row], env.reset()[0])
                t[row] = returns[row] = 0
    assert {(0, True, False, 105, 42.0), (2, False, True, 200, 0.0)} <= ends
    assert {end[:4] for end in ends if end[0] == 1} == {(1, True, False, 20)}
    assert {end[1:3] for end in ends if end[0] > 2} == {(True, False), (False, True)}


def test_the_time_limit_truncates_and_starts_again_with_each_episode():
    envs = make("MazeGrid-v0", 1, 2)
    envs.reset()
    ends = []
    for t in range(1, 411):
        _, rewards, terminated, truncated, infos = envs.step(np.array([UP, CAUGHT[t - 1] if t <= 20 else UP]))
        assert not rewards[0]
        ends += [(t, row, bool(terminated[row])) for row in np.flatnonzero(terminated | truncated)]
    assert ends == [(20, 1, True), (200, 0, False), (220, 1, False), (400, 0, False)]
    assert envs.get_state()["elapsed"] == [10, 190]


def test_having_changed_places_stays_terminated_when_frozen():
    """In this state alone agent and enemy are apart, so that the flag must be kept."""
    envs = make("MazeGrid-v0", 1, 1, autoreset=False)
    place(envs, (3, 9), 1, ITEMS)
    obs = envs.step(np.array([LEFT]))[0]
    assert picture_of(obs[0])[3] == "######..Pa...#######"
    restored = make("MazeGrid-v0", 1, 1, autoreset=False)
    restored.set_state(envs.get_state())
    for frozen in (envs, restored, envs):
        again, rewards, terminated, truncated, _ = frozen.step(np.array([UP]))
        np.testing.assert_array_equal(again, obs)
        assert (rewards.item(), terminated.item(), truncated.item()) == (0, True, False)


# ---- gymnasium -------------------------------------------------------------------------------------------------------


@every_task
@pytest.mark.filterwarnings("ignore:.*(infinity|bound|probably too)")
def test_the_single_environment_passes_the_checks_of_gymnasium(env_id):
    env = gym.make(env_id, render_mode="rgb_array")
    assert env.spec.max_episode_steps == 200
    check_env(env.unwrapped)
    dim, dtype, low, high = SPACES[env_id]
    assert env.observation_space == gym.spaces.Box(low, high, (dim,), dtype)
    assert env.action_space == gym.spaces.Discrete(4)


@every_task
def test_gymnasium_makes_the_vector_environment_too(env_id):
    options = {"matrix_seed": 8} if "Entangled" in env_id else {}
    theirs, ours = gym.make_vec(env_id, num_envs=3, **options), make(env_id, 1, 3, matrix_seeds=[8])
    assert type(theirs) is type(ours) and theirs.spec.id == env_id and ours.max_episode_steps == 200
    np.testing.assert_array_equal(theirs.reset(seed=4)[0], ours.reset()[0])
    for action in some_actions(210, 3):
        for one, other in zip(theirs.step(action)[:4], ours.step(action)[:4], strict=True):
            np.testing.assert_array_equal(one, other)
    short = gym.make_vec(env_id, num_envs=1, max_episode_steps=3)
    short.reset()
    assert [short.step(np.array([UP]))[3].item() for _ in range(6)] == [False, False, True] * 2


def test_pictures_and_text():
    env = gym.make("MazeGrid-v0", render_mode="ansi")
    env.reset()
    assert env.render().splitlines() == list(LAYOUT)
    env.step(DOWN)
    env.step(RIGHT)  # to the poison
    assert env.render().splitlines()[1:4] == ["#..$.@.$.@.$.@.$.@$#", "#.P.$.$.$.$.$.$.$.$#", "######...a...#######"]
    for env_id in ENV_IDS:
        single = gym.make(env_id, render_mode="rgb_array")
        single.reset()
        envs = make(env_id, 1, 2, render_mode="rgb_array")
        envs.reset()
        for action in CAUGHT[:19]:
            single.step(action)
            envs.step(np.array([action, UP]))
        frames = envs.render()
        assert len(frames) == 2
        np.testing.assert_array_equal(frames[0], single.render())
        assert (frames[0].shape, frames[0].dtype) == ((160, 320, 3), np.uint8)
        blocks = frames[0].reshape(10, 16, 20, 16, 3)
        assert (blocks == blocks[:, :1, :, :1]).all()
        assert blocks[3, 0, 6, 0].tolist() == [0, 255, 255]  # the agent waits for enemy a, which is beside it
        assert blocks[3, 0, 7, 0].tolist() == [255, 0, 255]
        assert blocks[0, 0, 0, 0].tolist() == [128, 128, 128]
        assert frames[1][16, 16].tolist() == [0, 255, 255]


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="MazeGrid-v1.*MazeGrid-v0, MazeGridRGB-v0, MazeGridEntangled-v0"):
        make_vec("MazeGrid-v1", 1, 1)
    with pytest.raises(ValueError, match="needs matrix_seeds, one for each run"):
        make_vec("MazeGridEntangled-v0", 2, 1)
    with pytest.raises(ValueError, match="3 matrix_seeds for 2 runs"):
        make_vec("MazeGridEntangled-v0", 2, 1, matrix_seeds=[1, 2, 3])
    single = gym.make("MazeGrid-v0")
    single.reset()
    for action in (4, -1):
        with pytest.raises(ValueError, match="below 4 and not negative"):
            single.step(action)


# ---- What a network sees ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("env_id", ["MazeGrid-v0", "MazeGridRGB-v0"])
def test_what_is_not_seen_is_dark(env_id):
    """Pixel by pixel of the pictures: a cell keeps its colour, or a channel of it, if the input that shows it is
    alive; a wall always does."""
    rng = np.random.default_rng(0)
    envs = make_vec(env_id, 1, 2, render_mode="rgb_array")
    envs.reset(seed=1)
    for _ in range(30):
        obs, *_ = envs.step(rng.integers(4, size=2))
    alive = rng.random(obs.shape[1]) < 0.5
    for row, (whole, seen) in enumerate(zip(envs.render(), envs.render_seen(alive), strict=True)):
        for cell in range(200):
            there = obs[row].reshape(-1, 200)[:, cell]
            at = slice(16 * (cell // 20), None), slice(16 * (cell % 20), None)
            colour = whole[at][0, 0]
            if LAYOUT[cell // 20][cell % 20] == "#":
                light = np.ones(3)
            elif env_id == "MazeGridRGB-v0":
                light = np.where(alive.reshape(3, 200)[:, cell], 1, DARK)
            else:
                light = 1 if alive[200 * int(there.argmax()) + cell] else DARK
            assert (seen[at][0, 0] == (colour * light).astype(np.uint8)).all()
            assert (seen[at][:16, :16] == seen[at][0, 0]).all()


def test_the_entangled_task_has_no_pixels():
    envs = make_vec("MazeGridEntangled-v0", 1, 1, matrix_seeds=[1], render_mode="rgb_array")
    envs.reset(seed=1)
    with pytest.raises(ValueError, match="inputs that are no pixels"):
        envs.render_seen(np.ones(1200, bool))
