"""sparse_utils.py against numbers worked out by hand, brute-force versions, and the invariants that it promises."""

import copy
import csv
import io
import itertools
import json
import math
import re
import subprocess
import sys
from dataclasses import asdict, dataclass, fields, replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

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


class MLP(nn.Module):
    def __init__(self, n_in: int = 5, width: int = 16, n_out: int = 3):
        super().__init__()
        self.fc1, self.fc2, self.fc3 = nn.Linear(n_in, width), nn.Linear(width, width), nn.Linear(width, n_out)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc3(torch.relu(self.fc2(torch.relu(self.fc1(x)))))


class StackedMLP(nn.Module):
    """R networks like ``MLP`` in one: what sac_rigl.py's critics are."""

    def __init__(self, runs: int = 2, n_in: int = 5, width: int = 16, n_out: int = 3):
        super().__init__()
        self.runs = runs
        self.fc1 = su.BatchedLinear(runs, n_in, width)
        self.fc2 = su.BatchedLinear(runs, width, width)
        self.fc3 = su.BatchedLinear(runs, width, n_out)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc3(torch.relu(self.fc2(torch.relu(self.fc1(x.expand(self.runs, -1, -1))))))


# ---- Layers with a leading run axis ----------------------------------------------------------------------------------


def test_batched_linear_computes_each_run_by_itself():
    layer, x = su.BatchedLinear(3, 4, 2), torch.randn(3, 7, 4, generator=rng())
    out = layer(x)
    assert out.shape == (3, 7, 2)
    for r in range(3):
        torch.testing.assert_close(out[r], x[r] @ layer.weight[r] + layer.bias[r])


def test_batched_linear_starts_like_linear():
    """nn.Linear's default is U(-1/sqrt(in), 1/sqrt(in)) for weights and biases."""
    torch.manual_seed(0)
    layer = su.BatchedLinear(4, 100, 200)
    for parameter in layer.parameters():
        assert 0.09 < parameter.abs().max() <= 0.1
        assert parameter.var().item() == pytest.approx(0.1**2 / 3, rel=0.1)
    assert not torch.equal(layer.weight[0], layer.weight[1])


def test_unstack_gives_plain_linear_networks():
    """Each sparse critic can leave the batched net as an ordinary network, with the same outputs and zeros."""
    net, x = StackedMLP(runs=3), torch.randn(10, 5, generator=rng(1))
    weights = su.prunable(net=net)
    masks = su.random_masks(weights, su.erk_densities(su.layer_shapes(weights), 0.5), rng())
    su.apply_masks(weights, masks)
    outputs = net(x)
    for r in range(3):
        plain = MLP()
        plain.load_state_dict(su.unstack(net, r))  # strict: no key more or less
        torch.testing.assert_close(plain(x), outputs[r])
        assert torch.equal(plain.fc2.weight != 0, masks["net.fc2.weight"][r].T != 0)


def test_unstack_copies():
    """What is changed in the copy must not reach the network that it came from."""
    net = StackedMLP()
    before = copy.deepcopy(net.state_dict())
    for tensor in su.unstack(net, 0).values():
        tensor.zero_()
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


# ---- Which weights, and how dense each layer -------------------------------------------------------------------------


def test_prunable_is_weights_of_linear_and_conv_layers_only():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 4))
            self.norm, self.embedding = nn.LayerNorm(4), nn.Embedding(3, 4)
            self.heads = su.BatchedLinear(2, 4, 1)
            self.logstd = nn.Parameter(torch.zeros(1, 4))

    net, other = Net(), nn.Sequential(nn.Linear(2, 2))
    weights = su.prunable(net=net, other=other)
    assert list(weights) == ["net.body.0.weight", "net.body.4.weight", "net.heads.weight", "other.0.weight"]
    # The parameters themselves: an optimizer's state is found by them.
    assert weights["net.body.0.weight"] is net.body[0].weight
    assert weights["net.heads.weight"] is net.heads.weight
    assert weights["other.0.weight"] is other[0].weight


def test_prunable_prefixes_keep_networks_apart():
    actor, qf = MLP(), MLP()
    weights = su.prunable(actor=actor, qf=qf)
    assert len(weights) == 6
    assert weights["actor.fc1.weight"] is actor.fc1.weight
    assert weights["qf.fc1.weight"] is qf.fc1.weight


def test_layer_shapes_leave_out_the_run_axis():
    weights = su.prunable(a=nn.Sequential(nn.Conv2d(4, 8, 3)), b=MLP(5, 16, 3), c=StackedMLP(7, 5, 16, 3))
    assert su.layer_shapes(weights) == {
        "a.0.weight": (8, 4, 3, 3),
        "b.fc1.weight": (16, 5),
        "b.fc2.weight": (16, 16),
        "b.fc3.weight": (3, 16),
        "c.fc1.weight": (5, 16),
        "c.fc2.weight": (16, 16),
        "c.fc3.weight": (16, 3),
    }


@pytest.mark.parametrize("pytorch_axes", [False, True], ids=["tf-axes", "pytorch-axes"])
@pytest.mark.parametrize("case", ERK_CASES, ids=lambda case: f"{case['net']}-{case['sparsity']}")
def test_erk_densities_of_the_papers_networks(case, pytorch_axes):
    """Cases from the authors' procedure, in TensorFlow's (kh, kw, in, out); PyTorch has (out, in, kh, kw)."""
    shapes = {str(i): tuple(reversed(s)) if pytorch_axes else tuple(s) for i, s in enumerate(case["shapes"])}
    densities = su.erk_densities(shapes, case["sparsity"])
    assert list(densities) == list(shapes)
    assert list(densities.values()) == pytest.approx(case["density"], abs=1e-6)


def test_erk_cases_are_all_here():
    assert len(ERK_CASES) == 20


def test_erk_trace_worked_by_hand():
    """Reference facts A.5: at 0.5, fc3 goes dense in the first pass, fc1 in the second."""
    densities = su.erk_densities(SAC_ACTOR, 0.5)
    assert densities == {"fc1": 1.0, "fc2": pytest.approx(29056 / 65536), "fc3": 1.0}


@pytest.mark.parametrize("case", ERK_CASES[::5], ids=lambda case: case["net"])
def test_sparsity_zero_is_exactly_dense(case):
    shapes = dict(enumerate(case["shapes"]))
    assert set(su.erk_densities(shapes, 0).values()) == {1.0}
    assert set(su.uniform_densities(shapes, 0.0).values()) == {1}


