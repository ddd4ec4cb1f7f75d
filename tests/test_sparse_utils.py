"""sparse_utils.py against numbers worked out by hand, brute-force versions, and the invariants that it promises."""

import copy
import itertools
import json
import math
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, make_dataclass, replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import functional_call

import sparse_utils as su

ROOT = Path(__file__).resolve().parent.parent
ERK_CASES = json.loads((ROOT / "tests/data/erk_cases.json").read_text())
SAC_ACTOR = {"fc1": (17, 256), "fc2": (256, 256), "fc3": (256, 12)}
SPARSITIES = (0.8, 0.9, 0.95, 0.99)

# The same examples every time: a test that fails in CI fails everywhere.
properties = settings(deadline=None, derandomize=True, database=None, max_examples=150)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def slices(tensor: Tensor) -> Tensor:
    """[R, n], one row for each network; R is 1 for the even number of axes of Linear and Conv2d."""
    return tensor.flatten(1) if tensor.dim() % 2 else tensor.flatten()[None]


def mlp(n_in: int = 5, width: int = 16, n_out: int = 3, runs: int = 0) -> nn.Module:
    """With ``runs`` that many networks in one: sac_rigl.py's critics are two."""
    linear = partial(su.BatchedLinear, runs) if runs else nn.Linear
    return nn.Sequential(linear(n_in, width), nn.ReLU(), linear(width, width), nn.ReLU(), linear(width, n_out))


# ---- Layers with a leading run axis ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make", [lambda: su.BatchedLinear(4, 100, 200), lambda: su.BatchedConv2d(2, 4, 200, 5)], ids=["linear", "conv"]
)
def test_batched_layers_start_like_pytorchs(make):
    """The default of nn.Linear and nn.Conv2d is U(-l, l) for weights and biases; here l = 1 / sqrt(100)."""
    torch.manual_seed(0)
    layer = make()
    for parameter in layer.parameters():
        assert 0.09 < parameter.abs().max() <= 0.1
        assert parameter.var().item() == pytest.approx(0.1**2 / 3, rel=0.1)
    assert not torch.equal(layer.weight[0], layer.weight[1])


# ---- Sparse kernels --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("counts", [(7, 7), (3, 9), (0, 30)])
@pytest.mark.parametrize("layout", ["batched", "linear"])
def test_sparse_layers_against_dense_ones(counts, layout):
    """Outputs and all gradients, of networks with unequal numbers of active weights, too."""
    runs = 1 if layout == "linear" else 2
    layer = su.Linear(5, 6) if layout == "linear" else su.BatchedLinear(2, 5, 6)
    flat = torch.zeros(runs, 30)
    for r in range(runs):
        flat[r, torch.randperm(30, generator=rng(r))[: counts[r]]] = 1
    masks = {"net.0.weight": flat.view(layer.weight.shape)}
    net = nn.Sequential(layer)
    su.apply_masks(su.prunable(net=net), masks)
    kernels = su.SparseKernels(masks, [], {"net": net}, {})
    kernels.max_density = 1.0
    results = []
    for packed in (False, True):
        x = torch.randn(*([2] if runs == 2 else []), 4, 5, generator=rng(3)).requires_grad_()
        if packed:
            kernels.pack()
            assert layer.weight.shape == (runs, max(1, max(counts[:runs])))
        y = net(x)
        net.zero_grad()
        (y * torch.randn(y.shape, generator=rng(4))).sum().backward()
        weight_grad = layer.weight.grad
        if packed:
            weight_grad = layer.pattern.unpack(weight_grad, torch.empty_like(masks["net.0.weight"]))
        results.append((y, x.grad, weight_grad * masks["net.0.weight"], layer.bias.grad))
        if packed:  # none where it is inactive
            assert torch.equal(weight_grad, results[-1][2])
    for dense, sparse in zip(*results, strict=True):
        torch.testing.assert_close(sparse, dense)
    assert (y.mT if runs == 2 else y.T).is_contiguous()  # the next sparse layer reads it without a copy


def test_one_observation_without_a_batch_goes_through_packed_layers():
    net = nn.Sequential(su.Linear(5, 8), su.Linear(8, 3))
    masks = su.random_masks(su.prunable(net=net), {"net.1.weight": 0.1}, rng())
    su.apply_masks(su.prunable(net=net), masks)
    x = torch.randn(5, generator=rng(1))
    dense = net(x)
    su.SparseKernels(masks, [], {"net": net}, {}).pack()
    assert net[1].weight.numel() == 3 and net[0].weight.shape == (8, 5)
    for _ in range(2):  # the first time leaves everything as it was
        torch.testing.assert_close(net(x), dense)


@pytest.mark.parametrize("method", ["static", "set", "rigl", "prune"])
def test_sparse_kernels_learn_what_masked_ones_do(method):
    """200 updates of two networks with changing masks, Adam, L2 and a target network: the same weights to 1e-4 and the
    same masks, inactive weights exactly zero; what was packed comes back into the same tensors."""

    def train(enabled: bool) -> tuple[nn.Module, nn.Module, su.Masks, torch.optim.Optimizer, list[torch.Size]]:
        torch.manual_seed(0)
        net = mlp(6, 32, 2, runs=2)
        weights = su.prunable(net=net)
        densities = su.erk_densities(su.layer_shapes(weights), 0.9)
        start = dict.fromkeys(densities, 1.0) if method == "prune" else densities
        masks = su.random_masks(weights, start, [rng(0), rng(1)])
        su.sparse_init_(weights, masks, [rng(2), rng(3)])
        target = copy.deepcopy(net).requires_grad_(False)
        groups = [{"params": weights.values(), "weight_decay": 1e-3}, {"params": [net[0].bias, net[2].bias]}]
        optimizer = torch.optim.Adam(groups, lr=1e-3)
        kernels = su.SparseKernels(masks, [optimizer], {"net": net}, {"net": target}, enabled)
        storage, shapes, seen = {n: w.data_ptr() for n, w in weights.items()}, [], rng(4)
        for update in range(200):
            kernels.pack()
            changing = method != "static" and update % 20 == 10
            if changing:
                kernels.unpack()
            shapes.append(net[2].weight.shape)
            x = torch.randn(2, 16, 6, generator=seen)
            loss = (net(x) - 0.5 * target(x) - x[..., :2]).square().mean((1, 2))
            optimizer.zero_grad()
            loss.sum().backward()  # loss lives on: autograd must not hold on to another shape
            scores = su.mask_gradients(weights, masks, dense=changing)
            optimizer.step()
            with torch.no_grad():
                torch._foreach_lerp_(list(target.parameters()), list(net.parameters()), 0.05)
            if changing and method == "prune":
                now = {n: 1 - su.cubic_sparsity(update, 0, 190, 1 - d) for n, d in densities.items()}
                new = su.magnitude_masks(weights, now, masks)
                su.set_masks(weights, masks, new, [optimizer], su.prunable(net=target))
            elif changing:
                growth = scores if method == "rigl" else None
                targets = su.prunable(net=target)
                su.rewire(weights, masks, 0.3, [optimizer], targets, growth, [rng(update), rng(update + 500)])
        kernels.unpack()
        assert storage == {n: w.data_ptr() for n, w in weights.items()}
        return net, target, masks, optimizer, shapes

    net, target, masks, optimizer, shapes = train(True)
    dense, dense_target, dense_masks, _, dense_shapes = train(False)
    packed_width = int(masks["net.2.weight"][0].sum())
    assert (2, packed_width) in shapes and set(dense_shapes) == {(2, 32, 32)}
    for name, mask in masks.items():
        assert torch.equal(mask, dense_masks[name])
        weight, state = su.prunable(net=net)[name], optimizer.state[su.prunable(net=net)[name]]
        for tensor in (weight, state["exp_avg"], state["exp_avg_sq"], su.prunable(net=target)[name]):
            assert tensor.shape == mask.shape and (tensor[mask == 0] == 0).all()
    for mine, other in ((net, dense), (target, dense_target)):
        torch.testing.assert_close(dict(mine.state_dict()), dict(other.state_dict()), rtol=0, atol=1e-4)
    plain = mlp(6, 32, 2)  # layers of nn.Linear
    for i in (0, 2, 4):
        plain[i].load_state_dict({"weight": net[i].weight[1].T, "bias": net[i].bias[1, 0]})
    x = torch.randn(3, 6, generator=rng())
    torch.testing.assert_close(plain(x), net(x.expand(2, 3, 6))[1])


def test_dense_enough_layers_stay_as_they_are_and_disabled_kernels_do_nothing():
    net = nn.Sequential(su.Linear(20, 20), su.Linear(20, 20), nn.Linear(20, 20))
    masks = su.random_masks(su.prunable(net=net), {"net.0.weight": 0.21, "net.1.weight": 0.2, "net.2.weight": 0.1})
    off = su.SparseKernels(masks, [], {"net": net}, {}, enabled=False)
    off.pack()
    assert [layer.weight.dim() for layer in net] == [2, 2, 2] and net[1].weight.shape == (20, 20)
    on = su.SparseKernels(masks, [], {"net": net}, {})
    on.pack()
    on.pack()
    assert [tuple(layer.weight.shape) for layer in net] == [(20, 20), (1, 80), (20, 20)]
    assert net[0].columns and net[1].columns
    on.unpack()
    on.unpack()
    assert [tuple(layer.weight.shape) for layer in net] == [(20, 20)] * 3
    del masks["net.1.weight"], masks["net.2.weight"]
    on.pack()  # nothing is sparse enough: the network computes as ever
    assert not any(layer.columns for layer in net[:2])


