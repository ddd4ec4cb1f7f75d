"""The PyBullet tasks (HalfCheetahBulletEnv-v0, HopperBulletEnv-v0, ...), without pybullet's lines on the terminal.

Importing this module registers the ids of pybullet_envs_gymnasium. Where pybullet is missing, the ImportError says what
to do: it has wheels for Python up to 3.11 only.
"""

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import gymnasium as gym
from gymnasium.envs.registration import WrapperSpec


@contextmanager
def quiet() -> Iterator[None]:
    """Send what C code prints on standard output and standard error to nowhere."""
    nowhere, kept = os.open(os.devnull, os.O_WRONLY), {}
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    for number in (1, 2):
        kept[number] = os.dup(number)
        os.dup2(nowhere, number)
    try:
        yield
    finally:
        with suppress(TypeError, OSError):  # Windows has no library of this process
            ctypes.CDLL(None).fflush(None)  # what C still holds in its buffer would come out later
        for number, descriptor in kept.items():
            os.dup2(descriptor, number)
            os.close(descriptor)
        os.close(nowhere)


try:
    with quiet():
        import pybullet  # noqa: F401 (prints its build time)
        import pybullet_envs_gymnasium  # noqa: F401 (registers the ids)
except ImportError as error:
    raise ImportError(
        "PyBullet tasks need Python 3.11 or older (pybullet has no wheels for newer ones) and "
        "pip install pybullet pybullet_envs_gymnasium"
    ) from error


class ResetOnce(gym.Wrapper):
    """The first reset connects to the physics server, which prints, and loads the robot, whose first episode can differ
    from the same later by the last bit (Ant). So it is not the user's."""

    def __init__(self, env: gym.Env):
        super().__init__(env)
        with quiet():
            env.reset(seed=0)


for spec in gym.registry.values():
    if "BulletEnv" in spec.id:
        spec.additional_wrappers = (WrapperSpec("ResetOnce", f"{__name__}:ResetOnce", {}),)
