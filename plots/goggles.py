"""Kind goggles: what pruned agents still see of the pictures that they observe (figures 5 and 6 of Vischer, Lange,
Sprekeler 2022). Pixels are those of the picture, [channels, height, width], or the cells of a convolution's kernels."""

import math
from contextlib import suppress

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.colors import PowerNorm
from matplotlib.patches import Patch

import sparse_utils as su
from envs import mazegrid
from plots.estimates import markdown, number, percent
from plots.panels import Picture, Row
from plots.vischer import History, draw_densities, finite_chains, read_history

MAZE = np.array([list(line) for line in mazegrid.LAYOUT])  # [10, 20]
MAZE_CHANNELS = {"MazeGrid-v0": mazegrid.MAPS, "MazeGridRGB-v0": ("red", "green", "blue")}


def possible_pixels() -> np.ndarray:
    """Those of MazeGrid-v0 that can be 1, bool [6, 10, 20]. Coins and poisons are where the layout has them; the
    agent can go wherever there is no wall, and what it leaves is empty."""
    places = {"coins": MAZE == "$", "poisons": MAZE == "@"} | mazegrid.enemy_cells()
    return np.stack([places.get(name, MAZE != "#") for name in mazegrid.MAPS])


def channel_names(env: str, channels: int) -> tuple[str, ...]:
    names = MAZE_CHANNELS.get(env, ())
    if env.startswith("MinAtar/"):
        with suppress(ImportError):  # tickets can be drawn where the game is not installed
            from envs.minatar import CHANNELS

            names = CHANNELS.get(env, ())
    return names if len(names) == channels else tuple(f"channel {i}" for i in range(channels))


class Goggles:
    """What the first layer reads of the pixels, as means over seeds, in the rounds of a history; and the rounds that
    are drawn."""

    def __init__(self, history: History, column: str, rounds: tuple[int, ...]):
        env, left, n_seeds = history.name["env"], history.rounds, len(history.seeds)
        nearest = [min(left, key=lambda r: abs(math.log(left[r] / level))) for level in (1, 0.3, 0.1)]
        drawn = sorted(set(rounds or [*nearest, max(left)]))
        self.history, self.column = history, column
        self.drawn = {round_: list(left).index(round_) for round_ in drawn}  # round -> its index
        of_maze = (len(MAZE_CHANNELS[env]), *MAZE.shape) if env in MAZE_CHANNELS else history.obs_shape
        shape = history.weights.shape[2:] if history.convolution else of_maze
        if len(shape) != 3:
            su.fail(f"kind goggles draws agents that observe pictures; {env} has observations {list(shape)}")
        seen = (
            slice(None) if history.convolution else history.inputs or slice(None)
        )  # others have no weights, and had none
        pixels = np.zeros((3, len(left), n_seeds, math.prod(shape)))
        for part, values in zip(pixels, (history.weights, history.left, history.dense), strict=True):
            part[..., seen] = values.reshape(len(left), n_seeds, -1)
        weights, left, dense = pixels.reshape(*pixels.shape[:3], *shape)
        self.weights = weights.mean(1)  # [rounds, *shape], sum of |w| over the units of the first layer
        self.alive = (left > 0).mean(1)  # [rounds, *shape], share of the seeds in which there is any weight left
        with np.errstate(invalid="ignore"):  # a channel that --input-mask hides has no density
            densities = left.sum((1, 3, 4)) / dense.sum((1, 3, 4))
        self.channels = dict(zip(channel_names(env, shape[0]), densities.T, strict=True))  # name -> [rounds], density
        self.possible = possible_pixels() if env == "MazeGrid-v0" else None  # which can be other than 0, where known
        self.scores = history.scores.mean(1)  # [rounds]
        whose = f"mean over {n_seeds} seeds" if n_seeds > 1 else f"seed {history.seeds[0]}"
        self.title = ", ".join([*history.names, *["kernels of the first layer"] * history.convolution, whose])

    def amounts(self, *place: int) -> Row:
        """What is at a place, (round, channel) or (round, channel, row, column), as columns of the csv."""
        weight, alive = self.weights[place].sum(), self.alive[place]
        row = {"weight": weight, "weight_share": weight / self.weights[place[0]].sum().clip(1e-30)}
        row |= {"alive": alive.sum(), "pixels": alive.size}
        if self.possible is not None:
            possible = self.possible[place[1:]]
            row |= {"possible": possible.sum(), "possible_alive": (alive * possible).sum()}
        return row

    def rows(self) -> list[Row]:
        """Parts of three kinds: layers and channels in all rounds, and pixels in those drawn."""
        rows, names = [], list(self.channels)
        no_part = dict.fromkeys(["part", "name", "row", "column", "density", *self.amounts(0, 0)], "")
        for i, (round_, remaining) in enumerate(self.history.rounds.items()):
            shared = self.history.name | {"seeds": len(self.history.seeds), "round": round_}
            shared |= {"remaining_fraction": remaining, self.column: self.scores[i]} | no_part
            for name, density in self.history.densities.items():
                rows.append(shared | {"part": "layer", "name": name, "density": density[i]})
            for c, (name, density) in enumerate(self.channels.items()):
                rows.append(shared | {"part": "channel", "name": name, "density": density[i]} | self.amounts(i, c))
            for c, y, x in np.ndindex(self.weights[i].shape) if round_ in self.drawn else ():
                pixel = {"part": "pixel", "name": names[c], "row": y, "column": x}
                rows.append(shared | pixel | self.amounts(i, c, y, x))
        return rows

    def table(self) -> str:
        """What each channel has in the rounds drawn."""
        pixels = "kernel cells" if self.history.convolution else "pixels"
        head = ["round", "remaining", self.column, "channel", "density", "share of weight", f"{pixels} alive"]
        lines = [head + ["possible alive", "impossible alive"] * (self.possible is not None)]
        for round_, i in self.drawn.items():
            for c, (channel, density) in enumerate(self.channels.items()):
                has = self.amounts(i, c)
                parts = [(has["alive"], has["pixels"])]
                if self.possible is not None:
                    alive, n = has["possible_alive"], has["possible"]
                    parts += [(alive, n), (has["alive"] - alive, has["pixels"] - n)]
                line = [f"{round_}", f"{percent(self.history.rounds[round_])}%", number(self.scores[i]), channel]
                line += [number(density[i]), f"{100 * has['weight_share']:.1f}%"]
                lines.append(line + [f"{number(alive)} of {n} ({100 * alive / n:.0f}%)" for alive, n in parts])
        return f"{self.title}\n\n{markdown(lines)}"