def test_sparse_kernels_where_there_are_none(monkeypatch, capsys):
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: False)
    su.SparseKernels({}, [], {"net": mlp()}, {}, enabled=False)
    with pytest.raises(SystemExit, match="2"):
        su.SparseKernels({}, [], {"net": mlp()}, {})
    assert capsys.readouterr().err.startswith("error: --kernel sparse needs a PyTorch with MKL")


# ---- Which weights, and how dense each layer -------------------------------------------------------------------------


def test_prunable_is_weights_of_linear_and_conv_layers_only():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 4))
            self.norm, self.embedding = nn.LayerNorm(4), nn.Embedding(3, 4)
            self.heads, self.conv = su.BatchedLinear(2, 4, 1), su.BatchedConv2d(2, 1, 1, 3)
            self.logstd = nn.Parameter(torch.zeros(1, 4))

    net, other = Net(), nn.Sequential(nn.Linear(2, 2))
    weights = su.prunable(net=net, other=other)
    names = ["body.0.weight", "body.4.weight", "heads.weight", "conv.weight"]
    assert list(weights) == [*(f"net.{name}" for name in names), "other.0.weight"]
    # The parameters themselves: an optimizer's state is found by them.
    assert weights["net.body.0.weight"] is net.body[0].weight
    assert weights["net.heads.weight"] is net.heads.weight
    assert weights["other.0.weight"] is other[0].weight


def test_layer_shapes_leave_out_the_run_axis():
    layers = {"a": nn.Conv2d(4, 8, 3), "b": nn.Linear(5, 16), "c": su.BatchedLinear(7, 5, 16)}
    weights = su.prunable(net=nn.ModuleDict(layers | {"d": su.BatchedConv2d(7, 4, 8, 3)}))
    assert list(su.layer_shapes(weights).values()) == [(8, 4, 3, 3), (16, 5), (5, 16), (8, 4, 3, 3)]


@pytest.mark.parametrize("pytorch_axes", [False, True], ids=["tf-axes", "pytorch-axes"])
@pytest.mark.parametrize("case", ERK_CASES, ids=lambda case: f"{case['net']}-{case['sparsity']}")
def test_erk_densities_of_the_papers_networks(case, pytorch_axes):
    """Cases from the authors' procedure, in TensorFlow's (kh, kw, in, out); PyTorch has (out, in, kh, kw)."""
    shapes = {str(i): tuple(reversed(s)) if pytorch_axes else tuple(s) for i, s in enumerate(case["shapes"])}
    densities = su.erk_densities(shapes, case["sparsity"])
    assert list(densities) == list(shapes)
    assert list(densities.values()) == pytest.approx(case["density"], abs=1e-6)


def test_erk_trace_worked_by_hand():
    """Reference facts A.5: at 0.5, fc3 goes dense in the first pass, fc1 in the second."""
    assert len(ERK_CASES) == 20
    densities = su.erk_densities(SAC_ACTOR, 0.5)
    assert densities == {"fc1": 1.0, "fc2": pytest.approx(29056 / 65536), "fc3": 1.0}


def test_erk_power_scale_softens():
    """Reference facts A.5, last line."""
    assert list(su.erk_densities(SAC_ACTOR, 0.9, 0.5).values()) == pytest.approx([0.23464, 0.08281, 0.27671], abs=5e-6)
    assert list(su.erk_densities(SAC_ACTOR, 0.9, 0.0).values()) == pytest.approx([0.100027] * 3, abs=5e-7)


def test_bad_sparsity_is_refused():
    for distribute, sparsity in itertools.product((su.erk_densities, su.uniform_densities), (-0.1, 1.0, math.nan)):
        with pytest.raises(ValueError, match="sparsity"):
            distribute(SAC_ACTOR, sparsity)


LAYER_SHAPES = st.dictionaries(
    st.text("abc", min_size=1),
    st.one_of(
        st.tuples(st.integers(1, 300), st.integers(1, 300)),
        st.tuples(st.integers(1, 64), st.integers(1, 64), st.integers(1, 8), st.integers(1, 8)),
    ),
    min_size=1,
    max_size=6,
)


SPARSITY = st.one_of(st.floats(0, 0.9999), st.sampled_from((0.0, 1e-12, 1e-6, 1e-5, 1e-4, 1e-3, *SPARSITIES)))


@properties
@given(LAYER_SHAPES, SPARSITY, st.sampled_from([0.0, 0.5, 1.0]), st.randoms(use_true_random=False))
def test_erk_reaches_the_sparsity_whatever_the_layers(shapes, sparsity, power_scale, random):
    """As many zeros as floor(S * n) of each layer's n weights give together, also where nearly every layer goes dense;
    axes have no order."""
    densities = su.erk_densities(shapes, sparsity, power_scale)
    assert list(densities) == list(shapes)
    assert all(0 < density <= 1 for density in densities.values())
    size = {name: math.prod(shape) for name, shape in shapes.items()}
    zeros = sum(math.floor(sparsity * n) for n in size.values())
    assert sum((1 - densities[name]) * n for name, n in size.items()) == pytest.approx(zeros, rel=1e-9, abs=1e-6)
    if zeros == 0:
        assert set(densities.values()) == {1.0}
    if power_scale == 0:
        assert max(densities.values()) == pytest.approx(min(densities.values()))
    permuted = {name: tuple(random.sample(shape, len(shape))) for name, shape in shapes.items()}
    assert su.erk_densities(permuted, sparsity, power_scale) == pytest.approx(densities)


@properties
@given(LAYER_SHAPES.filter(lambda shapes: sum(map(math.prod, shapes.values())) < 50_000), SPARSITY, st.booleans())
def test_masks_reach_the_sparsity(shapes, sparsity, erk):
    """From sparsity to masks: floors only ever add weights, one per layer in each of the two steps."""
    if not erk:
        assert su.uniform_densities(shapes, sparsity) == dict.fromkeys(shapes, 1 - sparsity)
    weights = {name: torch.empty(shape) for name, shape in shapes.items()}
    densities = (su.erk_densities if erk else su.uniform_densities)(shapes, sparsity)
    reached = su.sparsity(weights, su.random_masks(weights, densities, rng()))
    total = sum(w.numel() for w in weights.values())
    assert -1e-5 <= (sparsity - reached) * total <= 2 * len(shapes)


# ---- Masks -----------------------------------------------------------------------------------------------------------


MASK_SHAPES = [(7, 9), (1, 1), (10, 1), (256, 17), (8, 4, 3, 3), (2, 23, 16), (5, 6, 1), (3, 4, 2, 3, 3)]


DENSITIES = ["0", "0.01", "0.05", "0.1", "0.2", "0.3", "0.58", "0.7", "0.9", "0.99", "1"]


@pytest.mark.parametrize("shape", MASK_SHAPES, ids=str)
def test_random_masks_have_exact_counts_in_every_slice(shape):
    """floor((1 - density) * n) zeros in exact arithmetic: in floats (1 - 0.9) * 10 would be one too few."""
    weights = {"w": torch.randn(shape, generator=rng())}
    for density in DENSITIES:
        mask = su.random_masks(weights, {"w": float(density)}, rng())["w"]
        assert mask.shape == shape
        assert mask.dtype == weights["w"].dtype
        assert ((mask == 0) | (mask == 1)).all()
        n = slices(mask).shape[1]
        assert ((slices(mask) == 0).sum(1) == math.floor((1 - Fraction(density)) * n)).all()


def test_random_masks_are_random_and_reproducible():
    """And only for the layers asked for."""
    weights = su.prunable(actor=mlp(), qf=mlp(runs=3))
    densities = dict.fromkeys(["actor.2.weight", "qf.2.weight"], 0.5)
    masks, again, other = (su.random_masks(weights, densities, rng(seed)) for seed in (1, 1, 2))
    assert list(masks) == list(densities)
    for name, mask in masks.items():
        assert torch.equal(mask, again[name])
        assert not torch.equal(mask, other[name])
    rows = [masks["actor.2.weight"], *masks["qf.2.weight"]]  # twin critics are independent networks
    assert not any(torch.equal(one, other) for one, other in itertools.combinations(rows, 2))


def test_random_masks_hit_every_place_alike():
    weights, generator = {"w": torch.empty(2, 4, 5)}, rng()
    frequency = sum(su.random_masks(weights, {"w": 0.25}, generator)["w"] for _ in range(2000)) / 2000
    assert (frequency - 0.25).abs().max() < 4.5 * math.sqrt(0.25 * 0.75 / 2000)


def keep_by_sorting(scores: Tensor, k: int) -> list[int]:
    """Indices of the k largest, the lower index first among equals: Python's sort is stable."""
    return sorted(sorted(range(len(scores)), key=lambda i: -scores[i].item())[:k])


@st.composite
def layers(draw) -> tuple[Tensor, Tensor, Tensor]:
    """A weight with ties and exact zeros also where it is active, a mask with its own count in every slice, and a
    gradient with ties."""
    shape = draw(st.sampled_from([(3, 4), (1, 7), (5, 1), (1, 1), (3, 2, 2, 2), (2, 3, 4), (3, 1, 5), (2, 2, 3, 2, 2)]))
    generator = rng(draw(st.integers(0, 2**31)))
    levels = draw(st.sampled_from([1, 3, 1000]))  # with 1 most weights are zero or tied
    mask = (torch.rand(shape, generator=generator) < draw(st.sampled_from([0.0, 0.2, 0.5, 0.9, 1.0]))).float()
    weight, gradient = (torch.randint(-levels, levels + 1, shape, generator=generator) / 4 for _ in range(2))
    return weight * mask, mask, gradient


