"""The five games of MinAtar (Young & Tian 2019) for many runs that train as one program.

    envs = make_vec("MinAtar/Breakout-v1", runs=5, envs_per_run=4)    # 20 rows; those of run r are 4 * r to 4 * r + 3
    obs, _ = envs.reset(seed=run_seeds)                               # 5 seeds
    obs, rewards, terminated, truncated, infos = envs.step(actions)

The games are those of the package minatar (GPL-3), whose functions are called and not copied; importing this module
registers its ids, under which ``gymnasium.make`` gives the package's own environment. Here an observation has the
channels first, as networks of torch take it: uint8 [C, 10, 10], where the package has bool [10, 10, C]. ``CHANNELS``
are their names.

MinAtar/*-v0  All six actions: none, left, up, right, down, fire. What a game has no use for does nothing.
MinAtar/*-v1  Only the actions that a game uses, in this order: 3 in Breakout and Freeway, 4 in SpaceInvaders, 5 in
              Asterix, 6 in Seaquest.

Each environment has a random stream of its own, whose seed follows from its run's seed and its number in the run: its
trajectory has the same bits whichever environments are stepped beside it. Environment i of a run goes through the
same episodes as ``gymnasium.make(env_id)`` after ``reset(seed=environment_seeds(run_seed, envs_per_run)[i])``, with
``reset()`` at each end.

Vischer et al. (2022) do not say which version, sticky actions, ramping and time limit they have. Here they are the
package's defaults: with probability 0.1 the last action is done once more instead of the chosen one (in the first
step of an episode, the last action of the episode before); Asterix, Seaquest and SpaceInvaders become harder while
they last; nothing is truncated. Freeway is over after 2,501 steps, which is called terminated as in the package,
though its observations do not show the time. Other games can go on without end if they are played well:
``max_episode_steps`` truncates episodes.
"""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Discrete
from numpy import ndarray

from envs.base import DARK, PIXELS, RunsVectorEnv

try:
    import minatar.gym
except ImportError as error:
    raise ImportError("MinAtar tasks need the package minatar: pip install minatar") from error

GAMES = {
    "Asterix": "asterix",
    "Breakout": "breakout",
    "Freeway": "freeway",
    "Seaquest": "seaquest",
    "SpaceInvaders": "space_invaders",
}
ENV_IDS = tuple(f"MinAtar/{name}-{version}" for version in ("v1", "v0") for name in GAMES)
if ENV_IDS[0] not in gym.registry:
    minatar.gym.register_envs()


def _channels(game: str) -> tuple[str, ...]:
    places = minatar.Environment(game).env.channels
    return tuple(sorted(places, key=places.get))


# The names of an observation's channels, in the words of the package.
CHANNELS = {env_id: _channels(GAMES[env_id[len("MinAtar/") : -len("-v1")]]) for env_id in ENV_IDS}
# [11, 3]: of an empty cell and the channels. In a cell with several objects the last channel is seen.
COLOURS = np.array(
    [(0, 0, 0), (0, 255, 255), (255, 0, 0), (128, 128, 128), (255, 215, 0), (0, 200, 0), (255, 0, 255)]
    + [(255, 140, 0), (60, 110, 255), (240, 240, 240), (150, 90, 40)],
    np.uint8,
)


def environment_seeds(seed: int, envs_per_run: int) -> list[int]:
    """The seeds of the environments of a run, which has the given seed."""
    return (np.random.SeedSequence(seed).generate_state(envs_per_run) >> 1).tolist()


