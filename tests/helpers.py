"""What the tests of several scripts share: running them, reading what they write, and two toy tasks."""

import contextlib
import csv
import io
import runpy
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch

import sparse_utils as su


def command(script: Path, flags: str) -> list[str]:
    return [sys.executable, str(script), *flags.split()]


def run(script: Path, flags: str, status: int = 0, cwd: Path | None = None) -> subprocess.CompletedProcess:
    """The script as its users start it."""
    done = subprocess.run(command(script, flags), capture_output=True, text=True, cwd=cwd, timeout=300)
    assert done.returncode == status, done.stdout + done.stderr
    return done


@dataclass
class Done:
    stdout: str
    stderr: str
    variables: dict[str, Any]  # the script's, if it ran to its last line


def run_here(script: Path, flags: str, status: int = 0) -> Done:
    """The script in this process, which saves seconds of imports and knows the toy tasks."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers], list(sys.path), list(sys.argv)
    out, err, got, variables = io.StringIO(), io.StringIO(), 0, {}
    sys.argv = [str(script), *flags.split()]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            variables = runpy.run_path(str(script), run_name="__main__")
    except SystemExit as end:
        got = end.code or 0
    finally:
        handlers, sys.path[:], sys.argv = before
        for number, handler in zip(numbers, handlers, strict=True):
            signal.signal(number, handler)
        torch.set_flush_denormal(False)
        while su._locks:  # a process that ends gives them up
            su._locks.pop().close()
    assert got == status, out.getvalue() + err.getvalue()
    return Done(out.getvalue(), err.getvalue(), variables)


def read_csv(file: Path) -> list[dict[str, str]]:
    with file.open() as stream:
        return list(csv.DictReader(stream))


def ticket(folder: Path, round_: int, condition: str, seed: int = 1) -> dict:
    return su.load_ticket(folder / "tickets" / f"round{round_:02}_{condition}_seed{seed}.pt")


class Counter(gym.Env):
    """Episode k (1, 2, ...) of an environment is 3 steps, and ends by termination if k is odd and by truncation if it
    is even. Observations are [10 * k + steps so far]."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (1,), np.float32)
    action_space = gym.spaces.Box(-2, 2, (1,), np.float32)
    k = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t, self.k = 0, self.k + 1
        return np.full(1, 10 * self.k, np.float32), {}

    def step(self, action):
        self.t += 1
        end = self.t == 3
        return np.full(1, 10 * self.k + self.t, np.float32), 1.0, end and self.k % 2 == 1, end and self.k % 2 == 0, {}


class Bytes(Counter):
    """The same with observations of six bytes up to 200, at random."""

    observation_space = gym.spaces.Box(0, 200, (6,), np.uint8)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.np_random.integers(201, size=6, dtype=np.uint8), {}

    def step(self, action):
        return self.np_random.integers(201, size=6, dtype=np.uint8), *super().step(action)[1:]


def register_toys() -> None:
    """Counter-v0, Bytes-v0, and ShortPendulum-v0, whose episodes are 20 steps."""
    gym.register("Counter-v0", entry_point=Counter)
    gym.register("Bytes-v0", entry_point=Bytes)
    pendulum = "gymnasium.envs.classic_control:PendulumEnv"
    gym.register("ShortPendulum-v0", entry_point=pendulum, max_episode_steps=20)


register_toys()
