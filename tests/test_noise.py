"""envs/noise.py: noise on vectors, alone and with --evaluate of sac_rigl.py and ppo_rigl.py."""

from pathlib import Path

import gymnasium as gym
import numpy as np
import ppo_rigl
import pytest
import sac_rigl
from helpers import read_csv, run_here

from envs.noise import Noise, add_to_pixels


class Ramp(gym.vector.VectorEnv):
    """Environment i (of 4, two for each run) has episodes of i + 2 observations [t, 10 * t]; then it starts anew."""

    num_envs = 4
    single_observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float32)

    def reset(self, *, seed=None, options=None):
        ended = np.ones(4, bool) if options is None else options["reset_mask"]
        self.t = np.where(ended, 0, getattr(self, "t", 0))
        return self.observe(), {}

    def step(self, actions):
        self.t += 1
        return self.observe(), np.ones(4), self.t >= np.arange(4) + 2, np.zeros(4, bool), {}

    def observe(self):
        return np.outer(self.t, [1, 10]).astype(np.float32)


def test_noise_is_in_parts_of_each_inputs_standard_deviation():
    """That over the first episodes without noise, the last observation apart, for each run: what comes later beside
    the others does not count."""
    env = Noise(Ramp(), 2, seed=0)
    obs, _ = env.reset(seed=[1, 2, 3, 4])
    for _ in range(6):
        obs, _, ended, _, _ = env.step(None)
        obs, _ = env.reset(options={"reset_mask": ended})
    for run, t in ((0, [0, 1, 0, 1, 2]), (1, [0, 1, 2, 3, 0, 1, 2, 3, 4])):
        np.testing.assert_allclose(env.std[run, 0], np.std(t) * np.array([1, 10]), rtol=1e-6)
    before, env.sigma = env.std, 0.5
    seen = np.stack([env.reset(seed=[1, 2, 3, 4])[0] for _ in range(4000)])
    assert seen.dtype == np.float32 and np.array_equal(env.std, before)  # what has noise does not count
    by_run = seen.reshape(4000, 2, 2, 2)
    np.testing.assert_allclose(by_run.std((0, 2)), 0.5 * before[:, 0], rtol=0.05)
    assert (abs(by_run.mean((0, 2))) < 0.05 * before[:, 0]).all()


def test_noise_on_pixels_is_clipped_or_wraps():
    """As released it is cut to whole numbers, and black pixels become white ones."""
    rng = np.random.default_rng(0)
    black, white = np.zeros(20_000, np.uint8), np.full(20_000, 255, np.uint8)
    assert add_to_pixels(black, 10, False, rng).max() < 60 and (add_to_pixels(black, 10, False, rng) == 0).mean() > 0.5
    assert add_to_pixels(white, 10, False, rng).min() > 195
    wrapped = add_to_pixels(black, 10, True, np.random.default_rng(3))
    noise = np.trunc(np.random.default_rng(3).normal(0, 10, 20_000)).astype(int)
    assert np.array_equal(wrapped, noise % 256) and 0.4 < (wrapped > 200).mean() < 0.5
    grey = add_to_pixels(np.full(20_000, 128, np.uint8), 30, False, rng).astype(float)
    assert abs(grey.mean() - 128) < 1 and 29 < grey.std() < 31


@pytest.mark.parametrize(
    ("module", "flags", "agents"),
    [
        (sac_rigl, "--total-timesteps 300 --learning-starts 200 --batch-size 8 --seed 5 --width-scale 0.1", ["5"]),
        (ppo_rigl, "--total-timesteps 128 --num-steps 64 --num-minibatches 2 --seeds 3 7", ["3", "7"]),
    ],
)
def test_noise_csv_of_a_checkpoint(module, flags, agents, tmp_path):
    """A row for each noise and agent. Without noise the returns are those of a plain evaluation, with much of it the
    agent plays otherwise."""
    script = Path(module.__file__)
    run_here(script, f"{flags} --env-id Pendulum-v1 --eval-episodes 1 --snr-interval 0 --run-dir {tmp_path} --no-cuda")
    line = f"--evaluate {tmp_path}/checkpoint.pt --eval-episodes 3 --seed 4 --no-cuda"
    out = run_here(script, f"{line} --observation-noise 0 0.1 5").stdout
    assert out.splitlines()[-1] == f"draw: python plot.py noise {tmp_path}"
    rows = read_csv(tmp_path / "noise.csv")
    cells = [(row["agent"], row["noise"], row["seed"], row["return_n"]) for row in rows]
    assert cells == [(agent, noise, "4", "3") for noise in ("0.0", "0.1", "5.0") for agent in agents]
    plain = run_here(script, line).stdout
    for row in rows[: len(agents)]:
        assert f"3 episodes: mean {float(row['return_mean']):.1f}, " in plain
    assert rows[0]["return_mean"] != rows[-len(agents)]["return_mean"]
    assert "--observation-noise needs --evaluate" in " ".join(
        run_here(script, "--observation-noise 1", 2).stderr.split()
    )
