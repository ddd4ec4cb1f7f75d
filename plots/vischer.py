"""Pictures of On Lottery Tickets and Minimal Task Representations in Deep RL (Vischer, Lange, Sprekeler 2022): kinds
tickets and inputs, of runs of ppo_imp.py, dqn_imp.py and bc_distill.py; and what goggles.py reads of their tickets."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import envs
import sparse_utils as su
from plots import panels
from plots.estimates import columns_of, estimate, interval_text, markdown, number, percent, spread_text
from plots.panels import ALL_COLOURS, COLOURS, MARKERS, OTHER_COLOURS, Picture, Row
from plots.runs import say

CONDITIONS = {
    "ticket": "#D55E00",
    "mask_permuted": "#009E73",
    "permuted_permuted": "#0072B2",
    "random_reinit": "#E69F00",
}
MANY_INPUTS = 40  # more names than that do not fit beside a picture


# ---- Chains: the rounds of a seed under a condition ------------------------------------------------------------------


def finite_chains(results: pd.DataFrame, column: str) -> pd.DataFrame:
    """Each round of each chain once, without the chains that have a value which is not finite. Column ``diverged`` is
    the step at which a run's weights were no longer finite in that round, 0 for never; older files do not have it."""
    results = results.drop_duplicates(["env_id", "variant", "condition", "seed", "round"])
    names = results[["env_id", "variant", "condition"]].agg(", ".join, axis=1)
    names += ", seed " + results["seed"].astype(int).astype(str)
    finite = np.isfinite(results[column])
    say(names[~finite], "chain", f"left out, as {column} is not finite")
    kept = finite.groupby(names).transform("all")
    if not kept.any():
        su.fail(f"nothing to draw: {column} has no finite values")
    diverged = results.get("diverged", pd.Series(0, results.index)) > 0
    say(names[kept & diverged], "chain", "drawn that diverged in a round and went on from finite weights")
    return results[kept]


def whole_rounds(rows: pd.DataFrame, name: str) -> pd.DataFrame:
    """The rows of the rounds that all seeds have, of one condition. ``name`` is what to call them."""
    n_seeds = rows["seed"].nunique()
    whole = rows[rows.groupby("round")["seed"].transform("count") == n_seeds]
    if len(whole) < len(rows):
        last = whole["round"].max() if len(whole) else 0
        print(f"{name}: cut at round {last:.0f} of {rows['round'].max():.0f}, which all {n_seeds} seeds have")
    return whole.sort_values(["round", "seed"])


def by_round(rows: pd.DataFrame, column: str) -> np.ndarray:
    """[rounds, seeds]"""
    return rows.pivot(index="round", columns="seed", values=column).to_numpy(float)


# ---- Kind tickets ----------------------------------------------------------------------------------------------------