@properties
@given(layers(), st.floats(0, 1))
def test_magnitude_masks_keep_the_largest(layer, density):
    """Per slice exactly max(1, round(density * n)) weights, those of a sort; ties go to the lower index."""
    weight, mask, _ = layer
    before, mask_before = weight.clone(), mask.clone()
    plain, nested = (su.magnitude_masks({"w": weight}, {"w": density}, m)["w"] for m in (None, {"w": mask}))
    for w, m, new, new_nested in zip(*map(slices, (weight, mask, plain, nested)), strict=True):
        n_keep = max(1, round(density * len(w)))
        assert new.nonzero().flatten().tolist() == keep_by_sorting(w.abs(), n_keep)
        # With masks every active weight, even one that is zero, wins against every inactive one.
        assert new_nested.nonzero().flatten().tolist() == keep_by_sorting(torch.where(m > 0, w.abs(), -1.0), n_keep)
    assert torch.equal(weight, before)
    assert torch.equal(mask, mask_before)


def test_magnitude_masks_worked_by_hand():
    weight = torch.tensor([[0.1, -0.9, 0.3], [0.3, 0.0, -0.3]])
    assert su.magnitude_masks({"w": weight}, {"w": 0.5})["w"].tolist() == [[0, 1, 1], [1, 0, 0]]
    assert su.magnitude_masks({"w": weight}, {"w": 0.0})["w"].tolist() == [[0, 1, 0], [0, 0, 0]]  # one at least
    assert su.magnitude_masks({"w": weight}, {"w": 1.0})["w"].tolist() == [[1, 1, 1], [1, 1, 1]]


def test_apply_masks_and_mask_gradients_touch_only_what_is_masked():
    net = mlp()
    weights = su.prunable(net=net)
    masks = su.random_masks(weights, {"net.0.weight": 0.3, "net.4.weight": 0.6}, rng())
    net(torch.randn(4, 5)).sum().backward()
    before = {name: (p.detach().clone(), p.grad.clone()) for name, p in net.named_parameters()}
    su.apply_masks(weights, masks)
    dense = su.mask_gradients(weights, masks, dense=True)
    assert dense.keys() == masks.keys()
    for name, parameter in net.named_parameters():
        mask = masks.get(f"net.{name}", 1.0)
        assert torch.equal(parameter, before[name][0] * mask)
        assert torch.equal(parameter.grad, before[name][1] * mask)
        assert torch.equal(dense.get(f"net.{name}", before[name][1]), before[name][1])  # RigL's scores
    su.apply_masks(weights, {})  # dense: nothing to do, and no error
    assert su.mask_gradients(weights, {}) == {}


@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
def test_no_gradient_wakes_an_inactive_weight(bad):
    """Multiplied with 0 it would be NaN. Gradients of active weights, tiny ones and -0.0 too, keep their bits."""
    weight = nn.Parameter(torch.tensor([[1.0, 0.0, 2.0], [0.0, 3.0, 4.0]]))
    mask = (weight != 0).float()
    optimizer = torch.optim.Adam([weight], fused=True)
    gradient = torch.tensor([[1e-40, bad, -0.0], [bad, -3e38, 0.1]])
    weight.grad = gradient.clone()
    su.mask_gradients({"w": weight}, {"w": mask})
    active = mask == 1
    assert torch.equal(weight.grad[active].view(torch.int32), gradient[active].view(torch.int32))
    optimizer.step()
    moments = optimizer.state[weight]
    for tensor in (weight.grad, weight, moments["exp_avg"], moments["exp_avg_sq"]):
        assert tensor[~active].tolist() == [0, 0]
    assert weight[1, 2] != 4


def hand_made() -> tuple[nn.Module, nn.Module, dict[str, Tensor], dict[str, Tensor]]:
    """Actor 3-4-2 with 5 of 12 weights of its first layer active, and twin linear critics 3-1 with 2 + 1 of 3 each."""
    actor = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2, bias=False))
    qf = nn.Sequential(su.BatchedLinear(2, 3, 1))
    masks = {
        "actor.0.weight": torch.tensor([[1.0, 0, 0], [1, 1, 0], [0, 0, 0], [0, 1, 1]]),
        "qf.0.weight": torch.tensor([[[1.0], [1], [0]], [[0], [0], [1]]]),
    }
    return actor, qf, su.prunable(actor=actor, qf=qf), masks


def test_sparsity_worked_by_hand():
    """A layer without a mask is dense; masks of other networks do not count."""
    _, _, weights, masks = hand_made()
    assert su.sparsity(weights, masks) == pytest.approx((7 + 3) / (12 + 8 + 6))
    assert su.sparsity(weights, {}) == 0
    layer_sparsity = {"actor.0.weight": 7 / 12, "actor.2.weight": 0, "qf.0.weight": 3 / 6}
    assert su.layer_sparsity(weights, masks) == pytest.approx(layer_sparsity)
    critic = {"qf.0.weight": weights["qf.0.weight"]}
    assert su.sparsity(critic, masks) == 3 / 6
    lines = [line.split() for line in su.describe(weights, masks).splitlines()]
    assert [line[-4:-1] for line in lines[:3]] == [
        ["density", f"{d:.5f}", n] for d, n in ((5 / 12, "5"), (1, "8"), (0.5, "3"))
    ]
    assert [line[0] for line in lines[:3]] == list(weights)
    assert lines[3] == ["all", "density", "0.61538", "16", "of", "26", "weights"]


def test_count_parameters_worked_by_hand():
    """Active weights and all biases (4 of the actor, 1 of each critic) and whatever else is a parameter."""
    actor, qf, _, masks = hand_made()
    assert su.count_parameters({}, actor=actor) == 12 + 4 + 8
    assert su.count_parameters(masks, actor=actor) == 5 + 4 + 8
    assert su.count_parameters(masks, qf=qf) == 3 + 2
    assert su.count_parameters(masks, actor=actor, qf=qf) == 17 + 5
    actor.register_parameter("logstd", nn.Parameter(torch.zeros(2)))
    assert su.count_parameters(masks, actor=actor, qf=qf) == 17 + 5 + 2
    actor, critics = mlp(17, 256, 12), mlp(23, 256, 1, 2)  # reference facts D.3: those of HalfCheetah
    assert su.count_parameters({}, actor=actor, qf=critics) == 73_484 + 144_386


def test_flops_worked_by_hand():
    """m active weights, O outputs: m * P + O multiplications; m * P - O additions and O for the bias, if any."""
    actor, qf, _, masks = hand_made()
    assert su.flops(actor, torch.zeros(1, 3), masks, "actor") == (5 + 4 + 8 + 2, (5 - 4 + 4) + (8 - 2))
    assert su.flops(actor, torch.zeros(1, 3), {}, "actor") == (12 + 4 + 8 + 2, (12 - 4 + 4) + (8 - 2))
    assert su.flops(qf, torch.zeros(2, 1, 3), masks, "qf") == (3 + 2, 3)  # both critics
    conv = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(3))  # 5x5 -> 9 positions, 18 outputs
    mask = torch.ones(2, 1, 3, 3)
    mask[0, 0, :2] = 0
    assert su.flops(conv, torch.zeros(1, 1, 5, 5), {"conv.0.weight": mask}, "conv") == (12 * 9 + 18, 12 * 9)
    assert not conv[0]._forward_hooks  # and leaves nothing behind
    critics = nn.Sequential(su.BatchedConv2d(5, 1, 2, 3))  # the same five times, in one layer
    five = {"qf.0.weight": mask.repeat(5, 1, 1, 1, 1)}
    assert su.flops(critics, torch.zeros(5, 1, 1, 5, 5), five, "qf") == (5 * (12 * 9 + 18), 5 * 12 * 9)


def nature(paddings: tuple[int, int, int], features: int) -> nn.Module:
    convs = zip((4, 32, 64), (32, 64, 64), (8, 4, 3), (4, 2, 1), paddings, strict=True)
    body = [layer for conv in convs for layer in (nn.Conv2d(*conv), nn.ReLU())]
    return nn.Sequential(*body, nn.Flatten(), nn.Linear(features, 512), nn.ReLU(), nn.Linear(512, 6))


def impala() -> nn.Module:
    """Without the additions of its residual blocks, which do not count."""
    body = []
    for n_in, n_out in ((4, 32), (32, 64), (64, 64)):
        body += [nn.Conv2d(n_in, n_out, 3, padding=1), nn.MaxPool2d(3, 2, 1)]
        body += [nn.Conv2d(n_out, n_out, 3, padding=1) for _ in range(4)]
    return nn.Sequential(*body, nn.Flatten(), nn.Linear(7744, 512), nn.ReLU(), nn.Linear(512, 6))


# Reference facts F: millions of multiplications by weights, dense and then ERK / uniform at each of SPARSITIES.
FLOPS = {
    "nature-same": (lambda: nature((2, 2, 1), 7744), 16.01, (5.66, 2.82, 1.40, 0.270), (3.20, 1.60, 0.80, 0.160)),
    "nature-valid": (lambda: nature((0, 0, 0), 3136), 9.35, (3.35, 1.66, 0.817, 0.151), (1.87, 0.93, 0.467, 0.093)),
    "impala": (impala, 208.8, (99.9, 53.8, 29.1, 5.61), (41.8, 20.9, 10.4, 2.09)),
}


