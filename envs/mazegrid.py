"""MazeGrid, the visual navigation task of Vischer et al. (2022, appendix B), alone and for many runs at once.

    env = gymnasium.make("MazeGrid-v0")                      # after ``import envs.mazegrid``
    envs = make_vec("MazeGrid-v0", runs=5, envs_per_run=4)    # 20 rows; those of run r are 4 * r to 4 * r + 3

The agent walks up, down, left or right (actions 0 to 3) through a maze of 10 rows and 20 columns. A coin gives +1
and a poison -1, and both are gone when walked over. Two enemies patrol the gaps of the inner walls from side to side.
All episodes start alike and nothing is random. What happens in a step, in this order:

1. The agent moves, or stays where it is if a wall is in the way.
2. It collects what lies in its cell; the reward is the value of that.
3. In the second, fourth, sixth, ... step of an episode both enemies move one cell, at first enemy a eastward and
   enemy b westward. One that has a wall ahead turns round and moves the other way at once; a patrol takes 24 steps.
4. The episode is over (terminated) if all coins are collected, or if the agent has met an enemy: they are in one cell
   or have just changed places. To step into a cell which the enemy leaves in the same step is not to meet it.

After 200 steps an episode is truncated. The best return is 42, all coins and no poison; a walk of 105 steps in
tests/test_mazegrid.py has it, so the enemies and the time limit leave room for it.

Each cell shows one object. An enemy hides the agent that it has met; it would hide a coin or poison too, but none
lies where enemies walk. Three tasks differ in how this picture is encoded as a vector:

MazeGrid-v0           Six binary maps (``MAPS``), uint8 [1200] in the order map, row, column. A wall is 0 in all maps,
                      every other cell is 1 in one of them; "empty" is the map of the cells without an object.
MazeGridRGB-v0        Colours (``COLOURS``), uint8 [600] in the order channel, row, column.
MazeGridEntangled-v0  The object maps times a fixed matrix (``entangling_matrix``), float32 [1200].

The paper shows its map only as a picture, says that enemies patrol but not when they move, and names colours without
numbers: these are choices of this module, and so is the meeting by changing places.
"""

from collections.abc import Sequence
from operator import index
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Discrete
from numpy import ndarray

from envs.base import DARK, PIXELS, RunsVectorEnv

# The map of the authors' public gridworld of this size and these rules, with one coin more, at the end of the first
# row: so there are 42 coins and 12 poisons, as in the paper.
LAYOUT = (
    "####################",
    "#P.$.@.$.@.$.@.$.@$#",
    "#.@.$.$.$.$.$.$.$.$#",
    "######..a....#######",
    "#$.$.@.$.$.$.$.@.$.#",
    "#.$.$.$.$.@.$.$.$.$#",
    "##########....b..###",
    "#$.$.@.$.$.$.$.$.@.#",
    "#.$.$.$.@.$.$.@.$.$#",
    "####################",
)
SYMBOLS = "Pab$@.#"
MAPS = ("agent", "enemy a", "enemy b", "coins", "poisons", "empty")
AGENT, ENEMY_A, ENEMY_B, COIN, POISON, EMPTY, WALL = range(7)  # places in SYMBOLS, MAPS and COLOURS
CYAN, MAGENTA, GREEN, YELLOW = (0, 255, 255), (255, 0, 255), (0, 255, 0), (255, 255, 0)
BROWN, BLACK, GREY = (139, 69, 19), (0, 0, 0), (128, 128, 128)
COLOURS = np.array([CYAN, MAGENTA, GREEN, YELLOW, BROWN, BLACK, GREY], np.uint8)  # [7, 3]
SHAPE = (6, 10, 20)  # maps, rows, columns
BEST_RETURN = 42.0
MOVES = ((-1, 0), (1, 0), (0, -1), (0, 1))  # rows and columns of up, down, left, right

_CELLS = SHAPE[1] * SHAPE[2]
_INPUTS = SHAPE[0] * _CELLS
SPACES = {
    "objects": Box(0, 1, (_INPUTS,), np.uint8),
    "rgb": Box(0, 255, (3 * _CELLS,), np.uint8),
    "entangled": Box(-np.inf, np.inf, (_INPUTS,), np.float32),
}


# ---- Encodings, of the objects [..., 200] that the cells show ------------------------------------------------------


