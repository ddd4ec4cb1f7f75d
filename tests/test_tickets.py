"""The lottery-ticket functions of sparse_utils.py, and the convolutions and first weights of its runs."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import sparse_utils as su


def network(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {"a": torch.randn(4, 6, generator=generator), "b": torch.randn(6, 3, generator=generator)}


def ones(weights: su.Weights) -> su.Masks:
    return {name: torch.ones_like(w) for name, w in weights.items()}


def count(masks: su.Weights) -> int:
    return sum(int(mask.sum()) for mask in masks.values())


def test_prune_is_global_by_magnitude():
    weights = {"a": torch.tensor([[0.1, -0.9], [0.5, 0.2]]), "b": torch.tensor([[3.0, -0.3], [0.05, 1.0]])}
    masks = su.prune_ticket(weights, ones(weights), 0.5)
    assert masks["a"].tolist() == [[0, 1], [1, 0]]
    assert masks["b"].tolist() == [[1, 0], [0, 1]]
    masks = su.prune_ticket(weights, masks, 0.25)
    assert masks["a"].tolist() == [[0, 1], [0, 0]]  # 0.5 is the smallest that is left


def test_rounds_keep_the_papers_fractions():
    """ceil(0.8 * remaining) each round: 0.8^k of the weights up to rounding (section 2)."""
    weights = {"a": torch.randn(64, 64), "b": torch.randn(64, 4)}
    masks, remaining = ones(weights), 64 * 68
    for k in range(1, 21):
        smaller = su.prune_ticket(weights, masks, 0.2)
        remaining = math.ceil(round(0.8 * remaining, 6))
        assert count(smaller) == remaining
        assert all((smaller[name] <= masks[name]).all() for name in masks)  # nested
        assert remaining / (64 * 68) == pytest.approx(0.8**k, rel=0.06)
        masks = smaller


@settings(deadline=None, derandomize=True)
@given(n=st.integers(1, 40), fraction=st.sampled_from([0.1, 0.2, 0.5, 0.9]), zeros=st.integers(0, 40))
def test_prune_never_takes_a_pruned_weight_back(n, fraction, zeros):
    """Not even when every active weight is exactly zero."""
    masks = {"a": (torch.arange(40) < n).float().view(5, 8)}
    weights = {"a": torch.randn(5, 8) * (torch.arange(40) >= zeros).view(5, 8)}
    kept = su.prune_ticket(weights, masks, fraction)
    assert count(kept) == math.ceil(round((1 - fraction) * n, 6)) and (kept["a"] <= masks["a"]).all()


def test_permuted_masks_keep_each_layers_density():
    masks = su.prune_ticket(network(), ones(network()), 0.5)
    permuted = su.permute_masks(masks, torch.Generator().manual_seed(1))
    again = su.permute_masks(masks, torch.Generator().manual_seed(1))
    for name in masks:
        assert permuted[name].sum() == masks[name].sum() and torch.equal(permuted[name], again[name])
        assert set(permuted[name].unique().tolist()) <= {0.0, 1.0}
    assert any(not torch.equal(permuted[name], masks[name]) for name in masks)


def test_mask_permutation_is_entry_by_entry():
    """A permutation of whole rows would leave a dead input dead."""
    masks = {"a": torch.ones(20, 20)}
    masks["a"][:10] = 0
    rows = su.permute_masks(masks, torch.Generator().manual_seed(0))["a"].sum(1)
    assert ((rows > 0) & (rows < 20)).sum() > 15


@pytest.mark.parametrize("shuffle", [False, True])
def test_permuted_weights_are_the_survivors(shuffle):
    """The same multiset of values in each layer, at exactly the positions of the new mask, and the initial weights
    themselves are left alone."""
    weights = network()
    masks = su.prune_ticket(network(5), ones(weights), 0.5)
    generator = torch.Generator().manual_seed(2)
    new = su.permute_masks(masks, generator) if shuffle else masks
    before = {name: w.clone() for name, w in weights.items()}
    permuted = su.permute_weights(weights, masks, new, generator)
    for name in masks:
        assert torch.equal(weights[name], before[name])
        assert (permuted[name][new[name] == 0] == 0).all()
        old_values, new_values = weights[name][masks[name] == 1], permuted[name][new[name] == 1]
        assert torch.equal(old_values.sort().values, new_values.sort().values)
        assert not torch.equal(old_values, new_values)


def test_random_ticket_counts_over_all_layers():
    masks = ones({"a": torch.zeros(100, 100), "b": torch.zeros(20, 10)})
    ticket = su.random_ticket(masks, 2040, torch.Generator().manual_seed(0))
    assert count(ticket) == 2040
    assert ticket["a"].mean() == pytest.approx(0.2, abs=0.02) and ticket["b"].mean() == pytest.approx(0.2, abs=0.1)


def test_run_slices_are_views():
    stacked = {"a": torch.zeros(3, 2, 2)}
    su.run_slice(stacked, 1)["a"].fill_(7)
    assert stacked["a"].sum(dim=(1, 2)).tolist() == [0, 28, 0]


def test_ticket_file_gives_back_what_went_in(tmp_path):
    masks = su.prune_ticket(network(), ones(network()), 0.7)
    su.save_ticket(tmp_path / "t.pt", masks, initial=network(), result={"round": 3})
    ticket = su.load_ticket(tmp_path / "t.pt")
    assert all(torch.equal(ticket["masks"][name], masks[name]) for name in masks)
    assert torch.equal(ticket["initial"]["a"], network()["a"]) and ticket["result"] == {"round": 3}


def test_a_large_mask_takes_a_bit_per_weight(tmp_path):
    su.save_ticket(tmp_path / "t.pt", {"a": torch.ones(1000, 1000)})
    assert (tmp_path / "t.pt").stat().st_size < 1000 * 1000 / 8 + 5000


@pytest.mark.parametrize("content", [b"no torch file", None])
def test_a_file_that_is_no_ticket_is_named(tmp_path, content):
    if content is not None:
        (tmp_path / "t.pt").write_bytes(content)
    with pytest.raises(ValueError, match="t.pt as a ticket"):
        su.load_ticket(tmp_path / "t.pt")


@pytest.mark.parametrize("content", [b"", torch.zeros(2), [1, 2]], ids=["empty", "tensor", "list"])
def test_other_torch_files_are_named_too(tmp_path, content):
    (tmp_path / "t.pt").write_bytes(b"") if content == b"" else torch.save(content, tmp_path / "t.pt")
    with pytest.raises(ValueError, match="t.pt as a ticket"):
        su.load_ticket(tmp_path / "t.pt")


def test_a_checkpoint_is_no_ticket(tmp_path):
    su.save_checkpoint(tmp_path / "t.pt", {"finished": True, "round": 3})
    with pytest.raises(ValueError, match="t.pt as a ticket"):
        su.load_ticket(tmp_path / "t.pt")


@settings(deadline=None, derandomize=True)
@given(remaining=st.integers(1, 1_000_000), percent=st.integers(1, 99))
def test_n_remaining_is_exact(remaining, percent):
    exact = math.ceil((1 - Fraction(percent, 100)) * remaining)
    assert su.n_remaining(remaining, percent / 100) == exact


# ---- Convolutions with a run axis ----------------------------------------------------------------------------------

RUNS = 3


class Stacked(nn.Module):
    """R networks of two convolutions and a linear layer: x [R, B, 2, 9, 9] -> [R, B, 5]."""

    def __init__(self, runs: int = RUNS):
        super().__init__()
        layers = [
            su.BatchedConv2d(runs, 2, 4, 3, stride=2),
            su.BatchedConv2d(runs, 4, 3, 2),
            su.BatchedLinear(runs, 27, 5),
        ]
        self.layers = nn.ModuleList(layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.layers[1](torch.relu(self.layers[0](x))))
        return self.layers[2](x.flatten(2))


class Plain(nn.Module):
    """One of them, of PyTorch's layers: x [B, 2, 9, 9] -> [B, 5]."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Conv2d(2, 4, 3, stride=2), nn.Conv2d(4, 3, 2), nn.Linear(27, 5)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.layers[1](torch.relu(self.layers[0](x))))
        return self.layers[2](x.flatten(1))


