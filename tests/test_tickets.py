"""The lottery-ticket functions of sparse_utils.py, and the first weights of its runs."""

import math
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import sparse_utils as su


def network(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {"a": torch.randn(4, 6, generator=generator), "b": torch.randn(3, 2, 1, 3, generator=generator)}


def ones(weights: su.Weights) -> su.Masks:
    return {name: torch.ones_like(w) for name, w in weights.items()}


def count(masks: su.Weights) -> int:
    return sum(int(mask.sum()) for mask in masks.values())


def test_prune_is_global_by_magnitude():
    weights = {"a": torch.tensor([[0.1, -0.9], [0.5, 0.2]]), "b": torch.tensor([[3.0, -0.3], [0.05, 1.0]])}
    masks = su.prune_ticket(weights, ones(weights), 0.5)
    assert masks["a"].tolist() == [[0, 1], [1, 0]]
    assert masks["b"].tolist() == [[1, 0], [0, 1]]
    masks, left = su.prune_ticket(weights, masks, 0.25), []
    assert masks["a"].tolist() == [[0, 1], [0, 0]]  # 0.5 is the smallest that is left
    for _ in range(3):  # 20% are less than one weight
        masks = su.prune_ticket(weights, masks, 0.2)
        left.append(su.flat_mask(masks).tolist())
    assert left == [[0, 0, 0, 0, 1, 0, 0, 1], [0, 0, 0, 0, 1, 0, 0, 0], [0, 0, 0, 0, 1, 0, 0, 0]]
    assert (su.remaining_by_round(4, 0.2, 9), su.remaining_by_round(4, 0.2, 2)) == ([4, 3, 2, 1], [4, 3, 2])
    assert su.remaining_by_round(4352, 0.2, 20)[-1] == 52 > 0.8**20 * 4352


@settings(deadline=None, derandomize=True)
@given(n=st.integers(1, 40), fraction=st.sampled_from([0.1, 0.2, 0.5, 0.9]), zeros=st.integers(0, 40))
def test_prune_never_takes_a_pruned_weight_back(n, fraction, zeros):
    """Not even when every active weight is exactly zero."""
    masks = {"a": (torch.arange(40) < n).float().view(5, 8)}
    weights = {"a": torch.randn(5, 8) * (torch.arange(40) >= zeros).view(5, 8)}
    kept = su.prune_ticket(weights, masks, fraction)
    assert count(kept) == max(1, min(math.ceil(round((1 - fraction) * n, 6)), n - 1))
    assert (kept["a"] <= masks["a"]).all()


@settings(deadline=None, derandomize=True)
@given(remaining=st.integers(1, 1_000_000), percent=st.integers(1, 99))
def test_n_remaining_is_exact(remaining, percent):
    exact = math.ceil((1 - Fraction(percent, 100)) * remaining)
    assert su.n_remaining(remaining, percent / 100) == max(1, min(exact, remaining - 1))


# ---- Files -----------------------------------------------------------------------------------------------------------


def test_ticket_file_gives_back_what_went_in(tmp_path):
    """A mask takes a bit per weight."""
    masks = su.prune_ticket(network(), ones(network()), 0.7) | {"large": torch.ones(1000, 1000)}
    file = tmp_path / "t.pt"
    su.save_ticket(file, masks, initial=network(), result={"round": 3}, script="ppo_imp", args={"seeds": (1, 2)})
    ticket = su.load_ticket(file)
    assert all(torch.equal(ticket["masks"][name], masks[name]) for name in masks)
    assert torch.equal(ticket["initial"]["a"], network()["a"]) and ticket["result"] == {"round": 3}
    assert file.stat().st_size < 1000 * 1000 / 8 + 7000
    assert su.load_ticket_of("ppo_imp", str(file), dict)[1] == {"seeds": (1, 2)}
    with pytest.raises(ValueError, match="t.pt is no ticket of dqn_imp.py"):
        su.load_ticket_of("dqn_imp", str(file), dict)
    with pytest.raises(ValueError, match="t.pt is a ticket of another version of ppo_imp.py"):
        su.load_ticket_of("ppo_imp", str(file), lambda learning_rate=1: None)


def test_a_file_that_is_no_ticket_is_named(tmp_path):
    file = tmp_path / "t.pt"
    writes = [lambda: None, lambda: file.write_bytes(b""), lambda: file.write_bytes(b"no torch file")]
    writes += [lambda c=c: torch.save(c, file) for c in (torch.zeros(2), [1, 2], {"finished": True, "round": 3})]
    for write in writes:
        write()
        with pytest.raises(ValueError, match="t.pt as a ticket"):
            su.load_ticket(file)


def same(one: object, other: object) -> bool:
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    both = isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor)
    return torch.equal(one, other) if both else type(one) is type(other) and one == other


