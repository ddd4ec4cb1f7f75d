"""The lottery-ticket functions of sparse_utils.py."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

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
