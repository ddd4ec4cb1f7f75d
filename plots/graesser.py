"""Pictures of The State of Sparse Training in Deep RL (Graesser, Evci, Elsen, Castro 2022): kinds curves, sparsity, iqm
and flag, of runs of sac_rigl.py."""

from collections.abc import Callable
from textwrap import fill
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.ticker import EngFormatter

import sparse_utils as su
from plots import panels
from plots.estimates import STATISTIC_NAMES, columns_of, estimate, markdown, number
from plots.panels import COLOURS, Picture, Row
from plots.random_scores import RANDOM_SCORES
from plots.runs import name_variants, say

DEFAULT_ACTOR_SHARE = 0.337  # where the run without --actor-share is drawn: the same to 0.002 in all MuJoCo tasks


# ---- Scores ----------------------------------------------------------------------------------------------------------


def measured(runs: pd.DataFrame, results: pd.DataFrame, column: str) -> pd.DataFrame:
    """The values of ``column`` that were measured, with the step of their row and that of their measurement, ``at``.

    sac_rigl.py measures the SNR every --snr-interval steps and writes the last measurement into each row, so a row
    has a new one if a multiple of the interval lies between it and the row before. What is NaN at a run's beginning
    was not yet measured."""
    values = results[["folder", "step"]].assign(at=results.step, value=results[column])
    if column.startswith("snr_") and "snr_interval" in runs:
        interval = values.folder.map(runs.snr_interval).astype(float)
        values["at"] = (values.step // interval * interval).fillna(values.step)  # nan in runs without that flag
        values = values[values["at"] > values.groupby("folder").step.shift(fill_value=0)]
    return values[values.value.notna().groupby(values.folder).cummax()]


def score(runs: pd.DataFrame, results: pd.DataFrame, column: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """``runs`` with final scores, sizes and whether they are finished; and what is ``measured``. Runs whose values are
    not all finite are left out of both. A score is the mean over the last 10% of the evaluations, or the last value if
    none of them has one."""
    values = measured(runs, results, column)
    finite = np.isfinite(values.value).groupby(values.folder).all()
    say(runs.index.difference(finite.index, sort=False), "run", f"left out, without a value of {column}")
    say(runs.index[runs.index.isin(finite.index[~finite])], "run", f"left out, as {column} is not finite in all rows")
    runs = runs[runs.index.isin(finite.index[finite])]
    if runs.empty:
        su.fail(f"nothing to draw: {column} has no values yet")
    runs = name_variants(runs)
    values = values[values.folder.isin(runs.index)]
    last_tenth = results.groupby("folder").step.agg(lambda steps: steps.iloc[-max(1, len(steps) // 10)])
    scores = values.groupby("folder").value.last()
    scores.update(values[values.step >= values.folder.map(last_tenth)].groupby("folder").value.mean())
    last = results.groupby("folder").tail(1).set_index("folder").reindex(runs.index)
    sizes = last.rename(columns={"sparsity": "reached_sparsity"})
    sizes = sizes.reindex(columns=["parameters", "acting_flops", "reached_sparsity"])
    return runs.assign(score=scores, finished=last.step >= runs.total_timesteps.astype(float), **sizes), values


def finished_runs(runs: pd.DataFrame, results: pd.DataFrame, column: str) -> pd.DataFrame:
    """With their scores. Ends the program if there are none."""
    runs, _ = score(runs, results, column)
    say(runs.index[~runs.finished], "run", "left out as unfinished")
    if not runs.finished.any():
        su.fail("no run is finished; kind curves draws unfinished ones, too")
    return name_variants(runs[runs.finished])


def groups(runs: pd.DataFrame) -> Any:
    """((task, variant), its runs), in the legend's order."""
    return runs.groupby(["env_id", "variant"], sort=False)


def table(runs: pd.DataFrame, column: str) -> str:
    """Final scores of all variants. The std is that of a sample, divided by n - 1."""
    head = ["env", "variant", "seeds", f"final {column}, mean ± std", "IQM [95% interval]"]
    lines = [[*head, "parameters", "acting FLOPs", "sparsity"]]
    for (env, variant), members in groups(runs):
        finished = members[members.finished]
        n_unfinished = len(members) - len(finished)
        line = [env, variant, f"{len(finished)}" + f" (+{n_unfinished} unfinished)" * bool(n_unfinished), "–", "–"]
        if len(finished):
            value, low, high = map(number, estimate([finished.score.to_numpy()], "iqm"))
            line[3:] = f"{number(finished.score.mean())} ± {number(finished.score.std())}", f"{value} [{low}, {high}]"
        sizes = (finished if len(finished) else members)[["parameters", "acting_flops", "reached_sparsity"]]
        lines.append(line + [number(x) for x in sizes.mean()])
    few = any(line[2] in ("1", "2", "3") for line in lines)
    return markdown(lines) + "\n\nThe IQM of fewer than 4 seeds is their mean." * few


# ---- Pictures --------------------------------------------------------------------------------------------------------


def curves(runs: pd.DataFrame, results: pd.DataFrame, column: str, statistic: str) -> list[Picture]:
    """Learning curves, up to the last step that all seeds of a variant have."""
    runs, values = score(runs, results, column)
    style = panels.styles(runs)
    figure, axes = panels.new_figure(runs.env_id, style)
    rows: list[Row] = []
    for (env, variant), members in groups(runs):
        of_seeds = values[values.folder.isin(members.index)].pivot(index="at", columns="folder", values="value")
        shared = of_seeds.dropna()[members.index]  # [steps, seeds]
        if shared.empty:
            print(f"{env} {variant}: not drawn, as there is no step with {column} in all of {len(members)} runs")
            continue
        last, longest = shared.index[-1], of_seeds.index[-1]
        if last < longest:
            print(f"{env} {variant}: cut at step {last:,.0f} of {longest:,.0f}, which all {len(members)} seeds have")
        estimates = estimate([shared.to_numpy().T], statistic)
        panels.draw(axes[env], shared.index, estimates, style[variant] | {"marker": ""}, variant)
        for i, step in enumerate(shared.index):
            row = {"env": env, "variant": variant, "seeds": len(members), "step": int(step)}
            rows.append(row | columns_of(estimates, i))
    if not rows:
        su.fail("nothing to draw: no step is in all runs of a variant")
    for ax in axes.values():
        ax.xaxis.set_major_formatter(EngFormatter(sep=""))
        ax.set_xlabel("environment steps")
    panels.legend_with_seeds(figure, rows, "variant", column, statistic)
    return [Picture(figure, rows, table(runs, column))]


def draw_over_flag(
    runs: pd.DataFrame, statistic: str, axis: str, place: Callable[[pd.Series], float], side_by_side: bool = False
) -> tuple[plt.Figure, list[Row]]:
    """Final scores over the values of the flag ``axis``: a line for each variant, a horizontal one for dense networks
    that all have one value. ``place`` is where a run stands on the x axis."""
    runs = name_variants(runs, axis)
    style = panels.styles(runs)
    figure, axes = panels.new_figure(runs.env_id, style)
    offsets = dict(zip(style, np.linspace(-0.15, 0.15, len(style)) * side_by_side, strict=True))
    rows: list[Row] = []
    for (env, variant), members in groups(runs):
        points = []
        for value in dict.fromkeys(members[axis]):
            same = members[[other == value for other in members[axis]]]
            estimates = estimate([same.score.to_numpy()], statistic)
            points.append((place(same.iloc[0]) + offsets[variant], estimates))
            row = {"env": env, "variant": variant, axis: value, "parameters": int(same.parameters.iloc[0])}
            rows.append(row | {"seeds": len(same)} | columns_of(estimates))
        if members.method.iloc[0] == "dense" and len(points) == 1:
            panels.draw_reference(axes[env], points[0][1], style[variant]["color"], variant)
        else:
            x, estimates = zip(*sorted(points, key=lambda point: point[0]), strict=True)
            panels.draw(axes[env], x, np.stack(estimates, axis=1), style[variant], variant, side_by_side)
    return figure, rows


def sparsity(runs: pd.DataFrame, results: pd.DataFrame, column: str, statistic: str) -> list[Picture]:
    """Final scores against the number of parameters (figure 2)."""
    runs = finished_runs(runs, results, column)
    figure, rows = draw_over_flag(runs, statistic, "sparsity", lambda run: run.parameters)
    for ax in figure.axes:
        ax.set_xscale("log")
        panels.log_ticks(ax.xaxis, EngFormatter(sep=""))
        ax.set_xlabel("parameters")
        # Above the panel, the sparsities of one line: the methods differ by a few parameters at most.
        here = [row for row in rows if row["env"] == ax.get_title()]
        sparse = {row["sparsity"]: row for row in here if not row["variant"].startswith(("dense", "small"))}
        ax.set_title(ax.get_title(), pad=16)
        for level, row in sparse.items():
            at, where = (row["parameters"], 1.02), ax.get_xaxis_transform()
            ax.annotate(f"{100 * level:g}%", at, xycoords=where, fontsize=7, color="0.4", ha="center")
    panels.legend_with_seeds(figure, rows, "variant", column, statistic)
    return [Picture(figure, rows, table(runs, column))]


def swept_runs(runs: pd.DataFrame, axis: str) -> pd.DataFrame:
    """Those of variants with two values of the flag ``axis``, and the dense runs to compare them with."""
    lacking = runs[[axis not in flags for flags in runs["flags"]]]
    if not lacking.empty:
        methods = ", ".join(lacking.method.unique())
        su.fail(f"--flag {axis}: {len(lacking)} of {len(runs)} runs have no such flag ({methods}): {lacking.index[0]}")
    named = name_variants(runs, axis)
    varied = groups(named)[axis].transform(lambda values: len(set(values))) > 1
    dense = named.method == "dense"
    if not varied.any():
        su.fail(f"no variant has runs with two values of {axis}")
    say(named.variant[~(varied | dense)], "variant", f"left out, as all their runs have the same {axis}")
    return name_variants(runs.loc[named.index[varied | dense]])


def flag(runs: pd.DataFrame, results: pd.DataFrame, column: str, statistic: str, axis: str) -> list[Picture]:
    """Final scores against the values of a flag (figures 3, 4 and 13)."""
    runs = swept_runs(finished_runs(runs, results, column), axis)
    of_dense = set(runs[axis][runs.method == "dense"])  # one value is drawn as a horizontal line, and has no place
    values = set(runs[axis][runs.method != "dense"]) | (of_dense if len(of_dense) > 1 else set())
    places = {v: DEFAULT_ACTOR_SHARE if v is None and axis == "actor_share" else v for v in values}
    are_words = any(isinstance(v, bool | str | tuple | None) for v in places.values())
    if are_words or max(places.values()) > 20 * min((v for v in places.values() if v > 0), default=0):
        # words, or numbers too far apart for one linear axis: at equal distances
        places = {v: i for i, v in enumerate(sorted(values, key=lambda v: (v is not None, v)))}
    figure, rows = draw_over_flag(runs, statistic, axis, lambda run: places.get(run[axis], 0), are_words)
    for ax in figure.axes:
        named = {v: x for v, x in places.items() if v is not None or axis != "actor_share"}
        ax.set_xticks(list(named.values()), [f"{v:g}" if type(v) in (int, float) else str(v) for v in named])
        ax.set_xlabel(axis.replace("_", " "))
        if len(named) < len(places):
            ax.axvline(places[None], color="0.6", linestyle=":", linewidth=1, zorder=0)
            ax.annotate("default", (places[None], 0.01), xycoords=("data", "axes fraction"), fontsize=7, color="0.4")
    panels.legend_with_seeds(figure, rows, "variant", column, statistic)
    return [Picture(figure, rows, table(runs, column))]


def normalise(runs: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, str]]:
    """``runs`` with scores as parts of the way from a random agent's score to the mean of the task's dense runs; and
    the tasks that are left out, with the reason. The paper (section 3) divides by the dense score, which is the same
    where a random agent gets 0, but has the wrong sign where scores are negative."""
    left_out: dict[str, str] = {}
    tasks = []
    for env, members in runs.groupby("env_id", sort=False):
        dense = members[members.method == "dense"]
        if dense.variant.nunique() > 1:
            su.fail(f"{env} has several kinds of dense runs, such as {dense.variant.iloc[-1]}: choose one with --where")
        random = RANDOM_SCORES.get(env, np.nan)
        span = dense.score.mean() - random
        if dense.empty:
            left_out[env] = "there is no finished dense run"
        elif np.isnan(random):
            left_out[env] = "no random agent's score is known"
        elif span <= 0:
            left_out[env] = "the dense agents are no better than a random one"
        elif len(dense) < len(members):
            tasks.append(members.assign(score=(members.score - random) / span))
    for reason in dict.fromkeys(left_out.values()):
        say([env for env, why in left_out.items() if why == reason], "task", f"left out, as {reason}")
    if not tasks:
        su.fail("there is no task with finished runs of dense and of other networks that can be compared")
    return pd.concat(tasks), left_out


def iqm(runs: pd.DataFrame, results: pd.DataFrame, column: str, statistic: str) -> list[Picture]:
    """Normalised scores of all tasks together: a panel for each sparsity (figures 1 and 15)."""
    finished = finished_runs(runs, results, column)
    runs, left_out = normalise(finished)
    dense = runs[runs.method == "dense"]
    others = name_variants(runs[runs.method != "dense"], "sparsity")
    style = {"dense": {"color": COLOURS["dense"]}} | panels.styles(others)
    figure, axes = panels.new_figure(f"{100 * level:g}% sparse" for level in sorted(set(others.sparsity)))
    for ax in figure.axes[1:]:
        ax.sharex(figure.axes[0])
    rows: list[Row] = []
    for (level, members), ax in zip(others.groupby("sparsity"), axes.values(), strict=True):
        reference = dense[dense.env_id.isin(members.env_id)].assign(variant="dense")
        names = []
        for variant, bar in pd.concat([reference, members]).groupby("variant", sort=False):
            tasks = [scores.to_numpy() for _, scores in bar.groupby("env_id").score]
            estimates = estimate(tasks, statistic)
            value, low, high = estimates
            colour = style[variant]["color"]
            ax.plot([low, high], [len(names)] * 2, color=colour, alpha=0.45, linewidth=16, solid_capstyle="butt")
            ax.plot([value], [len(names)], marker="|", markersize=16, markeredgewidth=2, color=colour)
            if not names:  # dense
                ax.axvline(value, color="0.6", linestyle="--", linewidth=1, zorder=0)
                ax.axvspan(low, high, color="0.6", alpha=0.15, linewidth=0, zorder=0)
            row = {"sparsity": level, "variant": variant, "tasks": len(tasks), "runs": len(bar)}
            omitted = "; ".join(f"{env}, as {why}" for env, why in left_out.items())
            rows.append(row | columns_of(estimates) | {"left_out": omitted})
            counts = [f"{row[name]} {name if row[name] > 1 else name[:-1]}" for name in ("tasks", "runs")]
            names.append(f"{variant}\n{', '.join(counts)}")
        ax.set_yticks(range(len(names)), names, fontsize=8)
        ax.set_ylim(len(names) - 0.4, -0.6)
        ax.set_xlabel(f"{STATISTIC_NAMES[statistic]} of return (0: random, 1: dense)", fontsize=9)
    if left_out:
        figure.supxlabel(fill(f"left out: {omitted}", 70 * len(figure.axes)), fontsize=8)
    return [Picture(figure, rows, table(finished, column))]