class MinAtarVectorEnv(RunsVectorEnv):
    """Environments of one game. Observations are uint8 [num_envs, C, 10, 10]. ``max_episode_steps`` truncates."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}

    def __init__(
        self,
        env_id: str,
        runs: int,
        envs_per_run: int,
        autoreset: bool = True,
        max_episode_steps: int | None = None,
        render_mode: str | None = None,
    ):
        if max_episode_steps is not None and max_episode_steps < 1:
            raise ValueError(f"max_episode_steps must be None or at least 1, not {max_episode_steps}")
        spec = gym.spec(env_id)
        game = minatar.Environment(spec.kwargs["game"])  # never played: it knows the sizes of the spaces
        minimal = spec.kwargs["use_minimal_action_set"]
        self._actions = np.array(game.minimal_action_set() if minimal else range(game.num_actions()))
        spaces = Box(0, 1, (game.n_channels, 10, 10), np.uint8), Discrete(len(self._actions))
        super().__init__(spec, runs, envs_per_run, autoreset, *spaces, max_episode_steps, render_mode)
        self._games = [minatar.Environment(spec.kwargs["game"]) for _ in range(self.num_envs)]
        self._obs = np.zeros(self.observation_space.shape, np.uint8)
        self._states = list(self._obs.transpose(0, 2, 3, 1))  # views [10, 10, C], the package's order, of the rows
        self._over = np.zeros(self.num_envs, bool)  # the rows whose game is over

    def _seed(self, seeds: list[int | None]) -> None:
        seeds = [environment_seeds(seed, self.envs_per_run) for seed in seeds]
        for game, seed in zip(self._games, sum(seeds, []), strict=True):
            game.seed(seed)
            game.last_action = 0

    def _restart(self, rows: ndarray) -> None:
        for row in np.flatnonzero(rows).tolist():
            self._games[row].reset()
            self._states[row][:] = self._games[row].env.state()
        self._over[rows] = False

    def _step(self, actions: ndarray, live: ndarray) -> tuple[ndarray, ndarray]:
        actions, rewards = self._actions.take(actions).tolist(), np.zeros(self.num_envs)
        for row in np.flatnonzero(live).tolist():
            game = self._games[row]
            rewards[row], self._over[row] = game.act(actions[row])
            self._states[row][:] = game.env.state()
        return rewards, self._over.copy()

    def _observations(self) -> ndarray:
        return self._obs.copy()

    def render(self) -> tuple[ndarray, ...] | None:
        """A picture of each environment, uint8 [160, 160, 3]; None without a render_mode."""
        self._check_reset()
        if self.render_mode is None:
            return None
        last_channel = (self._obs * np.arange(1, self._obs.shape[1] + 1)[:, None, None]).max(1)
        return tuple(COLOURS[last_channel].repeat(PIXELS, axis=1).repeat(PIXELS, axis=2))

    def render_seen(self, alive: ndarray) -> tuple[ndarray, ...]:
        """The same pictures for a network that reads only the inputs in ``alive``, bool [C * 100]: in each cell the
        last channel of those that it sees, or what is there in dark."""
        numbers = np.arange(1, self._obs.shape[1] + 1)[:, None, None]
        there, seen = (self._obs * numbers).max(1), (self._obs * alive.reshape(self._obs.shape[1:]) * numbers).max(1)
        picture = np.where((seen > 0)[..., None], COLOURS[seen], (DARK * COLOURS[there]).astype(np.uint8))
        return tuple(picture.repeat(PIXELS, axis=1).repeat(PIXELS, axis=2))

    def get_state(self) -> dict[str, Any]:
        """All that ``set_state`` needs to go on bit for bit: lists, numbers and strings, which
        ``torch.load(weights_only=True)`` reads. The state of a stream has 624 numbers."""
        self._check_reset()
        return {
            "env_id": self.spec.id,
            "games": [_plain(_variables(game)) for game in self._games],
            "last_actions": [game.last_action for game in self._games],
            "streams": [_plain(game.random.get_state(legacy=False)) for game in self._games],
            "elapsed": self._elapsed.tolist(),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on where ``get_state`` was called, in an environment made like that one; no reset is needed before."""
        there = state["env_id"], len(state["elapsed"])
        if there != (self.spec.id, self.num_envs):
            raise ValueError(f"a state of {there} is not one of {self.spec.id, self.num_envs}")
        parts = zip(self._games, state["games"], state["last_actions"], state["streams"], strict=True)
        for row, (game, values, last_action, stream) in enumerate(parts):
            game.seed(0)
            game.random.set_state(stream)
            game.last_action = last_action
            for name, now in _variables(game).items():
                saved = _plain(values[name])  # a copy, as the game will write into it
                setattr(game.env, name, np.array(saved, now.dtype) if isinstance(now, ndarray) else saved)
            self._over[row] = game.env.terminal
            self._states[row][:] = game.env.state()
        self._go_on(state["elapsed"], self._over)


def _variables(game: minatar.Environment) -> dict[str, Any]:
    """The parts of a game that change."""
    constant = {"channels", "action_map", "ramping", "random"}
    return {name: value for name, value in vars(game.env).items() if name not in constant}


def _plain(value: Any) -> Any:
    """A copy in lists, dicts and Python's own numbers."""
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_plain(part) for part in value]
    return value.tolist() if isinstance(value, ndarray | np.generic) else value


def make_vec(env_id: str, runs: int, envs_per_run: int, autoreset: bool = True, **options: Any) -> MinAtarVectorEnv:
    """``runs`` runs with ``envs_per_run`` environments each of a game in ``ENV_IDS``.

    The autoreset mode is SAME_STEP, or with ``autoreset=False`` DISABLED. ``options`` are those of
    ``MinAtarVectorEnv``. Raises ValueError for another id.
    """
    if env_id not in ENV_IDS:
        raise ValueError(f"{env_id} is not one of {', '.join(ENV_IDS)}")
    return MinAtarVectorEnv(env_id, runs, envs_per_run, autoreset, **options)
