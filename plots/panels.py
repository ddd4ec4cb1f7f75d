"""What the pictures share: colours, panels, lines with bands, legends."""

import math
from collections.abc import Iterable
from itertools import zip_longest
from textwrap import fill
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.colors import to_rgb
from matplotlib.ticker import LogLocator, NullFormatter

from plots.estimates import STATISTIC_NAMES

plt.switch_backend("Agg")  # files, no windows

# Okabe & Ito's colours, which colour-blind people can tell apart. A method that is not here gets one of the others.
COLOURS = {
    "dense": "#000000",
    "small": "#0072B2",
    "prune": "#E69F00",
    "static": "#CC79A7",
    "set": "#009E73",
    "rigl": "#D55E00",
}
OTHER_COLOURS = ["#56B4E9", "#F0E442", "#999999"]
ALL_COLOURS = [*COLOURS.values(), *OTHER_COLOURS]
DASHES = ["-", (0, (5, 1.2))]  # of neighbours among the variants of one method, which share its colour
MARKERS = ["o", "s", "^", "D", "v", "P"]
LEGEND_WIDTH = 50  # characters; longer labels take several lines

Row = dict[str, Any]  # of a csv


class Picture(NamedTuple):
    figure: plt.Figure
    rows: list[Row]  # of the csv
    table: str  # in Markdown
    name: str = ""  # where a kind has several pictures


def new_figure(
    names: Iterable[str], labels: Iterable[str] = (), grid: list[list[str]] | None = None
) -> tuple[plt.Figure, dict[str, plt.Axes]]:
    """A figure with a panel for each name, and space for a legend with these labels on the right. ``grid`` has the
    names in lines, "" for an empty place; without it there are three in a line."""
    names = list(dict.fromkeys(names))
    grid = grid or [names[i : i + 3] for i in range(0, len(names), 3)]
    columns, lines = len(grid[0]), len(grid)
    legend = max((1.3 + 0.065 * min(len(label), LEGEND_WIDTH) for label in labels), default=0)  # inches
    size = (4.2 * columns + legend, 3.4 * lines)
    figure, axes = plt.subplots(lines, columns, figsize=size, squeeze=False, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.08, h_pad=0.08)
    panels = {}
    for name, ax in zip_longest(sum(grid, []), axes.flat):
        if name:
            ax.set_title(name)
            tidy(ax)
            panels[name] = ax
        else:
            ax.remove()
    return figure, panels


def tidy(ax: plt.Axes) -> None:
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(alpha=0.25)


def log_ticks(axis: Any, formatter: Any, steps: tuple[int, ...] = (1, 2, 5)) -> None:
    """Plain numbers on a logarithmic axis, which is ``ax.xaxis`` or ``ax.yaxis``."""
    axis.set_major_locator(LogLocator(subs=steps))
    axis.set_major_formatter(formatter)
    axis.set_minor_formatter(NullFormatter())


def styles(runs: pd.DataFrame) -> dict[str, Row]:
    """Each variant's colour, by its method, and line and marker, by its place among the variants of that method. The
    one that leaves most flags at their defaults comes first, in full colour; the others are lighter. That of rigl, the
    default method, is the widest line, and on top."""
    other_colours = iter(OTHER_COLOURS * len(runs))
    style = {}
    for method, members in runs.groupby("method", sort=False):
        colour = np.array(to_rgb(COLOURS.get(method) or next(other_colours)))
        siblings = members.sort_values("n_given", kind="stable").variant.unique()
        for i, variant in enumerate(siblings):
            light = 0.6 * i / max(3, len(siblings) - 1)
            dashes, marker = DASHES[i % len(DASHES)], MARKERS[i % len(MARKERS)]
            style[variant] = {"color": colour + light * (1 - colour), "linestyle": dashes, "marker": marker}
            if method == "rigl" and i == 0:
                style[variant] |= {"linewidth": 2.5, "zorder": 3}
    return {variant: style[variant] for variant in runs.variant.unique()}


def draw(ax: plt.Axes, x: Any, estimates: np.ndarray, style: Row, label: str, error_bars: bool = False) -> None:
    """A line through [value, low, high] at each x, with its interval as a band or as error bars."""
    value, low, high = estimates
    ax.plot(x, value, label=label, **{"linewidth": 1.5, "markersize": 5} | style)
    if error_bars or np.size(x) == 1:
        ax.vlines(x, low, high, color=style["color"], linewidth=1.5)
    else:
        ax.fill_between(x, low, high, color=style["color"], alpha=0.15, linewidth=0)


def draw_reference(ax: plt.Axes, estimates: np.ndarray, colour: Any, label: str) -> None:
    """A horizontal line over the whole width, with its interval."""
    value, low, high = estimates
    ax.axhline(value, label=label, linewidth=1.2, color=colour, linestyle="--")
    if not math.isnan(low):
        ax.axhspan(low, high, color=colour, alpha=0.08, linewidth=0)


def handles_of(figure: plt.Figure) -> dict[str, Any]:
    """Of all panels, each label once."""
    return {label: h for ax in figure.axes for h, label in zip(*ax.get_legend_handles_labels(), strict=True)}


def quantity(column: str) -> str:
    """What a column measures, for an axis."""
    return "return" if column in ("return_mean", "best_retest") else column


def legend_with_seeds(figure: plt.Figure, rows: list[Row], name: str, column: str, statistic: str) -> None:
    """The label of the y axis, and one legend of all panels, with the numbers of seeds. ``name`` is the column of the
    rows that has the lines' names."""
    figure.supylabel(f"{quantity(column)} ({STATISTIC_NAMES[statistic]} over seeds)", fontsize=10)
    handles = handles_of(figure)
    labels = []
    for line in handles:
        seeds = sorted({row["seeds"] for row in rows if row[name] == line})
        text = "–".join(str(n) for n in dict.fromkeys((seeds[0], seeds[-1])))
        label = f"{line} ({text} {'seed' if text == '1' else 'seeds'})"
        labels.append(fill(label, LEGEND_WIDTH + 10, break_on_hyphens=False))
    lines = sum(label.count("\n") + 1 for label in labels)
    figure.set_figheight(max(figure.get_figheight(), 0.3 + 0.17 * lines))  # 8-point lines and what is between them
    figure.legend(handles.values(), labels, loc="outside right upper", frameon=False, fontsize=8, handlelength=3)