def test_batched_convolutions_are_that_many_convolutions():
    """Outputs, and the gradients of weights, biases and inputs."""
    torch.manual_seed(0)
    net, x = Stacked(), torch.randn(RUNS, 6, 2, 9, 9, requires_grad=True)
    out = net(x)
    factor = torch.randn_like(out)
    (out * factor).sum().backward()
    assert out.shape == (RUNS, 6, 5)
    for r in range(RUNS):
        plain, own_x = Plain(), x[r].detach().clone().requires_grad_()
        plain.load_state_dict(su.unstack(net, r))  # strict: no key more or less
        own = plain(own_x)
        (own * factor[r]).sum().backward()
        torch.testing.assert_close(out[r], own)
        torch.testing.assert_close(x.grad[r], own_x.grad)
        for batched, single in zip(net.layers, plain.layers, strict=True):
            weight, bias = batched.weight.grad[r], batched.bias.grad[r]
            weight = weight.T if isinstance(single, nn.Linear) else weight
            torch.testing.assert_close(weight, single.weight.grad)
            torch.testing.assert_close(bias.flatten(), single.bias.grad)


def test_batched_convolution_starts_like_conv2d():
    """nn.Conv2d's default is U(-l, l) for weights and biases, with l = 1 / sqrt(in * kh * kw) = 0.1."""
    torch.manual_seed(0)
    layer = su.BatchedConv2d(2, 4, 200, 5)
    for parameter in layer.parameters():
        assert 0.098 < parameter.abs().max() <= 0.1
        assert parameter.var().item() == pytest.approx(0.1**2 / 3, rel=0.1)
    assert not torch.equal(layer.weight[0], layer.weight[1])