def object_maps(shown: ndarray) -> ndarray:
    """Uint8 [..., 1200]."""
    maps = shown[..., None, :] == np.arange(SHAPE[0])[:, None]
    return maps.reshape(*shown.shape[:-1], _INPUTS).astype(np.uint8)


def rgb(shown: ndarray) -> ndarray:
    """Uint8 [..., 600]."""
    return np.swapaxes(COLOURS[shown], -1, -2).reshape(*shown.shape[:-1], 3 * _CELLS)


def entangling_matrix(seed: int) -> ndarray:
    """Draws from U(-1, 1), float32 [1200, 1200]; row i is what input i of the object maps adds to the observation.

    They are multiples of 2 ** -16, and at most 122 of them are added up: float32 holds all such sums exactly, so an
    observation has the same bits in whatever order, and beside whichever other ones, it is computed.
    """
    draws = np.random.default_rng(seed).integers(-(2**16), 2**16, (_INPUTS, _INPUTS), np.int32, endpoint=True)
    return draws.astype(np.float32) / np.float32(2**16)


def entangle(shown: ndarray, matrix: ndarray) -> ndarray:
    """Float32 [1200] of shown [200]: the object maps times the matrix, which is the sum of its rows for the ones."""
    return matrix[object_maps(shown) == 1].sum(axis=0)


def picture(shown: ndarray) -> ndarray:
    """Uint8 [160, 320, 3] of shown [200]."""
    return COLOURS[shown.reshape(SHAPE[1:])].repeat(PIXELS, axis=0).repeat(PIXELS, axis=1)


# ---- One environment -----------------------------------------------------------------------------------------------


def find(symbol: str) -> list[tuple[int, int]]:
    """Row and column of each cell that has the symbol in the layout."""
    return [(r, c) for r, line in enumerate(LAYOUT) for c, there in enumerate(line) if there == symbol]


class MazeGrid(gym.Env):
    """One maze, written to be read. The time limit is a wrapper's, which ``gymnasium.make`` adds.

    ``encoding`` is "objects", "rgb" or "entangled"; only the last one has a ``matrix_seed``.
    """

    metadata = {"render_modes": ["rgb_array", "ansi"], "render_fps": 10}

    def __init__(self, encoding: str = "objects", matrix_seed: int = 0, render_mode: str | None = None):
        self.encoding, self.render_mode = encoding, render_mode
        self.observation_space = SPACES[encoding]
        self.action_space = Discrete(len(MOVES))
        if encoding == "entangled":
            self.matrix = entangling_matrix(matrix_seed)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[ndarray, dict]:
        """The start, always the same one: ``seed`` and ``options`` change nothing."""
        super().reset(seed=seed)
        self.steps = 0
        self.agent = find("P")[0]
        self.enemies, self.directions = find("a") + find("b"), [+1, -1]
        self.coins, self.poisons = set(find("$")), set(find("@"))
        return self.observation(), {}

    def step(self, action: int) -> tuple[ndarray, float, bool, bool, dict]:
        if not 0 <= action < len(MOVES):
            raise ValueError(f"actions must be below {len(MOVES)} and not negative, not {action}")
        agent_before, enemies_before = self.agent, list(self.enemies)
        (row, column), (down, right) = self.agent, MOVES[action]
        if LAYOUT[row + down][column + right] != "#":
            self.agent = row + down, column + right
        reward = float(self.agent in self.coins) - float(self.agent in self.poisons)
        self.coins.discard(self.agent)
        self.poisons.discard(self.agent)
        self.steps += 1
        if self.steps % 2 == 0:
            self.move_enemies()
        met = self.agent in self.enemies
        for before, now in zip(enemies_before, self.enemies, strict=True):
            met |= (before, now) == (self.agent, agent_before)  # they have changed places
        return self.observation(), reward, met or not self.coins, False, {}

    def move_enemies(self) -> None:
        for i, (row, column) in enumerate(self.enemies):
            if LAYOUT[row][column + self.directions[i]] == "#":
                self.directions[i] *= -1
            self.enemies[i] = row, column + self.directions[i]

    def shown(self) -> ndarray:
        """The object that each cell shows, [200]."""
        cells = np.array([[WALL if symbol == "#" else EMPTY for symbol in line] for line in LAYOUT])
        objects = [(COIN, self.coins), (POISON, self.poisons), (AGENT, [self.agent])]
        for what, where in [*objects, (ENEMY_A, self.enemies[:1]), (ENEMY_B, self.enemies[1:])]:
            for cell in where:
                cells[cell] = what
        return cells.ravel()

    def observation(self) -> ndarray:
        if self.encoding == "rgb":
            return rgb(self.shown())
        if self.encoding == "entangled":
            return entangle(self.shown(), self.matrix)
        return object_maps(self.shown())

    def render(self) -> ndarray | str | None:
        """A picture, uint8 [160, 320, 3], or ten lines in the symbols of the layout."""
        if self.render_mode == "rgb_array":
            return picture(self.shown())
        if self.render_mode == "ansi":
            lines = self.shown().reshape(SHAPE[1:])
            return "".join("".join(SYMBOLS[what] for what in line) + "\n" for line in lines)
        return None


