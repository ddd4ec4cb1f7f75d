"""What the tests of several scripts share: running them, reading what they write, and two toy tasks."""

import ast
import contextlib
import csv
import io
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
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


def kill_when(there: Callable[[], bool], script: Path, flags: str, cwd: Path | None = None) -> None:
    """Start the script, and kill -9 it as soon as that is so."""
    process = subprocess.Popen(command(script, flags), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=cwd)
    while not there():
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()


@dataclass
class Done:
    stdout: str
    stderr: str
    variables: dict[str, Any]  # the script's, if it ran to its last line


def run_here(script: Path, flags: str, status: int = 0) -> Done:
    """The script in this process, which saves seconds of imports and knows the toy tasks."""
    return _start(lambda: runpy.run_path(str(script), run_name="__main__"), script, flags, status)


def run_main(module: ModuleType, flags: str, status: int = 0) -> Done:
    """The same of a script that is imported: its last block alone, which uses what a test has patched in it."""
    script = Path(module.__file__)
    block = ast.parse(script.read_text()).body[-1]
    code = compile(ast.Module(block.body, []), str(script), "exec")

    def start() -> dict[str, Any]:
        names = vars(module)
        before = dict(names)
        try:
            exec(code, names)
            return dict(names)
        finally:
            names.clear()
            names.update(before)

    return _start(start, script, flags, status)


def _start(start: Callable[[], dict[str, Any]], script: Path, flags: str, status: int) -> Done:
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers], list(sys.path), list(sys.argv)
    out, err, got, variables = io.StringIO(), io.StringIO(), 0, {}
    sys.argv = [str(script), *flags.split()]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            variables = start()
    except SystemExit as end:
        got = end.code or 0
    finally:
        handlers, sys.path[:], sys.argv = before
        for number, handler in zip(numbers, handlers, strict=True):
            signal.signal(number, handler)
        torch.set_flush_denormal(False)
        while su._locks:  # a process that ends gives them up
            su._locks.pop().release()
    assert got == status, out.getvalue() + err.getvalue()
    return Done(out.getvalue(), err.getvalue(), variables)


def said(text: str) -> str:
    """What is in tyro's box, or in lines, as one line."""
    return " ".join(text.replace("│", " ").split())


def read_csv(file: Path) -> list[dict[str, str]]:
    with file.open() as stream:
        return list(csv.DictReader(stream))


def ticket(folder: Path, round_: int, condition: str, seed: int = 1) -> dict:
    return su.load_ticket(folder / "tickets" / f"round{round_:02}_{condition}_seed{seed}.pt")


def plain(parameters: dict[str, torch.Tensor], folder: Path) -> dict[str, torch.Tensor]:
    """Parameters {"actor.layers.0.weight": ...} of one network for an nn.Sequential, by way of a ticket's file."""
    su.save_ticket(folder / "plain.pt", {}, initial={}, best=parameters)
    return su.load_ticket(folder / "plain.pt", dense=True)["best"]["actor"]


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


class Toy(gym.Env):
    """Episodes of ``length`` steps of reward 1, or without an end. ``actions`` are those of all such environments."""

    actions: list[Any] = []

    def __init__(self, obs_space: gym.Space, action_space: gym.Space, reward: Any = 1.0, length: float = np.inf):
        self.observation_space, self.action_space, self.reward, self.length = obs_space, action_space, reward, length

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        self.t = 0
        return self.observation_space.sample(), {}

    def step(self, action):
        self.t += 1
        self.actions.append(action)
        return self.observation_space.sample(), self.reward, self.t == self.length, False, {}


FOUR, TWO = gym.spaces.Box(-1, 1, (4,)), gym.spaces.Discrete(2)
TOYS = {  # all but the first end after 3 steps
    "Endless-v0": {"obs_space": FOUR, "action_space": TWO},
    "FromFive-v0": {"obs_space": FOUR, "action_space": gym.spaces.Discrete(2, start=5), "reward": np.ones(1)},
    "Pixels-v0": {"obs_space": gym.spaces.Box(0, 255, (4, 84, 84), np.uint8), "action_space": TWO},
    "Photo-v0": {"obs_space": gym.spaces.Box(0, 255, (96, 96, 3), np.uint8), "action_space": TWO},
    "Three-v0": {"obs_space": FOUR, "action_space": gym.spaces.Discrete(3)},
    "Floats-v0": {"obs_space": FOUR, "action_space": gym.spaces.Box(-1, 1, (2,))},
}


def register_toys() -> None:
    """Counter-v0, those of ``TOYS``, and ShortPendulum-v0, whose episodes are 20 steps."""
    gym.register("Counter-v0", entry_point=Counter, max_episode_steps=100)
    pendulum = "gymnasium.envs.classic_control:PendulumEnv"
    gym.register("ShortPendulum-v0", entry_point=pendulum, max_episode_steps=20)
    for name, kwargs in TOYS.items():
        endless = name == "Endless-v0"
        kwargs = kwargs if endless else {**kwargs, "length": 3}
        limit = None if endless else 100
        gym.register(name, Toy, kwargs=kwargs, max_episode_steps=limit, disable_env_checker=True)


def tiny_actor(n_in: int, n_out: int, scale: float = 1.0, log_std: float | None = None) -> dict[str, torch.Tensor]:
    """Parameters of one with a hidden layer of 16 units, drawn from normal distributions."""
    sizes, generator, actor = (n_in, 16, n_out), torch.Generator().manual_seed(0), {}
    for i in range(2):
        actor[f"layers.{i}.weight"] = scale * torch.randn(sizes[i], sizes[i + 1], generator=generator)
        actor[f"layers.{i}.bias"] = 0.1 * torch.randn(1, sizes[i + 1], generator=generator)
    return actor if log_std is None else {"log_std": torch.full((1, n_out), log_std), **actor}


def save_mask(
    file: Path, alive: Any, dim: int = 4, env_id: str = "CartPole-v1", seed: int = 1, **contents: Any
) -> Path:
    """A ticket of a network for ``dim`` inputs, of which only those in ``alive`` have weights."""
    masks = {"actor.layers.0.weight": torch.zeros(dim, 5)}
    masks["actor.layers.0.weight"][alive, 1] = 1
    result = {**su.describe_ticket(masks, contents.get("inputs")), "seed": seed}
    ticket = {"result": result, "script": "ppo_imp", "obs_shape": [dim], "inputs": None, "args": {"env_id": env_id}}
    su.save_ticket(file, masks, **{**ticket, **contents})
    return file


def save_teacher(file: Path, env_id: str, actor: dict[str, torch.Tensor], n_in: int = 4, **contents: Any) -> Path:
    """A ticket as ppo_imp.py writes it, with this actor; dqn_imp.py's have args["end_e"]."""
    ticket = {
        "best": {f"actor.{name}": tensor for name, tensor in actor.items()},
        "script": "ppo_imp",
        "args": {"env_id": env_id},
        "obs_shape": [n_in],
        "inputs": None,
        "result": {"seed": 1},
    }
    su.save_ticket(file, {}, **{**ticket, **contents})
    return file


register_toys()
