"""What a sparse network is: masks, what can be done to them, and the folder a run leaves behind. Knows nothing of RL.

A network is an ordinary ``nn.Module``. ``prunable(actor=actor)`` names its weights, and a mask is a float tensor of
zeros and ones under the same name; a weight whose name has no mask is dense. The functions below keep one invariant:
an inactive weight is exactly zero, and so are its Adam moments and its entry in a target network. It then stays zero
without being touched at every step, as long as its gradient is masked before the optimizer's step::

    loss.backward()
    mask_gradients(weights, masks)
    optimizer.step()

Axes: ``nn.Linear`` [out, in], ``nn.Conv2d`` [out, in, kh, kw]. A weight with one more axis in front, as that of
``BatchedLinear`` [R, in, out], holds R independent networks (twin critics, many seeds): each of the R slices is
counted, initialised, pruned and rewired as a network of its own. So an odd number of axes means R networks.
"""

import argparse
import copy
import csv
import functools
import hashlib
import json
import math
import os
import pickle
import platform
import shutil
import signal
import subprocess
import sys
import time
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import distributions
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NoReturn, get_args

import numpy as np
import torch
import torch.nn.functional as F
from filelock import FileLock
from filelock import Timeout as FileLockTimeout
from torch import Tensor, nn
from torch.func import grad, vmap
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

Weights = Mapping[str, Tensor]
Masks = dict[str, Tensor]

# Choices of flags that several scripts have
Method = Literal["dense", "small", "prune", "static", "set", "rigl"]  # Graesser et al. 2022
Init = Literal["kaiming", "he", "xavier", "orthogonal"]  # of ``initial_parameters``
Condition = Literal["ticket", "mask_permuted", "permuted_permuted", "random_reinit"]  # of ``next_ticket``
CONDITIONS = get_args(Condition)
MINUS_ONE = torch.tensor(-1.0)


# ---- Layers with a leading run axis ----------------------------------------------------------------------------------


class Linear(nn.Linear):
    """A linear layer x [..., in] -> [..., out] that ``SparseKernels`` can train."""

    columns, pattern = False, None  # set by SparseKernels

    def forward(self, x: Tensor) -> Tensor:
        if not self.columns:
            return super().forward(x)
        x_columns, bias = x.reshape(-1, self.in_features).T, self.bias[:, None]
        if self.pattern is None:
            y = torch.addmm(bias, self.weight, x_columns)
        else:
            y = SparseProduct.apply(x_columns.contiguous(), self.weight, bias, self.pattern, False)
        return y.T.reshape(*x.shape[:-1], self.out_features)


class BatchedLinear(nn.Module):
    """R independent linear layers computed as one batched product: x [R, B, in] -> [R, B, out]."""

    columns, pattern = False, None  # set by SparseKernels

    def __init__(self, runs: int, in_features: int, out_features: int):
        super().__init__()
        limit = 1 / math.sqrt(in_features)  # the distribution of nn.Linear's default
        self.weight = nn.Parameter(torch.empty(runs, in_features, out_features).uniform_(-limit, limit))
        self.bias = nn.Parameter(torch.empty(runs, 1, out_features).uniform_(-limit, limit))

    def forward(self, x: Tensor) -> Tensor:
        if not self.columns:
            if self.weight.shape[2] == 1:
                # A product with one column is slower for R large networks, and rounds in another way when R is 1
                return (x * self.weight.mT).sum(2, keepdim=True) + self.bias
            return torch.baddbmm(self.bias, x, self.weight)
        if self.pattern is None:
            return torch.baddbmm(self.bias.mT, self.weight.mT, x.mT).mT
        y = SparseProduct.apply(x.mT.flatten(0, 1), self.weight, self.bias.view(-1, 1), self.pattern, True)
        return y.unflatten(0, (len(x), -1)).mT


def tanh(x: Tensor) -> Tensor:
    """tanh of x. On a CPU, where no gradient is needed, it overwrites x with 2 sigmoid(2 x) - 1, which PyTorch computes
    in 2 to 6 times less time than its tanh, and which is right to 1.8e-7."""
    if x.requires_grad or x.device.type != "cpu":
        return torch.tanh(x)
    torch.add(x, x, out=x).sigmoid_()
    return torch.add(MINUS_ONE, x, alpha=2, out=x)


class TanhLayers:
    """R networks of ``BatchedLinear`` with tanh between them, x [R, B, in] -> [R, B, out], and their backward pass.

    The results of layer after layer with autograd, in less than half the time if networks are small, for three reasons.
    Between the layers numbers are [R, units, B], where products with few outputs are five times as fast. tanh is the
    function above. Results go into memory that is kept from call to call, as allocating it takes as long as the
    arithmetic. So a call overwrites what the last one left for ``backward``.
    """

    def __init__(self, layers: Sequence[BatchedLinear]):
        self.layers, self.buffers, self.units = layers, {}, []

    def _buffer(self, *shape: int) -> Tensor:
        """A tensor that is used again in each call. The last number is not a size: it keeps apart tensors of the same
        shape."""
        if shape not in self.buffers:
            self.buffers[shape] = self.layers[0].weight.new_empty(shape[:-1])
        return self.buffers[shape]

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        self.units = [x.transpose(1, 2)]  # what each layer is given, [R, units, B]
        for i, layer in enumerate(self.layers):
            z = self._buffer(len(x), layer.weight.shape[2], x.shape[1], i)
            torch.baddbmm(layer.bias.transpose(1, 2), layer.weight.transpose(1, 2), self.units[-1], out=z)
            self.units.append(tanh(z) if i + 1 < len(self.layers) else z)
        return self.units.pop().transpose(1, 2).clone()

    @torch.no_grad()
    def backward(self, grad: Tensor) -> None:
        """Add the gradients of the parameters to their ``.grad``, from that of the last call's output [R, B, out]."""
        grad = grad.transpose(1, 2).contiguous()
        for i, layer in reversed(list(enumerate(self.layers))):
            x, weight, bias = self.units[i], layer.weight, layer.bias
            if weight.grad is None:
                weight.grad, bias.grad = torch.zeros_like(weight), torch.zeros_like(bias)
            bias.grad += grad.sum(2)[:, None]
            if weight.shape[2] == 1:  # a product with one column takes another path, with other rounding, when R is 1
                weight.grad += torch.mul(x, grad, out=self._buffer(*x.shape, -i)).sum(2, keepdim=True)
            elif i + 1 < len(self.layers):
                weight.grad.baddbmm_(x, grad.transpose(1, 2))
            else:  # [R, out, in] is faster with few outputs
                weight.grad += torch.bmm(grad, x.transpose(1, 2)).transpose(1, 2)
            if i:
                grad = torch.bmm(weight, grad, out=self._buffer(*x.shape, -i))
                torch.ops.aten.tanh_backward.grad_input(grad, x, grad_input=grad)


class BatchedConv2d(nn.Module):
    """R independent convolutions computed as one with R groups: x [R, B, in, h, w] -> [R, B, out, h', w']."""

    def __init__(self, runs: int, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1):
        super().__init__()
        shape = (runs, out_channels, in_channels, kernel_size, kernel_size)
        limit = 1 / math.sqrt(math.prod(shape[2:]))  # the distribution of nn.Conv2d's default
        self.weight = nn.Parameter(torch.empty(shape).uniform_(-limit, limit))
        self.bias = nn.Parameter(torch.empty(runs, out_channels).uniform_(-limit, limit))
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        runs, channels = len(self.weight), x.transpose(0, 1).flatten(1, 2)  # [B, R * in, h, w]
        y = F.conv2d(channels, self.weight.flatten(0, 1), self.bias.flatten(), self.stride, groups=runs)
        return y.unflatten(1, (runs, -1)).transpose(0, 1)


def initial_parameters(
    parameters: Weights, init: Init = "kaiming", input_scale: float = 1.0, generator: torch.Generator | None = None
) -> dict[str, Tensor]:
    """New initial values for one network out of those that ``parameters`` of batched layers hold.

    ``init``: "kaiming" is PyTorch's default, weights and biases from U(-l, l) with l = 1 / sqrt(fan_in); "he" has
    l = sqrt(6 / fan_in), "xavier" l = sqrt(6 / (fan_in + fan_out)) and "orthogonal" a gain of sqrt(2), with biases of
    zero. The weights of first layers, whose names contain "layers.0.", are multiplied by ``input_scale`` (Vischer et
    al. 2022, section 4.2: 0.1). A parameter that is neither weight nor bias, such as a log-std, starts at zero.
    """
    values = {}
    for name, parameter in parameters.items():
        shape = parameter.shape[1:]
        if name.endswith("weight"):
            kernel = math.prod(shape[2:])
            fan_in, fan_out = (shape[0], shape[1]) if len(shape) == 2 else (shape[1] * kernel, shape[0] * kernel)
            if init == "orthogonal":
                weight = nn.init.orthogonal_(torch.empty(shape), math.sqrt(2), generator=generator)
            else:
                square = {"kaiming": 1 / fan_in, "he": 6 / fan_in, "xavier": 6 / (fan_in + fan_out)}[init]
                weight = (2 * torch.rand(shape, generator=generator) - 1) * math.sqrt(square)
            values[name] = weight * input_scale if "layers.0." in name else weight
            bias_limit = 1 / math.sqrt(fan_in) if init == "kaiming" else 0.0
        elif name.endswith("bias"):
            values[name] = bias_limit * (2 * torch.rand(shape, generator=generator) - 1)
        else:
            values[name] = torch.zeros(shape)
    return values


def initial_state(
    template: nn.Module, init: Init, input_scale: float, generator: torch.Generator | None = None
) -> dict[str, Tensor]:
    """A ``state_dict`` without the run axis for one network like those of ``template``, with new parameters."""
    buffers = {name: tensor[0].clone() for name, tensor in template.state_dict().items()}
    return {**buffers, **initial_parameters(dict(template.named_parameters()), init, input_scale, generator)}


class FlatAdam(torch.optim.Adam):
    """Adam for the parameters of R networks, all with a run axis, after each run's gradient over all of them is scaled
    to a norm of at most ``max_norm``; L2 decay is for weights alone.

    The parameters become views of one tensor [R, n], so that a step is a few calls for all of them: with small networks
    that is a fifth of an update. Adam's fused kernel computes the numbers after the last multiple of 16 in another way,
    with other rounding. A run's results would then depend on how many runs there are. So each row ends in zeros, up to
    a multiple of 16.
    """

    def __init__(
        self,
        parameters: Weights,
        learning_rate: float,
        weight_decay: float = 0.0,
        eps: float = 1e-8,
        max_norm: float = math.inf,
    ):
        rows = [p.detach().flatten(1) for p in parameters.values()]
        sizes = [row.shape[1] for row in rows]
        self.rest = rows[0].new_zeros(len(rows[0]), -sum(sizes) % 16)
        self.flat, self.max_norm = torch.cat([*rows, self.rest], 1), max_norm
        for p, row in zip(parameters.values(), self.flat.split([*sizes, self.rest.shape[1]], 1), strict=False):
            p.data, p.grad = row.view(p.shape), torch.zeros_like(p, memory_format=torch.contiguous_format)
        self.gradients = [p.grad for p in parameters.values()]
        decays = [weight_decay if name.endswith("weight") else 0.0 for name in parameters]
        decay = torch.tensor([*decays, 0.0]).repeat_interleave(torch.tensor([*sizes, self.rest.shape[1]]))
        self.decay = decay.to(self.flat) if weight_decay else None
        self.flat.grad = torch.empty_like(self.flat)
        super().__init__([self.flat], lr=learning_rate, eps=eps, fused=True)

    def zero_grad(self) -> None:
        torch._foreach_zero_(self.gradients)

    @torch.no_grad()
    def step(self) -> None:
        gradient = torch.cat([*[g.flatten(1) for g in self.gradients], self.rest], 1, out=self.flat.grad)
        if self.max_norm < math.inf:
            norm = torch.linalg.vector_norm(gradient, dim=1, keepdim=True)
            gradient *= (self.max_norm / (norm + 1e-6)).clamp(max=1)
        if self.decay is not None:
            gradient.addcmul_(self.flat, self.decay)
        super().step()