def tickets(results: pd.DataFrame, column: str, statistic: str) -> list[Picture]:
    """Scores against the weights that remain: a panel for each task, script and variant, a line per condition."""
    results = finite_chains(results, column)
    groups = dict(list(results.groupby(["env_id", "variant"], sort=False)))
    without = [key for key, members in groups.items() if "dense" not in set(members.condition)]
    say(map(", ".join, without), "panel", "left out, without a dense agent")
    groups = {key: members for key, members in groups.items() if key not in without}
    if not groups:
        su.fail("nothing to draw: there are no dense agents to compare with")
    titles = {key: fill(", ".join(key), 42, break_on_hyphens=False) for key in groups}
    lines, columns = (dict.fromkeys(key[part] for key in groups) for part in (0, 1))
    grid = [[titles.get((env, variant), "") for variant in columns] for env in lines]
    others = sorted(set(results.condition) - {"dense", *CONDITIONS})
    colours = CONDITIONS | dict(zip(others, OTHER_COLOURS, strict=False))
    aligned = len(lines) > 1 and 1 < len(columns) <= 4 and any("" not in line for line in grid)
    figure, axes = panels.new_figure(titles.values(), colours, grid if aligned else None)
    rows: list[Row] = []
    for (env, variant), members in groups.items():
        ax = axes[titles[env, variant]]
        for condition in ("dense", *colours):
            rounds = whole_rounds(members[members.condition == condition], f"{env}, {variant}, {condition}")
            if rounds.empty:
                continue
            remaining = by_round(rounds, "remaining_fraction").mean(1)
            estimates = estimate([by_round(rounds, column).T], statistic)
            shared = {"env": env, "script": rounds.script.iloc[0], "variant": variant, "condition": condition}
            n_seeds = rounds["seed"].nunique()
            for i, round_ in enumerate(rounds["round"].unique()):
                row = shared | {"round": int(round_), "remaining_fraction": float(remaining[i])}
                rows.append(row | columns_of(estimates, i) | {"seeds": n_seeds})
            if condition == "dense":
                dense = estimates
                panels.draw_reference(ax, dense[:, 0], COLOURS["dense"], condition)
            else:  # all begin at the dense agent
                place = list(colours).index(condition)
                # hollow, and each smaller than the one before, so that equal ones are all seen
                style = {"color": colours[condition], "marker": MARKERS[place % len(MARKERS)], "fillstyle": "none"}
                style["markersize"] = max(3.5, 9 - 1.8 * place)
                panels.draw(ax, [100, *100 * remaining], np.hstack([dense, estimates]), style, condition)
    smallest = min(0.64, *(row["remaining_fraction"] for row in rows))
    steps = np.arange(round(math.log(smallest, 0.8)) + 1)
    labelled = steps[:: max(2, math.ceil(len(steps) / 11))]
    for (env, _), title in titles.items():
        ax = axes[title]
        ends = [row[name] for row in rows if row["env"] == env for name in ("value", "low", "high")]
        margin = 0.05 * (np.nanmax(ends) - np.nanmin(ends)) or 1
        ax.set_ylim(np.nanmin(ends) - margin, np.nanmax(ends) + margin)  # the same for all panels of a task
        ax.set_title(title, fontsize=10)
        ax.set_xscale("log")
        ax.set_xlim(115, 87 * smallest)
        ax.set_xticks(100 * 0.8**labelled, map(percent, 0.8**labelled), fontsize=8)
        ax.set_xticks(100 * 0.8**steps, [""] * len(steps), minor=True)
        ax.set_xlabel("remaining weights [%]")
    panels.legend_with_seeds(figure, rows, "condition", column, statistic)
    return [Picture(figure, rows, ticket_table(rows, column, statistic))]


def ticket_table(rows: list[Row], column: str, statistic: str) -> str:
    """What was drawn, at seven or fewer of the rounds of the longest chain."""
    table = pd.DataFrame(rows)
    chains = table.groupby(["env", "variant", "condition"], sort=False).remaining_fraction
    longest = list(dict.fromkeys((1.0, *max((list(rounds) for _, rounds in chains), key=len))))
    levels = [longest[round(i)] for i in np.linspace(0, len(longest) - 1, min(len(longest), 7))]
    head = ["env", "script", "condition", "seeds", f"{column} at 100%, {spread_text(statistic)}"]
    lines = [[*head, *(f"{100 * level:.2g}%" for level in levels[1:]), "fewest weights near dense"]]
    for (env, variant), members in table.groupby(["env", "variant"], sort=False):
        dense = members.iloc[:1]
        last = members.groupby("condition", sort=False).value.last()
        near = dense.value.iloc[0] - 0.05 * (dense.value.iloc[0] - last.min())
        for condition in list(last.index)[1:] or ["dense"]:
            points = pd.concat([dense, members[1:][members.condition[1:] == condition]])
            cells = []
            for level in levels:
                far = np.abs(np.log(points.remaining_fraction / level))
                point = points.iloc[far.argmin()]  # that of the nearest round; a round keeps 80%
                text = interval_text(point.value, point.low, point.high, statistic)
                cells.append(text if far.min() < 0.12 else "–")
            fewest = points.remaining_fraction[points.value >= near].min()
            cells.append(f"{100 * fewest:.3g}% (≥ {number(near)})")
            lines.append([env, variant, condition, f"{points.seeds.iloc[-1]}", *cells])
    return markdown(lines)