# ---- Many runs -----------------------------------------------------------------------------------------------------


def _patrols() -> ndarray:
    """The enemies' cells after 0, 1, ..., 23 steps, [2, 24]; from there on it is the same again."""
    env, cells = MazeGrid(), []
    env.reset()
    start = env.enemies.copy(), env.directions.copy()
    while not cells or (env.enemies, env.directions) != start:
        cells += [[row * SHAPE[2] + column for row, column in env.enemies]] * 2
        env.move_enemies()
    return np.array(cells).T


_START = np.array([SYMBOLS.index(symbol) for line in LAYOUT for symbol in line], np.uint8)  # [200]: what cells show
_VALUES = (_START == COIN).astype(np.int8) - (_START == POISON)  # [200]: of what lies there
_PATROLS = _patrols()
_PERIOD = _PATROLS.shape[1]
assert not _VALUES[_PATROLS].any(), "coins or poison lie where enemies walk"
_STEPS = np.array([down * SHAPE[2] + right for down, right in MOVES])
_NEXT = np.arange(_CELLS)[:, None] + np.where(_START == WALL, 0, 1)[:, None] * _STEPS  # [200, 4]: by cell and action
_NEXT = np.where(_START[_NEXT] == WALL, np.arange(_CELLS)[:, None], _NEXT)


def enemy_cells() -> dict[str, ndarray]:
    """For "enemy a" and "enemy b" the cells in which it can be, bool [10, 20]."""
    reached = {}
    for name, cells in zip(MAPS[ENEMY_A : ENEMY_B + 1], _PATROLS, strict=True):
        reached[name] = np.isin(np.arange(_CELLS), cells).reshape(SHAPE[1:])
    return reached