@pytest.mark.parametrize("network", FLOPS)
def test_flops_of_the_papers_networks(network):
    make, dense, erk, uniform = FLOPS[network]
    net, frame = make(), torch.zeros(1, 4, 84, 84)
    weights = su.prunable(net=net)
    shapes = su.layer_shapes(weights)
    relu = su.flops(net, frame, {name: torch.zeros(shape) for name, shape in shapes.items()}, "net")[0]
    assert su.flops(net, frame, {}, "net")[0] - relu == pytest.approx(dense * 1e6, rel=0.01)
    for distribute, expected in ((su.erk_densities, erk), (su.uniform_densities, uniform)):
        for sparsity, millions in zip(SPARSITIES, expected, strict=True):
            masks = su.random_masks(weights, distribute(shapes, sparsity), rng())
            assert su.flops(net, frame, masks, "net")[0] - relu == pytest.approx(millions * 1e6, rel=0.01)
    if network == "nature-same":  # what the table leaves out: a multiplication for each output of each layer
        assert relu == 32 * 21 * 21 + 2 * 64 * 11 * 11 + 512 + 6


# ---- Sparse training: initialisation and schedules -------------------------------------------------------------------


def limits_by_loop(mask: Tensor, layout: str) -> Tensor:
    """Reference facts D.5, one weight after the other; a mask of one network, laid out [out, in, ...] or [in, out]."""
    mask = (mask.T if layout == "in-out" else mask)[:, :, None].flatten(2)  # [out, in, kernel positions]
    limits = torch.zeros_like(mask)
    n_out, n_in, n_kernel = mask.shape
    for j, i, k in itertools.product(range(n_out), range(n_in), range(n_kernel)):
        fan_in = sum(mask[j, a, b].item() for a in range(n_in) for b in range(n_kernel))
        fan_out = sum(mask[a, i, b].item() for a in range(n_out) for b in range(n_kernel))
        limits[j, i, k] = math.sqrt(3 / max(1, (fan_in + fan_out) / 2))
    return limits


@pytest.mark.parametrize(
    "shape, layout",
    [((4, 6), "out-in"), ((3, 2, 2, 2), "out-in"), ((3, 4, 5), "in-out"), ((2, 3, 2, 2, 2), "out-in")],
    ids=["linear", "conv", "batched", "batched-conv"],
)
@pytest.mark.parametrize("density", [0.4, 1])
def test_sparse_init_limits_by_active_fans(shape, layout, density):
    """The largest of 300 draws of U(-limit, limit) is within 5% of its limit and never beyond, and their variance is
    limit^2 / 3. Without a mask this is Glorot's."""
    generator = rng(3)
    mask = (torch.rand(shape, generator=generator) < density).float()
    weights = {"w": torch.empty(shape)}
    draws = []
    for _ in range(300):
        su.sparse_init_(weights, {"w": mask} if density < 1 else {}, generator)
        draws.append(weights["w"].clone())
    draws = torch.stack(draws)
    largest, mean, squares = draws.abs().amax(0), draws.mean(0), draws.square().mean(0)
    assert (largest[mask == 0] == 0).all()
    has_run_axis = len(shape) % 2 == 1
    for r in range(shape[0] if has_run_axis else 1):
        one, top, middle, square = (t[r] if has_run_axis else t for t in (mask, largest, mean, squares))
        limits = limits_by_loop(one, layout)
        limits = limits[:, :, 0].T if layout == "in-out" else limits.view_as(one)
        active = one == 1
        assert (top[active] <= limits[active] * (1 + 1e-6)).all()
        assert (top[active] > 0.95 * limits[active]).all()
        assert (middle.abs() < 0.2 * limits)[active].all()
        assert (square / limits**2)[active].mean().item() == pytest.approx(1 / 3, rel=0.05)


def test_sparse_init_is_reproducible_and_leaves_biases():
    """An input or a unit that is cut off altogether gives no division by zero."""
    mask, nets = torch.zeros(16, 5), [mlp(), mlp(), mlp()]
    mask[1, 2] = 1
    for net, seed in zip(nets, (1, 1, 2), strict=True):
        bias = net[0].bias.detach().clone()
        su.sparse_init_(su.prunable(net=net), {"net.0.weight": mask}, rng(seed))
        assert torch.equal(net[0].bias, bias)
        assert net[0].weight.nonzero().tolist() == [[1, 2]]
        assert net[0].weight[1, 2].abs() <= math.sqrt(3)
    assert torch.equal(nets[0][2].weight, nets[1][2].weight)
    assert not torch.equal(nets[0][2].weight, nets[2][2].weight)


def test_schedules():
    """Reference facts B.5, the cosine at 0, 1/4, 1/2, 3/4 of the way, at the end and after it; C.1, the cubic at the
    same, flat before and after."""
    for initial, start in ((0.5, [0.5, 0.426777, 0.25, 0.073223]), (0.3, [0.3, 0.256066, 0.15, 0.043934])):
        values = [su.cosine_fraction(step, 800_000, initial) for step in range(0, 1_000_001, 200_000)]
        assert values[:4] == pytest.approx(start, abs=1e-6)
        assert values[4:] == [0, 0]  # exactly: rewiring stops
    values = [su.cubic_sparsity(step, 200, 600, 0.9) for step in (0, 199, 200, 300, 400, 500, 600, 601, 10**6)]
    assert values == pytest.approx([0, 0, 0, 0.520313, 0.7875, 0.885938, 0.9, 0.9, 0.9], abs=1e-6)
    assert values[:3] == [0, 0, 0]
    assert values[6:] == [0.9] * 3
    assert su.cubic_sparsity(150, 100, 200, 0.9, initial=0.5) == pytest.approx(0.9 - 0.4 / 8)


# ---- Sparse training: rewiring ---------------------------------------------------------------------------------------


@dataclass
class Layer:
    """A weight in mid-training: mask, Adam's moments (never zero where it is active), target network."""

    weight: nn.Parameter
    mask: Tensor
    optimizer: torch.optim.Adam
    target: Tensor

    @classmethod
    def make(cls, weight: Tensor, mask: Tensor) -> "Layer":
        parameter = nn.Parameter(weight.clone())
        optimizer = torch.optim.Adam([parameter])
        moments = {"exp_avg": 2 * mask, "exp_avg_sq": 3 * mask}
        optimizer.state[parameter] = {"step": torch.tensor(7.0), **moments}
        return cls(parameter, mask.clone(), optimizer, 4 * mask)

    def rewire(self, fraction: float, gradient: Tensor | None = None, seed: int = 0) -> float:
        gradients = None if gradient is None else {"w": gradient}
        optimizers, targets = (self.optimizer,), {"w": self.target}
        weights, masks = {"w": self.weight}, {"w": self.mask}
        return su.rewire(weights, masks, fraction, optimizers, targets, gradients, rng(seed)).item()

    def moments(self) -> tuple[Tensor, Tensor]:
        state = self.optimizer.state[self.weight]
        assert state["step"] == 7  # never touched
        return state["exp_avg"], state["exp_avg_sq"]


def rewire_by_sorting(weight: Tensor, mask: Tensor, fraction: float, score: Tensor) -> tuple[set[int], set[int]]:
    """Reference facts B.1 for one network: the set that is kept and the set that is active afterwards."""
    active = [i for i in range(len(mask)) if mask[i] == 1]
    n_drop = int(fraction * len(active))
    largest_first = sorted(active, key=lambda i: (-abs(weight[i].item()), i))
    kept = set(largest_first[: len(active) - n_drop])
    candidates = sorted(set(range(len(mask))) - kept, key=lambda i: (-abs(score[i].item()), i))
    return kept, kept | set(candidates[:n_drop])


def check_rewired(layer: Layer, old_weight: Tensor, old_mask: Tensor, turnover: float) -> None:
    """What every rewiring must leave behind, SET or RigL, whichever connections it chose."""
    assert ((layer.mask == 0) | (layer.mask == 1)).all()
    assert torch.equal(slices(layer.mask).sum(1), slices(old_mask).sum(1))
    both = (old_mask == 1) & (layer.mask == 1)  # kept, or dropped and grown again
    changed = old_mask != layer.mask
    for tensor, old in ((layer.weight, old_weight), (layer.target, 4 * old_mask)):
        assert torch.equal(tensor[both], old[both])
        assert (tensor[~both] == 0).all()
    for moment, old in zip(layer.moments(), (2 * old_mask, 3 * old_mask), strict=True):
        assert torch.equal(moment[both], old[both])
        assert (moment[changed] == 0).all()
        assert (moment[~both] == 0).all()
    assert turnover == pytest.approx(((layer.mask == 1) & (old_mask == 0)).sum().item() / max(old_mask.sum().item(), 1))