def test_unstacked_convolutions_are_copies():
    net = Stacked()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    for tensor in su.unstack(net, 1).values():
        tensor.zero_()
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


def test_batched_convolutions_are_prunable():
    net = Stacked()
    weights = su.prunable(net=net)
    assert list(weights) == [f"net.layers.{i}.weight" for i in range(3)]
    assert weights["net.layers.0.weight"] is net.layers[0].weight
    assert su.layer_shapes(weights)["net.layers.0.weight"] == (4, 2, 3, 3)


def one_network(seed: int = 0) -> dict[str, torch.Tensor]:
    """The weights of run 1 of a stack: [4, 2, 3, 3], [3, 4, 2, 2] and [27, 5], in all 72 + 48 + 135."""
    torch.manual_seed(seed)
    return {name: w.detach().clone() for name, w in su.run_slice(su.prunable(net=Stacked()), 1).items()}


def test_tickets_of_convolutions_are_pruned_over_all_layers():
    weights = one_network()
    masks = su.prune_ticket(weights, ones(weights), 0.2)
    assert count(masks) == 204  # 0.8 * 255
    sizes = torch.cat([w.abs().flatten() for w in weights.values()]).sort(descending=True).values
    for name, w in weights.items():
        assert masks[name].shape == w.shape and torch.equal(masks[name] == 1, w.abs() >= sizes[203])
    again = su.prune_ticket(weights, masks, 0.2)
    assert count(again) == 164 and all((again[name] <= masks[name]).all() for name in masks)  # ceil(163.2)


def test_baselines_of_convolutions_keep_what_they_should():
    weights, generator = one_network(), torch.Generator().manual_seed(3)
    masks = su.prune_ticket(one_network(1), ones(weights), 0.6)
    shuffled = su.permute_masks(masks, generator)
    permuted = su.permute_weights(weights, masks, shuffled, generator)
    anywhere = su.random_ticket(masks, 102, generator)
    assert count(masks) == count(anywhere) == 102
    for name, w in weights.items():
        assert shuffled[name].shape == permuted[name].shape == anywhere[name].shape == w.shape
        assert shuffled[name].sum() == masks[name].sum() and not torch.equal(shuffled[name], masks[name])
        assert torch.equal(permuted[name] != 0, shuffled[name] == 1)
        before, after = w[masks[name] == 1], permuted[name][shuffled[name] == 1]
        assert torch.equal(before.sort().values, after.sort().values) and not torch.equal(before, after)
    kernels = shuffled["net.layers.0.weight"].flatten(2).sum(-1)  # entry by entry, not kernel by kernel
    assert ((kernels > 0) & (kernels < 9)).any()


# ---- First weights -------------------------------------------------------------------------------------------------


def drawn(init: str = "kaiming", input_scale: float = 1.0, seed: int = 0) -> dict[str, torch.Tensor]:
    """For a network of large layers: fan in and fan out of the convolution are 9 * 8 and 9 * 100."""
    net = nn.ModuleDict({"layers": nn.ModuleList([su.BatchedConv2d(2, 8, 100, 3), su.BatchedLinear(2, 400, 50)])})
    net.log_std = nn.Parameter(torch.full((2, 1, 50), 7.0))
    parameters = {f"actor.{name}": p for name, p in net.named_parameters()}
    return su.initial_parameters(parameters, init, input_scale, torch.Generator().manual_seed(seed))


CONV, LINEAR = "actor.layers.0.weight", "actor.layers.1.weight"