def run_adam(
    parameters: Weights, learning_rate: float, weight_decay: float = 0.0, eps: float = 1e-8
) -> torch.optim.Adam:
    """Adam for parameters with a run axis, with L2 decay on weights alone.

    Its fused kernel computes the numbers after the last multiple of 16 in another way, with other rounding. A run's
    results would then depend on how many runs there are. So a tensor whose size is no multiple of 16 takes the slower
    kernel.
    """
    groups = {}
    for name, p in parameters.items():
        fused, decay = p[0].numel() % 16 == 0, weight_decay if name.endswith("weight") else 0.0
        kernel = {"fused": True} if fused else {"foreach": True}
        groups.setdefault((fused, decay), {"params": [], "weight_decay": decay, **kernel})["params"].append(p)
    return torch.optim.Adam(list(groups.values()), lr=learning_rate, eps=eps)


@torch.no_grad()
def clip_run_gradients(gradients: Sequence[Tensor], max_norm: float) -> None:
    """Scale each run's gradient, over all tensors [R, ...], to a norm of at most max_norm, in place. One norm of all
    small tensors takes fewer calls of PyTorch than one of each: with small networks that is a fifth of an update."""
    parts = [g.flatten(1) for g in gradients]
    # to copy a large one takes longer than a call, so its norm stands for it
    parts = [torch.linalg.vector_norm(p, dim=1, keepdim=True) if p.shape[1] > 8192 else p for p in parts]
    norm = torch.linalg.vector_norm(torch.cat(parts, 1), dim=1)  # [R]
    scale = (max_norm / (norm + 1e-6)).clamp(max=1)
    scales = {axes: scale.view(-1, *[1] * (axes - 1)) for axes in {g.dim() for g in gradients}}
    torch._foreach_mul_(gradients, [scales[g.dim()] for g in gradients])


def dropout_factors(
    streams: Sequence[np.random.Generator],
    stream_of: Sequence[int],
    batch_size: int,
    hidden_sizes: Sequence[int],
    p: float,
    device: torch.device | str = "cpu",
) -> list[Tensor]:
    """For each hidden layer a factor [R, B, units]: 0 with probability p, or 1 / (1 - p) for the units that stay. Run r
    draws from ``streams[stream_of[r]]``, and runs that share a stream share the factors. Empty for p = 0."""
    kept = []
    for units in hidden_sizes if p else ():
        stay = np.stack([s.random((batch_size, units), np.float32) for s in streams])[stream_of] >= p
        kept.append(torch.from_numpy(stay / np.float32(1 - p)).to(device))
    return kept


# ---- Sparse kernels --------------------------------------------------------------------------------------------------
# Masks only simulate sparse networks: the products are dense. These cost what the active weights cost.


class Pattern:
    """Where the active weights of a layer are, for the CSR matrices (compressed sparse rows) of them.

    R networks' weights [R, a, b] are the blocks of one block-diagonal matrix [R * a, R * b]. What is stored of them is
    [R, n], row by row, with n the number of active weights of the densest network; the others fill up with inactive
    ones. Those keep the value zero, as their gradient is zero.
    """

    def __init__(self, mask: Tensor):
        """mask [R, a, b], or [a, b] for one network."""
        mask = mask if mask.dim() == 3 else mask[None]
        runs, a, b = mask.shape
        rows = mask.flatten(1) != 0
        n = max(1, int(rows.sum(1).max()))
        fill = [torch.cat([row.nonzero()[:, 0], (~row).nonzero()[: n - int(row.sum()), 0]]) for row in rows]
        self.index = torch.stack(fill).sort().values  # [R, n], places in [a, b]
        stored = rows.gather(1, self.index)
        self.active = None if stored.all() else stored.float()
        run = torch.arange(runs, device=mask.device)[:, None]
        i, j = (self.index // b + run * a).flatten(), (self.index % b + run * b).flatten()
        self.order = j.argsort(stable=True)  # of the transposed matrix
        self.shape = runs * a, runs * b
        self.rows, self.row_pointers = i[self.order].int(), self._pointers(i, runs * a)
        self.columns, self.column_pointers = j.int(), self._pointers(j, runs * b)

    @staticmethod
    def _pointers(rows: Tensor, n_rows: int) -> Tensor:
        return F.pad(rows.bincount(minlength=n_rows).cumsum(0), (1, 0)).int()  # int is what MKL takes

    def matrix(self, values: Tensor) -> Tensor:
        """The CSR matrix [R * a, R * b] of values [R, n]."""
        parts = self.row_pointers, self.columns, values.flatten()
        return torch.sparse_csr_tensor(*parts, self.shape, check_invariants=False)

    def transposed(self, values: Tensor) -> Tensor:
        """Its transpose [R * b, R * a], as a CSR matrix."""
        parts = self.column_pointers, self.rows, values.flatten()[self.order]
        return torch.sparse_csr_tensor(*parts, self.shape[::-1], check_invariants=False)

    def pack(self, dense: Tensor) -> Tensor:
        """The stored numbers [R, n] of a tensor of the mask's shape."""
        return dense.reshape(len(self.index), -1).gather(1, self.index)

    def unpack(self, values: Tensor, dense: Tensor) -> Tensor:
        """``dense``, a tensor of the mask's shape, filled with values [R, n] and with zeros elsewhere."""
        dense.zero_().view(len(self.index), -1).scatter_(1, self.index, values)
        return dense


class SparseProduct(torch.autograd.Function):
    """Linear layers of R networks on columns: x [R * in, B] -> [R * out, B].

    Their weights are values [R, n] at a ``Pattern`` of [R, in, out] or, if not ``inputs_first``, of [out, in]; bias is
    [R * out, 1]. The gradient of values is that of the active weights alone.
    """

    @staticmethod
    @torch.amp.custom_fwd(device_type="cpu", cast_inputs=torch.float32)
    def forward(ctx: Any, x: Tensor, values: Tensor, bias: Tensor, pattern: Pattern, inputs_first: bool) -> Tensor:
        ctx.save_for_backward(x, values)
        ctx.pattern, ctx.inputs_first = pattern, inputs_first
        weight = pattern.transposed(values) if inputs_first else pattern.matrix(values)
        return bias.repeat(1, x.shape[1]).addmm_(weight, x)  # @ would go over the result twice more

    @staticmethod
    @torch.amp.custom_bwd(device_type="cpu")
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
        x, values = ctx.saved_tensors
        pattern, grad_y = ctx.pattern, grad_y.contiguous()
        grad_x = grad_values = grad_bias = None
        if ctx.needs_input_grad[0]:
            weight = pattern.matrix(values) if ctx.inputs_first else pattern.transposed(values)
            grad_x = torch.zeros_like(x).addmm_(weight, grad_y, beta=0)
        if ctx.needs_input_grad[1]:
            left, right = (x, grad_y) if ctx.inputs_first else (grad_y, x)
            zeros = pattern.matrix(torch.zeros_like(values))
            grad_values = torch.sparse.sampled_addmm(zeros, left, right.T, beta=0).values().view_as(values)
            if pattern.active is not None:
                grad_values = grad_values * pattern.active
        if ctx.needs_input_grad[2]:
            grad_bias = grad_y.sum(1, keepdim=True)
        return grad_x, grad_values, grad_bias, None, None


class SparseKernels:
    """Trains masked networks of ``Linear`` and ``BatchedLinear`` layers with sparse products (--kernel sparse)::

        kernels = SparseKernels(masks, [optimizer], {"q": q}, {"q": q_target})
        for ...:
            kernels.pack()              # does nothing if they are packed
            ...                         # act
            if masks are to change:
                kernels.unpack()        # this update's gradients are dense
            ...                         # learn, change masks
            if it is time to evaluate or to save:
                kernels.unpack()        # or a checkpoint would hold packed weights
                ...

    While packed, a weight with a density of at most ``max_density`` is stored as [R, n], its active numbers alone
    (``Pattern``), instead of [R, in, out]. So are its gradient, its moments and the target network's weight: an update
    costs what the active weights cost. ``unpack`` puts all of it back into the same dense tensors, so code that changes
    masks, evaluates or saves need not know of kernels, and checkpoints are the same. While anything is packed, all
    layers compute on columns [in, B], as CSR products do; then no activation has to be transposed. R is the number of
    networks that a layer holds, n their largest number of active weights.

    Runs on a CPU; ends the program with one line on a GPU or where PyTorch was built without MKL.
    """

    # A layer that is denser is no faster, or hardly, with the processors and sizes of docs/results.md
    max_density = 0.2

    def __init__(
        self,
        masks: Masks,
        optimizers: Sequence[torch.optim.Optimizer],
        networks: Mapping[str, nn.Module],
        targets: Mapping[str, nn.Module],
        enabled: bool = True,
    ):
        """``masks`` are named as by ``prunable(**networks)``; target networks have their networks' names. Without
        ``enabled`` nothing is ever packed."""
        self.masks, self.optimizers, self.enabled = masks, optimizers, enabled
        self.layers: dict[str, list[nn.Module]] = {}  # by the name of their mask
        for modules in (networks, targets):
            for prefix, module in modules.items():
                for name, layer in module.named_modules():
                    if isinstance(layer, Linear | BatchedLinear):
                        self.layers.setdefault(f"{prefix}.{name}.weight", []).append(layer)
        self.dense: list[tuple[nn.Module, Tensor]] = []  # each packed layer, and its weight as it was
        self.packed = False
        if enabled and any(layer.weight.is_cuda for layers in self.layers.values() for layer in layers):
            fail("--kernel sparse is for CPUs, as a GPU is faster with dense products: add --no-cuda, or leave it out")
        if enabled and not torch.backends.mkl.is_available():
            fail("--kernel sparse needs a PyTorch with MKL, as there is for processors of Intel and AMD")
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")

    @torch.no_grad()
    def pack(self) -> None:
        """Keep only the active numbers of what is sparse enough."""
        if self.packed or not self.enabled:
            return
        self.packed = True
        masks = {name: mask for name, mask in self.masks.items() if name in self.layers}
        patterns = {name: Pattern(mask) for name, mask in masks.items() if mask.mean() <= self.max_density}
        for name, layers in self.layers.items() if patterns else ():
            for layer in layers:
                layer.columns, layer.pattern = True, patterns.get(name)
                if layer.pattern is not None:
                    dense = layer.weight.data
                    self.dense.append((layer, dense))
                    for state, key in self._moments(layer.weight):
                        state[key] = layer.pattern.pack(state[key])
                    self._replace(layer.weight, layer.pattern.pack(dense))

    @torch.no_grad()
    def unpack(self) -> None:
        """Back to the dense tensors."""
        for layer, dense in self.dense:
            pattern = layer.pattern
            for state, key in self._moments(layer.weight):
                state[key] = pattern.unpack(state[key], torch.empty_like(dense))
            self._replace(layer.weight, pattern.unpack(layer.weight.data, dense))
        for layers in self.layers.values():
            for layer in layers:
                layer.columns, layer.pattern = False, None
        self.dense, self.packed = [], False

    def _moments(self, weight: nn.Parameter) -> list[tuple[dict[str, Tensor], str]]:
        """Where the optimizers keep them; not Adam's step count."""
        states = [optimizer.state.get(weight, {}) for optimizer in self.optimizers]
        return [(state, key) for state in states for key, value in state.items() if value.shape == weight.shape]

    @staticmethod
    def _replace(weight: nn.Parameter, data: Tensor) -> None:
        weight.grad = None
        weight.data = torch.empty(0, dtype=torch.float64)  # another type makes autograd forget the weight's shape
        weight.data = data


def _has_run_axis(weight: Tensor) -> bool:
    return weight.dim() % 2 == 1


def _slices(tensor: Tensor, like: Tensor) -> Tensor:
    """A view [R, n] of ``tensor``: one row for each network that ``like`` holds."""
    return tensor.reshape(like.shape[0] if _has_run_axis(like) else 1, -1)


# ---- Which weights, and how dense each layer -------------------------------------------------------------------------


def prunable(**modules: nn.Module) -> dict[str, nn.Parameter]:
    """The weights that may be sparse: those of Linear and Conv layers, never biases, norms or log-stds.

    ``prunable(actor=actor, qf=qf)`` is {"actor.fc1.weight": Parameter, ..., "qf.fc1.weight": ...}.
    """
    return {
        f"{prefix}.{name}.weight": layer.weight
        for prefix, module in modules.items()
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Linear | nn.Conv2d | BatchedLinear | BatchedConv2d)
    }