def test_rewire_worked_example():
    """Reference facts B.8: 1 is dropped and grown again, 3 is dropped, 4 is new."""
    signs = torch.tensor([1.0, -1, -1, 1, 1, 1])
    weight = (torch.tensor([0.5, 0.1, 0.3, 0.2, 0, 0]) * signs).view(2, 3)
    mask = torch.tensor([1.0, 1, 1, 1, 0, 0]).view(2, 3)
    gradient = (torch.tensor([0.1, 0.9, 0.2, 0.05, 0.4, 0.3]) * -signs).view(2, 3)
    layer = Layer.make(weight, mask)
    assert layer.rewire(0.5, gradient) == 1 / 4
    assert layer.mask.flatten().tolist() == [1, 1, 1, 0, 1, 0]
    torch.testing.assert_close(layer.weight.detach().flatten(), torch.tensor([0.5, -0.1, -0.3, 0, 0, 0]))
    assert layer.moments()[0].flatten().tolist() == [2, 2, 2, 0, 0, 0]
    assert layer.moments()[1].flatten().tolist() == [3, 3, 3, 0, 0, 0]
    assert layer.target.flatten().tolist() == [4, 4, 4, 0, 0, 0]


FRACTIONS = st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.3, 0.5, 1.0]))


@properties
@given(layers(), FRACTIONS)
def test_rigl_against_sorting(problem, fraction):
    """Exactly the connections that two sorts per network choose, with ties everywhere and active weights at zero."""
    weight, mask, gradient = problem
    layer, before = Layer.make(weight, mask), gradient.clone()
    turnover = layer.rewire(fraction, gradient)
    for w, m, g, new in zip(*map(slices, (weight, mask, gradient, layer.mask)), strict=True):
        assert set(new.nonzero().flatten().tolist()) == rewire_by_sorting(w, m, fraction, g)[1]
    check_rewired(layer, weight, mask, turnover)
    assert torch.equal(gradient, before)


@properties
@given(layers(), FRACTIONS, st.integers(0, 2**31))
def test_set_keeps_the_largest_and_grows_at_random(problem, fraction, seed):
    weight, mask, _ = problem
    layer, again = Layer.make(weight, mask), Layer.make(weight, mask)
    turnover = layer.rewire(fraction, seed=seed)
    for w, m, new in zip(*map(slices, (weight, mask, layer.mask)), strict=True):
        kept, _ = rewire_by_sorting(w, m, fraction, w)
        assert kept <= set(new.nonzero().flatten().tolist())
    check_rewired(layer, weight, mask, turnover)
    assert again.rewire(fraction, seed=seed) == turnover
    assert torch.equal(again.mask, layer.mask)


def test_set_grows_everywhere_alike():
    """Of 16 weights the 8 largest are active and half of those dropped: 12 candidates for 4 places."""
    weight, mask = torch.zeros(2, 4, 4), torch.zeros(2, 4, 4)
    weight[:, :2], mask[:, :2] = torch.arange(1.0, 9).view(2, 4), 1
    grown = torch.zeros_like(mask)
    for seed in range(1500):
        layer = Layer.make(weight, mask)
        layer.rewire(0.5, seed=seed)
        grown += layer.mask
    assert (grown[:, 1] == 1500).all()  # 5 to 8 are always kept
    frequency = grown[:, [0, 2, 3]] / 1500
    assert (frequency - 1 / 3).abs().max() < 4.5 * math.sqrt(2 / 9 / 1500)


def test_set_differs_between_slices_and_seeds():
    weight = torch.randn(1, 20, 20, generator=rng()).repeat(2, 1, 1)  # twin critics that are equal
    mask = (torch.rand(1, 20, 20, generator=rng(1)) < 0.3).float().repeat(2, 1, 1)
    layer, other = Layer.make(weight * mask, mask), Layer.make(weight * mask, mask)
    layer.rewire(0.5, seed=1)
    other.rewire(0.5, seed=2)
    assert not torch.equal(layer.mask[0], layer.mask[1])
    assert not torch.equal(layer.mask, other.mask)


def test_rewire_turnover_over_layers():
    """One number for all layers: 2 new of 4 active connections here, 0 of 6 there."""
    weights = {"a": torch.tensor([[4.0, 3, 2, 1, 0, 0]]), "b": torch.ones(2, 3)}
    masks = {"a": (weights["a"] > 0).float(), "b": torch.ones(2, 3)}
    gradients = {"a": torch.tensor([[0.0, 0, 0, 0, 1, 1]]), "b": torch.ones(2, 3)}
    assert su.rewire(weights, masks, 0.5, gradients=gradients) == 2 / 10
    assert masks["a"].tolist() == [[1, 1, 0, 0, 1, 1]]
    assert su.rewire(weights, {}, 0.5) == 0  # dense


@pytest.mark.parametrize("fraction", [0.0, 0.5, 1.0])
def test_nan_is_refused_before_anything_changes(fraction):
    """In a weight or a gradient of the second layer: the first one must not be rewired then."""
    good, bad = torch.tensor([[2.0, 1, 0]]), torch.tensor([[math.nan, 1, 0]])
    mask, gradient, nan = torch.tensor([[1.0, 1, 0]]), torch.tensor([[0.0, 0, 1]]), torch.tensor([[0.0, 1, math.nan]])
    for second, scores in ((bad, None), (bad, gradient), (good, nan)):
        weights = {"a": good.clone(), "b": second.clone()}
        masks = {name: mask.clone() for name in weights}
        with pytest.raises(FloatingPointError, match="NaN"):
            su.rewire(weights, masks, fraction, gradients=scores if scores is None else {"a": gradient, "b": scores})
        assert torch.equal(weights["a"], good) and torch.equal(masks["a"], mask)
    with pytest.raises(FloatingPointError, match="NaN"):
        su.magnitude_masks({"b": bad}, {"b": 0.5})


def test_set_masks_clears_what_is_dropped_and_what_is_grown():
    """Also where an inactive entry was not zero, as in a network that was trained without masking its gradients."""
    old, new = torch.tensor([[1.0, 1, 0, 0]]), torch.tensor([[1.0, 0, 1, 0]])
    layer = Layer.make(torch.full((1, 4), 5.0), torch.ones(1, 4))  # all of weight, moments and target are nonzero
    masks = {"w": old}
    su.set_masks({"w": layer.weight}, masks, {"w": new}, [layer.optimizer], {"w": layer.target})
    assert masks["w"] is old  # changed in place: the caller has parts of it in other dicts
    assert torch.equal(old, new)
    for tensor, value in zip((layer.weight, *layer.moments(), layer.target), (5, 2, 3, 4), strict=True):
        assert tensor[0, :3].tolist() == [value, 0, 0]


def test_set_masks_before_the_first_optimizer_step():
    """RigL rewires at step 0 too: an optimizer without state, or one without moments, is no error."""
    weight = nn.Parameter(torch.ones(2, 2))
    optimizers = [torch.optim.Adam([weight]), torch.optim.SGD([weight], lr=0.1)]
    su.set_masks({"w": weight}, {"w": torch.ones(2, 2)}, {"w": torch.eye(2)}, optimizers)
    assert weight.tolist() == [[1, 0], [0, 1]]


# ---- The invariant ---------------------------------------------------------------------------------------------------


OPTIMIZERS = {
    "adam": lambda groups: torch.optim.Adam(groups, lr=1e-2, fused=True),
    "sgd": lambda groups: torch.optim.SGD(groups, lr=1e-2, momentum=0.9),
}


def train(parts: dict[str, Any], masks: su.Masks, method: str, t: int, densities: dict[str, float]) -> float:
    """Step t of an actor and twin critics with a target network, on random data, as in sac_rigl.py. Returns the
    turnover."""
    net, target, optimizer, data = parts["net"], parts["target"], parts["optimizer"], rng(1000 + t)
    weights, targets = su.prunable(**net), su.prunable(qf=target)
    x = torch.randn(8, 5, generator=data)
    outputs = net["actor"](x), net["qf"](x.expand(2, -1, -1))
    optimizer.zero_grad()
    sum((out - torch.randn(8, 1, generator=data)).square().mean() for out in outputs).backward()
    scores = su.mask_gradients(weights, masks, dense=True)
    optimizer.step()
    with torch.no_grad():
        torch._foreach_lerp_(list(target.parameters()), list(net["qf"].parameters()), 0.05)
    if t % 20 == 0 and method in ("set", "rigl"):
        growth = scores if method == "rigl" else None
        return su.rewire(weights, masks, 0.5, [optimizer], targets, growth, data).item()
    if t % 20 == 0 and method == "prune":
        now = {name: 1 - su.cubic_sparsity(t, 40, 120, 1 - density) for name, density in densities.items()}
        su.set_masks(weights, masks, su.magnitude_masks(weights, now, masks), [optimizer], targets)
    return 0.0


