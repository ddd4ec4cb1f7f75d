"""What a network sees of an observation: which inputs, on which scale."""

import math
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn


class View(nn.Module):
    """Observations of R runs [R, B, ...] as their networks see them: float32 [R, B, *shape].

    Pictures stay pictures if ``picture``; all else is flattened, and of it the ``inputs`` are taken, or all. Bytes are
    divided by their highest value. With ``normalize`` what is left goes through the running mean and standard deviation
    of what each run has seen so far, which are part of the networks' ``state_dict``.
    """

    def __init__(
        self,
        runs: int,
        space: gym.spaces.Box,
        inputs: Sequence[int] | None = None,
        picture: bool = False,
        normalize: bool = False,
    ):
        super().__init__()
        self.inputs, self.picture = inputs, picture
        self.shape = space.shape if picture else (math.prod(space.shape) if inputs is None else len(inputs),)
        self.high = float(space.high.max()) if space.dtype == np.uint8 else 1.0
        self.normalize = normalize
        if normalize:
            self.register_buffer("mean", torch.zeros(runs, 1, *self.shape))
            self.register_buffer("var", torch.ones(runs, 1, *self.shape))
            self.register_buffer("count", torch.zeros(runs, 1, 1))

    def scaled(self, obs: Tensor) -> Tensor:
        """The inputs on their scale, before they are normalised."""
        x = obs if self.picture else obs.flatten(2)
        x = (x if self.inputs is None else x[..., self.inputs]).float()
        return x / self.high if self.high > 1 else x

    def forward(self, obs: Tensor) -> Tensor:
        x = self.scaled(obs)
        return ((x - self.mean) / (self.var + 1e-8).sqrt()).clamp(-10, 10) if self.normalize else x

    @torch.no_grad()
    def update(self, obs: Tensor) -> None:
        """Add observations [R, B, ...] to the running statistics, if there are any."""
        if not self.normalize:
            return
        add_to_moments(self.mean, self.var, self.count, self.scaled(obs))


def add_to_moments(mean: Tensor, var: Tensor, count: Tensor, x: Tensor) -> None:
    """Add x [R, B, ...] to the mean and variance [R, 1, ...] of ``count`` [R, 1, 1] numbers, in place (Chan et al.
    1979)."""
    n, total = x.shape[1], count + x.shape[1]
    delta = x.mean(1, keepdim=True) - mean
    squares = var * count + x.var(1, keepdim=True, correction=0) * n
    var.copy_((squares + delta.square() * count * n / total) / total)
    mean.add_(delta * n / total)
    count.copy_(total)


def same_task(one: str, other: str) -> bool:
    """Are these ids of one task, whatever its version?"""
    return one.rsplit("-v", 1)[0] == other.rsplit("-v", 1)[0]


def inputs_of_ticket(ticket: dict[str, Any], env_id: str, space: gym.spaces.Box, seeds: Sequence[int]) -> list[int]:
    """Numbers of the inputs that the first layer of a ticket still reads, for new networks on the same task (its
    version may be another). Raises ValueError if they are not those of ``space``, if none is left, or if they mean
    something else to one of ``seeds``."""
    first, there = ticket["masks"].get("actor.layers.0.weight"), ticket["args"]["env_id"]
    if not same_task(there, env_id) or ticket["obs_shape"] != list(space.shape):
        raise ValueError(f"--input-mask: it is no ticket for the {space.shape} inputs of {env_id}, but of {there}")
    if first is None or first.dim() != 2:
        raise ValueError("--input-mask: it has convolutions, so no inputs of its own")
    seed = ticket["result"]["seed"]
    if "Entangled" in env_id and set(seeds) != {seed}:
        raise ValueError(f"--input-mask: it is of seed {seed}, and each seed of {env_id} has other inputs")
    inputs = [int(i) for i in ticket["result"]["alive_inputs"].split()]
    if not inputs:
        raise ValueError("--input-mask: it reads no input any more")
    return inputs