def layer_shapes(weights: Weights) -> dict[str, tuple[int, ...]]:
    """Each layer's shape in one network, that is without the run axis."""
    return {name: tuple(w.shape[1:] if _has_run_axis(w) else w.shape) for name, w in weights.items()}


def _check_sparsity(sparsity: float) -> None:
    if not 0 <= sparsity < 1:
        raise ValueError(f"sparsity must be in [0, 1), not {sparsity}")


def uniform_densities(shapes: Mapping[str, tuple[int, ...]], sparsity: float) -> dict[str, float]:
    """Every layer keeps the same fraction 1 - sparsity of its weights (Graesser et al. 2022, section 5).

    Raises ValueError for a sparsity outside [0, 1).
    """
    _check_sparsity(sparsity)
    return dict.fromkeys(shapes, 1 - sparsity)


def erk_densities(shapes: Mapping[str, tuple[int, ...]], sparsity: float, power_scale: float = 1.0) -> dict[str, float]:
    """Erdos-Renyi-Kernel density of each layer (Evci et al. 2020; Graesser et al. 2022, section 5).

    A layer's density is eps * (sum(shape) / prod(shape)) ** power_scale, with eps such that the network as a whole has
    the wanted sparsity. Where that exceeds 1, the layer with the largest score becomes dense and eps is computed again
    for the rest, one pass at a time. ``shapes`` are those of one network, in any order of axes; power_scale 0 gives
    the uniform distribution.

    Raises ValueError for a sparsity outside [0, 1).
    """
    _check_sparsity(sparsity)
    size = {name: math.prod(shape) for name, shape in shapes.items()}
    score = {name: (sum(shape) / math.prod(shape)) ** power_scale for name, shape in shapes.items()}
    zeros = {name: math.floor(sparsity * n) for name, n in size.items()}
    dense: set[str] = set()
    # The zeros that a dense layer does not have must be found in the others; without any zeros all layers are dense.
    while sum(zeros.values()) > 0 and len(dense) < len(shapes):
        others = [name for name in shapes if name not in dense]
        kept = sum(size[name] - zeros[name] for name in others) - sum(zeros[name] for name in dense)
        eps = kept / sum(score[name] * size[name] for name in others)
        largest = max(score[name] for name in others)
        if eps * largest <= 1:
            return {name: 1.0 if name in dense else eps * score[name] for name in shapes}
        dense.update(name for name in others if score[name] == largest)
    return dict.fromkeys(shapes, 1.0)


def network_sparsities(args: Any, n_actor: int, n_critics: int) -> tuple[float, float]:
    """Sparsity of actor and critics from the flags; n_actor and n_critics are the weights of the dense networks.

    --actor-share divides a budget B = (1 - sparsity) * (n_actor + n_critics), biases not counted (Graesser et al. 2022,
    section 5): the actor's density is share * B / n_actor, that of the critics (1 - share) * B / n_critics. Ends the
    program with one line if a network would need more weights than it has.
    """
    if args.actor_share is None:
        return tuple(args.sparsity if own is None else own for own in (args.actor_sparsity, args.critic_sparsity))
    budget = (1 - args.sparsity) * (n_actor + n_critics)
    # A sparse network has at most the weights of the dense one; a dense one can be made as wide as its share asks.
    low, high = (0, 1) if args.method == "small" else (max(0, 1 - n_critics / budget), min(1, n_actor / budget))
    if not (0 < args.actor_share < 1 and low <= args.actor_share <= high):
        low, high = math.ceil(low * 1e4) / 1e4, math.floor(high * 1e4) / 1e4
        fail(f"--actor-share {args.actor_share} is not feasible here: it can be from {low:.4f} to {high:.4f}")
    return 1 - args.actor_share * budget / n_actor, 1 - (1 - args.actor_share) * budget / n_critics


# ---- Masks -----------------------------------------------------------------------------------------------------------


def _top_k(scores: Tensor, k: int) -> Tensor:
    """Boolean [n]: the k largest of ``scores`` [n]; ties go to the lower index, so exactly k are true."""
    if scores.isnan().any():
        raise FloatingPointError("a weight or a gradient is NaN: training has diverged")
    if k <= 0:
        return torch.zeros_like(scores, dtype=torch.bool)
    threshold = scores.kthvalue(scores.numel() - k + 1).values  # the k-th largest, in linear time
    above, ties = scores > threshold, scores == threshold
    return above | (ties & (ties.cumsum(0) <= k - above.sum()))


# CPU generators, so that random numbers do not depend on the device: one for all networks that a weight holds, or one
# for each, so that a network's numbers do not depend on those beside it. None is PyTorch's own.
Generators = torch.Generator | Sequence[torch.Generator] | None


def generators(run_seeds: Sequence[int], *key: int) -> list[torch.Generator]:
    """A generator for each run, from its seed and a key that says what for."""
    return [torch.Generator().manual_seed(seeds(seed, *key)[0]) for seed in run_seeds]


def _uniform(like: Tensor, generator: Generators) -> Tensor:
    """Random numbers in [0, 1), on the CPU."""
    if isinstance(generator, Sequence):
        return torch.stack([torch.rand(like.shape[1:], generator=g) for g in generator])
    return torch.rand(like.shape, generator=generator)


def random_masks(weights: Weights, densities: Mapping[str, float], generator: Generators = None) -> Masks:
    """Random masks for the layers in ``densities``: of a layer's n weights floor((1 - density) * n) are inactive."""
    masks = {}
    for name, density in densities.items():
        weight = weights[name]
        scores = _slices(_uniform(weight, generator), weight)
        n = scores.shape[1]
        n_zeros = math.floor((1 - density) * n + 1e-6)  # 1e-6: in floats (1 - 0.9) * 10 is below 1
        masks[name] = torch.stack([_top_k(row, n - n_zeros) for row in scores]).view_as(weight).to(weight)
    return masks


def magnitude_masks(weights: Weights, densities: Mapping[str, float], masks: Weights | None = None) -> Masks:
    """Keep the max(1, round(density * n)) largest of each layer's n weights by magnitude, layer by layer as gradual
    magnitude pruning does (Zhu & Gupta 2018; Graesser et al. 2022, section 2.1).

    With ``masks`` an inactive weight loses against every active one, so a density that falls gives nested masks.
    """
    new_masks = {}
    for name, density in densities.items():
        weight = weights[name].detach()
        scores = weight.abs() if masks is None else weight.abs().masked_fill(masks[name] == 0, -1)
        rows = _slices(scores, weight)
        n_keep = max(1, round(density * rows.shape[1]))
        new_masks[name] = torch.stack([_top_k(row, n_keep) for row in rows]).view_as(weight).to(weight)
    return new_masks


@torch.no_grad()
def apply_masks(weights: Weights, masks: Weights) -> None:
    """Set inactive weights to zero, in place."""
    if masks:
        torch._foreach_mul_([weights[name] for name in masks], list(masks.values()))


@torch.no_grad()
def mask_gradients(weights: Weights, masks: Weights, dense: bool = False) -> dict[str, Tensor]:
    """Set the gradients of inactive weights to zero, in place: the optimizer's step then leaves them at zero. With
    ``dense`` returns what the gradients were before: RigL's scores."""
    # What SparseKernels has packed has no inactive weights
    masks = {name: mask for name, mask in masks.items() if weights[name].shape == mask.shape}
    dense_gradients = {name: weights[name].grad.clone() for name in masks} if dense else {}
    if masks:
        gradients = [weights[name].grad for name in masks]
        torch._foreach_mul_(gradients, list(masks.values()))
        # 0 * inf is not 0 but NaN. A product and a look at the sums are five times as fast as masked_fill_ on a CPU.
        if gradients[0].is_cuda or not all(math.isfinite(gradient.sum().item()) for gradient in gradients):
            for gradient, mask in zip(gradients, masks.values(), strict=True):
                gradient.masked_fill_(mask == 0, 0)
    return dense_gradients


def sparsity(weights: Weights, masks: Weights) -> float:
    """Fraction of inactive weights among all ``weights``; one without a mask is active."""
    inactive = sum(int((mask == 0).sum()) for name, mask in masks.items() if name in weights)
    return inactive / sum(w.numel() for w in weights.values())


def layer_sparsity(weights: Weights, masks: Weights) -> dict[str, float]:
    """Fraction of inactive weights of each layer."""
    return {name: sparsity({name: w}, masks) for name, w in weights.items()}


def count(tensors: Weights) -> int:
    """How many numbers they hold together."""
    return sum(tensor.numel() for tensor in tensors.values())


def describe(weights: Weights, masks: Weights, flops: Mapping[str, tuple[int, int]] = MappingProxyType({})) -> str:
    """A table of the layers: shape, density, number of active weights, and FLOPs where ``layer_flops`` are given."""
    lines = []
    for name, w in weights.items():
        density = 1 - sparsity({name: w}, masks)
        active = round(density * w.numel())
        cost = f" {sum(flops[name]):13,} FLOPs" if name in flops else ""
        lines.append(f"{name:22} {tuple(w.shape)!s:18} density {density:7.5f} {active:11,} weights{cost}")
    total, density = sum(w.numel() for w in weights.values()), 1 - sparsity(weights, masks)
    lines.append(f"{'all':41} density {density:7.5f} {round(density * total):11,} of {total:,} weights")
    return "\n".join(lines)


def count_parameters(masks: Weights, **modules: nn.Module) -> int:
    """Active weights plus all other parameters: the parameter count of Graesser et al. 2022 (figure 2).

    ``count_parameters(masks, actor=actor, qf=qf)``: the keywords are those of ``prunable``.
    """
    total = sum(p.numel() for module in modules.values() for p in module.parameters())
    return total - sum(int((masks[name] == 0).sum()) for name in prunable(**modules) if name in masks)


def mlp_size(*units: int) -> tuple[int, int]:
    """Weights and biases of a fully connected network with so many inputs, hidden units, ..., outputs."""
    return sum(a * b for a, b in zip(units, units[1:], strict=False)), sum(units[1:])


def small_width(inputs: int, outputs: int, parameters: float) -> int:
    """Units of both hidden layers of the dense network whose number of parameters comes nearest: the small dense
    baseline of Graesser et al. 2022 (section 3)."""
    return min(range(1, 4096), key=lambda width: abs(sum(mlp_size(inputs, width, width, outputs)) - parameters))


def flops(net: nn.Module, example: Tensor, masks: Weights, prefix: str) -> tuple[int, int]:
    """Multiplications and additions of the forward pass of one example, of all layers together: ``layer_flops``."""
    each = layer_flops(net, example, masks, prefix).values()
    return sum(multiplications for multiplications, _ in each), sum(additions for _, additions in each)


