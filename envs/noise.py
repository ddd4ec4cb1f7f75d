"""Agents that see vectors with noise (Graesser et al. 2022, section 8, has it for pictures alone)."""

from collections.abc import Callable, Sequence
from pathlib import Path

import gymnasium as gym
import numpy as np

import sparse_utils as su


class Noise(gym.vector.VectorWrapper):
    """Adds normal noise of standard deviation ``sigma * std`` to the observations [R * N, O] of R runs. ``std``
    [R, 1, O] is that of each input in what was played with sigma 0: each environment's first episode after a reset."""

    def __init__(self, env: gym.vector.VectorEnv, runs: int, seed: int):
        super().__init__(env)
        self.runs, self.sigma, self.rng = runs, 0.0, np.random.default_rng(seed)
        self.moments = np.zeros((3, runs, env.single_observation_space.shape[0]))  # how many, their sum, of squares

    @property
    def std(self) -> np.ndarray:
        mean, square = self.moments[1:] / np.maximum(self.moments[0], 1)
        return np.sqrt(np.maximum(square - mean**2, 0))[:, None]

    def reset(self, **kwargs):
        obs, info = self.env.reset(**kwargs)
        first = not kwargs.get("options")  # else some begin a second episode, and the others are shown once more
        self.playing = np.ones(self.num_envs, bool) if first else self.playing
        return self._see(obs, counts=first), info

    def step(self, actions):
        obs, reward, terminated, truncated, info = self.env.step(actions)
        self.playing &= ~(terminated | truncated)
        return self._see(obs, counts=True), reward, terminated, truncated, info

    def _see(self, obs: np.ndarray, counts: bool) -> np.ndarray:
        by_run = obs.reshape(self.runs, -1, obs.shape[1])
        if self.sigma == 0:
            counted = counts & self.playing.reshape(self.runs, -1, 1)
            self.moments += np.stack([counted * by_run**power for power in (0, 1, 2)]).sum(2)
            return obs
        noisy = by_run + self.sigma * self.std * self.rng.standard_normal(by_run.shape)
        return noisy.reshape(obs.shape).astype(obs.dtype)


def evaluate(
    vector: gym.vector.VectorEnv,
    play: Callable[[gym.vector.VectorEnv], np.ndarray],
    sigmas: Sequence[float],
    agents: Sequence[int],
    seed: int,
    checkpoint: Path,
) -> None:
    """Print what the agents of these seeds get with each noise, in parts of the standard deviation of each input, and
    write it to noise.csv beside their checkpoint. ``play`` gives the returns [R, N] in an environment."""
    noise, rows = Noise(vector, len(agents), seed), []
    without = play(noise)
    for noise.sigma in sigmas:
        for agent, returns in zip(agents, play(noise) if noise.sigma else without, strict=True):
            print(f"agent of seed {agent}, --seed {seed}, noise {noise.sigma:g}, {su.describe_returns(returns)}")
            statistics = {"return_mean": float(returns.mean()), "return_std": float(returns.std())}
            of_noise = {"agent": agent, "noise": noise.sigma, "seed": seed}
            rows.append({**of_noise, **statistics, "return_n": len(returns)})
    su.write_csv(checkpoint.with_name("noise.csv"), rows)
    print(f"draw: python plot.py noise {checkpoint.parent}")