# ---- The first layer of tickets --------------------------------------------------------------------------------------


@dataclass
class History:
    """The first layer of the agents of one task, script and set of flags, in the rounds that all seeds have."""

    name: Row  # the first columns of the csv: env, script, variant, condition
    rounds: dict[int, float]  # round -> fraction of the weights that remains
    seeds: list[int]
    scores: np.ndarray  # [rounds, seeds]
    densities: dict[str, np.ndarray]  # layer, or all of them -> [rounds], means over seeds
    weights: np.ndarray  # sum of |w| over units, [rounds, seeds, inputs], or [..., channels, height, width] of kernels
    left: np.ndarray  # the same shape: how many weights are left ...
    dense: np.ndarray  # ... and how many a dense network has
    inputs: list[int] | None  # which the network sees, if --input-mask hides the others
    obs_shape: tuple[int, ...]

    @property
    def convolution(self) -> bool:
        return self.weights.ndim == 5

    @property
    def names(self) -> list[str]:
        """What tells it from others."""
        return [self.name[part] for part in ("env", "variant", "condition")]


def dense_and_later(rows: pd.DataFrame, condition: str, seed: int | None) -> pd.DataFrame:
    """The rows of a condition, and as round 0 those of the same seeds' dense agents; of one seed, if it is given."""
    there, folder = rows.condition.unique(), rows.folder.iloc[0]
    if condition not in there and len(there) > 1:
        su.fail(f"no condition {condition} in {folder}; there are {', '.join(there)}")
    of_seed = rows if seed is None else rows[rows["seed"] == seed]
    if of_seed.empty:
        seeds = ", ".join(f"{x:.0f}" for x in sorted(rows["seed"].unique()))
        su.fail(f"no seed {seed} in {folder}; there are {seeds}")
    dense = of_seed[of_seed.condition == "dense"]
    name = f"{rows.env_id.iloc[0]}, {rows.variant.iloc[0]}, {condition}"
    later = whole_rounds(of_seed[of_seed.condition == condition], name)
    if len(later):
        seeds = set(later["seed"]) & set(dense["seed"])
        dense, later = (part[part["seed"].isin(seeds)] for part in (dense, later))
    if dense.empty:
        su.fail(f"{name}: no dense agent with finite values to begin with")
    return pd.concat([dense.sort_values("seed"), later])


def load_first_layer(file: Path) -> tuple[Row, np.ndarray, np.ndarray]:
    """A ticket; and of the first layer that its network has, mask and best weights, [units, inputs], or [channels out,
    channels in, height, width] of a convolution."""
    try:
        ticket = su.load_ticket(file)
    except ValueError as error:
        su.fail(str(error))
    layer, mask = next(iter(ticket["masks"].items()))
    tensors = (mask.numpy(), ticket["best"][layer].numpy())
    return ticket, *(tensor if tensor.ndim == 4 else tensor.T for tensor in tensors)


def read_history(results: pd.DataFrame, column: str, condition: str, seed: int | None = None) -> History:
    """``results`` are the rows of one task, script and set of flags, from ``finite_chains``."""
    rows = dense_and_later(results, condition, seed)
    sums, left = [], []
    for folder, round_, of, s in zip(rows.folder, rows["round"], rows.condition, rows["seed"], strict=True):
        ticket, mask, weights = load_first_layer(folder / "tickets" / f"round{round_:02.0f}_{of}_seed{s:.0f}.pt")
        sums.append(np.abs(weights).sum(0))
        left.append(mask.sum(0))
    name = {column: rows[column].iloc[0] for column in ("env_id", "script", "variant")}
    seeds = rows["seed"].unique()
    sums, left = (np.reshape(x, (-1, len(seeds), *mask.shape[1:])) for x in (sums, left))
    finite = np.isfinite(sums).all(axis=(0, *range(2, sums.ndim)))  # of each seed
    broken = [f"{name['env_id']}, {name['variant']}, seed {seed:.0f}" for seed in seeds[~finite]]
    say(broken, "agent", "left out, as its weights are not finite")
    if not finite.any():
        su.fail("nothing to draw: no agent has finite weights")
    rows = rows[rows["seed"].isin(seeds[finite])]
    of_layers = [name for name in rows if name.startswith("density_") and rows[name].notna().all()]
    titles = {"remaining_fraction": "all layers"} | {name: name.removeprefix("density_") for name in of_layers}
    densities = {title: by_round(rows, name).mean(1) for name, title in titles.items()}
    return History(
        name={"env": name["env_id"], "script": name["script"], "variant": name["variant"], "condition": condition},
        rounds=dict(zip(map(int, rows["round"].unique()), densities["all layers"].tolist(), strict=True)),
        seeds=[int(seed) for seed in seeds[finite]],
        scores=by_round(rows, column),
        densities=densities,
        weights=sums[:, finite],
        left=left[:, finite],
        dense=np.full_like(left[:, finite], len(mask)),
        inputs=ticket.get("inputs"),
        obs_shape=tuple(ticket.get("obs_shape", ())),
    )