def layer_flops(net: nn.Module, example: Tensor, masks: Weights, prefix: str) -> dict[str, tuple[int, int]]:
    """Multiplications and additions of each layer in the forward pass of one example; their sum is the FLOPs.

    Counted as in the code of RigL (MicroNet challenge): a layer with m active weights, used at P output positions, and
    O outputs takes m * P multiplications and m * P - O additions, O more additions if it has a bias, and O
    multiplications for a ReLU, which every layer is charged for. Pooling and residual additions are not counted.

    ``example`` is a batch of one. For batched layers it is [R, 1, ...], and the numbers are the sum over the R
    networks. ``masks`` are named as by ``prunable(prefix=net)``.
    """
    outputs = {}
    names = prunable(**{prefix: net})
    layers = {name: layer for name, layer in net.named_modules() if f"{prefix}.{name}.weight" in names}
    hooks = [
        layer.register_forward_hook(lambda layer, _, output: outputs.update({layer: output}))
        for layer in layers.values()
    ]
    with torch.no_grad():
        net(example)
    for hook in hooks:
        hook.remove()
    operations = {}
    for name, layer in layers.items():
        mask, output = masks.get(f"{prefix}.{name}.weight"), outputs[layer]
        active = layer.weight.numel() if mask is None else int(mask.sum())
        axes = {nn.Conv2d: 2, BatchedConv2d: 3}.get(type(layer))  # before height and width
        positions = math.prod(output.shape[axes:]) if axes else 1
        additions = active * positions - (output.numel() if layer.bias is None else 0)
        operations[f"{prefix}.{name}.weight"] = active * positions + output.numel(), additions
    return operations


# ---- Sparse training -------------------------------------------------------------------------------------------------


@torch.no_grad()
def sparse_init_(weights: Weights, masks: Weights, generator: Generators = None) -> None:
    """Glorot-uniform initialisation by each unit's active connections, in place; inactive weights become zero.

    The weight from input i to unit j is drawn from U(-l, l), l = sqrt(3 / max(1, (fan_in(j) + fan_out(i)) / 2)), where
    the fans count active weights: so does the code of Graesser et al. 2022, whose section 6 speaks of incoming ones
    only. A layer without a mask gets the usual Glorot-uniform.
    """
    for name, weight in weights.items():
        mask = masks[name] if name in masks else torch.ones_like(weight)
        if weight.dim() == 3:  # BatchedLinear
            in_axis, out_axis, kernel = 1, 2, ()
        else:
            out_axis = int(_has_run_axis(weight))
            in_axis, kernel = out_axis + 1, tuple(range(out_axis + 2, weight.dim()))
        fan_in = mask.sum((in_axis, *kernel), keepdim=True)  # of each unit
        fan_out = mask.sum((out_axis, *kernel), keepdim=True)  # of each input
        limit = (3 / ((fan_in + fan_out) / 2).clamp(min=1)).sqrt()
        uniform = 2 * _uniform(weight, generator).to(weight) - 1
        weight.copy_(uniform * limit * mask)


def cosine_fraction(step: int, end: int, initial: float) -> float:
    """Drop fraction of SET and RigL: a cosine from ``initial`` at step 0 to 0 at ``end`` and after (Dettmers &
    Zettlemoyer 2019; Graesser et al. 2022, appendix A.3)."""
    return 0.0 if step >= end else initial * 0.5 * (1 + math.cos(math.pi * step / end))


def due(step: int, begin: int, end: int, interval: int) -> bool:
    """Is this one of the steps begin, begin + interval, ... before ``end``? Then the masks change."""
    return begin <= step < end and (step - begin) % interval == 0


def cubic_sparsity(step: int, begin: int, end: int, final: float, initial: float = 0.0) -> float:
    """Sparsity of gradual magnitude pruning: final + (initial - final) * (1 - p)^3 with p from 0 at ``begin`` to 1 at
    ``end`` (Zhu & Gupta 2018, equation 1)."""
    p = 1.0 if step >= end else max(step - begin, 0) / (end - begin)
    return final + (initial - final) * (1 - p) ** 3


@torch.no_grad()
def set_masks(
    weights: Weights,
    masks: Masks,
    new_masks: Weights,
    optimizers: Sequence[torch.optim.Optimizer] = (),
    targets: Weights = MappingProxyType({}),
) -> None:
    """Change ``masks`` to ``new_masks``, in place, and restore the invariant: each weight that is dropped or grown is
    zero, and so are its moments in the optimizers and its entry in ``targets``, a target network's weights by the same
    names."""
    for name, new in new_masks.items():
        weight, unchanged = weights[name], masks[name] == new
        weight.mul_(unchanged)
        for optimizer in optimizers:
            for moment in optimizer.state.get(weight, {}).values():
                if moment.shape == weight.shape:  # not Adam's step count
                    moment.mul_(unchanged)
        if name in targets:
            targets[name].mul_(unchanged)
        masks[name].copy_(new)


@torch.no_grad()
def rewire(
    weights: Weights,
    masks: Masks,
    drop_fraction: float,
    optimizers: Sequence[torch.optim.Optimizer] = (),
    targets: Weights = MappingProxyType({}),
    gradients: Weights | None = None,
    generator: Generators = None,
    runs: int = 1,
) -> Tensor:
    """Replace a fraction of the connections of each layer: one step of RigL or of SET, in place.

    Of a layer's (or slice's) n active weights the trunc(drop_fraction * n) smallest by magnitude are dropped, and as
    many are grown among all that are then inactive, the just dropped included: those with the largest |gradient|
    (RigL, Evci et al. 2020, algorithm 1; ``gradients`` are dense, from before ``mask_gradients``) or, without
    ``gradients``, random ones (SET, Mocanu et al. 2018). The number of active weights never changes. A grown weight
    starts at zero with zero moments; one that is dropped and grown again in the same step keeps its value and its
    moments. ``optimizers`` and ``targets`` are those of ``set_masks``.

    Returns the fraction of its connections that each of ``runs`` runs really replaced, [runs], on the CPU: if runs is
    1, of all networks together. Raises FloatingPointError for NaNs.
    """
    new_masks, grown, active = {}, torch.zeros(runs, dtype=torch.double), torch.zeros(runs, dtype=torch.double)
    for name, mask in masks.items():
        growth = _uniform(mask, generator).to(mask) if gradients is None else gradients[name].abs()
        rows = _slices(mask != 0, mask)
        new_rows = []
        for old, magnitude, score in zip(rows, _slices(weights[name].abs(), mask), _slices(growth, mask), strict=True):
            n_active = int(old.sum())
            n_drop = int(drop_fraction * n_active)
            # -1 is below every score: an inactive weight is never kept, and one that is kept is never grown.
            kept = _top_k(magnitude.masked_fill(~old, -1), n_active - n_drop)
            new_rows.append(kept | _top_k(score.masked_fill(kept, -1), n_drop))
        new = torch.stack(new_rows)
        grown += (new & ~rows).view(runs, -1).sum(1).cpu()
        active += rows.view(runs, -1).sum(1).cpu()
        new_masks[name] = new.view_as(mask).to(mask)
    set_masks(weights, masks, new_masks, optimizers, targets)
    return grown / active.clamp(min=1)


# ---- Lottery tickets -------------------------------------------------------------------------------------------------
# These take one network's tensors: of many runs that train together, those of run r are copy_slice(tensors, r).


def copy_slice(tensors: Weights, r: int) -> dict[str, Tensor]:
    """Network r of tensors with a run axis, on the CPU, where it stays as it is now."""
    return {name: tensor[r].detach().cpu().clone() for name, tensor in tensors.items()}


