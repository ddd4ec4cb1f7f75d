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
``max_steps`` truncates episodes.
"""

from collections.abc import Sequence
from operator import index
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy import ndarray

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
PIXELS = 16  # of a cell's side, in pictures
# [11, 3]: of an empty cell and the channels. In a cell with several objects the last channel is seen.
COLOURS = np.array(
    [(0, 0, 0), (0, 255, 255), (255, 0, 0), (128, 128, 128), (255, 215, 0), (0, 200, 0), (255, 0, 255)]
    + [(255, 140, 0), (60, 110, 255), (240, 240, 240), (150, 90, 40)],
    np.uint8,
)


def environment_seeds(seed: int, envs_per_run: int) -> list[int]:
    """The seeds of the environments of a run, which has the given seed."""
    return (np.random.SeedSequence(seed).generate_state(envs_per_run) >> 1).tolist()


class MinAtarVectorEnv(VectorEnv):
    """num_envs = runs * envs_per_run environments of one game.

    ``sticky_action_prob`` and ``difficulty_ramping`` are the package's options. ``max_steps`` truncates episodes.
    ``metadata["autoreset_mode"]`` is what happens when an episode ends:

    SAME_STEP  The step that ends an episode starts the next one and returns its first observation. The last one is
               in ``infos["final_obs"]``, uint8 [num_envs, C, 10, 10], in the rows where ``infos["_final_obs"]``,
               bool [num_envs], is true. After a step in which no episode ended, infos is empty.
    DISABLED   The row is frozen until it is reset: a further step ignores its action and returns the last
               observation, the same two flags and reward 0.
    """

    def __init__(
        self,
        env_id: str,
        runs: int,
        envs_per_run: int,
        autoreset: bool = True,
        sticky_action_prob: float = 0.1,
        difficulty_ramping: bool = True,
        max_steps: int | None = None,
        render_mode: str | None = None,
    ):
        if runs < 1 or envs_per_run < 1:
            raise ValueError(f"runs and envs_per_run must be at least 1, not {runs} and {envs_per_run}")
        if not 0 <= sticky_action_prob <= 1:
            raise ValueError(f"sticky_action_prob must be between 0 and 1, not {sticky_action_prob}")
        if max_steps is not None and max_steps < 1:
            raise ValueError(f"max_steps must be None or at least 1, not {max_steps}")
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"render_mode must be None or 'rgb_array', not {render_mode!r}")
        self.spec = gym.spec(env_id)
        self.max_episode_steps = max_steps
        self.runs, self.envs_per_run, self.num_envs = runs, envs_per_run, runs * envs_per_run
        self.autoreset, self.render_mode = autoreset, render_mode
        mode = AutoresetMode.SAME_STEP if autoreset else AutoresetMode.DISABLED
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": 10, "autoreset_mode": mode}
        options = {"sticky_action_prob": sticky_action_prob, "difficulty_ramping": difficulty_ramping}
        self._games = [minatar.Environment(self.spec.kwargs["game"], **options) for _ in range(self.num_envs)]
        game = self._games[0]
        minimal = self.spec.kwargs["use_minimal_action_set"]
        self._actions = np.array(game.minimal_action_set() if minimal else range(game.num_actions()))
        self.single_action_space = Discrete(len(self._actions))
        self.single_observation_space = Box(0, 1, (game.n_channels, 10, 10), np.uint8)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self._obs = np.zeros(self.observation_space.shape, np.uint8)
        self._states = list(self._obs.transpose(0, 2, 3, 1))  # views [10, 10, C], the package's order, of the rows
        self._elapsed = np.zeros(self.num_envs, np.int64)
        self._over = np.zeros(self.num_envs, bool)  # the rows whose game is over
        self._ended = np.zeros(self.num_envs, bool)  # the frozen rows: none in SAME_STEP
        self._ready = False

    def reset(
        self, *, seed: int | Sequence[int] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[ndarray, dict[str, Any]]:
        """Start new episodes. Returns all observations, uint8 [num_envs, C, 10, 10], and {}.

        ``seed`` is a list of one seed for each run, or a number s for the seeds s, s + 1, ...; without it the streams
        go on, or the first time start anywhere. ``options={"reset_mask": mask}``, bool [num_envs], resets those rows
        only, without a seed.
        """
        options = options or {}
        if options.keys() - {"reset_mask"}:
            raise ValueError(f"the only reset option is 'reset_mask', not {sorted(options)}")
        if "reset_mask" not in options:
            if seed is not None or not self._ready:
                seeds = [environment_seeds(run_seed, self.envs_per_run) for run_seed in self._run_seeds(seed)]
                for game, environment_seed in zip(self._games, sum(seeds, []), strict=True):
                    game.seed(environment_seed)
                    game.last_action = 0
                self._ready = True
            self._restart(np.ones(self.num_envs, bool))
        else:
            mask = np.asarray(options["reset_mask"])
            if mask.shape != (self.num_envs,) or mask.dtype != bool:
                raise ValueError(f"reset_mask must be bool [{self.num_envs}], not {mask.dtype} {list(mask.shape)}")
            if seed is not None:
                raise ValueError("a seed restarts whole runs: it cannot be combined with reset_mask")
            self._check_reset()
            self._restart(mask)
        return self._obs.copy(), {}

    def step(self, actions: ndarray) -> tuple[ndarray, ndarray, ndarray, ndarray, dict[str, Any]]:
        """One step of every environment with ``actions``, integers [num_envs].

        Returns observations, uint8 [num_envs, C, 10, 10]; rewards, float64 [num_envs]; terminated and truncated,
        bool [num_envs], both true where the last step that ``max_steps`` allows also ends the game; infos.
        """
        self._check_reset()
        actions = np.asarray(actions)
        if actions.shape != (self.num_envs,):
            raise ValueError(f"actions must have shape [{self.num_envs}], not {list(actions.shape)}")
        actions, rewards = self._actions.take(actions).tolist(), np.zeros(self.num_envs)
        live = np.flatnonzero(~self._ended).tolist()
        for row in live:
            game = self._games[row]
            rewards[row], self._over[row] = game.act(actions[row])
            self._states[row][:] = game.env.state()
        self._elapsed[live] += 1
        terminated, truncated, infos = self._over.copy(), self._past_limit(), {}
        ended = terminated | truncated
        if not self.autoreset:
            self._ended = ended
        elif ended.any():
            infos = {"final_obs": self._obs.copy(), "_final_obs": ended}
            self._restart(ended)
        return self._obs.copy(), rewards, terminated, truncated, infos

    def render(self) -> tuple[ndarray, ...] | None:
        """A picture of each environment, uint8 [160, 160, 3]; None without a render_mode."""
        self._check_reset()
        if self.render_mode is None:
            return None
        last_channel = (self._obs * np.arange(1, self._obs.shape[1] + 1)[:, None, None]).max(1)
        return tuple(COLOURS[last_channel].repeat(PIXELS, axis=1).repeat(PIXELS, axis=2))

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
        self._elapsed, self._ready = np.array(state["elapsed"], np.int64), True
        self._ended = (self._over | self._past_limit()) & (not self.autoreset)

    def _check_reset(self) -> None:
        if not self._ready:
            raise ResetNeeded("call reset first")

    def _past_limit(self) -> ndarray:
        """Bool [num_envs]: did the episodes have ``max_steps``?"""
        return self._elapsed >= (np.inf if self.max_episode_steps is None else self.max_episode_steps)

    def _run_seeds(self, seed: int | Sequence[int] | None) -> list[int | None]:
        if seed is None:
            return [None] * self.runs
        if np.ndim(seed) == 0:
            return list(range(index(seed), index(seed) + self.runs))
        if len(seed) != self.runs:
            raise ValueError(f"there are {len(seed)} seeds for {self.runs} runs")
        return [index(s) for s in seed]

    def _restart(self, mask: ndarray) -> None:
        """Put the rows in ``mask``, bool [num_envs], at the start of an episode."""
        for row in np.flatnonzero(mask).tolist():
            self._games[row].reset()
            self._states[row][:] = self._games[row].env.state()
        self._elapsed[mask], self._over[mask], self._ended[mask] = 0, False, False


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