def draw_densities(ax: plt.Axes, densities: dict[str, np.ndarray], names: list[str], left: dict[int, float]) -> None:
    """A line over rounds for each of ``densities`` [rounds], in the colour and marker of its place in ``names``.
    ``left`` is the fraction of weights that remains, by round."""
    for name, density in densities.items():
        i = names.index(name)
        style = {"color": ALL_COLOURS[i % len(ALL_COLOURS)], "marker": MARKERS[i % len(MARKERS)]}
        ax.plot(density, label=name, markersize=4, **style)
    ax.set_yscale("log", nonpositive="mask")  # a line ends where nothing is left
    lowest = min(min(density[density > 0], default=1) for density in densities.values())
    ax.set_ylim(min(0.27, 0.7 * lowest), 1.3)  # so that 0.3 and 1 are there, and markers are whole
    panels.log_ticks(ax.yaxis, "{x:g}", (1, 3))
    panels.tidy(ax)
    every = math.ceil(len(left) / 7)
    labels = [f"{round_}\n{percent(remaining)}%" for round_, remaining in left.items()]
    ax.set_xlim(-0.5, len(left) - 0.5)
    ax.set_xticks(range(0, len(left), every), labels[::every], fontsize=8)
    ax.set_xlabel("round, remaining weights", fontsize=9)


# ---- Kind inputs -----------------------------------------------------------------------------------------------------


def input_names(history: History) -> list[str]:
    """Of the inputs that the networks see: what they are, where that is known."""
    names = envs.INPUT_NAMES.get(history.name["env"], ())
    n_inputs = history.weights.shape[2]
    seen = history.inputs or range(n_inputs)
    known = max(seen) < len(names) and (history.inputs or n_inputs == len(names))
    return [names[i] if known else f"input {i}" for i in seen]


def input_histories(results: pd.DataFrame, column: str, condition: str) -> list[History]:
    """Of each task, script and variant."""
    results = finite_chains(results, column)
    groups = results.groupby(["env_id", "variant"], sort=False)
    histories = [read_history(members, column, condition) for _, members in groups]
    of_kernels = [", ".join(history.names[:2]) for history in histories if history.convolution]
    say(of_kernels, "column", "left out, as the first layer is a convolution")
    histories = [history for history in histories if not history.convolution]
    if not 0 < len(histories) <= 4:
        names = "; ".join(", ".join(history.names[:2]) for history in histories) or "none"
        su.fail(f"kind inputs draws 1 to 4 columns, and these runs make {len(histories)}: {names}; choose with --where")
    return histories