@pytest.mark.rounding
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("method", ["static", "set", "rigl", "prune"])
def test_inactive_entries_stay_exactly_zero(method, optimizer, tmp_path):
    """Those of weights, moments and target network, after each of 160 steps, with weight decay and momentum; also from
    a checkpoint of the states in the middle, saved at the end, which goes on exactly like the original."""

    def make() -> tuple[dict[str, Any], su.Masks, dict[str, float]]:
        torch.manual_seed(0)
        net = nn.ModuleDict({"actor": mlp(5, 16, 4), "qf": mlp(5, 16, 1, runs=2)})
        weights = su.prunable(**net)
        densities = su.erk_densities(su.layer_shapes(weights), 0.7)
        start = dict.fromkeys(densities, 1.0) if method == "prune" else densities
        masks = su.random_masks(weights, start, rng())
        su.sparse_init_(weights, masks, rng())
        biases = [p for name, p in net.named_parameters() if "bias" in name]
        groups = [{"params": list(weights.values()), "weight_decay": 1e-2}, {"params": biases}]
        target = copy.deepcopy(net["qf"]).requires_grad_(False)
        return {"net": net, "target": target, "optimizer": OPTIMIZERS[optimizer](groups)}, masks, densities

    (parts, masks, densities), (others, *_), turnover = make(), make(), 0.0
    weights, targets = su.prunable(**parts["net"]), su.prunable(qf=parts["target"])
    counts = {name: slices(mask).sum(1) for name, mask in masks.items()}
    for t in range(160):
        if t == 90:  # not a rewiring step
            state = {**su.get_states(parts), "masks": copy.deepcopy(masks)}
        turnover += train(parts, masks, method, t, densities)
        for name, mask in masks.items():
            moments = parts["optimizer"].state[weights[name]].values()
            entries = [weights[name], *(moment for moment in moments if moment.dim()), targets.get(name, mask)]
            assert len(entries) == (4 if optimizer == "adam" else 3)
            assert all((entry[mask == 0] == 0).all() for entry in entries), (t, name)
            assert method == "prune" or torch.equal(slices(mask).sum(1), counts[name])
    assert 0.6 < su.sparsity(weights, masks) < 0.7 + 1e-6
    assert (turnover > 0) == (method in ("set", "rigl"))
    assert (weights["actor.2.weight"] != 0).any()
    su.save_checkpoint(tmp_path / "a.pt", state)
    saved = su.load_checkpoint(tmp_path / "a.pt")
    su.set_states(others, saved)
    for t in range(90, 160):
        train(others, saved["masks"], method, t, densities)
    for part in ("net", "target"):
        pairs = zip(parts[part].parameters(), others[part].parameters(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.rounding
def test_gradients_are_clipped_for_each_run():
    """Over all tensors, those that are packed [R, n] too, and to the same bits with and without neighbours."""
    gradients = [torch.full((2, 2, 3), 1.0), torch.full((2, 3), 1.0), torch.zeros(2, 2, 1, 3, 3)]
    for g in gradients:
        g[1] *= 0.01
    su.clip_run_gradients(gradients, 0.5)
    norms = torch.cat([g.flatten(1) for g in gradients], 1).norm(dim=1)
    torch.testing.assert_close(norms, torch.tensor([0.5, 0.03]), rtol=1e-4, atol=0)
    gradients = [torch.randn(5, *shape, generator=rng()) for shape in ((17, 64), (97, 128), (301,), (7, 3, 3, 3))]
    alone = [[g[r : r + 1].clone() for g in gradients] for r in range(5)]
    su.clip_run_gradients(gradients, 0.5)
    for r, of_run in enumerate(alone):
        su.clip_run_gradients(of_run, 0.5)
        assert all(torch.equal(g[r], one[0]) for g, one in zip(gradients, of_run, strict=True))


# ---- Analysis --------------------------------------------------------------------------------------------------------


def test_dormant_units_worked_example():
    """Definition 3.1 of Sokar et al. 2023. The mean |activations| of the first layer are 0, 0.1, 3.9 and 4: the mean
    over units is 2, so with tau 0.025 what is at most 0.05 is dormant, with 0.06 what is at most 0.12."""
    first = torch.tensor([[0.0, 0.1, -3.9, 8.0], [0.0, -0.1, 3.9, 0.0]])
    second = torch.tensor([[0.0, 1.0], [0.0, 3.0]])
    assert [round(su.dormant_fraction([first, second], tau).item() * 6, 3) for tau in (0, 0.025, 0.06)] == [2, 2, 3]
    units = su.describe_units([first, second])
    assert [round(float(units[name] * 6), 3) for name in ("dead", "dormant")] == [2, 2] and units["rank"] == 1
    runs = [torch.stack([first, 0 * first]), torch.stack([second, 0 * second])]
    torch.testing.assert_close(su.dormant_fraction(runs, 0.06), torch.tensor([0.5, 1.0]))


def test_effective_rank_is_that_of_the_singular_values():
    """Section 3 of Kumar et al. 2021: values of 90, 9 and 1 need two of them for 99%, and three for more."""
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.linalg.qr(torch.randn(n, 3, generator=generator))[0] for n in (20, 5))
    features = left @ torch.diag(torch.tensor([90.0, 9.0, 1.0])) @ right.T
    stacked = torch.stack([features, torch.zeros(20, 5), torch.ones(20, 5)])
    assert su.effective_rank(stacked, 0.02).tolist() == [2, 0, 1]
    assert su.effective_rank(features, 0.005).item() == 3


def test_rewire_gives_the_turnover_of_each_run():
    """Over both layers: 3 of 4 connections are new in the first run, none in the second, whose gradients grow again
    what was dropped."""
    masks = {"a": torch.tensor([[[1.0, 1, 0, 0]]]).repeat(2, 1, 1), "b": torch.tensor([[[1.0, 1, 0]]]).repeat(2, 1, 1)}
    gradients = {
        "a": torch.tensor([[[0.0, 0, 1, 2]], [[2, 1, 0, 0]]]),
        "b": torch.tensor([[[0.0, 1, 2]], [[1, 2, 0]]]),
    }
    for runs, expected in ((2, [3 / 4, 0]), (1, [3 / 8])):
        weights, now = {n: m.clone() for n, m in masks.items()}, {n: m.clone() for n, m in masks.items()}
        assert su.rewire(weights, now, 1.0, gradients=gradients, runs=runs).tolist() == expected
    assert su.rewire({}, {}, 1.0, runs=2).tolist() == [0, 0]  # dense


def test_a_generator_for_each_run_makes_it_independent_of_its_neighbours():
    def make(seeds: list[int]) -> tuple[su.Masks, dict[str, torch.Tensor]]:
        net = su.BatchedLinear(len(seeds), 7, 9)
        weights = {"net.weight": net.weight}
        masks = su.random_masks(weights, {"net.weight": 0.4}, su.generators(seeds, 0))
        su.sparse_init_(weights, masks, su.generators(seeds, 1))
        su.rewire(weights, masks, 0.5, generator=su.generators(seeds, 2))
        return masks, weights

    (masks, weights), (alone, its_weights) = make([4, 5, 6]), make([6])
    for together, one in ((masks, alone), (weights, its_weights)):
        assert torch.equal(together["net.weight"][2:], one["net.weight"])
    assert not torch.equal(masks["net.weight"][0], masks["net.weight"][1])


def test_small_width_is_the_nearest_count_of_parameters():
    assert su.mlp_size(17, 256, 256, 12) == (256 * (17 + 256 + 12), 256 + 256 + 12)
    width = su.small_width(17, 12, 23_190)
    sizes = {w: abs(sum(su.mlp_size(17, w, w, 12)) - 23_190) for w in (width - 1, width, width + 1)}
    assert min(sizes, key=sizes.get) == width


@pytest.mark.rounding
@pytest.mark.parametrize("chunk_size", [1, 4, 10, 64])
def test_signal_to_noise_against_single_examples(chunk_size):
    """Reference facts E, one backward pass per example, in float64; 10 examples are not a multiple of 4."""
    torch.manual_seed(0)
    net = mlp(4, 6, 2).double()
    su.apply_masks(weights := su.prunable(net=net), su.random_masks(weights, dict.fromkeys(weights, 0.5), rng()))
    x, y = torch.randn(10, 4, dtype=torch.float64), torch.randn(10, 2, dtype=torch.float64)

    def loss(parameters: dict[str, Tensor], x_i: Tensor, y_i: Tensor) -> Tensor:
        return (functional_call(net, parameters, x_i[None])[0] - y_i).square().sum()

    rows = []
    for i in range(10):
        net.zero_grad()
        (net(x[i : i + 1])[0] - y[i]).square().sum().backward()
        rows.append(np.concatenate([p.grad.numpy().ravel() for p in net.parameters()]))
    net.zero_grad()
    gradients = np.stack(rows)
    expected = np.mean(np.abs(gradients.mean(0)) / (gradients.std(0) + 1e-10))
    measured = su.signal_to_noise(loss, dict(net.named_parameters()), x, y, chunk_size=chunk_size)
    assert measured == pytest.approx(expected, rel=1e-9)
    assert all(p.grad is None for p in net.parameters())  # measuring leaves the training alone


def test_signal_to_noise_worked_by_hand():
    """d(w * x)/dw = x: examples 1 and 3 have mean 2 and standard deviation 1, the other parameter gets no gradient. One
    example alone has no noise."""
    parameters = {"w": torch.tensor(5.0), "unused": torch.zeros(3)}

    def loss(p: dict[str, Tensor], x: Tensor) -> Tensor:
        return p["w"] * x + 0 * p["unused"].sum()

    assert su.signal_to_noise(loss, parameters, torch.tensor([1.0, 3.0])) == pytest.approx(2 / 4)
    assert math.isnan(su.signal_to_noise(loss, parameters, torch.tensor([1.0])))


# ---- Run folders -----------------------------------------------------------------------------------------------------

FLAGS = {"env_id": "Hopper-v5", "seed": 1, "learning_rate": 3e-4, "sparsity": None, "sizes": (1, 2, 3)}
FLAGS |= dict.fromkeys(sorted(su.FREE_FLAGS - {"rounds"}))
Args = make_dataclass("Args", [(name, Any, value) for name, value in FLAGS.items()])
TicketArgs = make_dataclass("TicketArgs", [("seeds", Any, (1, 2)), ("rounds", Any, 3)], bases=(Args,))
FREE = dict.fromkeys(su.FREE_FLAGS - {"rounds", "run_dir", "fresh"}, 7)  # other values of flags that change nothing


@pytest.fixture
def start(monkeypatch):
    """``su.start_run`` as a process of its own: its lock goes when it ends. Returns the folder, and ``checkpoint`` is
    what was in that. Weights & Biases seems to be there."""
    monkeypatch.setattr(su, "find_spec", str)

    def start_run(args: Any, folder: Path | str, script: str = "sac", reads: tuple[Path, ...] = ()) -> Path:
        try:
            there, start_run.checkpoint = su.start_run(replace(args, run_dir=str(folder)), script, "rigl-0.9", reads)
            return there
        finally:
            while su._locks:
                su._locks.pop().release()

    return start_run


def refused(capsys, function: Callable, *args: Any) -> str:
    """The line with which ``function`` ends the program."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        function(*args)
    message = capsys.readouterr().err
    assert end.value.code == 2 and message.startswith("error: ") and message.count("\n") == 1
    return message


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def config_of(folder: Path) -> dict:
    return json.loads((folder / "config.json").read_text())


def save_step(folder: Path, args: Any, finished: bool = False) -> None:
    su.save_checkpoint(folder / "checkpoint.pt", {"args": asdict(args), "finished": finished, "step": 5})


def python(program: str, *args: Any) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", program, *map(str, args)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)


def killed(*_) -> None:
    raise KeyboardInterrupt


def test_seeds_follow_from_their_key():
    """The same key gives the same seeds, any other key others, and gymnasium takes them. numpy's SeedSequence fills its
    entropy up with zeros, so that (1,) and (1, 0) are the same to it."""
    assert su.seeds(1, 500, n=3) == su.seeds(1, 500, n=3) and len(su.seeds(3)) == 1
    assert all(type(seed) is int and 0 <= seed < 2**32 for seed in su.seeds(7, n=50))
    keys = [(1,), (1, 0), (2,), (0, 1), (1, 1), (1, 2), (500, 1), (1, 500), (0, 1, 1)]
    assert len({seed for key in keys for seed in su.seeds(*key, n=4)}) == 4 * len(keys)


def test_the_default_folder_says_what_the_run_is(tmp_path, monkeypatch, start):
    """Whatever cannot change the results does not change the name, and it is safe as one."""
    monkeypatch.chdir(tmp_path)
    args = TicketArgs(env_id="Walker2d-v5")
    name = start(args, "").as_posix()
    assert re.fullmatch(r"runs/Walker2d-v5__sac__rigl-0\.9__2seeds__[0-9a-f]{8}", name)
    assert start(replace(args, **FREE, fresh=True, rounds=9), "").as_posix() == name
    changes = [{"env_id": "Ant-v5"}, {"seeds": (1, 3)}, {"learning_rate": 1e-3}, {"sparsity": 0.5}]
    others = {start(replace(args, **change), "").as_posix() for change in changes}
    assert len(others | {name, start(args, "", "dqn").as_posix()}) == 6
    name = start(Args(env_id="../ALE\\Pong:v5 *?|<g>\n\0", seed=7), "").as_posix()
    assert re.fullmatch(r"runs/[A-Za-z0-9._-]+__7__[0-9a-f]{8}", name)
    assert su.identity(asdict(args)) == su.identity(asdict(replace(args, seed=9)))  # of --evaluate
    assert su.identity(asdict(Args())) != su.identity(asdict(Args(seed=9)))


def test_start_run_begins_and_goes_on(start, tmp_path, capsys):
    """In a new folder or an empty one, whatever the free flags; what it was begun with stays."""
    folder = tmp_path / "runs" / "one"
    folder.mkdir(parents=True)
    for where in (tmp_path / "new" / "one", folder):
        assert start(Args(), where) == where and capsys.readouterr().out == f"writing to {where}\n"
        assert {file.name for file in where.iterdir()} <= {"config.json", ".lock"}
    config = config_of(folder)
    assert config["args"] == {**FLAGS, "run_dir": str(folder), "sizes": [1, 2, 3]}
    assert config["command"] == sys.argv and config["torch"] == torch.__version__
    assert {"python", "machine", "commit", "numpy", "gymnasium"} <= config.keys()
    assert start.checkpoint is None
    start(Args(threads=2), folder)  # killed before its first checkpoint
    saved = {"args": asdict(Args()), "finished": False, "results": [{"step": 1, "x": 0.5}], "rng": (1, None)}
    su.save_checkpoint(folder / "checkpoint.pt", saved | {"w": torch.arange(3.0)})
    assert start(Args(**FREE), folder) == folder
    assert capsys.readouterr().out == 2 * f"going on in {folder}\n"
    assert torch.equal(start.checkpoint.pop("w"), torch.arange(3.0)) and start.checkpoint == saved
    now = config_of(folder)
    first, second = now.pop("resumed")
    assert now == {name: value for name, value in config.items() if name != "resumed"}
    assert [first["args"]["threads"], second["args"]["threads"]] == [2, 7]
    assert second["command"] == sys.argv and "commit" in second


def test_a_finished_run_is_left_alone(start, tmp_path, capsys):
    """A run of tickets is finished by its results, unless more rounds are asked for; of one weight there are none."""
    start(Args(), tmp_path / "sac")
    save_step(tmp_path / "sac", Args(), finished=True)
    runs = [(Args(threads=9), tmp_path / "sac", True)]
    for last, remaining, rounds, finished in ((2, 9, 3, False), (3, 9, 3, True), (3, 9, 4, False), (2, 1, 9, True)):
        runs.append((TicketArgs(rounds=rounds), tmp_path / f"{last}{remaining}{rounds}", finished))
        start(*runs[-1][:2])
        su.write_csv(runs[-1][1] / "results.csv", [{"round": r, "remaining": remaining} for r in range(last + 1)])
    for args, folder, finished in runs:
        before = contents(folder)
        if finished:
            with pytest.raises(SystemExit) as end:
                start(args, folder)
            assert end.value.code == 0 and contents(folder) == before
            assert "is finished" in capsys.readouterr().out.splitlines()[-1]
        else:
            assert start(args, folder) == folder


FOREIGN = {
    "file": {"thesis.tex": "years of work"},
    "folder": {"data/a/b.txt": "1"},
    "checkpoint": {"checkpoint.pt": "of something else"},
    "other-config": {"config.json": '{"model_type": "bert"}', "model.bin": "weights"},
    "list-config": {"config.json": "[1, 2]", "model.bin": "weights"},
    "no-json-config": {"config.json": "{ not json", "model.bin": "weights"},
}


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("files", FOREIGN.values(), ids=FOREIGN)
def test_start_run_refuses_a_foreign_folder(start, tmp_path, capsys, files, fresh):
    """A mistyped --run-dir must cost nothing, above all not with --fresh; many tools have a config.json."""
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text(text)
    before = contents(tmp_path)
    try:
        assert str(tmp_path) in refused(capsys, start, Args(fresh=fresh), tmp_path)
    finally:
        assert contents(tmp_path) == before


def test_what_belongs_to_another_run_is_refused(start, tmp_path, capsys):
    """A config.json of another script or format, a checkpoint of another run, one that is damaged or none, a file that
    the run reads with other contents: each gets one line, and but for the first --fresh starts over."""
    file, teacher = tmp_path / "run/checkpoint.pt", tmp_path / "teacher.pt"
    teacher.write_text("of then")

    def edit(**changes: Any) -> None:
        (tmp_path / "run/config.json").write_text(json.dumps({**config_of(tmp_path / "run"), **changes}))

    other = Args(learning_rate=0.125, sparsity=0.75, threads=5)
    cases = {
        "(--learning-rate 0.125 there, 0.0003 now; --sparsity 0.75 there, None now)": lambda: start(
            replace(other, fresh=True), file.parent
        ),
        "holds a run of another version of sac.py: ": lambda: edit(format=1),
        "checkpoint.pt is not that of the run in this folder; ": lambda: save_step(file.parent, Args(seed=2)),
        "pt is not that of the run": lambda: su.save_checkpoint(file, {"finished": True, "step": 3}),  # before FORMAT 2
        "pt is not that of the run in": lambda: su.save_checkpoint(file, [1, 2]),
        "cannot read ": lambda: file.write_bytes(b"PK\3\4 and no more"),
        "as a checkpoint: it is damaged, or another program's": lambda: torch.save(Fraction(1, 2), file),
        "teacher.pt has changed since the run in ": lambda: teacher.write_text("of now"),
    }
    for message, change in cases.items():
        start(Args(fresh=True), file.parent, reads=(teacher,))
        assert {file.name for file in file.parent.iterdir()} <= {"config.json", ".lock"}
        (file.parent / "videos").mkdir()
        save_step(file.parent, Args())
        change()
        before = contents(tmp_path)
        assert message in refused(capsys, start, Args(), file.parent, "sac", (teacher,))
        assert contents(tmp_path) == before
    edit(script="dqn_imp")  # hours of another script's work: not even with --fresh
    before = contents(tmp_path)
    for fresh in (False, True):
        err = refused(capsys, start, Args(fresh=fresh), file.parent, "sac", (teacher,))
        assert "holds a run of dqn_imp.py, so choose another --run-dir" in err
    assert contents(tmp_path) == before


def test_start_run_survives_a_kill_while_it_starts(start, tmp_path, monkeypatch):
    """Killed between writing config.json's temporary file and renaming it: the same command starts the run."""
    with monkeypatch.context() as patch:
        patch.setattr(su.os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            start(Args(), tmp_path / "run")
    start(Args(), tmp_path / "run")
    assert config_of(tmp_path / "run")["args"]["env_id"] == "Hopper-v5"


@pytest.mark.parametrize("below", ["file", "file/run", "file/runs/run"])
def test_start_run_where_no_folder_can_be(start, tmp_path, capsys, below):
    """One line instead of a traceback, and the file in the way is left alone."""
    (tmp_path / "file").write_text("mine")
    assert str(tmp_path / below) in refused(capsys, start, Args(), tmp_path / below)
    assert (tmp_path / "file").read_text() == "mine"


def test_start_run_keeps_a_second_process_out(tmp_path, capsys, start):
    """While one process has the folder no other gets it, not even with --fresh, and also if the first had emptied it:
    its lock is spared. Killed with -9 it leaves no lock."""
    program = (
        "import sys; import sparse_utils; from tests.test_sparse_utils import Args\n"
        "sparse_utils.start_run(Args(run_dir=sys.argv[1], fresh=True), 'sac', 'x')\n"
        "print('ready', flush=True); sys.stdin.read()"
    )
    start(Args(), tmp_path)
    command = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
        try:
            assert first.stdout.readline() == f"writing to {tmp_path}\n" and first.stdout.readline() == "ready\n"
            before = contents(tmp_path)
            for fresh in (False, True):
                assert "another process" in refused(capsys, start, Args(fresh=fresh), tmp_path)
            assert contents(tmp_path) == before
        finally:
            first.kill()
    start(Args(), tmp_path)


def test_flags_that_make_no_sense(monkeypatch):
    """One that was not given is right; each value of a tuple counts, and there must be one."""
    args = SimpleNamespace(sizes=(8, 1), none=(), zero_in=(8, 0), p=0.5, one=1.0, not_given=None, nan=math.nan)
    su.check_flags(args, "above 0", "sizes", "p", "one", "not_given")
    su.check_flags(args, "in [0, 1]", "one")
    for rule, name in (("above 0", "none"), ("above 0", "zero_in"), ("in [0, 1)", "one"), ("0 or more", "nan")):
        with pytest.raises(ValueError, match=re.escape(f"--{name.replace('_', '-')} must be {rule}, not ")):
            su.check_flags(args, rule, "p", name)
    for argv, value in ((["--env-id", "A"], "A"), (["--x", "--env_id=B"], "B"), (["--env", "C"], "D"), ([], "D")):
        monkeypatch.setattr(sys, "argv", ["script.py", *argv])
        assert su.flag_given("env-id", "D") == value


def test_memory_that_is_not_there(monkeypatch, capsys):
    monkeypatch.setattr(su.os, "sysconf", {"SC_PAGE_SIZE": 1000, "SC_PHYS_PAGES": 2_000_000}.get)
    su.check_memory(2_000_000_000, "the replay memory", "--buffer-size")
    message = refused(capsys, su.check_memory, 3_500_000_000, "the replay memory", "--buffer-size")
    text = "the replay memory needs 3.5 GB of 2.0 GB of memory: a smaller --buffer-size takes less"
    assert message == f"error: {text}\n"


STOP = """
import os, sys, threading, time
import sparse_utils as su

number, stop = int(sys.argv[1]), su.StopSignal()
send = lambda: os.kill(os.getpid(), number)

def forever():
    threading.Timer(0.1, send).start()
    while True:
        sum(range(1000))

assert stop.interruptible(max, 3, 5) == 5
try:
    stop.interruptible(int, "no number")
except ValueError:
    send()
assert stop.signal == number  # outside it is only noted
assert stop.interruptible(print, "is not called") is None
stop.signal = 0
start = time.monotonic()
assert stop.interruptible(forever) is None and stop.signal == number and time.monotonic() - start < 2
child = os.fork()
if child == 0:  # as the processes of environments
    send()
    os._exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
send()
print("is not reached")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_takes_effect_where_it_may(number):
    """Outside of ``interruptible`` it is noted, inside it ends the function at once, and a second one the program. A
    process that was forked leaves Ctrl-C to the program and ends by the other."""
    done = python(STOP, int(number))
    child = 7 if number == signal.SIGINT else -number
    assert (done.returncode, done.stdout, done.stderr) == (-number, f"{child}\n", "")


def test_a_seed_that_is_killed_is_told_and_counts(tmp_path):
    """Its status is negative for Python, and would be less than that of one which ended well."""
    file = tmp_path / "script.py"
    file.write_text(
        "import os, sys, types\n"
        "if '--seed' in sys.argv:\n"
        "    os.kill(os.getpid(), 9 * (sys.argv[-1] == '2'))\n"
        "    raise SystemExit(0)\n"
        f"sys.path.append('{ROOT}')\n"
        "import sparse_utils as su\n"
        "su.run_each_seed(types.SimpleNamespace(seeds=(1, 2), run_dir='', threads=1))\n"
    )
    done = subprocess.run([sys.executable, file, "--seeds", "1", "2"], capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stderr) == (137, "seed 2 was killed by signal 9\n")


def test_states_go_through_a_checkpoint(tmp_path):
    """Of what has ``get_state``, and of numpy's generators; a simulator has none. (Modules and optimizers: above.)"""
    memory = SimpleNamespace(n=1)
    memory.get_state = lambda: {"n": memory.n}
    memory.set_state = lambda state: vars(memory).update(state)
    parts = {"rng": [np.random.default_rng(seed) for seed in (1, 2)], "memory": memory, "simulator": object()}
    parts["rng"][0].random(3, np.float32)  # an odd number: half a draw of 64 bits is kept for the next one
    su.save_checkpoint(tmp_path / "a.pt", su.get_states(parts))
    draws, memory.n = [generator.random(3, np.float32).tolist() for generator in parts["rng"]], 9
    su.set_states(parts, su.load_checkpoint(tmp_path / "a.pt"))
    assert [generator.random(3, np.float32).tolist() for generator in parts["rng"]] == draws and memory.n == 1


def test_write_csv(tmp_path):
    """All rows each time: the rows that a checkpoint holds replace newer ones in the file. What does not fit the header
    leaves the old file, and what it leaves behind does not matter."""
    file = tmp_path / "results.csv"
    rows = [{"step": 1, "return_mean": 0.1}, {"step": 2, "return_mean": math.nan}]
    assert su.read_csv(file) == []
    su.write_csv(file, rows)
    su.write_csv(file, rows[:1])
    assert su.read_csv(file) == [{"step": "1", "return_mean": "0.1"}]
    with pytest.raises(ValueError, match="surprise"):
        su.write_csv(file, [rows[1], {"step": 3, "surprise": 4}])
    assert file.read_bytes().split() == [b"step,return_mean", b"1,0.1"]
    su.write_csv(file, rows)
    assert file.read_bytes().split() == [b"step,return_mean", b"1,0.1", b"2,nan"]
    assert [f.name for f in tmp_path.iterdir()] == ["results.csv"]


def test_write_atomically_killed_at_any_moment(tmp_path, monkeypatch):
    """Half written, or written and not renamed: the old file; renamed: the new one. Never one that is half new."""
    file = tmp_path / "file"
    file.write_text("old")
    with pytest.raises(KeyboardInterrupt):
        su.write_atomically(file, lambda temporary: killed(temporary.write_text("ne")))
    assert file.read_text() == "old"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(su.os, "replace", killed)
        su.write_atomically(file, lambda temporary: temporary.write_text("new"))
    assert file.read_text() == "old"
    su.write_atomically(file, lambda temporary: temporary.write_text("new"))
    assert [(f.name, f.read_text()) for f in tmp_path.iterdir()] == [("file", "new")]


FULL = """
import resource, sys
from pathlib import Path
import torch
import sparse_utils as su

checkpoint, results = (Path(sys.argv[1]) / name for name in ("checkpoint.pt", "results.csv"))
su.save_checkpoint(checkpoint, {"step": 1})
su.write_csv(results, [{"step": 1}])
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    su.write_csv(results, [{"step": i} for i in range(100_000)])
except SystemExit as end:
    assert end.code == 1
su.save_checkpoint(checkpoint, {"step": 2, "w": torch.ones(100_000)})
"""


def test_a_full_disk_costs_nothing(tmp_path):
    """One line and status 1; the old files are intact, and there is no temporary one."""
    pytest.importorskip("resource")
    done = python(FULL, tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    for line, name in zip(done.stderr.splitlines(), ("results.csv", "checkpoint.pt"), strict=True):
        assert re.fullmatch(
            f"error: cannot write {tmp_path / name}: .*The files that were there before are intact", line
        )
    assert {file.name for file in tmp_path.iterdir()} == {"checkpoint.pt", "results.csv"}
    assert su.load_checkpoint(tmp_path / "checkpoint.pt") == {"step": 1}
    assert su.read_csv(tmp_path / "results.csv") == [{"step": "1"}]


def test_stopwatch(monkeypatch):
    """Every second is booked once, under the part that just ended; ``take`` starts the sums again."""
    clock = iter([0.0, 1.0, 3.0, 6.0, 10.0, 11.0])
    monkeypatch.setattr(su, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    watch = su.Stopwatch("act", "env", "log")
    for part in ("act", "env", "act"):
        watch.lap(part)
    assert watch.take() == {"act": 4, "env": 2, "log": 0}
    watch.lap("log")
    assert watch.take() == {"act": 0, "env": 0, "log": 4}
    with pytest.raises(KeyError):  # a misspelt part
        watch.lap("evn")