def test_no_changed_byte_goes_unnoticed(tmp_path):
    """In tensors and in all else: it is refused, or it is one that means nothing. The list of contents at the end is
    what checksums do not cover: there 8 makes stored parts deflated ones, and the other bits mark them as folders."""
    masks, initial = {"a.weight": torch.eye(3)}, {"a.weight": torch.randn(3, 3)}
    su.save_ticket(tmp_path / "t.pt", masks, initial=initial, result={"round": 3})
    expected, data = su.load_ticket(tmp_path / "t.pt"), (tmp_path / "t.pt").read_bytes()
    directory, refused = data.index(b"PK\1\2"), 0
    changed = tmp_path / "changed.pt"
    for place, flip in [(i, 255) for i in range(len(data))] + [(i, 8) for i in range(directory, len(data))]:
        changed.write_bytes(data[:place] + bytes([data[place] ^ flip]) + data[place + 1 :])
        try:
            assert same(su.load_ticket(changed), expected), (place, flip)
        except ValueError as error:
            assert "changed.pt as a ticket: it is damaged" in str(error) and "\n" not in str(error)
            refused += 1
    assert refused > 500


# ---- First weights ---------------------------------------------------------------------------------------------------


def drawn(init: str = "kaiming", input_scale: float = 1.0, seed: int = 0) -> dict[str, torch.Tensor]:
    """For a network of large layers: fan in and fan out of the convolution are 9 * 8 and 9 * 100."""
    net = nn.ModuleDict({"layers": nn.ModuleList([su.BatchedConv2d(2, 8, 100, 3), su.BatchedLinear(2, 400, 50)])})
    net.log_std = nn.Parameter(torch.full((2, 1, 50), 7.0))
    parameters = {f"actor.{name}": p for name, p in net.named_parameters()}
    return su.initial_parameters(parameters, init, input_scale, torch.Generator().manual_seed(seed))


CONV, LINEAR = "actor.layers.0.weight", "actor.layers.1.weight"
every_init = pytest.mark.parametrize("init", ["kaiming", "he", "xavier", "orthogonal"])


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


@pytest.mark.rounding
def test_orthogonal_first_weights():
    """Rows or columns, whichever are fewer, are orthogonal with the squared norm 2; a kernel is flattened."""
    values = drawn("orthogonal")
    conv, linear = values[CONV].flatten(1), values[LINEAR]  # [100, 72], [400, 50]
    torch.testing.assert_close(conv.T @ conv, 2 * torch.eye(72), atol=1e-4, rtol=0)
    torch.testing.assert_close(linear.T @ linear, 2 * torch.eye(50), atol=1e-4, rtol=0)


@every_init
def test_first_biases_and_log_stds(init):
    values = drawn(init)
    assert (values["actor.log_std"] == 0).all() and values["actor.log_std"].shape == (1, 50)
    for name, fan_in in (("actor.layers.0.bias", 72), ("actor.layers.1.bias", 400)):
        limit = 1 / math.sqrt(fan_in) if init == "kaiming" else 0
        assert 0.9 * limit <= values[name].abs().max() <= limit
    assert values["actor.layers.0.bias"].shape == (100,) and values["actor.layers.1.bias"].shape == (1, 50)


