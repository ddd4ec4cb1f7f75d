"""Kind flops: what a forward pass of sparse networks costs (figure 7 of The State of Sparse Training in Deep RL), from
the shapes of their layers alone."""

import math
import re
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from matplotlib.ticker import NullLocator

import sparse_utils as su
from plots import panels
from plots.estimates import markdown
from plots.panels import COLOURS, Picture, Row

ACTIONS = 9  # MsPacman's, the game of figure 7
SPARSITIES = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99)
SHOWN_SPARSITIES = (0.5, 0.8, 0.9, 0.95, 0.99)  # in the table
STYLES = {  # those of pictures of runs, which have ERK if nothing else is said
    "ERK": {"color": COLOURS["rigl"], "marker": "o"},
    "uniform": {"color": COLOURS["set"], "marker": "s"},
    "small dense": {"color": COLOURS["small"], "marker": "^"},
}


class Layer(NamedTuple):
    shape: tuple[int, ...]  # units, inputs; of a convolution also height and width of its kernels
    positions: int = 1  # pixels of its output


# ---- Networks, with all hidden layers made narrower by a factor ------------------------------------------------------


def mlp(units: tuple[int, ...], scale: float) -> list[Layer]:
    """Of so many inputs, hidden units, ..., outputs."""
    units = (units[0], *(narrow(n, scale) for n in units[1:-1]), units[-1])
    return [Layer((out, n)) for n, out in zip(units, units[1:], strict=False)]


def nature(scale: float) -> list[Layer]:
    """DQN's CNN for Atari, with SAME padding: 84 x 84 pixels become 21 x 21, 11 x 11 and 11 x 11 (table 7)."""
    a, b, c, hidden = (narrow(n, scale) for n in (32, 64, 64, 512))
    convolutions = [Layer((a, 4, 8, 8), 21**2), Layer((b, a, 4, 4), 11**2), Layer((c, b, 3, 3), 11**2)]
    return [*convolutions, Layer((hidden, 11**2 * c)), Layer((ACTIONS, hidden))]


def impala(scale: float) -> list[Layer]:
    """The ResNet of Espeholt et al. 2018: three stacks, each a convolution, a pooling that halves height and width, and
    two residual blocks of two convolutions (table 7)."""
    layers, channels = [], 4
    for width, before, after in ((32, 84, 42), (64, 42, 21), (64, 21, 11)):
        inputs, channels = channels, narrow(width, scale)
        layers.append(Layer((channels, inputs, 3, 3), before**2))
        layers += [Layer((channels, channels, 3, 3), after**2)] * 4
    hidden = narrow(512, scale)
    return [*layers, Layer((hidden, 11**2 * channels)), Layer((ACTIONS, hidden))]


def narrow(n: int, scale: float) -> int:
    return max(1, round(n * scale))


NETWORKS = {"nature": ("Nature CNN", nature), "impala": ("IMPALA ResNet", impala)}


def find_network(name: str) -> tuple[str, Callable[[float], list[Layer]]]:
    """Its title, and its layers by scale."""
    if name in NETWORKS:
        return NETWORKS[name]
    if not re.fullmatch(r"[1-9]\d*(-[1-9]\d*)+", name):
        su.fail(f"no network {name}; there are {', '.join(NETWORKS)}, and for an MLP its units, such as 17-256-256-12")
    units = tuple(map(int, name.split("-")))
    return f"MLP {name}", lambda scale: mlp(units, scale)


# ---- Costs -----------------------------------------------------------------------------------------------------------


def cost(layers: list[Layer], densities: list[float]) -> Row:
    """Of one example: its multiplications with weights, each of which has an addition of a product or bias, and FLOPs
    as in ``su.flops``, which has a multiplication more for each output."""
    weights = [math.prod(layer.shape) * density for layer, density in zip(layers, densities, strict=True)]
    multiply_adds = sum(n * layer.positions for n, layer in zip(weights, layers, strict=True))
    outputs = sum(layer.shape[0] * layer.positions for layer in layers)
    parameters = sum(weights) + sum(layer.shape[0] for layer in layers)
    return {"parameters": parameters, "multiply_adds": multiply_adds, "flops": 2 * multiply_adds + outputs}


def spread(distribution: Callable[..., dict[str, float]], layers: list[Layer], sparsity: float) -> list[float]:
    """The density of each layer."""
    shapes = {str(i): layer.shape for i, layer in enumerate(layers)}
    return list(distribution(shapes, sparsity).values())


def small_cost(network: Callable[[float], list[Layer]], parameters: float) -> Row:
    """That of the dense network, narrower in all hidden layers, whose number of parameters comes nearest."""
    narrower = [network(scale) for scale in np.linspace(0, 1, 513)]
    return min((cost(n, [1] * len(n)) for n in narrower), key=lambda row: abs(row["parameters"] - parameters))


def flops(names: tuple[str, ...]) -> list[Picture]:
    """FLOPs as a part of the dense network's, against sparsity."""
    networks = dict(find_network(name) for name in names or (*NETWORKS, "17-256-256-12"))
    figure, axes = panels.new_figure(networks, STYLES)
    rows: list[Row] = []
    for title, network in networks.items():
        layers = network(1)
        for sparsity in SPARSITIES:
            erk, uniform = (
                cost(layers, spread(distribution, layers, sparsity))
                for distribution in (su.erk_densities, su.uniform_densities)
            )
            costs = {"ERK": erk, "uniform": uniform, "small dense": small_cost(network, uniform["parameters"])}
            for variant, row in costs.items():
                first = {"network": title, "variant": variant, "sparsity": sparsity}
                rows.append(first | {name: round(value) for name, value in row.items()})
    dense = {title: next(row["flops"] for row in rows if row["network"] == title) for title in networks}
    for row in rows:
        row["of_dense"] = row["flops"] / dense[row["network"]]
    for title, ax in axes.items():
        for variant, style in STYLES.items():
            line = [row["of_dense"] for row in rows if (row["network"], row["variant"]) == (title, variant)]
            ax.plot(1 - np.array(SPARSITIES), line, label=variant, linewidth=1.5, markersize=5, **style)
        ax.set_title(f"{title}\n{dense[title] / 1e6:.3g}M FLOPs", fontsize=10)
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.invert_xaxis()
        ax.set_xticks([1 - s for s in SPARSITIES], [f"{100 * s:g}" for s in SPARSITIES], fontsize=8)
        ax.xaxis.set_minor_locator(NullLocator())
        panels.log_ticks(ax.yaxis, "{x:g}")
        ax.set_xlabel("sparsity [%]")
    figure.supylabel("FLOPs / those of the dense network", fontsize=10)
    handles = panels.handles_of(figure)
    figure.legend(handles.values(), handles, loc="outside right upper", frameon=False, fontsize=8, handlelength=3)
    head = ["network", "FLOPs of", *(f"{100 * level:g}%" for level in SHOWN_SPARSITIES)]
    cells = {(row["network"], row["variant"], row["sparsity"]): row for row in rows}
    lines = [head]
    for title in networks:
        for variant in STYLES:
            shown = [cells[title, variant, level] for level in SHOWN_SPARSITIES]
            lines.append([title, variant, *(f"{x['flops']:,} ({100 * x['of_dense']:.3g}%)" for x in shown)])
    return [Picture(figure, rows, markdown(lines))]
