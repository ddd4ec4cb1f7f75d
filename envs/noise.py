"""Agents that see noise: on pixels as in section 8 of Graesser et al. 2022, and on vectors, which is ours."""

from collections.abc import Callable, Iterable, Iterator, Sequence
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


def play_with_noise(
    vector: gym.vector.VectorEnv,
    play: Callable[[gym.vector.VectorEnv], np.ndarray],
    sigmas: Sequence[float],
    runs: int,
    seed: int,
) -> Iterator[tuple[float, np.ndarray]]:
    """Each noise, in parts of the standard deviation of each input, and the returns [R, N] that ``play`` gives in the
    environment with it."""
    noise = Noise(vector, runs, seed)
    without = play(noise)
    for noise.sigma in sigmas:
        yield noise.sigma, play(noise) if noise.sigma else without


def add_to_pixels(frames: np.ndarray, sigma: float, wrap: bool, rng: np.random.Generator) -> np.ndarray:
    """Frames of bytes with normal noise, rounded to whole numbers, on each pixel, clipped to 0 and 255. With ``wrap``
    as in the code of Graesser et al.: cut to whole numbers, and modulo 256, so that black pixels become white ones."""
    noise = rng.normal(0, sigma, frames.shape)
    if wrap:
        return ((frames + noise.astype(np.int64)) % 256).astype(np.uint8)
    return np.clip(frames + np.rint(noise), 0, 255).astype(np.uint8)


def report(played: Iterable[tuple[float, np.ndarray]], agents: Sequence[int], seed: int, file: Path) -> None:
    """Print and write what the agents of these seeds got: each noise, and returns [R, N] with it. ``seed`` is that of
    the episodes."""
    rows = []
    for sigma, returns in played:
        for agent, of_agent in zip(agents, returns, strict=True):
            print(f"agent of seed {agent}, --seed {seed}, noise {sigma:g}, {su.describe_returns(of_agent)}")
            statistics = {"return_mean": float(of_agent.mean()), "return_std": float(of_agent.std())}
            rows.append({"agent": agent, "noise": sigma, "seed": seed, **statistics, "return_n": len(of_agent)})
    su.write_csv(file, rows)
    print(f"draw: python plot.py noise {file.parent}")