def stack(networks: Sequence[Weights], device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """Tensors with a run axis from those of R networks."""
    return {name: torch.stack([network[name] for network in networks]).to(device) for name in networks[0]}


def n_remaining(remaining: int, fraction: float) -> int:
    """How many of the remaining weights are left after one round of pruning: at least one goes, and at least one
    stays."""
    left = math.ceil((1 - fraction) * remaining - 1e-6)  # 1e-6: in floats (1 - 0.2) * 10 may be above 8
    return max(1, min(left, remaining - 1))


def remaining_by_round(total: int, fraction: float, rounds: int) -> list[int]:
    """How many of ``total`` weights each of the rounds 0, 1, ... ``rounds`` has; the list ends with the first round
    that has one weight, as there is nothing more to remove."""
    remaining = [total]
    while len(remaining) <= rounds and remaining[-1] > 1:
        remaining.append(n_remaining(remaining[-1], fraction))
    return remaining


@torch.no_grad()
def prune_ticket(weights: Weights, masks: Weights, fraction: float) -> Masks:
    """Remove a fraction of the remaining weights, the smallest by magnitude over all layers together; exactly
    ``n_remaining`` are left (Vischer et al. 2022, section 2). Only layers in ``masks`` are pruned. Raises
    FloatingPointError for NaNs."""
    scores = torch.cat([weights[name].abs().masked_fill(mask == 0, -1).flatten() for name, mask in masks.items()])
    remaining = sum(int(mask.sum()) for mask in masks.values())
    return _split(_top_k(scores, n_remaining(remaining, fraction)), masks)


def random_ticket(masks: Weights, n_keep: int, generator: torch.Generator) -> Masks:
    """A mask of n_keep weights chosen at random over all layers together (random/re-init; section 3, table 1)."""
    scores = torch.rand(sum(mask.numel() for mask in masks.values()), generator=generator)
    return _split(_top_k(scores, n_keep), masks)


def _split(flat: Tensor, like: Weights) -> Masks:
    parts = flat.split([tensor.numel() for tensor in like.values()])
    return {name: part.view_as(tensor).to(tensor) for (name, tensor), part in zip(like.items(), parts, strict=True)}


def permute_masks(masks: Weights, generator: torch.Generator) -> Masks:
    """Each layer's mask with its entries in random order: the layers keep their densities (permuted/permuted)."""
    return {
        name: mask.flatten()[torch.randperm(mask.numel(), generator=generator)].view_as(mask)
        for name, mask in masks.items()
    }


@torch.no_grad()
def permute_weights(weights: Weights, masks: Weights, new_masks: Weights, generator: torch.Generator) -> Masks:
    """The weights that survive under ``masks``, in random order at the positions of ``new_masks`` and zero elsewhere,
    layer by layer. With the same masks twice this is mask/permuted (Vischer et al. 2022, section 3)."""
    permuted = {}
    for name, mask in masks.items():
        values = weights[name][mask != 0]
        permuted[name] = torch.zeros_like(weights[name])
        permuted[name][new_masks[name] != 0] = values[torch.randperm(len(values), generator=generator)]
    return permuted


def next_ticket(
    condition: str, pruned: Masks, start: Weights, fresh: Weights, generator: torch.Generator
) -> tuple[Masks, dict[str, Tensor]]:
    """Masks of a network's next round, and starting parameters that are zero where these are (Vischer et al. 2022,
    section 3, figure 1).

    ``pruned`` are the masks that ``prune_ticket`` made, ``start`` the parameters to rewind to and ``fresh`` newly drawn
    ones. Every round starts from these, never from a permuted set. What has no mask is rewound as it is.
        ticket              masks as pruned, initial weights                                     (mask/weights)
        mask_permuted       the same masks, initial weights shuffled among them in each layer    (mask/permuted)
        permuted_permuted   each layer's mask shuffled, too                                      (permuted/permuted)
        random_reinit       as many weights anywhere in the networks, fresh parameters           (random/re-init)
    """
    masks, values = pruned, start
    if condition == "mask_permuted":
        values = {**start, **permute_weights(start, pruned, pruned, generator)}
    elif condition == "permuted_permuted":
        masks = permute_masks(pruned, generator)
        values = {**start, **permute_weights(start, pruned, masks, generator)}
    elif condition == "random_reinit":
        masks = random_ticket(pruned, sum(int(mask.sum()) for mask in pruned.values()), generator)
        values = fresh
    elif condition != "ticket":
        raise ValueError(f"no condition {condition}")
    return masks, {**values, **{name: values[name] * mask for name, mask in masks.items()}}


def finite_runs(tensors: Weights) -> np.ndarray:
    """Bool [R]: are all numbers of each run finite in tensors with a run axis?"""
    return torch.stack([t.flatten(1).isfinite().all(1) for t in tensors.values()]).all(0).cpu().numpy()


class Best:
    """The best weights of each of R networks over the evaluations of a round.

    Of equal evaluations the later one counts, as it has trained longer. A network whose weights are not finite has
    diverged. It is never best, and goes on from its best weights so far, or from its first ones if there are none, with
    Adam's moments at zero but its step count as it is.

    ``state`` is the networks' ``state_dict``, every tensor with a run axis, and ``target`` that of target networks, by
    the same names; both are changed in place. ``weights`` are the best so far; [R] each: best, final (the last one),
    step (of the first evaluation at ``best``), diverged (step at which this was first seen, or 0).
    """

    def __init__(self, state: Weights, optimizer: torch.optim.Optimizer, target: Weights = MappingProxyType({})):
        self.state, self.optimizer, self.target = state, optimizer, target
        self.weights = {name: tensor.clone() for name, tensor in state.items()}
        n_runs = len(next(iter(state.values())))
        self.best, self.final = np.full(n_runs, -np.inf), np.full(n_runs, np.nan)
        self.step, self.diverged = np.zeros(n_runs, int), np.zeros(n_runs, int)

    @torch.no_grad()
    def update(self, step: int, returns: np.ndarray) -> list[int]:
        """Take an evaluation after ``step`` steps, returns [R, episodes]; those of networks that have diverged become
        nan. Gives the networks that have, and go on from other weights."""
        finite = finite_runs(self.state)
        returns[~finite] = np.nan
        self.final = returns.mean(1)
        self.step[self.final > self.best] = step
        better = self.final >= self.best
        self.best[better] = self.final[better]
        for name, tensor in self.state.items():
            self.weights[name][better] = tensor[better]
        self.diverged[~finite & (self.diverged == 0)] = step
        diverged = np.flatnonzero(~finite).tolist()
        for r in diverged:
            for name, tensor in self.state.items():
                tensor[r] = self.weights[name][r]
                if name in self.target:
                    self.target[name][r] = self.weights[name][r]
            for moments in self.optimizer.state.values():
                for moment in moments.values():
                    if moment.dim():  # not Adam's step count
                        moment[r] = 0
        return diverged

    def columns(self, r: int, retest: float) -> dict[str, float | int]:
        """What results.csv says of network r, whose best weights got a mean of ``retest`` in new episodes."""
        return {
            "best_return": float(self.best[r]) if self.best[r] > -np.inf else math.nan,
            "best_retest": retest,
            "final_return": float(self.final[r]),
            "steps_to_best": int(self.step[r]),
            "diverged": int(self.diverged[r]),
        }

    def get_state(self) -> dict[str, Any]:
        """All that changes, but ``state`` and ``target``, for ``set_state``."""
        numbers = {name: torch.from_numpy(getattr(self, name)) for name in ("best", "final", "step", "diverged")}
        return {"weights": self.weights, **numbers}

    def set_state(self, saved: dict[str, Any]) -> None:
        for name, tensor in saved["weights"].items():
            self.weights[name].copy_(tensor)
        for name in ("best", "final", "step", "diverged"):
            setattr(self, name, saved[name].numpy())


def describe_ticket(masks: Weights, inputs: Sequence[int] | None = None) -> dict[str, float | int | str]:
    """What the masks of one network say, as columns of results.csv: weights that remain, the inputs that its first
    layer still reads, and density of each layer. ``inputs`` are their numbers, if not 0, 1, 2 ..."""
    total, remaining = count(masks), sum(int(mask.sum()) for mask in masks.values())
    first = next(iter(masks.values()))  # [in, out] or [out, in, kh, kw]
    alive = (first.sum(1) if first.dim() == 2 else first.sum((0, 2, 3))).nonzero().flatten().tolist()
    alive = alive if inputs is None else [inputs[i] for i in alive]
    return {
        "remaining": remaining,
        "remaining_fraction": remaining / total,
        "inputs_alive": len(alive),
        "alive_inputs": " ".join(map(str, alive)),
        **{f"density_{name.removesuffix('.weight')}": float(mask.mean()) for name, mask in masks.items()},
    }


# Early-bird tickets (You et al. 2020; Dimofte 2023): draw a mask now and then, and prune when it no longer changes.


def flat_mask(masks: Weights) -> Tensor:
    """All layers' masks in one row [n]."""
    return torch.cat([mask.flatten() for mask in masks.values()])


def mask_distance(masks: Weights, other: Weights) -> float:
    """Fraction of the weights at which two networks' masks differ: the normalised Hamming distance (Dimofte 2023,
    equation 2.5). Two random masks that remove a fraction P each differ at 2P(1 - P)."""
    different = flat_mask(masks) != flat_mask(other)
    return int(different.sum()) / different.numel()


def overlap_matrix(masks: Tensor) -> Tensor:
    """1 - distance of all pairs of n flat masks [..., n, weights]: [..., n, n] (Dimofte 2023, equation 2.6)."""
    both, size = masks @ masks.mT, masks.sum(-1)  # exact: whole numbers below 2^24
    return 1 - (size[..., :, None] + size[..., None, :] - 2 * both) / masks.shape[-1]


def save_ticket(file: Path, masks: Weights, **contents: Any) -> None:
    """Masks, a bit for each weight, and whatever else belongs to the ticket: tensors and plain Python."""
    packed = {name: torch.from_numpy(np.packbits(mask.cpu().numpy().astype(bool))) for name, mask in masks.items()}
    shapes = {name: list(mask.shape) for name, mask in masks.items()}
    save_checkpoint(file, {"packed_masks": packed, "shapes": shapes, **contents})


def load_ticket(file: Path | str, dense: bool = False) -> dict[str, Any]:
    """What ``save_ticket`` wrote, with "masks" as float tensors. Raises ValueError if the file is no ticket.

    With ``dense`` each of "masks", "initial" and "best" is {network: ``state_dict``}, for a ``nn.Sequential`` of
    ``nn.Conv2d`` and ``nn.Linear`` with a layer for the activation between any two of them, and ``nn.Flatten`` after
    the last convolution's. The activation is named by "activation".
    """
    file = Path(file)
    ticket = _load(file, "a ticket")
    try:
        packed, shapes = ticket.pop("packed_masks"), ticket.pop("shapes")
    except (KeyError, AttributeError, TypeError) as error:
        raise ValueError(f"cannot read {file} as a ticket: tickets are in tickets/ of a run folder") from error
    masks = {}
    for name, bits in packed.items():
        flat = np.unpackbits(bits.numpy(), count=math.prod(shapes[name]))
        masks[name] = torch.from_numpy(flat).view(shapes[name]).float()
    ticket = {"masks": masks, **ticket}
    return ticket | {part: _dense(ticket[part]) for part in ("masks", "initial", "best")} if dense else ticket


def load_ticket_of(script: str, file: str, make_args: Callable[..., Any]) -> tuple[dict[str, Any], Any]:
    """A ticket of this script, and its arguments. Raises ValueError if it is none, or one of another version."""
    ticket = load_ticket(file)
    if ticket.get("script") != script:
        raise ValueError(f"{file} is no ticket of {script}.py")
    try:
        return ticket, make_args(**ticket["args"])
    except TypeError as error:
        raise ValueError(f"{file} is a ticket of another version of {script}.py") from error


def _dense(tensors: Weights) -> dict[str, dict[str, Tensor]]:
    """Parameters {"actor.layers.0.weight": ...} of one network of batched layers, as ``load_ticket`` gives them. What
    belongs to no layer, such as a log-std, keeps its name."""
    networks = {}
    for name, tensor in tensors.items():
        network, _, rest = name.partition(".")
        state = networks.setdefault(network, {})
        if not rest.startswith("layers."):
            state[rest] = tensor
            continue
        _, number, kind = rest.split(".")
        after_convolutions = tensors[f"{network}.layers.0.weight"].dim() == 4 and tensor.dim() == 2
        if tensor.dim() == 2:  # a linear layer: weight [in, out], bias [1, out]
            tensor = tensor.T if kind == "weight" else tensor[0]
        state[f"{2 * int(number) + after_convolutions}.{kind}"] = tensor.clone()
    return networks


def _load(file: Path, what: str, device: torch.device | str = "cpu") -> Any:
    """What ``save_checkpoint`` wrote. Raises ValueError with one line if it cannot be read, or a byte of it changed."""
    try:
        # torch.load ignores the checksums, and reads a part that one flipped bit marks as a folder as if it were empty:
        # refuse both
        with zipfile.ZipFile(file) as archive:
            if archive.testzip() is not None or any(info.external_attr & 0x10 for info in archive.infolist()):
                raise zipfile.BadZipFile
        return torch.load(file, weights_only=True, map_location=device)
    except (OSError, EOFError, LookupError, ValueError, RuntimeError, *_DAMAGED) as error:
        no_access = isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError)
        reason = error.strerror if no_access else "it is damaged, or another program's"
        raise ValueError(f"cannot read {file} as {what}: {reason}") from error


_DAMAGED = (pickle.UnpicklingError, zipfile.BadZipFile, zlib.error)


# ---- Analysis --------------------------------------------------------------------------------------------------------


@torch.no_grad()
def signal_to_noise(
    loss: Callable[..., Tensor], parameters: Mapping[str, Tensor], *batch: Tensor, chunk_size: int = 64
) -> float:
    """Mean over all parameters of |mean| / std of the per-example gradients (Graesser et al. 2022, section 7).

    ``loss(parameters, *example)`` is the scalar loss of one example, written with ``torch.func.functional_call``, and
    ``batch`` its further arguments with a leading axis of B examples. The standard deviation is that of this one batch
    (divided by B, and 1e-10 added, as in the authors' code). Inactive weights count too: their gradient is dense.
    A batch of one has no noise to speak of: nan.
    """
    if len(batch[0]) < 2:
        return math.nan
    detached = {name: p.detach() for name, p in parameters.items()}
    per_example = vmap(grad(loss), in_dims=(None, *[0] * len(batch)), chunk_size=chunk_size)(detached, *batch)
    total = sum(float((g.mean(0).abs() / (g.std(0, correction=0) + 1e-10)).sum()) for g in per_example.values())
    return total / sum(p.numel() for p in parameters.values())


def dormant_fraction(hidden: Sequence[Tensor], tau: float) -> Tensor:
    """Fraction of a network's hidden units that are tau-dormant (Sokar et al. 2023, definition 3.1): their mean
    |activation| over a batch is at most tau times the mean of that over the units of their layer. With tau 0 these are
    the dead units. ``hidden`` are each layer's activations [..., B, units]; returns [...]."""
    dormant = []
    for activations in hidden:
        size = activations.detach().abs().mean(-2)
        dormant.append(size <= tau * size.mean(-1, keepdim=True))
    return torch.cat(dormant, -1).float().mean(-1)


def effective_rank(features: Tensor, delta: float = 0.01) -> Tensor:
    """How many singular values of ``features`` [..., B, units] it takes, the largest first, until their sum is 1 -
    delta of the sum of all (Kumar et al. 2021, section 3: srank). Returns [...]; 0 if all features are 0."""
    values = torch.linalg.svdvals(features.detach())
    share = values.cumsum(-1) / values.sum(-1, keepdim=True).clamp(min=1e-12)
    rank = (share < 1 - delta).sum(-1) + 1
    return torch.where(values[..., 0] > 0, rank, 0)