@pytest.mark.parametrize("sparsity", [1e-12, 1e-9, 1e-6, 1e-5, 1e-4, 1e-3])
@pytest.mark.parametrize(
    "shapes",
    [SAC_ACTOR, {"only": (10, 10)}, {"a": (4, 4), "b": (4, 4)}, {"small": (2, 2), "large": (300, 300)}, {}],
    ids=["sac", "one", "twins", "unequal", "none"],
)
def test_erk_at_tiny_sparsities(shapes, sparsity):
    """Nearly every layer goes dense: there is no division by zero, and no weight too many is taken away."""
    densities = su.erk_densities(shapes, sparsity)
    assert all(0 < density <= 1 for density in densities.values())
    zeros = sum(math.floor(sparsity * math.prod(shape)) for shape in shapes.values())
    removed = sum((1 - densities[name]) * math.prod(shape) for name, shape in shapes.items())
    assert removed == pytest.approx(zeros, abs=1e-6)
    if zeros == 0:
        assert set(densities.values()) <= {1.0}


def test_erk_power_scale_softens():
    """Reference facts A.5, last line."""
    assert list(su.erk_densities(SAC_ACTOR, 0.9, 0.5).values()) == pytest.approx([0.23464, 0.08281, 0.27671], abs=5e-6)
    assert list(su.erk_densities(SAC_ACTOR, 0.9, 0.0).values()) == pytest.approx([0.100027] * 3, abs=5e-7)


@pytest.mark.parametrize("distribute", [su.erk_densities, su.uniform_densities])
@pytest.mark.parametrize("sparsity", [-0.1, 1, 1.0, 1.5, math.inf, math.nan])
def test_bad_sparsity_is_refused(distribute, sparsity):
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
SPARSITY = st.one_of(st.floats(0, 0.9999), st.sampled_from(SPARSITIES))


@properties
@given(LAYER_SHAPES, SPARSITY, st.sampled_from([0.0, 0.5, 1.0]), st.randoms(use_true_random=False))
def test_erk_reaches_the_sparsity_whatever_the_layers(shapes, sparsity, power_scale, random):
    """The density is at least 1 - S and above it by less than one weight per layer; axes have no order."""
    densities = su.erk_densities(shapes, sparsity, power_scale)
    assert list(densities) == list(shapes)
    assert all(0 < density <= 1 for density in densities.values())
    size = {name: math.prod(shape) for name, shape in shapes.items()}
    excess = sum(densities[name] * n for name, n in size.items()) - (1 - sparsity) * sum(size.values())
    assert -1e-6 <= excess <= len(shapes) + 1e-6
    if power_scale == 0:
        assert max(densities.values()) == pytest.approx(min(densities.values()))
    permuted = {name: tuple(random.sample(shape, len(shape))) for name, shape in shapes.items()}
    assert su.erk_densities(permuted, sparsity, power_scale) == pytest.approx(densities)


@properties
@given(LAYER_SHAPES, SPARSITY)
def test_uniform_densities_are_all_the_same(shapes, sparsity):
    assert su.uniform_densities(shapes, sparsity) == dict.fromkeys(shapes, 1 - sparsity)


@properties
@given(LAYER_SHAPES.filter(lambda shapes: sum(map(math.prod, shapes.values())) < 50_000), SPARSITY, st.booleans())
def test_masks_reach_the_sparsity(shapes, sparsity, erk):
    """From sparsity to masks: floors only ever add weights, one per layer in each of the two steps."""
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
    weights = su.prunable(actor=MLP(), qf=StackedMLP(runs=3))
    densities = dict.fromkeys(weights, 0.5)
    masks, again, other = (su.random_masks(weights, densities, rng(seed)) for seed in (1, 1, 2))
    for name, mask in masks.items():
        assert torch.equal(mask, again[name])
        assert not torch.equal(mask, other[name])
    assert not torch.equal(masks["actor.fc2.weight"], masks["qf.fc2.weight"][0])
    for r, s in itertools.combinations(range(3), 2):  # twin critics are independent networks
        assert not torch.equal(masks["qf.fc2.weight"][r], masks["qf.fc2.weight"][s])


def test_random_masks_hit_every_place_alike():
    weights, generator = {"w": torch.empty(2, 4, 5)}, rng()
    frequency = sum(su.random_masks(weights, {"w": 0.25}, generator)["w"] for _ in range(2000)) / 2000
    assert (frequency - 0.25).abs().max() < 4.5 * math.sqrt(0.25 * 0.75 / 2000)


def test_random_masks_only_for_the_layers_asked_for():
    weights = su.prunable(actor=MLP())
    before = copy.deepcopy(weights)
    assert list(su.random_masks(weights, {"actor.fc2.weight": 0.5})) == ["actor.fc2.weight"]
    assert all(torch.equal(w, before[name]) for name, w in weights.items())


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


@pytest.mark.parametrize("shape", [(12, 10), (4, 5, 3, 3), (2, 10, 8)], ids=str)
def test_magnitude_masks_are_nested_while_density_falls(shape):
    """Pruned weights never return, even when all that are left have become exactly zero."""
    generator = rng()
    weights, masks = {"w": torch.empty(shape)}, {"w": torch.ones(shape)}
    n = slices(masks["w"]).shape[1]
    for density in (1.0, 0.8, 0.5, 0.5, 0.21, 0.1, 0.02):
        weights["w"].normal_(generator=generator)  # inactive weights here are large: they must not win
        if density < 0.5:
            weights["w"].mul_(1 - masks["w"])  # and now the active ones are zero
        new = su.magnitude_masks(weights, {"w": density}, masks)
        assert ((new["w"] == 0) | (masks["w"] == 1)).all()
        assert (slices(new["w"]).sum(1) == max(1, round(density * n))).all()
        masks = new


def test_magnitude_masks_refuse_nan():
    with pytest.raises(FloatingPointError, match="NaN"):
        su.magnitude_masks({"w": torch.tensor([[1.0, math.nan], [2.0, 3.0]])}, {"w": 0.5})


def test_apply_masks_and_mask_gradients_touch_only_what_is_masked():
    net = MLP()
    weights = su.prunable(net=net)
    masks = su.random_masks(weights, {"net.fc1.weight": 0.3, "net.fc3.weight": 0.6}, rng())
    net(torch.randn(4, 5)).sum().backward()
    before = {name: (p.detach().clone(), p.grad.clone()) for name, p in net.named_parameters()}
    su.apply_masks(weights, masks)
    su.mask_gradients(weights, masks)
    for name, parameter in net.named_parameters():
        mask = masks.get(f"net.{name}", 1.0)
        assert torch.equal(parameter, before[name][0] * mask)
        assert torch.equal(parameter.grad, before[name][1] * mask)
    su.apply_masks(weights, {})  # dense: nothing to do, and no error
    su.mask_gradients(weights, {})


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