@pytest.mark.parametrize(
    ("init", "conv", "linear"),
    [
        ("kaiming", 1 / 72, 1 / 400),
        ("he", 6 / 72, 6 / 400),
        ("xavier", 6 / (72 + 900), 6 / (400 + 50)),
    ],
)
def test_first_weights_are_uniform_up_to_their_limit(init, conv, linear):
    values = drawn(init)
    assert values[CONV].shape == (100, 8, 3, 3) and values[LINEAR].shape == (400, 50)
    for name, square in ((CONV, conv), (LINEAR, linear)):
        limit = math.sqrt(square)
        assert 0.99 * limit < values[name].max() <= limit and -limit <= values[name].min() < -0.99 * limit
        assert values[name].std().item() == pytest.approx(limit / math.sqrt(3), rel=0.05)  # that of U(-l, l)
        assert values[name].mean().item() == pytest.approx(0, abs=0.05 * limit)


def test_orthogonal_first_weights():
    """Rows or columns, whichever are fewer, are orthogonal with the squared norm 2; a kernel is flattened."""
    values = drawn("orthogonal")
    conv, linear = values[CONV].flatten(1), values[LINEAR]  # [100, 72], [400, 50]
    torch.testing.assert_close(conv.T @ conv, 2 * torch.eye(72), atol=1e-4, rtol=0)
    torch.testing.assert_close(linear.T @ linear, 2 * torch.eye(50), atol=1e-4, rtol=0)


@pytest.mark.parametrize("init", ["kaiming", "he", "xavier", "orthogonal"])
def test_first_biases_and_log_stds(init):
    values = drawn(init)
    assert (values["actor.log_std"] == 0).all() and values["actor.log_std"].shape == (1, 50)
    for name, fan_in in (("actor.layers.0.bias", 72), ("actor.layers.1.bias", 400)):
        limit = 1 / math.sqrt(fan_in) if init == "kaiming" else 0
        assert 0.9 * limit <= values[name].abs().max() <= limit
    assert values["actor.layers.0.bias"].shape == (100,) and values["actor.layers.1.bias"].shape == (1, 50)


@pytest.mark.parametrize("init", ["kaiming", "he", "xavier", "orthogonal"])
def test_first_weights_follow_from_the_generator(init):
    torch.manual_seed(1)
    first = drawn(init)
    torch.manual_seed(2)  # of no influence
    again, other = drawn(init), drawn(init, seed=1)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first[CONV], other[CONV]) and not torch.equal(first[LINEAR], other[LINEAR])


@pytest.mark.parametrize("init", ["kaiming", "he", "xavier", "orthogonal"])
def test_input_scale_is_for_the_weights_of_first_layers(init):
    plain, scaled = drawn(init), drawn(init, input_scale=0.1)
    for name, value in plain.items():
        assert torch.equal(scaled[name], 0.1 * value if name == CONV else value)


def test_input_scale_spares_the_eleventh_layer():
    parameters = {f"actor.layers.{i}.weight": torch.zeros(1, 2, 2) for i in (0, 10, 20)}
    plain, scaled = (su.initial_parameters(parameters, "he", s, torch.Generator().manual_seed(0)) for s in (1.0, 0.1))
    assert [name for name in plain if not torch.equal(plain[name], scaled[name])] == ["actor.layers.0.weight"]


# ---- The four conditions (section 3, table 1) ----------------------------------------------------------------------