def describe_units(hidden: Sequence[Tensor]) -> dict[str, Tensor]:
    """Dead and 0.025-dormant units and effective rank of networks with these activations [..., B, units] of each hidden
    layer, as columns of results.csv: [...] each."""
    return {
        "dead": dormant_fraction(hidden, 0),
        "dormant": dormant_fraction(hidden, 0.025),
        "rank": effective_rank(hidden[-1]),
    }


def describe_returns(returns: np.ndarray) -> str:
    """Number, mean, standard deviation and interquartile mean of episodes' returns [n], with a 95% percentile bootstrap
    interval (Agarwal et al. 2021)."""
    from scipy.stats import bootstrap, trim_mean  # takes a second, which only --evaluate should wait for

    if not np.isfinite(returns).all():
        return "the agent has diverged"

    def iqm(values: np.ndarray, axis: int = -1) -> np.ndarray:
        return trim_mean(values, 0.25, axis=axis)

    if len(returns) == 1:
        return f"1 episode: {returns[0]:.1f}"
    rng = np.random.default_rng(0)
    low, high = bootstrap((returns,), iqm, method="percentile", rng=rng).confidence_interval
    text = f"{len(returns)} episodes: mean {returns.mean():.1f}, std {returns.std():.1f}, IQM {iqm(returns):.1f}"
    return f"{text} (95% interval {low:.1f} to {high:.1f})"


# ---- Run folders -----------------------------------------------------------------------------------------------------

# Flags that may differ when a run is resumed, and that are not in the hash of its folder's name. They change where and
# how it is computed, not what (but a GPU draws other random numbers). ``rounds`` is one of them, as more rounds only
# add to what is there.
FREE_FLAGS = frozenset(
    ("run_dir", "fresh", "checkpoint_interval", "threads", "cuda", "track", "wandb_project_name", "wandb_entity")
    + ("capture_video", "evaluate", "observation_noise", "noise_wrap", "dry_run", "async_envs", "rounds")
)
FORMAT = 2  # of config.json and checkpoints. A run of another format cannot go on here.


def identity(args: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that can change a run's results, as they read back from json: a tuple becomes a list. Where many
    ``seeds`` train together, ``seed`` is that of --evaluate; where there are none, it is the run's."""
    free = FREE_FLAGS | {"seed" if args.get("seeds") else "seeds"}
    return json.loads(json.dumps({name: value for name, value in args.items() if name not in free}))


def fail(message: str, status: int = 2) -> NoReturn:
    """End the program with one line on stderr. Status 2 is for bad input, before any work starts, 1 for what goes
    wrong later."""
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(status)


RULES = {
    "above 0": lambda x: x > 0,
    "0 or more": lambda x: x >= 0,
    "in [0, 1]": lambda x: 0 <= x <= 1,
    "in [0, 1)": lambda x: 0 <= x < 1,
    "in (0, 1)": lambda x: 0 < x < 1,
}


def check_flags(args: Any, rule: str, *names: str) -> None:
    """Raise ValueError, which tyro reports, if an argument breaks one of ``RULES``. None means that the flag was not
    given. Each value of a tuple must obey the rule, and a tuple must not be empty."""
    for name in names:
        value = getattr(args, name)
        values = value if isinstance(value, tuple) else () if value is None else (value,)
        if value == () or not all(RULES[rule](x) for x in values):
            raise ValueError(f"--{name.replace('_', '-')} must be {rule}, not {value}")


def check_seeds(args: Any) -> None:
    """Raise ValueError if --seeds, each of which is a run, or --seed are wrong."""
    check_flags(args, "0 or more", "seeds", "seed")
    if len(set(args.seeds)) < len(args.seeds):
        raise ValueError(f"--seeds must be different numbers, not {args.seeds}")


def check_noise_flags(args: Any) -> None:
    """Raise ValueError if --observation-noise is wrong, or given without --evaluate."""
    if args.observation_noise:
        check_flags(args, "0 or more", "observation_noise")
        if not args.evaluate:
            raise ValueError("--observation-noise needs --evaluate CHECKPOINT")


def check_small_flags(args: Any) -> None:
    """Raise ValueError if --method small, the dense network with as many parameters as --sparsity leaves in all layers,
    is given with a flag for sparse layers."""
    if args.method == "small" and args.dense_output_layer:
        raise ValueError("--dense-output-layer does not go with --method small, which has no sparse layers")


def check_split_flags(args: Any) -> None:
    """Raise ValueError if the flags that set the sparsities of actor and critic (``network_sparsities``) contradict
    each other."""
    own = (args.actor_sparsity, args.critic_sparsity) != (None, None)
    if args.actor_share is not None and own:
        raise ValueError("--actor-share sets both sparsities: leave out --actor-sparsity and --critic-sparsity")
    if args.actor_share is not None and (args.method == "dense" or args.width_scale or args.dense_output_layer):
        raise ValueError("--actor-share does not go with --method dense, --width-scale or --dense-output-layer")
    if args.method == "dense" and own:
        raise ValueError("--actor-sparsity and --critic-sparsity do not go with --method dense")


def check_ticket_flags(args: Any) -> None:
    """Raise ValueError if a flag that all scripts of lottery tickets have is wrong."""
    check_flags(args, "above 0", "eval_episodes", "retest_episodes", "num_envs", "max_episode_steps", "hidden_sizes")
    check_flags(args, "0 or more", "rounds", "threads", "rewind_steps", "eval_interval")
    check_flags(args, "above 0", "input_init_scale")
    check_flags(args, "in (0, 1)", "prune_fraction")
    check_seeds(args)
    if not args.conditions or len(set(args.conditions)) < len(args.conditions):
        raise ValueError(f"--conditions must be different ones of {', '.join(CONDITIONS)}")
    if args.baseline_mask == "ticket" and "ticket" not in args.conditions:
        raise ValueError("--baseline-mask ticket needs ticket among --conditions")
    if args.capture_video and not args.evaluate:
        raise ValueError("--capture-video needs --evaluate TICKET")


def flag_given(name: str, default: str) -> str:
    """What the command line says of one flag, before it is parsed: other defaults depend on it."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument(f"--{name}", f"--{name.replace('-', '_')}", dest="value", default=default)
    return parser.parse_known_args()[0].value


def set_up_torch(args: Any) -> torch.device:
    """Threads and device of PyTorch as the arguments say."""
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.empty(31 << 18)  # 31 MB, freed at once: from then on glibc keeps what is freed, which an update needs again
    torch.set_flush_denormal(True)  # Adam's moments of dead units decay to numbers that are very slow to compute with
    return torch.device("cuda" if args.cuda and torch.cuda.is_available() else "cpu")


@functools.cache  # says it once
def bfloat16(precision: str, cuda: bool) -> bool:
    """Do hidden layers compute in bfloat16? With precision "medium", and if that is fast here, as in
    ``torch.set_float32_matmul_precision``. A processor without instructions for it would take ten times as long; there
    float32 stays, and a line says so."""
    if cuda and torch.cuda.is_available():
        fast, where = torch.cuda.is_bf16_supported(including_emulation=False), "GPU"
    else:
        fast, where = torch.cpu._is_avx512_bf16_supported(), "processor"
    if precision == "medium" and not fast:
        print(f"--matmul-precision medium: this {where} has no bfloat16, so layers stay float32", file=sys.stderr)
    return precision == "medium" and fast


def check_memory(n_bytes: int, what: str, flag: str, device: torch.device | str = "cpu") -> None:
    """End the program with one line if ``what`` needs more bytes than the machine or the GPU has; ``flag`` would make
    it smaller."""
    if torch.device(device).type == "cuda":
        there = torch.cuda.mem_get_info(device)[1]
    elif hasattr(os, "sysconf"):
        there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    else:  # Windows
        return
    if n_bytes > there:
        fail(f"{what} needs {n_bytes / 1e9:.1f} GB of {there / 1e9:.1f} GB of memory: a smaller {flag} takes less")


class StopSignal:
    """Ctrl-C, and the SIGTERM that ends a Slurm job, take effect where a run's state is consistent::

        stop = StopSignal()
        for step in ...:
            ...                                                # is not interrupted
            returns = stop.interruptible(evaluate, net, envs)  # None if a signal came before or within
            if stop.signal:
                ...                                            # save
                raise SystemExit(128 + stop.signal)

    A second signal ends the program at once. Processes of environments leave the first one to the program.
    """

    def __init__(self) -> None:
        self.signal, self._inside, self._pid = 0, False, os.getpid()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._handle)

    def _handle(self, number: int, _frame: Any) -> None:
        if os.getpid() != self._pid and number == signal.SIGINT:
            return
        if os.getpid() != self._pid or self.signal:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self.signal = number
        if self._inside:
            raise _Interrupted(128 + number)

    def interruptible(self, function: Callable[..., Any], *args: Any) -> Any:
        """What ``function(*args)`` returns, or None if a signal came before its end. The function must not change
        what is saved."""
        if self.signal:
            return None
        try:
            self._inside = True
            return function(*args)
        except _Interrupted:
            return None
        finally:
            self._inside = False


def run_each_seed(args: Any) -> NoReturn:
    """Start this program again with each of ``args.seeds`` as its --seed, as many at once as there are cores for, and
    end with the worst of their statuses, which is 128 + n if signal n killed one. With --run-dir a run's folder is
    seed{seed} in it. Signals are passed on."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--seeds", nargs="+")
    parser.add_argument("--run-dir", "--run_dir")
    _, others = parser.parse_known_args()
    running, waiting, statuses, signals = {}, list(args.seeds), [], []

    def pass_on(number: int, _frame: Any) -> None:
        signals.append(number)
        waiting.clear()
        for process in running.values():
            process.send_signal(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, pass_on)
    while running or waiting:
        if waiting and len(running) < max(1, (os.cpu_count() or 1) // max(1, args.threads)):
            seed = str(waiting.pop(0))
            folder = ["--run-dir", str(Path(args.run_dir) / f"seed{seed}")] if args.run_dir else []
            command = [sys.executable, sys.argv[0], *others, "--seed", seed, *folder]
            # a session of its own: Ctrl-C reaches this program alone, which passes it on
            quiet = {**os.environ, "TQDM_DISABLE": "1"}
            running[seed] = subprocess.Popen(command, env=quiet, start_new_session=True)
            print(f"seed {seed} has started")
        time.sleep(0.1)
        for seed, process in [*running.items()]:
            status = process.poll()
            if status is None:
                continue
            del running[seed]
            if status < 0:  # a signal's number
                print(f"seed {seed} was killed by signal {-status}", file=sys.stderr)
            statuses.append(128 - status if status < 0 else status)
    raise SystemExit(128 + signals[0] if signals else max(statuses))


def exit_on_signal() -> None:
    """Let Ctrl-C and SIGTERM end the program without a traceback, where there is nothing to save."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _frame: sys.exit(128 + number))


class _Interrupted(SystemExit):
    """Raised where a signal interrupts a function; one that is not caught just ends the program."""


def seeds(*key: int, n: int = 1) -> list[int]:
    """n seeds that follow from a key such as (seed, step), unrelated to those of any other key."""
    return [int(state) for state in np.random.SeedSequence((len(key), *key)).generate_state(n)]


def start_run(args: Any, script: str, variant: str, reads: Sequence[Path] = ()) -> tuple[Path, dict[str, Any] | None]:
    """Make or reopen a run's folder, ``args.run_dir`` or {env}__{script}__{variant}__{seed}__{hash of ``identity``}
    below runs/, where many seeds that train together are counted. Returns it, and what is in its checkpoint.pt, or None
    if there is none.

    A finished run says so and ends the program with status 0, unless ``args.rounds`` now asks for more. Refused, with
    one line: a folder with a run of another script, format or arguments that change results; one that is no run folder;
    one that another process is using; and one whose run began with other contents of the files in ``reads``.
    ``args.fresh`` empties it first.
    """
    digest = hashlib.sha1(json.dumps(identity(asdict(args)), sort_keys=True).encode()).hexdigest()[:8]
    seed = f"{len(args.seeds)}seeds" if getattr(args, "seeds", ()) else args.seed
    name = f"{args.env_id}__{script}__{variant}__{seed}__{digest}"
    folder = Path(args.run_dir or "runs/" + "".join(c if c.isalnum() or c in "._-" else "-" for c in name))
    config_file = folder / "config.json"
    if args.track and find_spec("wandb") is None:
        fail("--track needs Weights & Biases: pip install wandb")
    try:
        config = _read_config(config_file)
        contents = {file.name for file in folder.iterdir()} if folder.exists() else set()
        if config is not None and config.get("script", script) != script:
            fail(f"{folder} holds a run of {config['script']}.py, so choose another --run-dir; nothing was touched")
        if config is None and contents - {".lock", ".config.json.tmp"}:
            fail(f"{folder} is not empty and has no config.json of a run, so it is no run folder; nothing was touched")
        folder.mkdir(parents=True, exist_ok=True)
        _locks.append(FileLock(folder / ".lock", blocking=False))
        _locks[-1].acquire()
        if args.fresh:
            # config.json last: a kill before that leaves what is still recognised as a run folder
            for name in sorted(contents - {".lock"}, key="config.json".__eq__):
                item = folder / name
                shutil.rmtree(item) if item.is_dir() else item.unlink()
            config = None
        digests = {str(file): hashlib.sha1(file.read_bytes()).hexdigest() for file in reads}
        begins = config is None
        if begins:
            config = {"script": script, "format": FORMAT, "args": asdict(args), "command": sys.argv, **_versions()}
            config |= {"reads": digests, "resumed": []}
            write_json(config_file, config)
        if config.get("format") != FORMAT:
            fail(f"{folder} holds a run of another version of {script}.py: finish it there, or start over with --fresh")
        there, now = identity(config["args"]), identity(asdict(args))
        other = [
            f"--{name.replace('_', '-')} {there.get(name)} there, {now.get(name)} now"
            for name in sorted(there.keys() | now.keys())
            if there.get(name) != now.get(name)
        ]
        if other:
            fail(f"{folder} holds a run with other arguments ({'; '.join(other)}); --fresh would start it over")
        for file, digest in config["reads"].items():
            if digests.get(file, digest) != digest:
                fail(f"{file} has changed since the run in {folder} began; --fresh would start it over")
        checkpoint = _checkpoint_in(folder, args)  # once: it may take gigabytes
        if _finished(folder, args, checkpoint):
            print(f"{folder} is finished; --fresh would start it over")
            raise SystemExit(0)
    except FileLockTimeout:
        fail(f"another process is using {folder}")
    except OSError as error:
        fail(f"cannot use {folder} as a run folder: {error.strerror}")
    print(f"writing to {folder}" if begins else f"going on in {folder}")
    if not begins:
        config["resumed"] = [*config["resumed"], {"args": asdict(args), "command": sys.argv, **_versions()}]
        write_json(config_file, config)
    return folder, checkpoint


_locks = []  # A lock lasts as long as its object, so a killed run leaves none behind.


def _checkpoint_in(folder: Path, args: Any) -> dict[str, Any] | None:
    file = folder / "checkpoint.pt"
    if not file.exists():
        return None
    checkpoint = load_checkpoint(file)
    if not isinstance(checkpoint, dict) or identity(checkpoint.get("args", {})) != identity(asdict(args)):
        fail(f"{file} is not that of the run in this folder; --fresh would start it over")
    return checkpoint


def _finished(folder: Path, args: Any, checkpoint: dict[str, Any] | None) -> bool:
    if not hasattr(args, "rounds"):
        return checkpoint is not None and checkpoint["finished"]
    results = read_csv(folder / "results.csv")
    return bool(results) and (int(results[-1]["round"]) >= args.rounds or int(results[-1]["remaining"]) <= 1)


def _read_config(config_file: Path) -> dict[str, Any] | None:
    """A run's config.json; None if there is no such file, or it is another program's."""
    try:
        config = json.loads(config_file.read_text())
    except (FileNotFoundError, ValueError):  # no text, or no json
        return None
    ours = isinstance(config, dict) and isinstance(config.get("args"), dict) and "command" in config
    return config if ours else None


def _versions() -> dict[str, str]:
    packages = {dist.metadata["Name"].lower(): dist.version for dist in distributions()}
    named = ("torch", "numpy", "gymnasium", "mujoco", "pybullet", "ale-py", "minatar")
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        commit = subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        commit = "unknown"
    return {
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs",
        **{name: packages.get(name, "not installed") for name in named},
        "commit": commit,
    }


def summary_writer(args: Any, folder: Path, step: int) -> SummaryWriter:
    """TensorBoard events of a run that goes on after ``step``; with --track they also go to Weights & Biases."""
    if args.track:
        import wandb

        project = {"project": args.wandb_project_name, "entity": args.wandb_entity}
        wandb.init(**project, name=folder.name, config=asdict(args), sync_tensorboard=True)
    return SummaryWriter(str(folder), purge_step=step + 1)


def progress_bar(total: int, initial: int, unit: str) -> tqdm:
    """A line with the time that is left: redrawn each second on a terminal, each minute in a file."""
    redraw = 1 if sys.stderr.isatty() else 60
    return tqdm(total=total, initial=initial, unit=unit, mininterval=redraw)


def write_atomically(file: Path, write: Callable[[Path], Any]) -> None:
    """``write`` a temporary file and rename it to ``file``: a kill at any moment leaves the old or the new one. Ends
    the program with one line if that is not possible, as on a full disk; then the old file is still there."""
    temporary = file.with_name(f".{file.name}.tmp")
    try:
        write(temporary)
        os.replace(temporary, file)
    except (OSError, RuntimeError) as error:  # torch.save raises the latter
        temporary.unlink(missing_ok=True)
        reason = getattr(error, "strerror", None) or "the disk may be full"
        fail(f"cannot write {file}: {reason}. The files that were there before are intact", status=1)


def write_json(file: Path, contents: dict[str, Any]) -> None:
    """Atomically write it with indents."""
    write_atomically(file, lambda temporary: temporary.write_text(json.dumps(contents, indent=2) + "\n"))


def save_checkpoint(file: Path, checkpoint: dict[str, Any]) -> None:
    """Atomically save tensors and plain Python, which ``torch.load(weights_only=True)`` reads."""
    write_atomically(Path(file), lambda temporary: torch.save(checkpoint, temporary))


def get_states(parts: Mapping[str, Any]) -> dict[str, Any]:
    """The states of what changes in a run, by name: of modules and optimizers (``state_dict``, a copy), of all that has
    ``get_state``, and of lists of numpy's generators. None for a simulator, which has no state to get."""
    states = {}
    for name, part in parts.items():
        if isinstance(part, nn.Module | torch.optim.Optimizer):
            states[name] = copy.deepcopy(part.state_dict())
        elif isinstance(part, list):
            states[name] = [generator.bit_generator.state for generator in part]
        else:
            states[name] = part.get_state() if hasattr(part, "get_state") else None
    return states


def set_states(parts: Mapping[str, Any], states: Mapping[str, Any]) -> None:
    """Go on from what ``get_states`` gave."""
    for name, part in parts.items():
        if isinstance(part, nn.Module | torch.optim.Optimizer):
            part.load_state_dict(states[name])
        elif isinstance(part, list):
            for generator, state in zip(part, states[name], strict=True):
                generator.bit_generator.state = state
        elif states[name] is not None:
            part.set_state(states[name])


def load_checkpoint(file: Path, device: torch.device | str = "cpu") -> Any:
    """What ``save_checkpoint`` wrote. Ends the program with one line if it cannot be read."""
    try:
        return _load(file, "a checkpoint", device)
    except ValueError as error:
        fail(str(error))


def write_csv(file: Path, rows: list[dict[str, Any]]) -> None:
    """Atomically write all rows under a header."""

    def write(temporary: Path) -> None:
        with temporary.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)

    if rows:
        write_atomically(file, write)