class MazeGridVectorEnv(RunsVectorEnv):
    """Mazes in the encoding of a subclass. Enemies' cells follow from the number of steps; seeds change nothing."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}
    encoding: str

    def encode(self, shown: ndarray) -> ndarray:
        """All observations, of the objects [num_envs, 200] that the cells show."""
        raise NotImplementedError

    def change(self, cells: ndarray, before: ndarray, now: int) -> None:
        """Update ``self._obs``: in each row a cell [num_envs] showed object ``before`` [num_envs] and now ``now``."""
        raise NotImplementedError

    def visible(self, alive: ndarray) -> ndarray:
        """Which colours of which cells come from inputs in ``alive``, bool [inputs]: bool [num_envs, 200, 3]."""
        raise ValueError(f"{self.spec.id} has inputs that are no pixels")

    def __init__(
        self,
        env_id: str,
        runs: int,
        envs_per_run: int,
        autoreset: bool = True,
        render_mode: str | None = None,
        max_episode_steps: int | None = None,
    ):
        spec, spaces = gym.spec(env_id), (SPACES[self.encoding], Discrete(len(MOVES)))
        super().__init__(spec, runs, envs_per_run, autoreset, *spaces, max_episode_steps, render_mode)
        n = self.num_envs
        self._rows = np.arange(n)
        self._agent = np.zeros(n, np.int64)  # its cell
        self._items = np.zeros((n, _CELLS), np.int8)  # the value of what lies in each cell
        self._coins = np.zeros(n, np.int64)  # that are left
        self._terminated = np.zeros(n, bool)
        self._shown = np.zeros((n, _CELLS), np.int16)  # the object that each cell shows
        self._first = self.encode(np.tile(_START, (n, 1)))  # each row's first observation
        self._obs = np.zeros_like(self._first)

    def _seed(self, seeds: list[int | None]) -> None:
        """Nothing is random."""

    def _restart(self, rows: ndarray) -> None:
        self._agent[rows] = np.flatnonzero(_START == AGENT)
        self._items[rows], self._coins[rows] = _VALUES, (_VALUES > 0).sum()
        self._terminated[rows] = False
        self._shown[rows], self._obs[rows] = _START, self._first[rows]

    def _step(self, actions: ndarray, live: ndarray) -> tuple[ndarray, ndarray]:
        # The steps 1 to 4 of this module's docstring.
        before = self._agent
        agent = self._agent = np.where(live, _NEXT[before, actions], before)
        items = self._items[self._rows, agent]
        self._items[self._rows, agent] = 0
        self._coins -= items > 0
        patrols_before = _PATROLS[:, self._elapsed % _PERIOD]  # [2, num_envs]
        patrols = _PATROLS[:, (self._elapsed + live) % _PERIOD]
        met = ((agent == patrols) | ((agent == patrols_before) & (before == patrols))).any(0)
        self._terminated |= met | (self._coins == 0)

        # The objects leave their cells, then take the new ones; the last one to come to a cell is shown.
        self._show(before, EMPTY)
        for cells in patrols_before:
            self._show(cells, EMPTY)
        self._show(agent, AGENT)
        for what, cells in zip((ENEMY_A, ENEMY_B), patrols, strict=True):
            self._show(cells, what)

        return items.astype(np.float64), self._terminated.copy()

    def _observations(self) -> ndarray:
        return self._obs.copy()

    def render(self) -> tuple[ndarray, ...] | None:
        """A picture of each environment, uint8 [160, 320, 3]; None without a render_mode."""
        self._check_reset()
        return tuple(picture(shown) for shown in self._shown) if self.render_mode else None

    def render_seen(self, alive: ndarray) -> tuple[ndarray, ...]:
        """The same pictures for a network that reads only the inputs in ``alive``, bool [inputs]: cells whose object
        it does not see are dark. Walls, which are no input, are as they were."""
        light = np.where(self.visible(alive), 1, DARK)  # [num_envs, 200, 3]
        light = light.reshape(-1, *SHAPE[1:], 3).repeat(PIXELS, axis=1).repeat(PIXELS, axis=2)
        return tuple((light * [picture(shown) for shown in self._shown]).astype(np.uint8))

    def get_state(self) -> dict[str, Any]:
        """All that ``set_state`` needs to go on bit for bit: lists, numbers and strings, which
        ``torch.load(weights_only=True)`` reads. ``left`` are the cells in which something lies."""
        self._check_reset()
        return {
            "env_id": self.spec.id,
            "agent": self._agent.tolist(),
            "elapsed": self._elapsed.tolist(),
            "terminated": self._terminated.tolist(),
            "left": [np.flatnonzero(items).tolist() for items in self._items],
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on where ``get_state`` was called, in an environment made like that one; no reset is needed before."""
        there = state["env_id"], len(state["elapsed"])
        if there != (self.spec.id, self.num_envs):
            raise ValueError(f"a state of {there} is not one of {self.spec.id, self.num_envs}")
        self._agent, self._terminated = np.array(state["agent"], np.int64), np.array(state["terminated"], bool)
        self._go_on(state["elapsed"], self._terminated)
        left = np.zeros((self.num_envs, _CELLS), bool)
        for row, cells in enumerate(state["left"]):
            left[row, cells] = True
        self._items = np.where(left, _VALUES, 0).astype(np.int8)
        self._coins = (self._items > 0).sum(1)
        self._shown[:] = np.where(left | (_START == WALL), _START, EMPTY)
        self._shown[self._rows, self._agent] = AGENT
        for what, cells in zip((ENEMY_A, ENEMY_B), _PATROLS[:, self._elapsed % _PERIOD], strict=True):
            self._shown[self._rows, cells] = what
        self._obs = self.encode(self._shown)

    def _show(self, cells: ndarray, what: int) -> None:
        """In each row, let the cell in ``cells`` [num_envs] show an object."""
        shown, places = self._shown.reshape(-1), self._rows * _CELLS + cells
        self.change(cells, shown[places], what)
        shown[places] = what


class ObjectMaps(MazeGridVectorEnv):
    """Observations uint8 [num_envs, 1200]."""

    encoding = "objects"

    def encode(self, shown: ndarray) -> ndarray:
        return object_maps(shown)

    def change(self, cells: ndarray, before: ndarray, now: int) -> None:
        inputs, places = self._obs.reshape(-1), self._rows * _INPUTS + cells
        inputs[places + before * _CELLS] = 0
        inputs[places + now * _CELLS] = 1

    def visible(self, alive: ndarray) -> ndarray:
        of_objects = np.concatenate([alive.reshape(SHAPE[0], _CELLS), np.ones((1, _CELLS), bool)])  # the last: walls
        return of_objects[self._shown, np.arange(_CELLS)][..., None].repeat(3, axis=-1)