def test_describe_worked_by_hand():
    _, _, weights, masks = hand_made()
    lines = [line.split() for line in su.describe(weights, masks).splitlines()]
    assert lines == [
        ["actor.0.weight", "(4,", "3)", "density", "0.41667", "5", "weights"],
        ["actor.2.weight", "(2,", "4)", "density", "1.00000", "8", "weights"],
        ["qf.0.weight", "(2,", "3,", "1)", "density", "0.50000", "3", "weights"],
        ["all", "density", "0.61538", "16", "of", "26", "weights"],
    ]


def test_count_parameters_worked_by_hand():
    """Active weights and all biases (4 of the actor, 1 of each critic) and whatever else is a parameter."""
    actor, qf, _, masks = hand_made()
    assert su.count_parameters({}, actor=actor) == 12 + 4 + 8
    assert su.count_parameters(masks, actor=actor) == 5 + 4 + 8
    assert su.count_parameters(masks, qf=qf) == 3 + 2
    assert su.count_parameters(masks, actor=actor, qf=qf) == 17 + 5
    actor.register_parameter("logstd", nn.Parameter(torch.zeros(2)))
    assert su.count_parameters(masks, actor=actor, qf=qf) == 17 + 5 + 2


def test_sac_network_sizes():
    """Reference facts D.3: HalfCheetah's actor and its two critics, biases included."""
    actor, critics = MLP(17, 256, 12), StackedMLP(2, 23, 256, 1)
    assert su.count_parameters({}, actor=actor) == 73_484
    assert su.count_parameters({}, qf=critics) == 144_386


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


class Residual(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.conv1, self.conv2 = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(torch.relu(self.conv1(torch.relu(x))))


def nature(paddings: tuple[int, int, int], features: int) -> nn.Module:
    convs = zip((4, 32, 64), (32, 64, 64), (8, 4, 3), (4, 2, 1), paddings, strict=True)
    body = [layer for conv in convs for layer in (nn.Conv2d(*conv), nn.ReLU())]
    return nn.Sequential(*body, nn.Flatten(), nn.Linear(features, 512), nn.ReLU(), nn.Linear(512, 6))


def impala() -> nn.Module:
    body = []
    for n_in, n_out in ((4, 32), (32, 64), (64, 64)):
        body += [nn.Conv2d(n_in, n_out, 3, padding=1), nn.MaxPool2d(3, 2, 1), Residual(n_out), Residual(n_out)]
    head = [nn.ReLU(), nn.Flatten(), nn.Linear(7744, 512), nn.ReLU(), nn.Linear(512, 6)]
    return nn.Sequential(*body, *head)


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


def test_flops_of_relus():
    """The one part of the count that the table leaves out: a multiplication for each output of each layer."""
    convs = 32 * 21 * 21 + 64 * 11 * 11 + 64 * 11 * 11
    net = nature((2, 2, 1), 7744)
    masks = {name: torch.zeros_like(w) for name, w in su.prunable(net=net).items()}
    assert su.flops(net, torch.zeros(1, 4, 84, 84), masks, "net") == (convs + 512 + 6, 0)


# ---- Sparse training: initialisation ---------------------------------------------------------------------------------

INIT_LAYERS = {
    "linear": (lambda: nn.Linear(300, 200), 300, 200),
    "conv": (lambda: nn.Conv2d(32, 64, 5), 32 * 25, 64 * 25),
    "batched": (lambda: su.BatchedLinear(3, 300, 200), 300, 200),
}


@pytest.mark.parametrize("kind", INIT_LAYERS)
@pytest.mark.parametrize("with_masks", [False, True], ids=["no-mask", "mask-of-ones"])
def test_sparse_init_of_a_dense_layer_is_glorot_uniform(kind, with_masks):
    make, fan_in, fan_out = INIT_LAYERS[kind]
    weight = make().weight
    su.sparse_init_({"w": weight}, {"w": torch.ones_like(weight)} if with_masks else {}, rng())
    limit = math.sqrt(6 / (fan_in + fan_out))
    for row in slices(weight.detach()):
        assert 0.999 * limit < row.max() <= limit
        assert -limit <= row.min() < -0.999 * limit
        assert row.mean().abs() < 0.02 * limit
        assert row.var().item() == pytest.approx(limit**2 / 3, rel=0.03)


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
def test_sparse_init_limits_by_active_fans(shape, layout):
    """The largest of 300 draws of U(-limit, limit) is within 5% of its limit and never beyond."""
    generator = rng(3)
    mask = (torch.rand(shape, generator=generator) < 0.4).float()
    weights = {"w": torch.empty(shape)}
    draws = []
    for _ in range(300):
        su.sparse_init_(weights, {"w": mask}, generator)
        draws.append(weights["w"].clone())
    largest, mean = torch.stack(draws).abs().amax(0), torch.stack(draws).mean(0)
    assert (largest[mask == 0] == 0).all()
    has_run_axis = len(shape) % 2 == 1
    for r in range(shape[0] if has_run_axis else 1):
        one, top, middle = (t[r] if has_run_axis else t for t in (mask, largest, mean))
        limits = limits_by_loop(one, layout)
        limits = limits[:, :, 0].T if layout == "in-out" else limits.view_as(one)
        active = one == 1
        assert (top[active] <= limits[active] * (1 + 1e-6)).all()
        assert (top[active] > 0.95 * limits[active]).all()
        assert (middle.abs() < 0.2 * limits)[active].all()


def test_sparse_init_of_units_without_connections():
    """An input or a unit that is cut off altogether gives no division by zero."""
    weights, mask = {"w": torch.ones(3, 4)}, torch.zeros(3, 4)
    mask[1, 2] = 1
    su.sparse_init_(weights, {"w": mask}, rng())
    assert weights["w"].nonzero().tolist() == [[1, 2]]
    assert weights["w"][1, 2].abs() <= math.sqrt(3)


def test_sparse_init_is_reproducible_and_leaves_biases():
    nets = [MLP(), MLP(), MLP()]
    for net, seed in zip(nets, (1, 1, 2), strict=True):
        bias = net.fc1.bias.detach().clone()
        weights = su.prunable(net=net)
        su.sparse_init_(weights, su.random_masks(weights, dict.fromkeys(weights, 0.5), rng()), rng(seed))
        assert torch.equal(net.fc1.bias, bias)
    assert torch.equal(nets[0].fc2.weight, nets[1].fc2.weight)
    assert not torch.equal(nets[0].fc2.weight, nets[2].fc2.weight)


# ---- Sparse training: schedules --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "initial, expected",
    [(0.5, [0.5, 0.426777, 0.25, 0.073223, 0, 0]), (0.3, [0.3, 0.256066, 0.15, 0.043934, 0, 0])],
)
def test_cosine_fraction(initial, expected):
    """Reference facts B.5 at 0, 1/4, 1/2, 3/4 of the way, at the end and after it."""
    values = [su.cosine_fraction(step, 800_000, initial) for step in range(0, 1_000_001, 200_000)]
    assert values == pytest.approx(expected, abs=1e-6)
    assert values[4:] == [0, 0]  # exactly: rewiring stops