def after_pruning() -> tuple[su.Masks, dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Masks with 3 of 6 and 5 of 8 weights, start of 1, 2, 3 ..., fresh parameters of 100."""
    pruned = {
        "a.weight": torch.tensor([[1.0, 0, 1], [0, 0, 1]]),
        "b.weight": torch.tensor([[1.0, 1, 1, 1], [0, 0, 0, 1]]),
    }
    start = {"a.weight": torch.arange(1.0, 7).view(2, 3), "b.weight": torch.arange(11.0, 19).view(2, 4)}
    start |= {"a.bias": torch.full((1,), 21.0), "log_std": torch.full((1,), 22.0)}
    start["critic.weight"] = torch.full((1, 1), 23.0)
    return pruned, start, {name: torch.full_like(tensor, 100) for name, tensor in start.items()}


def next_ticket(condition: str, seed: int = 0) -> tuple[su.Masks, dict[str, torch.Tensor]]:
    pruned, start, fresh = after_pruning()
    masks, new = su.next_ticket(condition, pruned, start, fresh, torch.Generator().manual_seed(seed))
    for there, original in zip((pruned, start, fresh), after_pruning(), strict=True):  # nothing is changed in place
        assert all(torch.equal(there[name], original[name]) for name in original)
    assert new.keys() == start.keys() and masks.keys() == pruned.keys()
    return masks, new


def survivors(masks: su.Masks, values: dict[str, torch.Tensor], name: str) -> list[float]:
    return values[name][masks[name] == 1].tolist()


def test_ticket_rewinds():
    pruned, start, _ = after_pruning()
    masks, new = next_ticket("ticket")
    assert all(torch.equal(masks[name], pruned[name]) for name in pruned)
    assert all(torch.equal(new[name], start[name]) for name in start)


@pytest.mark.parametrize("condition", ["mask_permuted", "permuted_permuted"])
def test_permuted_conditions_keep_values_and_densities(condition):
    pruned, start, _ = after_pruning()
    orders, places = set(), set()
    for seed in range(20):
        masks, new = next_ticket(condition, seed)
        assert masks["a.weight"].sum() == 3 and masks["b.weight"].sum() == 5
        assert sorted(survivors(masks, new, "a.weight")) == [1, 3, 6]
        assert sorted(survivors(masks, new, "b.weight")) == [11, 12, 13, 14, 18]
        assert all((new[name][masks[name] == 0] == 0).all() for name in masks)
        for name in ("a.bias", "log_std", "critic.weight"):  # rewound as they were
            assert torch.equal(new[name], start[name])
        orders.add(tuple(survivors(masks, new, "a.weight")))
        places.add(str(masks["a.weight"].tolist()))
    assert len(orders) == 6  # all of 3!
    assert (places == {str(pruned["a.weight"].tolist())}) == (condition == "mask_permuted")
    assert condition == "mask_permuted" or len(places) > 10  # of 20


def test_random_reinit_is_as_large_and_all_new():
    layers = set()
    for seed in range(20):
        masks, new = next_ticket("random_reinit", seed)
        assert count(masks) == 8  # over both layers together
        layers.add(int(masks["a.weight"].sum()))
        assert all((value == 100).all() for value in new.values())
    assert len(layers) > 2


@pytest.mark.parametrize("condition", ["mask_permuted", "permuted_permuted", "random_reinit"])
def test_next_ticket_follows_from_the_generator(condition):
    first, again = next_ticket(condition, 4), next_ticket(condition, 4)
    for one, two in zip(first, again, strict=True):
        assert all(torch.equal(one[name], two[name]) for name in one)


def test_an_unknown_condition_is_named():
    with pytest.raises(ValueError, match="no condition winner"):
        next_ticket("winner")


# ---- Words and numbers about tickets -------------------------------------------------------------------------------


def test_describe_ticket_worked_by_hand():
    first = torch.tensor([[0.0, 1], [0, 0], [1, 1], [1, 0]])  # [in, out]: the second input is dead
    masks = {"actor.layers.0.weight": first, "actor.layers.1.weight": torch.tensor([[1.0, 0], [0, 0]])}
    row = {"remaining": 5, "remaining_fraction": 5 / 12, "inputs_alive": 3, "alive_inputs": "0 2 3"}
    row |= {"density_actor.layers.0": 0.5, "density_actor.layers.1": 0.25}
    assert su.describe_ticket(masks) == row
    assert list(su.describe_ticket(masks)) == list(row)  # the order of the columns
    assert su.describe_ticket(masks, [1, 4, 8, 9])["alive_inputs"] == "1 8 9"


def test_describe_ticket_of_convolutions():
    first = torch.zeros(2, 3, 2, 2)  # [out, in, kh, kw]
    first[1, 0, 1, 1] = first[0, 2, 0, 1] = 1
    row = su.describe_ticket({"actor.layers.0.weight": first})
    assert (row["inputs_alive"], row["alive_inputs"]) == (2, "0 2")
    assert row["density_actor.layers.0"] == pytest.approx(2 / 24)


def test_describe_ticket_without_any_input():
    row = su.describe_ticket({"actor.layers.0.weight": torch.zeros(2, 3), "actor.layers.1.weight": torch.ones(3, 1)})
    assert (row["remaining"], row["inputs_alive"], row["alive_inputs"]) == (3, 0, "")


def test_describe_returns_worked_by_hand():
    """The interquartile mean of eight is that of the middle four: (2 + 3 + 4 + 5) / 4."""
    text = su.describe_returns(np.array([5.0, 0, 1, 2, 100, 3, 4, 6]))
    assert text.startswith("8 episodes: mean 15.1, std 32.1, IQM 3.5 (95% interval ")
    low, high = (float(x) for x in text.split("interval ")[1].rstrip(")").split(" to "))
    assert 0 <= low < 3.5 < high < 100
    assert text == su.describe_returns(np.array([5.0, 0, 1, 2, 100, 3, 4, 6]))
    assert su.describe_returns(np.full(4, 500.0)).endswith("IQM 500.0 (95% interval 500.0 to 500.0)")


# ---- Early-bird tickets ----------------------------------------------------------------------------------------------


def random_masks(n: int, seed: int = 0, fraction: float = 0.5) -> list[su.Masks]:
    return [su.prune_ticket(network(seed + i), ones(network()), fraction) for i in range(n)]


def test_distance_of_masks_by_hand():
    one = {"a": torch.tensor([[1.0, 0.0], [1.0, 1.0]]), "b": torch.tensor([[1.0], [0.0]])}
    other = {"a": torch.tensor([[1.0, 1.0], [0.0, 1.0]]), "b": torch.tensor([[1.0], [1.0]])}
    assert su.mask_distance(one, other) == su.mask_distance(other, one) == 3 / 6  # equation 2.5
    assert su.mask_distance(one, one) == 0
    assert su.flat_mask(one).tolist() == [1, 0, 1, 1, 1, 0]


def test_overlap_matrix_against_pairs():
    masks = random_masks(5, fraction=0.6)
    expected = [[1 - su.mask_distance(a, b) for b in masks] for a in masks]
    np.testing.assert_allclose(su.overlap_matrix(masks).numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("fraction", [0.2, 0.4, 0.6, 0.8])
def test_random_masks_differ_at_2p_1_minus_p(fraction):
    one, other = ({"a": torch.randn(200, 500, generator=torch.Generator().manual_seed(seed))} for seed in (1, 2))
    distance = su.mask_distance(*(su.prune_ticket(w, ones(w), fraction) for w in (one, other)))
    assert distance == pytest.approx(2 * fraction * (1 - fraction), abs=0.005)


@settings(max_examples=60, deadline=None)
@given(
    flips=st.lists(st.integers(0, 20), min_size=1, max_size=12),
    window=st.integers(2, 5),
    strict=st.booleans(),
    threshold=st.sampled_from([0.05, 0.1, 0.2, 0.5]),
)
def test_early_bird_against_brute_force(flips, window, strict, threshold):
    """Masks of 20 weights, each a number of flips away from the one before."""
    generator, mask, seen = torch.Generator().manual_seed(sum(flips)), torch.ones(20), []
    early_bird = su.EarlyBird(threshold, window, strict)
    for n in flips:
        mask = mask.clone()
        where = torch.randperm(20, generator=generator)[:n]
        mask[where] = 1 - mask[where]
        seen.append(mask.tolist())
        older = seen[-window:-1]
        differing = [sum(a != b for a, b in zip(mask.tolist(), other, strict=True)) / 20 for other in older]
        agree = all(d < threshold if strict else d <= threshold for d in differing)
        assert early_bird.update({"a": mask.view(4, 5)}) == (len(seen) >= window and agree)
        assert len(seen) < window or early_bird.distance == max(differing)


def test_early_bird_on_a_made_up_history():
    """A distance of exactly the threshold is below it for nobody, and at it for You et al.; the FIFO forgets."""
    base = torch.zeros(10)

    def mask(*active: int) -> su.Masks:
        return {"a": base.index_fill(0, torch.tensor(active, dtype=torch.int64), 1.0)}

    history = [mask(0), mask(0, 1), mask(0, 1), mask(0, 1)]
    strict, at = su.EarlyBird(0.1), su.EarlyBird(0.1, window=3, strict=False)
    assert [strict.update(m) for m in history] == [False, False, True, True]
    assert [at.update(m) for m in history] == [False, False, True, True]
    three = su.EarlyBird(0.1, window=3)
    assert [three.update(m) for m in history] == [False, False, False, True]  # the first mask is out at the fourth
    assert math.isnan(su.EarlyBird().distance)


def test_early_bird_keeps_no_reference_to_the_masks():
    early_bird, mask = su.EarlyBird(), torch.ones(10)
    early_bird.update({"a": mask})
    mask.zero_()
    assert not early_bird.update({"a": mask}) and early_bird.distance == 1
    with pytest.raises(ValueError, match="window"):
        su.EarlyBird(window=1)