def read_csv(file: Path) -> list[dict[str, str]]:
    """The rows of a csv file as text; none if there is no such file."""
    if not file.exists():
        return []
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


class Stopwatch:
    """Seconds spent in each part of a loop: ``lap("env")`` books the time since the last call under "env"."""

    def __init__(self, *parts: str):
        self.seconds = dict.fromkeys(parts, 0.0)
        self.last = time.perf_counter()

    def lap(self, part: str) -> None:
        now = time.perf_counter()
        self.seconds[part] += now - self.last
        self.last = now

    def take(self) -> dict[str, float]:
        """The seconds of each part since the last ``take``."""
        seconds, self.seconds = self.seconds, dict.fromkeys(self.seconds, 0.0)
        return seconds


class RunLog:
    """What a run records by evaluation: results.csv, timing.csv, TensorBoard events and a progress bar. A run that goes
    on from a checkpoint gets what that has of it: ``results``, ``timings`` and, of runs that train together, the seeds
    that have ``diverged``. The ``parts`` are the stopwatch's."""

    def __init__(self, args: Any, folder: Path, total: int, checkpoint: Mapping[str, Any] | None, parts: Sequence[str]):
        checkpoint = checkpoint or {"step": 0, "results": [], "timings": []}
        self.folder, self.results, self.timings = folder, checkpoint["results"], checkpoint["timings"]
        self.start, self.diverged = checkpoint["step"], checkpoint.get("diverged", [])
        self.writer = summary_writer(args, folder, self.start)
        self.progress = progress_bar(total, self.start, "step")
        self.watch = Stopwatch(*parts)
        self.watch.seconds |= checkpoint.get("seconds", {})
        if self.start:
            self.progress.write(f"resuming at step {self.start:,}")

    def get_state(self) -> dict[str, Any]:
        """What a checkpoint needs of it. Where runs train together, it needs ``diverged``, too."""
        return {"results": self.results, "timings": self.timings, "seconds": self.watch.seconds}

    def has_evaluated(self, step: int) -> bool:
        return bool(self.results) and self.results[-1]["step"] >= step

    @torch.no_grad()
    def drop_diverged(
        self,
        when: str,
        run_seeds: Sequence[int],
        parameters: Weights,
        optimizer: torch.optim.Optimizer,
        *others: Weights,
    ) -> None:
        """Say which of the runs that train together have parameters that are not finite, and set these to zero, as well
        as their moments and their part of ``others`` (target networks, scores), so that the other runs can go on. Ends
        the program with status 1 if none is left. ``when`` is, for example, "by step 7"."""
        diverged = np.flatnonzero(~finite_runs(parameters)).tolist()
        if diverged:
            states = [(p, optimizer.state.get(p, {})) for p in parameters.values()]
            moments = [m for p, state in states for m in state.values() if m.shape == p.shape]
            for tensor in (*parameters.values(), *moments, *(t for tensors in others for t in tensors.values())):
                tensor[diverged] = 0
        for r in diverged:
            if run_seeds[r] not in self.diverged:
                self.diverged.append(run_seeds[r])
                self.progress.write(f"seed {run_seeds[r]}: diverged {when}")
        if len(self.diverged) == len(run_seeds):
            self.progress.close()
            fail(f"all runs have diverged {when} ({self.folder})", status=1)

    def end_diverged(self, what: str, step: int) -> NoReturn:
        """End the program of a single run that has diverged, with status 1. ``what`` is, for example, "weights are not
        finite"."""
        self.progress.close()
        there = (self.folder / "checkpoint.pt").exists()
        kept = "its last checkpoint is kept" if there else "there is no checkpoint yet"
        fail(f"{what} at step {step:,}: the run has diverged, {kept} ({self.folder})", status=1)

    def evaluated(self, step: int, rows: Sequence[dict[str, float]], layers: Mapping[str, float]) -> None:
        """Record an evaluation: a row of results.csv for each run, and the sparsity of each layer."""
        self.results += rows
        write_csv(self.folder / "results.csv", self.results)
        self.watch.lap("evaluate")
        seconds = self.watch.take()
        steps = len(rows) * (step - (self.timings[-1]["step"] if self.timings else 0))
        speed = steps / max(sum(seconds.values()), 1e-9)
        self.timings.append({"step": step, "steps_per_second": speed, **seconds})
        write_csv(self.folder / "timing.csv", self.timings)
        groups = {"return": "eval", "snr": "snr", "dead": "units", "dormant": "units", "rank": "units"}
        for row in rows:
            seed = f"/seed{row['seed']}" if "seed" in row else ""
            for name, value in row.items():
                if name not in ("step", "seed") and not math.isnan(value):
                    self.writer.add_scalar(f"{groups.get(name.split('_')[0], 'sparsity')}/{name}{seed}", value, step)
        for name, value in layers.items():
            self.writer.add_scalar(f"sparsity/layer/{name}", value, step)
        self.writer.add_scalar("charts/SPS", speed, step)
        returns = [row["return_mean"] for row in rows if not math.isnan(row["return_mean"])]
        self.progress.set_postfix_str(f"return {np.mean(returns):.1f}, sparsity {rows[0]['sparsity']:.3f}")

    def finish(self, stop: StopSignal, finished: bool) -> None:
        """End the program if it was a signal that ended the run; print the final score, the mean over the last 10% of
        evaluations (Graesser et al. 2022, section 3), with mean and a sample's standard deviation over runs that did
        not diverge, if it is finished."""
        self.progress.close()
        self.writer.close()
        if not finished:
            step = self.progress.n
            print(f"stopped at step {step:,}; the same command goes on from there ({self.folder})")
            raise SystemExit(128 + stop.signal)
        steps = sorted({row["step"] for row in self.results})
        last = steps[-max(1, len(steps) // 10) :]
        by_seed = {}
        for row in self.results:
            if row["step"] in last:
                by_seed.setdefault(row.get("seed"), []).append(row["return_mean"])
        scores = np.array([np.mean(returns) for returns in by_seed.values()])
        finite = scores[np.isfinite(scores)]
        spread = f" ± {finite.std(ddof=1):.1f} over {len(finite)} seeds" if len(finite) > 1 else ""
        what = f"final score (mean of the last {len(last)} of {len(steps)} evaluations)"
        print(f"{what}: {finite.mean():z.1f}{spread} ({self.folder})")


class Rounds:
    """The run folder of a ticket script, and its rounds::

        rounds = Rounds(args, "ppo_imp", "actor", steps_per_round, "step", parts_of_the_stopwatch)
        for round_ in rounds:
            rounds.tickets = ...                # prune and rewind
            ...                                 # train, from where ``go_on`` says; retest
            rounds.finish(...)                  # tickets and curves, and results.csv last: it says that this is done

    ``tickets`` are dicts, one for each run: seed, condition, masks, initial (parameters) and, in round 0, rewind. A
    round's tickets are its checkpoint. What an unfinished round needs to go on is in ``round.pt``: the states of the
    parts that change in it (networks, optimizer, best, ...; see ``get_states``) after so many units (``done``).
    """

    def __init__(
        self,
        args: Any,
        script: str,
        variant: str,
        per_round: int,
        unit: str,
        timed: Sequence[str],
        reads: Sequence[Path] = (),
    ):
        self.args, self.script, self.per_round, self.unit = args, script, per_round, unit
        self.folder, _ = start_run(args, script, variant, reads)
        self.results, *others = (read_csv(self.folder / f"{name}.csv") for name in ("results", "curves", "timing"))
        self.round = int(self.results[-1]["round"]) + 1 if self.results else 0
        self.curves, self.timing = ([row for row in rows if int(row["round"]) < self.round] for rows in others)
        self.stop, self.watch = StopSignal(), Stopwatch(*timed)
        self.writer = None  # from ``go_on``, which knows where
        self.progress = progress_bar((args.rounds + 1) * per_round, self.round * per_round, unit)
        self.tickets, self.parts = [], {}

    def __iter__(self) -> Iterator[int]:
        for round_ in range(self.round, self.args.rounds + 1):
            self.round = round_
            if self.round and int(self.results[-1]["remaining"]) <= 1:
                self.progress.write(f"round {self.round}: one weight is left, so there is nothing more to remove")
                break
            yield self.round
        self.progress.close()
        if self.writer:
            self.writer.close()
        for condition in ("dense", *self.args.conditions):
            retests = [float(row["best_retest"]) for row in self.results if row["condition"] == condition]
            last = retests[-len(self.args.seeds) :]
            if last:
                print(f"{condition:18} best_retest in its last round: {np.mean(last):z.1f} over {len(last)} seeds")

    def seeds(self, *key: int) -> list[int]:
        """A seed for each run, the same for all conditions of its seed; the key says what for."""
        return [seeds(ticket["seed"], self.round, *key)[0] for ticket in self.tickets]

    def streams(self) -> tuple[list[np.random.Generator], list[int]]:
        """A random stream for each of ``args.seeds``, and for each run which of them is its own."""
        streams = [np.random.default_rng(seeds(seed, self.round, 1)[0]) for seed in self.args.seeds]
        return streams, [self.args.seeds.index(ticket["seed"]) for ticket in self.tickets]

    def _file(self, round_: int, condition: str, seed: int) -> Path:
        return self.folder / "tickets" / f"round{round_:02}_{condition}_seed{seed}.pt"

    def ticket(self, round_: int, condition: str, seed: int) -> dict[str, Any]:
        """A run's ticket of an earlier round, with its best weights."""
        return load_ticket(self._file(round_, condition, seed))

    def go_on(self, **parts: Any) -> tuple[int, dict[str, Any]]:
        """Where this round was saved: units that are done, and the state; 0 and {} if it starts now. ``parts`` are what
        changes in it, with a ``best`` among them."""
        self.parts = parts
        file = self.folder / "round.pt"
        saved = load_checkpoint(file) if file.exists() else {}
        saved = saved if saved.get("round") == self.round else {}
        start = self.round * self.per_round + saved.get("done", 0)
        self.writer = self.writer or summary_writer(self.args, self.folder, start)
        if not saved:
            return 0, {}
        set_states(parts, saved)
        for ticket, weights in zip(self.tickets, saved["rewind"], strict=False):
            ticket["rewind"] = weights
        self.curves, self.watch.seconds, done = saved["curves"], saved["seconds"], saved["done"]
        # what was done before says nothing of the speed
        self.progress.initial = self.progress.n = self.progress.last_print_n = self.progress.n + done
        self.progress.write(f"going on in round {self.round} after {done:,} {self.unit}s")
        return done, saved

    def state(self, done: int, **more: Any) -> dict[str, Any]:
        """All that changes within a round, with ``more`` of it, as it is now: training may go on before it is saved."""
        rewind = [ticket["rewind"] for ticket in self.tickets if "rewind" in ticket]
        return {"round": self.round, "done": done, "rewind": rewind, **get_states(self.parts), **more}

    def save(self, state: dict[str, Any]) -> None:
        """Write round.pt and curves.csv, to go on from this state."""
        save_checkpoint(self.folder / "round.pt", {**state, "curves": self.curves, "seconds": self.watch.seconds})
        write_csv(self.folder / "curves.csv", self.curves)
        self.watch.lap("save")

    def leave(self, state: dict[str, Any] | None = None) -> NoReturn:
        """After a signal: save the state, if there is one that is not saved yet, and end the program."""
        if state is not None:
            self.save(state)
        self.progress.close()
        print(f"stopped; the same command goes on from here ({self.folder})")
        raise SystemExit(128 + self.stop.signal)

    def rewind_to(self, state: Weights) -> None:
        """Tickets rewind to these weights of round 0, or of a network that has diverged to its best ones so far."""
        for r, (ticket, finite) in enumerate(zip(self.tickets, finite_runs(state), strict=True)):
            ticket["rewind"] = copy_slice(state if finite else self.parts["best"].weights, r)

    def has_evaluated(self, step: int) -> bool:
        last = self.curves[-1] if self.curves else {"round": -1, "step": 0}
        return (int(last["round"]), int(last["step"])) == (self.round, step)

    def evaluated(
        self, step: int, returns: np.ndarray, losses: Mapping[str, Tensor], **columns: list[float]
    ) -> list[int]:
        """Record an evaluation, returns [R, episodes], after ``step`` units: in the round's ``best``, in curves.csv,
        with further ``columns`` [R], and in TensorBoard, with ``losses`` [R] as means over seeds. Gives the networks
        that have diverged, and go on from other weights."""
        best = self.parts["best"]
        diverged = best.update(step, returns)
        for r in diverged:
            if best.diverged[r] == step:
                who = f"seed {self.tickets[r]['seed']}, {self.tickets[r]['condition']}"
                self.progress.write(f"round {self.round}, {who}: diverged before {self.unit} {step:,}")
        total = self.round * self.per_round + step
        runs_of = {}
        for r, ticket in enumerate(self.tickets):
            row = {
                "round": self.round,
                "seed": ticket["seed"],
                "condition": ticket["condition"],
                "step": step,
                "return_mean": float(returns[r].mean()),
                "return_std": float(returns[r].std()),
            }
            self.curves.append({**row, **{name: values[r] for name, values in columns.items()}})
            self.writer.add_scalar(f"return/{row['condition']}/seed{row['seed']}", row["return_mean"], total)
            runs_of.setdefault(row["condition"], []).append(r)
        for condition, runs in runs_of.items():
            for name, values in losses.items():
                self.writer.add_scalar(f"{name}/{condition}", values[runs].mean().item(), total)
        finite = best.final[np.isfinite(best.final)]
        self.progress.set_postfix_str(f"round {self.round}, return {finite.mean() if len(finite) else math.nan:.1f}")
        return diverged

    def finish(self, retest: np.ndarray, contents: dict[str, Any], **columns: Sequence[Any]) -> None:
        """Save this round: its tickets, with their best weights and what belongs to all (``contents``), and rows of
        results.csv, with the retest [R, episodes] of the best weights and further ``columns`` [R]."""
        best = self.parts["best"]
        (self.folder / "tickets").mkdir(exist_ok=True)
        for r, ticket in enumerate(self.tickets):
            seed, condition = ticket["seed"], ticket["condition"]
            row = {
                "round": self.round,
                "seed": seed,
                "condition": condition,
                **describe_ticket(ticket["masks"], contents["inputs"]),
                **best.columns(r, float(retest[r].mean())),
                **{name: values[r] for name, values in columns.items()},
            }
            self.results.append(row)
            self.writer.add_scalar(f"best_retest/{condition}/seed{seed}", row["best_retest"], self.round)
            of_run = {"best": copy_slice(best.weights, r), "result": row}
            file = self._file(self.round, condition, seed)
            save_ticket(file, **ticket, **contents, **of_run, script=self.script, args=asdict(self.args))
        self.writer.add_scalar("remaining_fraction", row["remaining_fraction"], self.round)
        self.watch.lap("save")
        seconds = self.watch.take()
        speed = len(self.tickets) * self.per_round / sum(seconds.values())
        self.writer.add_scalar("charts/SPS", speed, self.round)
        timing = {"round": self.round, "runs": len(self.tickets), f"{self.unit}s_per_second": speed, **seconds}
        self.timing.append(timing)
        for name, rows in (("timing", self.timing), ("curves", self.curves), ("results", self.results)):
            write_csv(self.folder / f"{name}.csv", rows)
        (self.folder / "round.pt").unlink(missing_ok=True)