def test_cubic_sparsity():
    """Reference facts C.1 at 0, 1/4, 1/2, 3/4 of the way and at the end; flat before and after."""
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
        return su.rewire({"w": self.weight}, {"w": self.mask}, fraction, optimizers, targets, gradients, rng(seed))

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


@pytest.mark.parametrize("rigl", [False, True], ids=["set", "rigl"])
def test_inactive_weights_never_keep_a_place(rigl):
    """All active weights are exactly zero, as just after growing, and behind inactive ones: those are zero as well, but
    must not be mistaken for kept connections, which would start with stale weights and moments."""
    mask = torch.zeros(4, 6)
    mask[2:] = 1
    layer = Layer.make(torch.zeros(4, 6), mask)
    gradient = torch.arange(24.0).view(4, 6) + 1  # the largest are at the end: the dropped ones grow again
    layer.rewire(1 / 3, gradient if rigl else None)
    assert layer.mask[2:].flatten()[:8].eq(1).all()  # ties: the lower indices are kept
    check_rewired(layer, torch.zeros(4, 6), mask, layer.mask[:2].sum().item() / 12)
    if rigl:
        assert torch.equal(layer.mask, mask)


@pytest.mark.parametrize("rigl", [False, True], ids=["set", "rigl"])
@pytest.mark.parametrize("shape", [(6, 5), (2, 6, 5), (3, 2, 3, 3)], ids=str)
def test_rewire_leaves_dense_layers_alone(shape, rigl):
    weight, gradient = torch.randn(shape, generator=rng()), torch.randn(shape, generator=rng(1))
    layer = Layer.make(weight, torch.ones(shape))
    assert layer.rewire(0.5, gradient if rigl else None) == 0
    assert (layer.mask == 1).all()
    check_rewired(layer, weight, torch.ones(shape), 0)


@pytest.mark.parametrize("rigl", [False, True], ids=["set", "rigl"])
def test_rewire_with_drop_fraction_zero_changes_nothing(rigl):
    weight, mask = torch.randn(2, 6, 5, generator=rng()), (torch.rand(2, 6, 5, generator=rng(1)) < 0.5).float()
    layer = Layer.make(weight * mask, mask)
    assert layer.rewire(0.0, torch.randn(2, 6, 5) if rigl else None) == 0
    assert torch.equal(layer.mask, mask)
    check_rewired(layer, weight * mask, mask, 0)


def test_rewire_turnover_over_layers():
    """One number for all layers: 2 new of 4 active connections here, 0 of 6 there."""
    weights = {"a": torch.tensor([[4.0, 3, 2, 1, 0, 0]]), "b": torch.ones(2, 3)}
    masks = {"a": (weights["a"] > 0).float(), "b": torch.ones(2, 3)}
    gradients = {"a": torch.tensor([[0.0, 0, 0, 0, 1, 1]]), "b": torch.ones(2, 3)}
    assert su.rewire(weights, masks, 0.5, gradients=gradients) == 2 / 10
    assert masks["a"].tolist() == [[1, 1, 0, 0, 1, 1]]


def test_rewire_without_masks_is_a_dense_network():
    assert su.rewire({"w": torch.ones(2, 2)}, {}, 0.5) == 0


@pytest.mark.parametrize("rigl", [False, True], ids=["set", "rigl"])
@pytest.mark.parametrize("fraction", [0.0, 0.5, 1.0])
def test_rewire_refuses_nan_weights(fraction, rigl):
    weight = torch.tensor([[1.0, math.nan, 2.0], [3.0, 0.0, 0.0]])
    layer = Layer.make(weight, (weight != 0).float())
    with pytest.raises(FloatingPointError, match="NaN"):
        layer.rewire(fraction, torch.ones(2, 3) if rigl else None)


def test_rewire_refuses_nan_gradients():
    weight = torch.tensor([[1.0, 2.0, 0.0], [3.0, 0.0, 0.0]])
    layer = Layer.make(weight, (weight != 0).float())
    with pytest.raises(FloatingPointError, match="NaN"):
        layer.rewire(0.5, torch.tensor([[1.0, 1, 1], [1, 1, math.nan]]))


def test_rewire_changes_nothing_when_it_refuses():
    """The first layer must not be rewired when the second one turns out to be NaN."""
    weights = {"a": torch.tensor([[2.0, 1.0, 0.0]]), "b": torch.tensor([[math.nan, 1.0, 0.0]])}
    masks = {"a": torch.tensor([[1.0, 1, 0]]), "b": torch.tensor([[1.0, 1, 0]])}
    gradients = {"a": torch.tensor([[0.0, 0, 1]]), "b": torch.tensor([[0.0, 0, 1]])}
    with pytest.raises(FloatingPointError):
        su.rewire(weights, masks, 0.5, gradients=gradients)
    assert weights["a"].tolist() == [[2, 1, 0]]
    assert masks["a"].tolist() == [[1, 1, 0]]


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


def test_a_layer_of_a_million_weights():
    """Exact counts where float32 sums and sorts would begin to matter; nothing here loops over weights."""
    weights, generator = {"w": nn.Parameter(torch.empty(1000, 1000))}, rng()
    masks = su.random_masks(weights, {"w": 0.1}, generator)
    su.sparse_init_(weights, masks, generator)
    assert masks["w"].count_nonzero() == 100_000
    assert torch.equal(weights["w"] != 0, masks["w"] != 0)
    old = masks["w"].clone()
    turnover = su.rewire(weights, masks, 0.3, gradients={"w": torch.randn(1000, 1000, generator=generator)})
    assert masks["w"].count_nonzero() == 100_000
    assert turnover == ((masks["w"] == 1) & (old == 0)).sum().item() / 100_000
    assert 0.25 < turnover < 0.3  # 30,000 are dropped, of which chance grows about 1 in 31 again
    assert (weights["w"][masks["w"] == 0] == 0).all()


# ---- The invariant ---------------------------------------------------------------------------------------------------

OPTIMIZERS = {
    "adam": lambda groups: torch.optim.Adam(groups, lr=1e-2, fused=True),
    "sgd": lambda groups: torch.optim.SGD(groups, lr=1e-2, momentum=0.9),
}