def heat_map(ax: plt.Axes, shares: np.ndarray, names: Iterable[str]) -> None:
    """[rounds, inputs] from 0 to 1, with a line for each input; what is 0 is grey."""
    ax.imshow(np.where(shares > 0, shares, np.nan).T, vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    ax.set_facecolor("0.85")
    if shares.shape[1] <= MANY_INPUTS:
        ax.set_yticks(range(shares.shape[1]), names, fontsize=8)
    else:
        ax.set_ylabel("input")


def inputs(results: pd.DataFrame, column: str, condition: str) -> list[Picture]:
    """A column for each task, script and variant: how much weight each input has, in how many seeds it has any, and how
    dense the layers are; means over seeds."""
    histories = input_histories(results, column, condition)
    names = [input_names(history) for history in histories]
    longest = max(len(name) for of_history in names for name in of_history)
    height = min(6, max(1.5, 0.3 + 0.19 * max(map(len, names))))  # inches
    size = 1.2 + (2.8 + 0.06 * longest) * len(histories), 2 * height + 3.2
    figure, axes = plt.subplots(3, len(histories), figsize=size, height_ratios=[height, height, 2.3], squeeze=False)
    figure.set_layout_engine("constrained", w_pad=0.06, h_pad=0.06)
    layers = list(dict.fromkeys(layer for history in histories for layer in history.densities))
    rows: list[Row] = []
    for history, its_names, (top, middle, bottom) in zip(histories, names, axes.T, strict=True):
        weights, alive = history.weights.mean(1), (history.left > 0).mean(1)  # [rounds, inputs]
        weights = weights / weights.max(1, keepdims=True).clip(1e-30)
        heat_map(top, weights, its_names)
        heat_map(middle, alive, its_names)
        draw_densities(bottom, history.densities, layers, history.rounds)
        for ax in (top, middle):
            ax.set_xticks(bottom.get_xticks(), [])
        top.set_title(fill(", ".join(history.names), 42, break_on_hyphens=False), fontsize=9)
        drawn: list[tuple[str, str, Any]] = [("weight", *pair) for pair in zip(its_names, weights.T, strict=True)]
        drawn += [("alive", *pair) for pair in zip(its_names, alive.T, strict=True)]
        drawn += [("density", *pair) for pair in history.densities.items()]
        for quantity, name, values in drawn:
            for (round_, left), value in zip(history.rounds.items(), values, strict=True):
                row = {"quantity": quantity, "name": name, "round": round_, "remaining_fraction": left}
                rows.append(history.name | row | {"value": value, "seeds": len(history.seeds)})
    for ax_row, text in zip(axes, ("sum of |w|\n(largest = 1)", "share of seeds\nthat have any w"), strict=False):
        bar = figure.colorbar(ax_row[0].images[0], ax=ax_row, pad=0.02, ticks=[0, 0.5, 1])
        bar.set_label(text, fontsize=8)
    axes[2, 0].set_ylabel("density")
    handles = panels.handles_of(figure)
    place = {"loc": "outside lower center", "ncols": min(len(layers), 2 * len(histories)), "fontsize": 8}
    figure.legend(handles.values(), handles, frameon=False, **place)
    return [Picture(figure, rows, input_table(histories, column))]


def input_table(histories: list[History], column: str) -> str:
    """When each input was lost: the round after the last one in which it had a weight. Of many inputs, as those of a
    picture, how many are alive in each round."""
    if max(history.weights.shape[2] for history in histories) > MANY_INPUTS:
        lines = [["env", "script", "condition", "round", "inputs alive, mean over seeds", column]]
        for history in histories:
            alive = (history.left > 0).sum(2).mean(1)
            for round_, n, scores in zip(history.rounds, alive, history.scores, strict=True):
                lines.append([*history.names, f"{round_}", number(n), number(scores.mean())])
        return markdown(lines) + "\n\nWhich: alive_inputs in results.csv; of a picture, python plot.py goggles RUN"
    head = ["env", "script", "condition", "input", "lost in round", f"{column} in that round"]
    lines = [[*head, "alive in the last round"]]
    for history in histories:
        rounds = list(history.rounds)
        for i, name in enumerate(input_names(history)):
            ages = [int(np.flatnonzero(left)[-1]) + 1 for left in history.left[:, :, i].T]  # rounds that it lasted
            lost = [(age, seed) for seed, age in enumerate(ages) if age < len(rounds)]
            line = [*history.names, name]
            for values in ([rounds[age] for age, _ in lost], [history.scores[at] for at in lost]):
                line.append(number(np.mean(values)) if lost else "–")
            lines.append([*line, f"{len(ages) - len(lost)} of {len(ages)} seeds"])
    return markdown(lines)