def read_goggles(
    results: pd.DataFrame, column: str, condition: str, rounds: tuple[int, ...], seed: int | None
) -> Goggles:
    names = list(dict.fromkeys(results.env_id + ", " + results.variant))
    env, folder = results.env_id.iloc[0], results.folder.iloc[0]
    if len(names) > 1:
        these = f"{len(names)}: {'; '.join(names)}"
        su.fail(f"kind goggles draws one task and variant, but these are {these}; choose with --where")
    if env == "MazeGridEntangled-v0":
        su.fail(f"kind goggles draws pixels, and {env} has none: each input is a mixture of all of them")
    history = read_history(finite_chains(results, column), column, condition, seed)
    for round_ in rounds:
        if round_ not in history.rounds:
            there = ", ".join(map(str, history.rounds))
            su.fail(f"no round {round_} of {condition} in {folder}; there are {there}")
    return Goggles(history, column, rounds)


def outline(ax: plt.Axes, cells: np.ndarray, colour: str) -> plt.Artist:
    """Lines around the cells of an image that are true, bool [height, width]; returns some of them for the legend."""
    padded = np.pad(cells, 1)
    y, x = np.nonzero(np.diff(padded[1:-1], axis=1))
    ax.vlines(x - 0.5, y - 0.5, y + 0.5, color=colour, linewidth=0.6)
    y, x = np.nonzero(np.diff(padded[:, 1:-1], axis=0))
    return ax.hlines(y - 0.5, x - 0.5, x + 0.5, color=colour, linewidth=0.6)


def goggles(
    results: pd.DataFrame, column: str, condition: str, rounds: tuple[int, ...], seed: int | None
) -> list[Picture]:
    """A column of images for each round drawn; below them, how dense layers and channels are in all rounds."""
    seen = read_goggles(results, column, condition, rounds, seed)
    history, names, (height, width) = seen.history, list(seen.channels), seen.weights.shape[2:]
    panel = (1.15 * width / height, 1.15) if width > height else (1.35, 1.35)  # inches
    upper = 1.75 + (panel[1] + 0.1) * len(names)
    size = (max(8.5, 2.5 + (panel[0] + 0.1) * len(seen.drawn)), upper + 2.6)
    figure = plt.figure(figsize=size, layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=[upper, 2.6])
    axes = top.subplots(len(names), len(seen.drawn), squeeze=False)
    several = " in any seed" * (len(history.seeds) > 1)
    hidden = ", or hidden by --input-mask" * bool(history.inputs)
    legend = {f"dead: no weight left{several}{hidden}": Patch(facecolor="0.75", edgecolor="black")}
    for (round_, i), column_of_axes in zip(seen.drawn.items(), axes.T, strict=True):
        shares = np.where(seen.alive[i] > 0, seen.weights[i] / seen.weights[i].max().clip(1e-30), np.nan)
        for c, ax in enumerate(column_of_axes):
            image = ax.imshow(shares[c], norm=PowerNorm(0.5, 0, 1), interpolation="nearest")
            ax.set(xticks=[], yticks=[], facecolor="0.75")
            if history.name["env"] in MAZE_CHANNELS:
                legend["walls"] = outline(ax, MAZE == "#", "white")
            if seen.possible is not None:
                legend["pixels that can be 1"] = outline(ax, seen.possible[c], "red")
        remaining = f"{percent(history.rounds[round_])}% of weights"
        column_of_axes[0].set_title(f"round {round_}\n{remaining}\n{column} {number(seen.scores[i])}", fontsize=9)
    for ax, channel in zip(axes[:, 0], names, strict=True):
        ax.set_ylabel(channel, rotation=0, ha="right", va="center", fontsize=9)
    bar = top.colorbar(image, ax=axes, pad=0.02, aspect=40, panchor=False, ticks=[0, 0.01, 0.1, 0.3, 0.6, 1])
    bar.ax.yaxis.set_major_formatter("{x:g}")
    bar.set_label("sum of |w| in the first layer (largest of the round = 1)", fontsize=9)
    top.legend(legend.values(), legend, loc="outside lower center", ncols=3, fontsize=8, facecolor="0.75")
    top.suptitle(seen.title, fontsize=10)
    lines = {"density of the layers": history.densities, "density of the first layer's channels": seen.channels}
    for ax, (title, densities) in zip(bottom.subplots(1, 2), lines.items(), strict=True):
        draw_densities(ax, densities, list(densities), history.rounds)
        ax.set_title(title, fontsize=9)
        ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize=8)
    return [Picture(figure, seen.rows(), seen.table())]