class Agent:
    """Trains a sparse actor and sparse twin critics with a target network on random targets, as sac_rigl.py does."""

    def __init__(self, method: str, optimizer: str, forget: str = ""):
        torch.manual_seed(0)
        self.method, self.forget, self.steps, self.turnover = method, forget, 0, 0.0
        self.actor, self.qf = MLP(5, 16, 4), StackedMLP(2, 5, 16, 1)
        self.target = copy.deepcopy(self.qf).requires_grad_(False)
        self.weights, self.targets = su.prunable(actor=self.actor, qf=self.qf), su.prunable(qf=self.target)
        self.densities = {}
        for net in (self.actor, self.qf):
            prefix = "actor" if net is self.actor else "qf"
            self.densities |= su.erk_densities(su.layer_shapes(su.prunable(**{prefix: net})), 0.7)
        start = dict.fromkeys(self.densities, 1.0) if method == "prune" else self.densities
        self.masks = su.random_masks(self.weights, start, rng())
        su.sparse_init_(self.weights, self.masks, rng())
        self.target.load_state_dict(self.qf.state_dict())
        self.optimizers = []
        for net in (self.actor, self.qf):
            decayed = [p for name, p in net.named_parameters() if "weight" in name]
            biases = [p for name, p in net.named_parameters() if "bias" in name]
            groups = [{"params": decayed, "weight_decay": 1e-2}, {"params": biases}]
            self.optimizers.append(OPTIMIZERS[optimizer](groups))

    def step(self) -> None:
        data = rng(1000 + self.steps)
        x = torch.randn(8, 5, generator=data)
        loss = sum((net(x) - torch.randn(8, 1, generator=data)).square().mean() for net in (self.actor, self.qf))
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        loss.backward()
        gradients = {name: self.weights[name].grad.clone() for name in self.masks}
        if self.forget != "mask_gradients":
            su.mask_gradients(self.weights, self.masks)
        for optimizer in self.optimizers:
            optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(list(self.target.parameters()), list(self.qf.parameters()), 0.05)

        optimizers = () if self.forget == "optimizers" else self.optimizers
        targets = {} if self.forget == "targets" else self.targets
        if self.steps % 20 == 0 and self.method in ("set", "rigl"):
            scores = gradients if self.method == "rigl" else None
            self.turnover += su.rewire(self.weights, self.masks, 0.5, optimizers, targets, scores, data)
        elif self.steps % 20 == 0 and self.method == "prune":
            now = {n: 1 - su.cubic_sparsity(self.steps, 40, 200, 1 - d) for n, d in self.densities.items()}
            new_masks = su.magnitude_masks(self.weights, now, self.masks)
            su.set_masks(self.weights, self.masks, new_masks, optimizers, targets)
        self.steps += 1

    def nonzeros(self) -> list[str]:
        """Where an inactive entry is not exactly zero: weights, moments, target network."""
        tensors = {f"weight {name}": (name, self.weights[name]) for name in self.masks}
        tensors |= {f"target {name}": (name, target) for name, target in self.targets.items()}
        for optimizer, name in itertools.product(self.optimizers, self.masks):
            for key, moment in optimizer.state.get(self.weights[name], {}).items():
                if moment.shape == self.weights[name].shape:
                    tensors[f"{key} {name}"] = (name, moment)
        return [where for where, (name, tensor) in tensors.items() if (tensor[self.masks[name] == 0] != 0).any()]

    def state(self) -> dict:
        parts = {"actor": self.actor, "qf": self.qf, "target": self.target, "o0": self.optimizers[0]}
        parts["o1"] = self.optimizers[1]
        return {name: part.state_dict() for name, part in parts.items()} | {"masks": self.masks, "steps": self.steps}

    def load_state(self, state: dict) -> None:
        self.actor.load_state_dict(state["actor"])
        self.qf.load_state_dict(state["qf"])
        self.target.load_state_dict(state["target"])
        for i, optimizer in enumerate(self.optimizers):
            optimizer.load_state_dict(state[f"o{i}"])
        for name, mask in self.masks.items():
            mask.copy_(state["masks"][name])
        self.steps = state["steps"]

    def parameters(self) -> list[Tensor]:
        return [p for net in (self.actor, self.qf, self.target) for p in net.parameters()]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("method", ["static", "set", "rigl", "prune"])