@every_init
def test_first_weights_follow_from_the_generator(init):
    """Alone; the scale of inputs is for the weights of the layer that reads them (and not of the eleventh)."""
    torch.manual_seed(1)
    first = drawn(init)
    torch.manual_seed(2)
    again, other, scaled = drawn(init), drawn(init, seed=1), drawn(init, input_scale=0.1)
    assert not torch.equal(first[CONV], other[CONV]) and not torch.equal(first[LINEAR], other[LINEAR])
    for name, value in first.items():
        assert torch.equal(again[name], value)
        assert torch.equal(scaled[name], 0.1 * value if name == CONV else value)
    template = nn.ModuleDict({"layers": nn.ModuleList([su.BatchedLinear(2, 3, 4) for _ in range(11)])})
    template.register_buffer("mean", torch.arange(6.0).view(2, 3))
    plain, scaled = (su.initial_state(template, init, x, torch.Generator().manual_seed(0)) for x in (1.0, 0.1))
    assert plain["mean"].tolist() == [0, 1, 2] and plain.keys() == template.state_dict().keys()
    assert [name for name in plain if not torch.equal(plain[name], scaled[name])] == ["layers.0.weight"]


# ---- The four conditions (section 3, table 1) ------------------------------------------------------------------------


def after_pruning() -> tuple[su.Masks, dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Masks with 3 of 6 and 5 of 8 weights, start of 1, 2, 3 ..., fresh parameters of 100."""
    pruned = {
        "a.weight": torch.tensor([[1.0, 0, 1], [0, 0, 1]]),
        "b.weight": torch.tensor([1.0, 1, 1, 1, 0, 0, 0, 1]).view(2, 1, 2, 2),  # a convolution
    }
    start = {"a.weight": torch.arange(1.0, 7).view(2, 3), "b.weight": torch.arange(11.0, 19).view(2, 1, 2, 2)}
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
        places.add(str(masks["b.weight"].tolist()))
    assert len(orders) == 6  # all of 3!
    assert (places == {str(pruned["b.weight"].tolist())}) == (condition == "mask_permuted")
    assert condition == "mask_permuted" or len(places) > 10  # of 20


def test_random_reinit_is_as_large_and_all_new():
    layers = set()
    for seed in range(20):
        masks, new = next_ticket("random_reinit", seed)
        assert count(masks) == 8  # over both layers together
        layers.add(int(masks["a.weight"].sum()))
        assert all((value == 100 * masks.get(name, 1)).all() for name, value in new.items())
    assert len(layers) > 2


def test_next_ticket_follows_from_the_generator():
    """And that of "ticket" is the mask and what of the start is under it."""
    pruned, start, _ = after_pruning()
    masks, new = next_ticket("ticket")
    assert same(masks, pruned) and same(new, {name: value * pruned.get(name, 1) for name, value in start.items()})
    for condition in su.CONDITIONS:
        assert all(same(*pair) for pair in zip(next_ticket(condition, 4), next_ticket(condition, 4), strict=True))
    with pytest.raises(ValueError, match="no condition winner"):
        next_ticket("winner")


# ---- The best weights of a round -------------------------------------------------------------------------------------


def in_training() -> tuple[nn.Module, nn.Module, torch.optim.Optimizer]:
    """Three networks after some steps of Adam, and their target networks."""
    torch.manual_seed(0)
    net, target = su.BatchedLinear(3, 4, 4), su.BatchedLinear(3, 4, 4)
    optimizer = su.FlatAdam(dict(net.named_parameters()), 0.1)
    train(net, optimizer)
    return net, target, optimizer


def train(net: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    for _ in range(3):
        optimizer.zero_grad()
        net(torch.randn(3, 5, 4)).square().sum().backward()
        optimizer.step()


def everything(net: nn.Module, target: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    tensors = {f"net.{name}": tensor for name, tensor in net.state_dict().items()}
    tensors |= {f"target.{name}": tensor for name, tensor in target.state_dict().items()}
    for i, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"{name}.{i}": moment for name, moment in moments.items() if moment.dim()}
    return {name: tensor.clone() for name, tensor in tensors.items()}


def test_the_later_of_equals_is_the_best():
    """And ``step`` says when that was reached first."""
    net, target, optimizer = in_training()
    best = su.Best(net.state_dict(), optimizer, target.state_dict())
    assert best.update(10, np.array([[1.0, 3], [5, 5], [0, 0]])) == []
    first = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    train(net, optimizer)
    before = everything(net, target, optimizer)
    assert best.update(20, np.array([[2.0, 2], [4, 4], [1, 0]])) == []
    assert same(everything(net, target, optimizer), before)
    for r, there in enumerate((net.state_dict(), first, net.state_dict())):
        assert same(su.copy_slice(best.weights, r), su.copy_slice(there, r))
    assert (best.best.tolist(), best.final.tolist(), best.step.tolist()) == ([2, 5, 0.5], [2, 4, 0.5], [10, 10, 20])
    row = {"best_return": 5, "best_retest": 7, "final_return": 4, "steps_to_best": 10, "diverged": 0}
    assert best.columns(1, 7.0) == row


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("evaluated", [True, False])
def test_a_network_that_diverged_goes_back(bad, evaluated, tmp_path):
    """One of three, by one number in a bias, with the highest return of all: to its best weights, or if there are none
    those that it started with, there and in its target network, and its optimizer starts anew. The others keep all
    their bits."""
    net, target, optimizer = in_training()
    best = su.Best(net.state_dict(), optimizer, target.state_dict())
    back = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    if evaluated:
        best.update(10, np.array([[2.0], [5], [3]]))
    for step in (30, 40):
        train(net, optimizer)
        net.bias.data[1, 0, 2] = bad
        before = everything(net, target, optimizer)
        assert best.update(step, np.array([[1.0], [99], [1]])) == [1]
        after = everything(net, target, optimizer)
        for r in (0, 2):
            assert same(su.copy_slice(after, r), su.copy_slice(before, r))
        for name, tensor in after.items():
            part, _, parameter = name.partition(".")
            expected = back[parameter][1] if part in ("net", "target") else torch.zeros_like(tensor[1])
            assert torch.equal(tensor[1], expected)
        assert np.isnan(best.final[1]) and best.final[[0, 2]].tolist() == [1, 1]
    row = best.columns(1, 4.0)
    assert (row["diverged"], row["steps_to_best"]) == (30, 10 if evaluated else 0) and np.isnan(row["final_return"])
    assert row["best_return"] == 5 if evaluated else np.isnan(row["best_return"])
    su.save_checkpoint(tmp_path / "a.pt", best.get_state())
    again = su.Best(net.state_dict(), optimizer)
    again.set_state(su.load_checkpoint(tmp_path / "a.pt"))
    assert same(again.weights, best.weights) and again.columns(0, 4.0) == best.columns(0, 4.0)


def test_tickets_do_not_rewind_to_what_has_diverged():
    """But to the best weights until then."""
    rounds, best = su.Rounds.__new__(su.Rounds), {"w": torch.tensor([[1.0, 2], [3, 4]])}
    rounds.tickets, rounds.parts = [{"seed": 1}, {"seed": 2}], {"best": SimpleNamespace(weights=best)}
    rounds.rewind_to({"w": torch.tensor([[5, math.inf], [6, 7]])})
    assert [ticket["rewind"]["w"].tolist() for ticket in rounds.tickets] == [[1, 2], [6, 7]]


# ---- Words and numbers about tickets ---------------------------------------------------------------------------------


def test_describe_ticket_worked_by_hand():
    first = torch.tensor([[0.0, 1], [0, 0], [1, 1], [1, 0]])  # [in, out]: the second input is dead
    masks = {"actor.a.weight": first, "actor.b.weight": torch.tensor([[1.0, 0], [0, 0]])}
    row = {"remaining": 5, "remaining_fraction": 5 / 12, "inputs_alive": 3, "alive_inputs": "0 2 3"}
    row |= {"density_actor.a": 0.5, "density_actor.b": 0.25}
    assert su.describe_ticket(masks) == row
    assert list(su.describe_ticket(masks)) == list(row)  # the order of the columns
    assert su.describe_ticket(masks, [1, 4, 8, 9])["alive_inputs"] == "1 8 9"
    first = torch.zeros(2, 3, 2, 2)  # [out, in, kh, kw]
    first[1, 0, 1, 1] = first[0, 2, 0, 1] = 1
    row = su.describe_ticket({"a.weight": first})
    assert (row["inputs_alive"], row["alive_inputs"], row["density_a"]) == (2, "0 2", pytest.approx(2 / 24))
    row = su.describe_ticket({"a": torch.zeros(2, 3), "b": torch.ones(3, 1)})
    assert (row["remaining"], row["inputs_alive"], row["alive_inputs"]) == (3, 0, "")


def test_describe_returns_worked_by_hand():
    """The interquartile mean of eight is that of the middle four: (2 + 3 + 4 + 5) / 4."""
    text = su.describe_returns(np.array([5.0, 0, 1, 2, 100, 3, 4, 6]))
    assert text.startswith("8 episodes: mean 15.1, std 32.1, IQM 3.5 (95% interval ")
    low, high = (float(x) for x in text.split("interval ")[1].rstrip(")").split(" to "))
    assert 0 <= low < 3.5 < high < 100
    assert text == su.describe_returns(np.array([5.0, 0, 1, 2, 100, 3, 4, 6]))
    assert su.describe_returns(np.full(4, 500.0)).endswith("IQM 500.0 (95% interval 500.0 to 500.0)")
    assert su.describe_returns(np.array([2.25])) == "1 episode: 2.2"


# ---- Early-bird tickets ----------------------------------------------------------------------------------------------


def test_distance_of_masks_by_hand():
    one = {"a": torch.tensor([[1.0, 0.0], [1.0, 1.0]]), "b": torch.tensor([[1.0], [0.0]])}
    other = {"a": torch.tensor([[1.0, 1.0], [0.0, 1.0]]), "b": torch.tensor([[1.0], [1.0]])}
    assert su.mask_distance(one, other) == su.mask_distance(other, one) == 3 / 6  # equation 2.5
    assert su.mask_distance(one, one) == 0
    assert su.flat_mask(one).tolist() == [1, 0, 1, 1, 1, 0]


def test_overlap_matrix_against_pairs():
    masks = [su.prune_ticket(network(i), ones(network()), 0.6) for i in range(5)]
    expected = [[1 - su.mask_distance(a, b) for b in masks] for a in masks]
    flat = torch.stack([su.flat_mask(mask) for mask in masks])
    torch.testing.assert_close(su.overlap_matrix(torch.stack([flat, 1 - flat])), torch.tensor([expected] * 2))


@pytest.mark.parametrize("fraction", [0.2, 0.4, 0.6, 0.8])
def test_random_masks_differ_at_2p_1_minus_p(fraction):
    one, other = ({"a": torch.randn(200, 500, generator=torch.Generator().manual_seed(seed))} for seed in (1, 2))
    distance = su.mask_distance(*(su.prune_ticket(w, ones(w), fraction) for w in (one, other)))
    assert distance == pytest.approx(2 * fraction * (1 - fraction), abs=0.005)