class Colours(MazeGridVectorEnv):
    """Observations uint8 [num_envs, 600]."""

    encoding = "rgb"

    def encode(self, shown: ndarray) -> ndarray:
        return rgb(shown)

    def change(self, cells: ndarray, before: ndarray, now: int) -> None:
        for channel, value in enumerate(COLOURS[now]):
            self._obs[self._rows, channel * _CELLS + cells] = value

    def visible(self, alive: ndarray) -> ndarray:
        return (alive.reshape(3, _CELLS).T | (_START == WALL)[:, None])[None].repeat(self.num_envs, axis=0)


class EntangledMaps(MazeGridVectorEnv):
    """Observations float32 [num_envs, 1200], with the matrix of one seed for each run."""

    encoding = "entangled"

    def __init__(
        self, env_id: str, runs: int, envs_per_run: int, *args: Any, matrix_seeds: Sequence[int], **kwargs: Any
    ):
        if len(matrix_seeds) != runs:
            raise ValueError(f"there are {len(matrix_seeds)} matrix_seeds for {runs} runs")
        self.matrix_seeds = [index(seed) for seed in matrix_seeds]
        place = {seed: i for i, seed in enumerate(dict.fromkeys(self.matrix_seeds))}
        self._matrices = np.stack([entangling_matrix(seed) for seed in place])  # [different seeds, 1200, 1200]
        self._matrix = np.repeat([place[seed] for seed in self.matrix_seeds], envs_per_run)  # [num_envs]: which one
        super().__init__(env_id, runs, envs_per_run, *args, **kwargs)

    def encode(self, shown: ndarray) -> ndarray:
        return np.stack([entangle(row, self._matrices[i]) for row, i in zip(shown, self._matrix, strict=True)])

    def change(self, cells: ndarray, before: ndarray, now: int) -> None:
        rows = np.flatnonzero(before != now)
        matrix, cells = self._matrix[rows], cells[rows]
        self._obs[rows] += self._matrices[matrix, now * _CELLS + cells]
        self._obs[rows] -= self._matrices[matrix, before[rows] * _CELLS + cells]


_TASKS = {"MazeGrid-v0": ObjectMaps, "MazeGridRGB-v0": Colours, "MazeGridEntangled-v0": EntangledMaps}
ENV_IDS = tuple(_TASKS)


def make_vec(
    env_id: str,
    runs: int,
    envs_per_run: int,
    autoreset: bool = True,
    matrix_seeds: Sequence[int] | None = None,
    render_mode: str | None = None,
) -> MazeGridVectorEnv:
    """``runs`` runs with ``envs_per_run`` environments each of a task in ``ENV_IDS``.

    The autoreset mode is SAME_STEP, or with ``autoreset=False`` DISABLED. The entangled task must have
    ``matrix_seeds``, one for each run; the others ignore them. Raises ValueError for another id.
    """
    if env_id not in _TASKS:
        raise ValueError(f"{env_id} is not one of {', '.join(ENV_IDS)}")
    options = {}
    if _TASKS[env_id] is EntangledMaps:
        if matrix_seeds is None:
            raise ValueError(f"{env_id} needs matrix_seeds, one for each run")
        options = {"matrix_seeds": matrix_seeds}
    return _TASKS[env_id](env_id, runs, envs_per_run, autoreset, render_mode, **options)


def _of_gymnasium(num_envs: int, encoding: str, matrix_seed: int = 0, **options: Any) -> MazeGridVectorEnv:
    """What ``gymnasium.make_vec`` calls: one run."""
    env_id = next(env_id for env_id, task in _TASKS.items() if task.encoding == encoding)
    options |= {"matrix_seeds": [matrix_seed]} if encoding == "entangled" else {}
    return _TASKS[env_id](env_id, 1, num_envs, **options)


for _env_id, _task in _TASKS.items():
    gym.register(
        _env_id,
        entry_point=f"{__name__}:MazeGrid",
        vector_entry_point=f"{__name__}:_of_gymnasium",
        max_episode_steps=200,
        kwargs={"encoding": _task.encoding},
    )