def test_inactive_entries_stay_exactly_zero(method, optimizer):
    """After each of 300 steps, also in a deep copy and from a checkpoint, which go on exactly like the original."""
    agent = Agent(method, optimizer)
    counts = {name: slices(mask).sum(1) for name, mask in agent.masks.items()}
    loaded = None
    for step in range(300):
        if step == 150:  # not a rewiring step
            copied, file = copy.deepcopy(agent), io.BytesIO()
            torch.save(agent.state(), file)
            file.seek(0)
            loaded = Agent(method, optimizer)
            loaded.load_state(torch.load(file, weights_only=True))
            assert not copied.nonzeros()
            assert not loaded.nonzeros()
        agent.step()
        assert not agent.nonzeros(), step
        if method != "prune":
            assert all(torch.equal(slices(mask).sum(1), counts[name]) for name, mask in agent.masks.items())
    assert 0.6 < su.sparsity(agent.weights, agent.masks) < 0.7 + 1e-6
    assert (agent.turnover > 0) == (method in ("set", "rigl"))
    active = agent.masks["actor.fc2.weight"] == 1
    assert (agent.weights["actor.fc2.weight"][active] != 0).any()  # it did train
    for other in (copied, loaded):
        for _ in range(150):
            other.step()
        assert not other.nonzeros()
        assert all(torch.equal(a, b) for a, b in zip(agent.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize(
    "forget, where", [("mask_gradients", "weight"), ("optimizers", "exp_avg|momentum_buffer"), ("targets", "target")]
)
def test_the_test_of_the_invariant_can_fail(forget, where, optimizer):
    """Leave out masking the gradients, or the optimizers or the targets of ``rewire``, and the zeros are lost."""
    agent, found = Agent("rigl", optimizer, forget), []
    for _ in range(45):
        agent.step()
        found += agent.nonzeros()
    assert any(re.match(where, name) for name in found)


def test_weight_decay_and_momentum_alone_keep_zeros():
    """A step with zero gradient still decays weights and applies momentum: neither may wake an inactive weight."""
    for optimizer in OPTIMIZERS:
        agent = Agent("static", optimizer)
        agent.step()
        for _ in range(20):
            for parameter in (*agent.actor.parameters(), *agent.qf.parameters()):
                parameter.grad.zero_()
            for part in agent.optimizers:
                part.step()
        assert not agent.nonzeros()


def test_sparse_state_dict_loads_into_a_dense_network():
    """Nothing is patched or wrapped: a plain network reads the weights, strictly, and computes the same."""
    agent = Agent("rigl", "adam")
    for _ in range(30):
        agent.step()
    plain, x = MLP(5, 16, 4), torch.randn(7, 5, generator=rng())
    plain.load_state_dict(agent.actor.state_dict())
    assert torch.equal(plain(x), agent.actor(x))
    assert set(agent.actor.state_dict()) == {f"fc{i}.{kind}" for i in (1, 2, 3) for kind in ("weight", "bias")}
    for r in range(2):
        critic = MLP(5, 16, 1)
        critic.load_state_dict(su.unstack(agent.qf, r))
        torch.testing.assert_close(critic(x), agent.qf(x)[r])
        for i in (1, 2, 3):
            inactive = agent.masks[f"qf.fc{i}.weight"][r].T == 0
            assert (critic.get_parameter(f"fc{i}.weight")[inactive] == 0).all()


# ---- Analysis --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk_size", [1, 4, 10, 64])
def test_signal_to_noise_against_single_examples(chunk_size):
    """Reference facts E, one backward pass per example, in float64; 10 examples are not a multiple of 4."""
    torch.manual_seed(0)
    net = MLP(4, 6, 2).double()
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
    """d(w * x)/dw = x: examples 1 and 3 have mean 2 and standard deviation 1, the other parameter gets no gradient."""
    parameters = {"w": torch.tensor(5.0), "unused": torch.zeros(3)}
    snr = su.signal_to_noise(lambda p, x: p["w"] * x + 0 * p["unused"].sum(), parameters, torch.tensor([1.0, 3.0]))
    assert snr == pytest.approx(2 / 4)


def test_bootstrap_interval():
    values = np.random.default_rng(1).normal(10, 2, size=100)
    low, high = su.bootstrap_interval(values)
    assert low < values.mean() < high
    standard_error = values.std() / 10
    assert (low, high) == pytest.approx(
        (values.mean() - 1.96 * standard_error, values.mean() + 1.96 * standard_error), abs=0.1
    )
    assert su.bootstrap_interval(values) == (low, high)  # no randomness between calls
    assert isinstance(low, float)
    assert su.bootstrap_interval(np.array([3.0, 3.0, 3.0])) == (3, 3)


def test_bootstrap_interval_of_another_statistic():
    values = np.append(np.arange(20.0), 1e6)  # an outlier that the median does not see
    low, high = su.bootstrap_interval(values, np.median)
    assert 0 < low <= np.median(values) <= high < 20


@pytest.mark.parametrize("values", [[], [5.0]])
def test_bootstrap_interval_of_too_few_values(values):
    assert all(math.isnan(end) for end in su.bootstrap_interval(np.array(values)))


# ---- Run folders -----------------------------------------------------------------------------------------------------


@dataclass
class Args:
    env_id: str = "Hopper-v5"
    seed: int = 1
    learning_rate: float = 3e-4
    actor_sparsity: float | None = None
    run_dir: str = ""
    fresh: bool = False
    checkpoint_interval: int = 1000
    threads: int = 1
    cuda: bool = True
    track: bool = False
    wandb_project_name: str = "a"
    wandb_entity: str | None = None
    capture_video: bool = False
    evaluate: str = ""
    dry_run: bool = False
    async_envs: bool = False
    rounds: int = 0


FREE_CHANGES = {
    "run_dir": "elsewhere",
    "checkpoint_interval": 7,
    "rounds": 5,
    "async_envs": True,
    "threads": 8,
    "cuda": False,
    "track": True,
    "wandb_project_name": "b",
    "wandb_entity": "c",
    "capture_video": True,
    "evaluate": "x.pt",
    "dry_run": True,
}


@pytest.fixture
def start():
    """``su.start_run`` as a process of its own: its lock goes when it ends."""
    pytest.importorskip("fcntl")

    def start_run(args: Args, folder: Path):
        try:
            return su.start_run(args, folder)
        finally:
            while su._locks:
                su._locks.pop().close()

    return start_run


def refused(start, args: Args, folder: Path, capsys) -> str:
    """The message with which ``start`` ends the program."""
    with pytest.raises(SystemExit) as end:
        start(args, folder)
    assert end.value.code == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert message.count("\n") == 1
    return message


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_free_flags_are_all_tested():
    assert {field.name for field in fields(Args)} >= su.FREE_FLAGS
    assert FREE_CHANGES.keys() | {"fresh"} == su.FREE_FLAGS


def test_seeds_follow_from_their_key():
    """The same key gives the same seeds, any other key others, and gymnasium takes them."""
    assert su.seeds(1, 500, n=3) == su.seeds(1, 500, n=3)
    assert len(su.seeds(3)) == 1
    assert all(type(seed) is int and 0 <= seed < 2**32 for seed in su.seeds(7, n=50))
    keys = [(1,), (2,), (0, 1), (1, 1), (1, 2), (500, 1), (1, 500), (0, 1, 1)]
    assert len({seed for key in keys for seed in su.seeds(*key, n=4)}) == 4 * len(keys)


def test_seeds_of_keys_that_end_in_zero():
    """numpy's SeedSequence fills its entropy up with zeros, so that (1,) and (1, 0) are the same to it."""
    assert su.seeds(1) != su.seeds(1, 0)


def test_run_name_says_what_the_run_is():
    name = su.run_name(Args(env_id="Walker2d-v5", seed=3), "sac_rigl", "rigl-0.9")
    assert re.fullmatch(r"Walker2d-v5__sac_rigl__rigl-0\.9__3__[0-9a-f]{8}", name)
    assert su.run_name(Args(env_id="Walker2d-v5", seed=3), "sac_rigl", "rigl-0.9") == name


@pytest.mark.parametrize("env_id", ["ALE/Pong-v5", "module:Env-v0", "a b\\c*d?e|f<g>", "../../etc", "x\ny\0z"])
def test_run_name_is_safe_as_a_folder(env_id, tmp_path):
    name = su.run_name(Args(env_id=env_id), "dqn", "dense")
    assert re.fullmatch(r"[A-Za-z0-9._-]+", name)
    (tmp_path / name).mkdir()
    assert [folder.name for folder in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("flag", sorted(su.FREE_FLAGS))
def test_run_name_ignores_free_flags(flag):
    changed = replace(Args(), **{flag: FREE_CHANGES.get(flag, True)})
    assert su.run_name(changed, "sac", "x") == su.run_name(Args(), "sac", "x")


def test_run_name_changes_with_results():
    changes = [{}, {"env_id": "Ant-v5"}, {"seed": 2}, {"learning_rate": 1e-3}, {"actor_sparsity": 0.5}]
    names = {su.run_name(replace(Args(), **change), "sac", "x") for change in changes}
    assert len(names | {su.run_name(Args(), "dqn", "x"), su.run_name(Args(), "sac", "y")}) == 7


def test_start_run_makes_a_folder(start, tmp_path):
    folder = tmp_path / "runs" / "one"
    assert start(Args(), folder) is None
    config = json.loads((folder / "config.json").read_text())
    assert config["args"] == asdict(Args())
    assert config["command"] == sys.argv
    assert config["torch"] == torch.__version__
    assert {"python", "machine", "commit", "numpy", "gymnasium"} <= config.keys()
    assert {file.name for file in folder.iterdir()} <= {"config.json", ".lock"}
    assert start(Args(), folder) is None  # killed before its first checkpoint: from the beginning


def input_ticket(file: Path, env_id: str, seed: int = 1, weight: torch.Tensor | None = None) -> Path:
    masks = {"actor.layers.0.weight": torch.eye(3)[:, :2] if weight is None else weight}
    ticket = {"result": su.describe_ticket(masks) | {"seed": seed}, "args": {"env_id": env_id}, "obs_shape": [3]}
    su.save_ticket(file, masks, **ticket)
    return file


def test_an_input_mask_is_for_its_own_task(tmp_path):
    """In any version; of entangled inputs, which mean something else to each seed, for its own seed."""
    file = input_ticket(tmp_path / "a.pt", "Task-v0")
    assert su.read_input_mask(file, "Task-v1", (3,), [1, 2]) == [0, 1]
    with pytest.raises(ValueError, match=r"a.pt is no ticket for the \(3,\) inputs of Other-v0, but of Task-v0"):
        su.read_input_mask(file, "Other-v0", (3,), [1])
    with pytest.raises(ValueError, match=r"no ticket for the \(4,\) inputs of Task-v0"):
        su.read_input_mask(file, "Task-v0", (4,), [1])
    file = input_ticket(tmp_path / "b.pt", "GridEntangled-v0", seed=2)
    assert su.read_input_mask(file, "GridEntangled-v0", (3,), [2]) == [0, 1]
    with pytest.raises(ValueError, match="b.pt is of seed 2, and each seed of GridEntangled-v0 has other inputs"):
        su.read_input_mask(file, "GridEntangled-v0", (3,), [1, 2])
    file = input_ticket(tmp_path / "c.pt", "Task-v0", weight=torch.ones(2, 3, 3, 3))
    with pytest.raises(ValueError, match="c.pt has convolutions"):
        su.read_input_mask(file, "Task-v0", (3,), [1])
    file = input_ticket(tmp_path / "d.pt", "Task-v0", weight=torch.zeros(3, 2))
    with pytest.raises(ValueError, match="d.pt reads no input any more"):
        su.read_input_mask(file, "Task-v0", (3,), [1])


def test_start_run_takes_an_empty_folder(start, tmp_path):
    assert start(Args(), tmp_path) is None
    assert (tmp_path / "config.json").exists()


def test_start_run_resumes(start, tmp_path):
    start(Args(), tmp_path)
    saved = {"finished": False, "step": 5, "w": torch.arange(3.0), "results": [{"step": 1, "x": 0.5}], "rng": (1, None)}
    su.save_checkpoint(tmp_path / "checkpoint.pt", saved)
    config = json.loads((tmp_path / "config.json").read_text())
    checkpoint = start(Args(threads=4), tmp_path)
    assert torch.equal(checkpoint.pop("w"), saved.pop("w"))
    assert checkpoint == saved
    now = json.loads((tmp_path / "config.json").read_text())
    (again,) = now.pop("resumed")
    assert config.pop("resumed") == [] and now == config  # what it was begun with stays
    assert again["args"]["threads"] == 4 and again["command"] == sys.argv and "commit" in again
    (tmp_path / "checkpoint.pt").unlink()  # as if it had been killed before the first one
    assert start(Args(threads=2), tmp_path) is None
    later = json.loads((tmp_path / "config.json").read_text())["resumed"]
    assert [start["args"]["threads"] for start in later] == [4, 2]


@pytest.mark.parametrize("flag", sorted(FREE_CHANGES))
def test_start_run_resumes_whatever_the_free_flags(start, tmp_path, monkeypatch, flag):
    monkeypatch.setattr(su, "find_spec", str)  # as if all packages were there
    start(Args(), tmp_path)
    su.save_checkpoint(tmp_path / "checkpoint.pt", {"finished": False, "step": 5})
    assert start(replace(Args(), **{flag: FREE_CHANGES[flag]}), tmp_path)["step"] == 5


def test_start_run_resumes_with_flags_that_json_changes(start, tmp_path):
    """A tuple, as a flag --seeds 1 2 3 gives, is a list in config.json; it is still the same run."""

    @dataclass
    class ManyArgs(Args):
        seeds: tuple[int, ...] = (1, 2, 3)

    start(ManyArgs(), tmp_path)
    su.save_checkpoint(tmp_path / "checkpoint.pt", {"finished": False, "step": 5})
    assert start(ManyArgs(), tmp_path)["step"] == 5


@pytest.mark.parametrize("with_checkpoint", [False, True])
def test_start_run_refuses_other_arguments(start, tmp_path, capsys, with_checkpoint):
    start(Args(), tmp_path)
    if with_checkpoint:
        su.save_checkpoint(tmp_path / "checkpoint.pt", {"finished": True})
    before = contents(tmp_path)
    message = refused(start, Args(learning_rate=0.125, actor_sparsity=0.75, threads=5), tmp_path, capsys)
    assert "--learning-rate" in message
    assert "0.0003" in message
    assert "0.125" in message
    assert re.search(r"--actor-sparsity\b.*None.*0\.75", message)
    assert "seed" not in message  # nothing that is the same
    assert "threads" not in message  # nothing that does not matter
    assert contents(tmp_path) == before


def test_start_run_of_a_finished_run(start, tmp_path, capsys):
    start(Args(), tmp_path)
    su.save_checkpoint(tmp_path / "checkpoint.pt", {"finished": True})
    before = contents(tmp_path)
    with pytest.raises(SystemExit) as end:
        start(Args(threads=9), tmp_path)
    assert end.value.code == 0
    assert "finished" in capsys.readouterr().out
    assert contents(tmp_path) == before


@pytest.mark.parametrize("finished", [False, True])
def test_fresh_starts_over(start, tmp_path, finished):
    start(Args(), tmp_path)
    su.save_checkpoint(tmp_path / "checkpoint.pt", {"finished": finished})
    (tmp_path / "results.csv").write_text("step\n1\n")
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "a.gif").write_text("")
    assert start(Args(learning_rate=1.0, fresh=True), tmp_path) is None
    assert {file.name for file in tmp_path.iterdir()} <= {"config.json", ".lock"}
    assert json.loads((tmp_path / "config.json").read_text())["args"]["learning_rate"] == 1.0


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize(
    "files",
    [
        {"thesis.tex": "years of work"},
        {"data/a/b.txt": "1"},
        {"checkpoint.pt": "of something else"},
        {"config.json": '{"model_type": "bert"}', "model.bin": "weights"},
        {"config.json": "[1, 2]", "model.bin": "weights"},
        {"config.json": "{ not json", "model.bin": "weights"},
    ],
    ids=["file", "folder", "checkpoint", "other-config", "list-config", "no-json-config"],
)
def test_start_run_refuses_a_foreign_folder(start, tmp_path, capsys, files, fresh):
    """A mistyped --run-dir must cost nothing, above all not with --fresh; many tools have a config.json."""
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text(text)
    before = contents(tmp_path)
    try:
        assert str(tmp_path) in refused(start, Args(fresh=fresh), tmp_path, capsys)
    finally:
        assert contents(tmp_path) == before


def test_start_run_survives_a_kill_while_it_starts(start, tmp_path, monkeypatch):
    """Killed between writing config.json's temporary file and renaming it: the same command starts the run."""

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(su.os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            start(Args(), tmp_path / "run")
    assert start(Args(), tmp_path / "run") is None
    assert json.loads((tmp_path / "run" / "config.json").read_text())["args"] == asdict(Args())


@pytest.mark.parametrize("below", ["file", "file/run", "file/runs/run"])
def test_start_run_where_no_folder_can_be(start, tmp_path, capsys, below):
    """One line instead of a traceback, and the file in the way is left alone."""
    (tmp_path / "file").write_text("mine")
    assert str(tmp_path / below) in refused(start, Args(), tmp_path / below, capsys)
    assert (tmp_path / "file").read_text() == "mine"


def test_fresh_does_not_give_up_its_lock(start, tmp_path, capsys):
    """Emptying the folder must spare the lock file, or a second process could lock a new one beside the old."""
    start(Args(), tmp_path)
    su.start_run(Args(fresh=True), tmp_path)  # and is still running
    assert "another process" in refused(start, Args(), tmp_path, capsys)


def test_start_run_keeps_a_second_process_out(tmp_path, capsys, start):
    """While one process has the folder no other gets it, not even with --fresh; killed with -9 it leaves no lock."""
    program = (
        "import sys; from pathlib import Path; import sparse_utils; from tests.test_sparse_utils import Args\n"
        "sparse_utils.start_run(Args(), Path(sys.argv[1])); print('ready', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
        try:
            assert first.stdout.readline() == f"writing to {tmp_path}\n" and first.stdout.readline() == "ready\n"
            before = contents(tmp_path)
            for fresh in (False, True):
                assert "another process" in refused(start, Args(fresh=fresh), tmp_path, capsys)
            assert contents(tmp_path) == before
        finally:
            first.kill()
    assert start(Args(), tmp_path) is None


def test_fail_is_one_line_and_status_two(capsys):
    with pytest.raises(SystemExit) as end:
        su.fail("no such task")
    assert end.value.code == 2
    assert capsys.readouterr() == ("", "error: no such task\n")


def test_write_csv(tmp_path):
    """All rows each time: the rows that a checkpoint holds replace newer ones in the file."""
    file = tmp_path / "results.csv"
    rows = [{"step": 1, "return_mean": 0.1}, {"step": 2, "return_mean": math.nan}]
    su.write_csv(file, rows)
    su.write_csv(file, rows[:1])
    with file.open(newline="") as stream:
        assert list(csv.DictReader(stream)) == [{"step": "1", "return_mean": "0.1"}]
    su.write_csv(file, rows)
    assert file.read_bytes().split() == [b"step,return_mean", b"1,0.1", b"2,nan"]
    assert [f.name for f in tmp_path.iterdir()] == ["results.csv"]


def test_write_csv_keeps_the_old_file_when_it_fails(tmp_path):
    """The second row does not fit the header, after the first has been written."""
    file = tmp_path / "results.csv"
    su.write_csv(file, [{"step": 1}])
    before = file.read_bytes()
    with pytest.raises(ValueError, match="surprise"):
        su.write_csv(file, [{"step": 2}, {"step": 3, "surprise": 4}])
    assert file.read_bytes() == before
    su.write_csv(file, [{"step": 2}])  # what it left behind does not matter
    assert file.read_text().split() == ["step", "2"]


def test_save_checkpoint_keeps_the_old_file_when_it_fails(tmp_path):
    file = tmp_path / "checkpoint.pt"
    su.save_checkpoint(file, {"step": 1, "w": torch.ones(1000)})
    before = file.read_bytes()
    with pytest.raises(Exception, match="pickle|lambda"):
        su.save_checkpoint(file, {"step": 2, "w": torch.ones(1000), "bad": lambda: None})
    assert file.read_bytes() == before
    assert torch.load(file, weights_only=True)["step"] == 1


def test_write_atomically_killed_at_any_moment(tmp_path, monkeypatch):
    """Half written, or written and not renamed: the old file; renamed: the new one. Never one that is half new."""
    file = tmp_path / "file"
    file.write_text("old")

    def half(temporary: Path) -> None:
        temporary.write_text("ne")
        raise KeyboardInterrupt

    def killed(*_) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        su.write_atomically(file, half)
    assert file.read_text() == "old"
    with monkeypatch.context() as patch:
        patch.setattr(su.os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            su.write_atomically(file, lambda temporary: temporary.write_text("new"))
    assert file.read_text() == "old"
    su.write_atomically(file, lambda temporary: temporary.write_text("new"))
    assert [(f.name, f.read_text()) for f in tmp_path.iterdir()] == [("file", "new")]


def test_stopwatch(monkeypatch):
    """Every second is booked once, under the part that just ended; ``take`` starts the sums again."""
    clock = iter([0.0, 1.0, 3.0, 6.0, 10.0])
    monkeypatch.setattr(su, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    watch = su.Stopwatch("act", "env", "log")
    watch.lap("act")
    watch.lap("env")
    watch.lap("act")
    assert watch.take() == {"act": 4, "env": 2, "log": 0}
    assert watch.take() == {"act": 0, "env": 0, "log": 0}
    watch.lap("log")
    assert watch.take() == {"act": 0, "env": 0, "log": 4}
    with pytest.raises(KeyError):  # a misspelt part
        monkeypatch.setattr(su, "time", SimpleNamespace(perf_counter=lambda: 11.0))
        watch.lap("evn")
