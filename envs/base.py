"""What the environments of ``classic``, ``mazegrid`` and ``minatar`` share: seeds, resets and ends of episodes."""

from collections.abc import Sequence
from operator import index
from typing import Any

import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnasium.error import ResetNeeded
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy import ndarray

PIXELS = 16  # of a cell's side, in pictures
DARK = 0.15  # brightness of what a network does not see


class RunsVectorEnv(VectorEnv):
    """num_envs = runs * envs_per_run environments of one task, for many runs that train as one program.

    Run r has the rows r * envs_per_run to (r + 1) * envs_per_run - 1 of all arrays. What happens in them follows from
    the run's seed and their actions, whichever runs are stepped beside it. ``metadata["autoreset_mode"]`` is what
    happens when an episode ends:

    SAME_STEP  The step that ends an episode starts the next one and returns its first observation. The last one is in
               ``infos["final_obs"]`` [num_envs, ...], in the rows where ``infos["_final_obs"]``, bool [num_envs], is
               true. After a step in which no episode ended, infos is empty.
    DISABLED   The row is frozen until it is reset: a further step ignores its action and returns the last
               observation, the same two flags and reward 0.

    A subclass holds the states of its task, in its own way, behind the four methods from here to ``__init__``. This
    class counts the steps of episodes and knows which rows are frozen.
    """

    metadata = {"render_modes": []}  # unless a subclass can draw

    def _seed(self, seeds: list[int | None]) -> None:
        """Start the random streams of all runs, from a seed for each, or None for any. Comes before ``_restart``."""
        raise NotImplementedError

    def _restart(self, rows: ndarray) -> None:
        """Put the rows in ``rows``, bool [num_envs] and somewhere true, at the start of an episode."""
        raise NotImplementedError

    def _step(self, actions: ndarray, live: ndarray) -> tuple[ndarray, ndarray]:
        """One step of the rows in ``live``, bool [num_envs]; the others, which are frozen, stay as they are.

        Returns new arrays [num_envs]: rewards, float64, 0 in frozen rows; and terminated, bool. ``self._elapsed``
        does not count this step yet. An action that does not exist is an error before anything has changed.
        """
        raise NotImplementedError

    def _observations(self) -> ndarray:
        """What all rows show, [num_envs, ...], in a new array."""
        raise NotImplementedError

    def __init__(
        self,
        spec: EnvSpec,
        runs: int,
        envs_per_run: int,
        autoreset: bool,
        observation_space: Box,
        action_space: Discrete,
        max_episode_steps: int | None = None,
        render_mode: str | None = None,
    ):
        """The spaces are those of one environment. Without ``max_episode_steps``, the limit is that of ``spec``."""
        if runs < 1 or envs_per_run < 1:
            raise ValueError(f"runs and envs_per_run must be at least 1, not {runs} and {envs_per_run}")
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"render_mode must be None or 'rgb_array', not {render_mode!r}")
        self.spec, self.max_episode_steps = spec, max_episode_steps or spec.max_episode_steps
        self.runs, self.envs_per_run, self.num_envs = runs, envs_per_run, runs * envs_per_run
        self.autoreset, self.render_mode = autoreset, render_mode
        mode = AutoresetMode.SAME_STEP if autoreset else AutoresetMode.DISABLED
        self.metadata = {**self.metadata, "autoreset_mode": mode}
        self.single_observation_space, self.single_action_space = observation_space, action_space
        self.observation_space = batch_space(observation_space, self.num_envs)
        self.action_space = batch_space(action_space, self.num_envs)
        self._elapsed = np.zeros(self.num_envs, np.int64)  # steps of each row's episode so far
        self._ended = np.zeros(self.num_envs, bool)  # the frozen rows: none in SAME_STEP
        self._ready = False  # was there a reset, or a state set?

    def reset(
        self, *, seed: int | Sequence[int] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[ndarray, dict[str, Any]]:
        """Start new episodes. Returns all observations [num_envs, ...], and {}.

        ``seed`` is a list of one seed for each run, or a number s for the seeds s, s + 1, ...; without it the random
        streams go on, or the first time start anywhere. ``options={"reset_mask": mask}``, bool [num_envs], resets
        those rows only, without a seed.
        """
        options = options or {}
        if options.keys() - {"reset_mask"}:
            raise ValueError(f"the only reset option is 'reset_mask', not {sorted(options)}")
        if "reset_mask" not in options:
            if seed is not None or not self._ready:
                self._seed(self._run_seeds(seed))
                self._ready = True
            rows = np.ones(self.num_envs, bool)
        else:
            rows = np.asarray(options["reset_mask"])
            if rows.shape != (self.num_envs,) or rows.dtype != bool:
                raise ValueError(f"reset_mask must be bool [{self.num_envs}], not {rows.dtype} {list(rows.shape)}")
            if seed is not None:
                raise ValueError("a seed restarts whole runs: it cannot be combined with reset_mask")
            self._check_reset()
        if rows.any():
            self._restart(rows)
            self._elapsed[rows], self._ended[rows] = 0, False
        return self._observations(), {}

    def step(self, actions: ndarray) -> tuple[ndarray, ndarray, ndarray, ndarray, dict[str, Any]]:
        """One step of every environment with ``actions``, integers [num_envs].

        Returns observations [num_envs, ...]; rewards, float64 [num_envs]; terminated and truncated, bool [num_envs],
        both true where the last step that the time limit allows is also one that ends the task; infos.
        """
        self._check_reset()
        actions = np.asarray(actions)
        if actions.shape != (self.num_envs,):
            raise ValueError(f"actions must have shape [{self.num_envs}], not {list(actions.shape)}")
        if actions.min() < 0 or actions.max() >= self.single_action_space.n:
            raise ValueError(f"actions must be below {self.single_action_space.n} and not negative")
        live = ~self._ended
        rewards, terminated = self._step(actions, live)
        self._elapsed += live
        truncated, obs, infos = self._at_limit(), self._observations(), {}
        ended = terminated | truncated
        if not self.autoreset:
            self._ended = ended
        elif ended.any():
            infos = {"final_obs": obs, "_final_obs": ended}
            self._restart(ended)
            self._elapsed[ended] = 0
            obs = self._observations()
        return obs, rewards, terminated, truncated, infos

    def _go_on(self, elapsed: list[int], terminated: ndarray) -> None:
        """The last part of ``set_state``: steps of each row's episode so far, and is it over, bool [num_envs]?"""
        self._elapsed, self._ready = np.array(elapsed, np.int64), True
        self._ended = (terminated | self._at_limit()) & (not self.autoreset)

    def _at_limit(self) -> ndarray:
        return self._elapsed >= (self.max_episode_steps or np.inf)

    def _check_reset(self) -> None:
        if not self._ready:
            raise ResetNeeded("call reset first")

    def _run_seeds(self, seed: int | Sequence[int] | None) -> list[int | None]:
        if seed is None:
            return [None] * self.runs
        if np.ndim(seed) == 0:
            return list(range(index(seed), index(seed) + self.runs))
        if len(seed) != self.runs:
            raise ValueError(f"there are {len(seed)} seeds for {self.runs} runs")
        return [index(s) for s in seed]
