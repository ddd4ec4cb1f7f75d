"""Pictures of The State of Sparse Training in Deep RL (Graesser, Evci, Elsen, Castro 2022): kinds curves, snr,
scaling, sensitivity, split and noise, of runs of the scripts whose names end with _rigl. aggregate.py has its kind iqm,
and flops.py its kind flops."""

from collections.abc import Callable, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.ticker import EngFormatter

import sparse_utils as su
from plots import panels
from plots.estimates import columns_of, estimate, markdown, number
from plots.panels import Picture, Row
from plots.runs import name_variants, say

# Where a run without --actor-share is drawn, which is the dense networks' own share; in all MuJoCo tasks the same to
# 0.005. SAC has two critics.
DEFAULT_ACTOR_SHARE = {"sac_rigl": 0.337, "ppo_rigl": 0.51}
SNR_COLUMNS = ("snr", "snr_actor", "snr_critic")


# ---- Scores ----------------------------------------------------------------------------------------------------------


def measured(runs: pd.DataFrame, results: pd.DataFrame, column: str) -> pd.DataFrame:
    """The values of ``column`` that were measured, with the step of their row and that of their measurement, ``at``.

    The scripts measure the SNR every --snr-interval steps and write the last measurement into each row, so a row has a
    new one if a multiple of the interval lies between it and the row before. What is NaN at a run's beginning was not
    yet measured."""
    values = results[["run", "step"]].assign(at=results.step, value=results[column])
    if column in SNR_COLUMNS and "snr_interval" in runs:
        interval = values.run.map(runs.snr_interval).astype(float)
        values["at"] = (values.step // interval * interval).fillna(values.step)  # nan in runs without that flag
        values = values[values["at"] > values.groupby("run").step.shift(fill_value=0)]
    return values[values.value.notna().groupby(values.run).cummax()]


def score(runs: pd.DataFrame, results: pd.DataFrame, column: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """``runs`` with final scores, sizes and whether they are finished; and what is ``measured``. Runs whose values or
    returns are not all finite are left out of both. A score is the mean over the last 10% of the evaluations, or the
    last value if none of them has one."""
    values = measured(runs, results, column)
    say(runs.index.difference(values.run, sort=False), "run", f"left out, without a value of {column}")
    runs = runs[runs.index.isin(values.run)]
    for name, of_runs in ((column, values.value), ("return_mean", results.get("return_mean", pd.Series(dtype=float)))):
        broken = results.run.reindex(of_runs.index)[~np.isfinite(of_runs)]
        say(runs.index[runs.index.isin(broken)], "run", f"left out, as {name} is not finite in all rows")
        runs = runs[~runs.index.isin(broken)]
    if runs.empty:
        su.fail(f"nothing to draw: {column} has no values yet")
    runs = name_variants(runs)
    values = values[values.run.isin(runs.index)]
    last_tenth = results.groupby("run").step.agg(lambda steps: steps.iloc[-max(1, len(steps) // 10)])
    scores = values.groupby("run").value.last()
    scores.update(values[values.step >= values.run.map(last_tenth)].groupby("run").value.mean())
    last = results.groupby("run").tail(1).set_index("run").reindex(runs.index)
    sizes = last.rename(columns={"sparsity": "reached_sparsity"})
    sizes = sizes.reindex(columns=["parameters", "acting_flops", "reached_sparsity"])
    finished = last.step >= runs.total_timesteps.astype(float)
    return runs.assign(score=scores, finished=finished, **sizes), values


def finished_runs(runs: pd.DataFrame, results: pd.DataFrame, column: str) -> pd.DataFrame:
    """With their scores. Ends the program if there are none."""
    runs, _ = score(runs, results, column)
    say(runs.index[~runs.finished], "run", "left out as unfinished")
    if not runs.finished.any():
        su.fail("no run is finished; kind curves draws unfinished ones, too")
    return name_variants(runs[runs.finished])


def final_results(runs: pd.DataFrame, results: pd.DataFrame, column: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The finished runs, and their last rows of ``results`` with the final score as ``column``."""
    runs = finished_runs(runs, results, column)
    last = results.groupby("run").tail(1).set_index("run").loc[runs.index]
    return runs, last.assign(**{column: runs.score}).rename_axis("run").reset_index()


def groups(runs: pd.DataFrame) -> Any:
    """((panel, variant), its runs), in the legend's order."""
    return runs.groupby(["panel", "variant"], sort=False)


def first_columns(members: pd.DataFrame) -> Row:
    """Of the csv: what the runs of a variant are."""
    return {"env": members.env_id.iloc[0], "script": members.script.iloc[0], "variant": members.variant.iloc[0]}


def table(runs: pd.DataFrame, column: str) -> str:
    """Final scores of all variants. The std is that of a sample, divided by n - 1."""
    head = ["env", "variant", "seeds", f"final {column}, mean ± std", "IQM [95% interval]"]
    lines = [[*head, "parameters", "acting FLOPs", "sparsity"]]
    for (panel, variant), members in groups(runs):
        finished = members[members.finished]
        n_unfinished = len(members) - len(finished)
        line = [panel, variant, f"{len(finished)}" + f" (+{n_unfinished} unfinished)" * bool(n_unfinished), "–", "–"]
        if len(finished):
            value, low, high = map(number, estimate([finished.score.to_numpy()], "iqm"))
            line[3:] = f"{number(finished.score.mean())} ± {number(finished.score.std())}", f"{value} [{low}, {high}]"
        sizes = (finished if len(finished) else members)[["parameters", "acting_flops", "reached_sparsity"]]
        lines.append(line + [number(x) for x in sizes.mean()])
    few = any(line[2].split()[0] in ("1", "2", "3") for line in lines)
    return markdown(lines) + "\n\nThe IQM of fewer than 4 seeds is their mean." * few


# ---- Pictures --------------------------------------------------------------------------------------------------------


def curves(
    runs: pd.DataFrame, results: pd.DataFrame, columns: Sequence[str], statistic: str, against: str = "step"
) -> list[Picture]:
    """Learning curves, up to the last step that all seeds of a variant have: a panel for each task and agent. Of
    several ``columns`` each has its own panels, side by side, of the runs that have it. ``against`` is the x axis: of
    "seconds" the mean over the seeds."""
    several = len(columns) > 1
    scored = {}
    for column in columns:
        having = results.run[results[column].notna()] if several else runs.index
        scored[column] = score(runs[runs.index.isin(having)], results, column)
    everything = pd.concat([of_column for of_column, _ in scored.values()])
    lines = [
        [f"{panel}, {column}" for column, (of_column, _) in scored.items() if panel in set(of_column.panel)]
        for panel in dict.fromkeys(everything.panel)
    ]
    grid = [line + [""] * (max(map(len, lines)) - len(line)) for line in lines]
    style = panels.styles(everything)
    figure, axes = panels.new_figure(sum(grid, []) if several else everything.panel, style, grid if several else None)
    rows: list[Row] = []
    for column, (of_column, values) in scored.items():
        for (panel, variant), members in groups(of_column):
            of_seeds = values[values.run.isin(members.index)].pivot(index="at", columns="run", values="value")
            shared = of_seeds.dropna()[members.index]  # [steps, seeds]
            if shared.empty:
                print(f"{panel} {variant}: not drawn, as no step with {column} is in all of {len(members)} runs")
                continue
            last, longest = shared.index[-1], of_seeds.index[-1]
            if last < longest:
                n_seeds = len(members)
                print(f"{panel} {variant}: cut at step {last:,.0f} of {longest:,.0f}, which all {n_seeds} seeds have")
            estimates = estimate([shared.to_numpy().T], statistic)
            ax = axes[f"{panel}, {column}" if several else panel]
            x = shared.index
            if against == "seconds":
                x = results[results.run.isin(members.index)].groupby("step").seconds.mean()[shared.index]
            panels.draw(ax, x, estimates, style[variant] | {"marker": "o" if len(x) == 1 else ""}, variant)
            for i, step in enumerate(shared.index):
                row = first_columns(members) | {"column": column, "seeds": len(members), "step": int(step)}
                row |= {"seconds": float(x.iloc[i])} if against == "seconds" else {}
                rows.append(row | columns_of(estimates, i))
    if not rows:
        su.fail("nothing to draw: no step is in all runs of a variant")
    for ax in axes.values():
        ax.xaxis.set_major_formatter(EngFormatter(sep=""))
        ax.set_xlabel("seconds of training" if against == "seconds" else "environment steps")
    panels.legend_with_seeds(figure, rows, "variant", "SNR of the gradients" if several else columns[0], statistic)
    return [Picture(figure, rows, "\n\n".join(table(of_column, column) for column, (of_column, _) in scored.items()))]


def snr(runs: pd.DataFrame, results: pd.DataFrame, statistic: str) -> list[Picture]:
    """The gradients' signal-to-noise ratio in training, of each network (figure 5)."""
    columns = [column for column in SNR_COLUMNS if column in results and results[column].notna().any()]
    return curves(runs, results, columns or su.fail("no run has a signal-to-noise ratio"), statistic)


def draw_over_flag(
    runs: pd.DataFrame, statistic: str, axis: str, place: Callable[[pd.Series], float], side_by_side: bool = False
) -> tuple[plt.Figure, list[Row]]:
    """Final scores over the values of the flag ``axis``: a line for each variant, a horizontal one for dense networks
    that all have one value. ``place`` is where a run stands on the x axis."""
    runs = name_variants(runs, axis)
    style = panels.styles(runs)
    figure, axes = panels.new_figure(runs.panel, style)
    offsets = dict(zip(style, np.linspace(-0.15, 0.15, len(style)) * side_by_side, strict=True))
    rows: list[Row] = []
    for (panel, variant), members in groups(runs):
        points = []
        for value in dict.fromkeys(members[axis]):
            same = members[[other == value for other in members[axis]]]
            estimates = estimate([same.score.to_numpy()], statistic)
            points.append((place(same.iloc[0]) + offsets[variant], estimates))
            row = first_columns(same) | {axis: value, "parameters": int(same.parameters.iloc[0])}
            rows.append(row | {"seeds": len(same)} | columns_of(estimates))
        if members.method.iloc[0] == "dense" and len(points) == 1:
            panels.draw_reference(axes[panel], points[0][1], style[variant]["color"], variant)
        else:
            x, estimates = zip(*sorted(points, key=lambda point: point[0]), strict=True)
            panels.draw(axes[panel], x, np.stack(estimates, axis=1), style[variant], variant, side_by_side)
    return figure, rows


def scaling(runs: pd.DataFrame, results: pd.DataFrame, column: str, statistic: str) -> list[Picture]:
    """Final scores against the number of parameters (figures 2, 8 and 9)."""
    runs = finished_runs(runs, results, column)
    figure, rows = draw_over_flag(runs, statistic, "sparsity", lambda run: run.parameters)
    axes = {ax.get_title(): ax for ax in figure.axes}
    for ax in axes.values():
        ax.set_xscale("log")
        panels.log_ticks(ax.xaxis, EngFormatter(sep=""))
        ax.set_xlabel("parameters")
        ax.set_title(ax.get_title(), pad=16)
    # Above the panel, the sparsities of one line: the methods differ by a few parameters at most.
    sparse = runs[~runs.method.isin(("dense", "small"))]
    for (panel, level), parameters in sparse.groupby(["panel", "sparsity"]).parameters.last().items():
        place = {"xy": (parameters, 1.02), "xycoords": axes[panel].get_xaxis_transform()}
        axes[panel].annotate(f"{100 * level:g}%", **place, fontsize=7, color="0.4", ha="center")
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


def sensitivity(runs: pd.DataFrame, results: pd.DataFrame, column: str, statistic: str, axis: str) -> list[Picture]:
    """Final scores against the values of a flag (figures 3, 4 and 13)."""
    runs = swept_runs(finished_runs(runs, results, column), axis)
    of_dense = set(runs[axis][runs.method == "dense"])  # one value is drawn as a horizontal line, and has no place
    drawn = runs if len(of_dense) > 1 else runs[runs.method != "dense"]
    defaults = DEFAULT_ACTOR_SHARE if axis == "actor_share" else {}
    places = {
        (script, v): defaults.get(script) if v is None else v
        for script, v in zip(drawn.script, drawn[axis], strict=True)
    }
    are_words = any(isinstance(v, bool | str | tuple | None) for v in places.values())
    if are_words or max(places.values()) > 20 * min((v for v in places.values() if v > 0), default=0):
        # words, or numbers too far apart for one linear axis: at equal distances
        order = sorted(set(drawn[axis]), key=lambda v: (v is not None, v))
        places = {(script, v): order.index(v) for script, v in places}
    figure, rows = draw_over_flag(runs, statistic, axis, lambda run: places.get((run.script, run[axis]), 0), are_words)
    scripts = runs.groupby("panel").script.first()
    for ax in figure.axes:
        script = scripts[ax.get_title()]
        named = {v: x for (of, v), x in places.items() if of == script and not (v is None and defaults)}
        ax.set_xticks(list(named.values()), [f"{v:g}" if type(v) in (int, float) else str(v) for v in named])
        ax.set_xlabel(axis.replace("_", " "))
        if defaults and (script, None) in places:
            x = places[script, None]
            ax.axvline(x, color="0.6", linestyle=":", linewidth=1, zorder=0)
            ax.annotate("default", (x, 0.01), xycoords=("data", "axes fraction"), fontsize=7, color="0.4")
    panels.legend_with_seeds(figure, rows, "variant", column, statistic)
    return [Picture(figure, rows, table(runs, column))]


def noise(runs: pd.DataFrame, statistic: str) -> list[Picture]:
    """Returns of trained agents against the noise on what they see (figure 6), from the noise.csv that --evaluate
    wrote into their run folders, and from noise_wrap.csv in panels of its own. Runs that are not finished are left
    out."""
    finished = runs.reached >= runs.total_timesteps
    say(runs.index[~finished], "run", "left out as unfinished")
    runs = runs[finished]
    parts = []
    for name, run in runs.iterrows():
        for file, title in (("noise.csv", run.panel), ("noise_wrap.csv", f"{run.panel}, wrapping around")):
            if (run.folder / file).exists():
                rows = pd.read_csv(run.folder / file)
                rows = rows[rows.agent == run.seed].assign(run=name, title=title)
                parts.append(rows)
    measured_runs = {name for part in parts for name in part.run}
    say(runs.index.difference(measured_runs, sort=False), "run", "left out, without a noise.csv")
    if not measured_runs:
        su.fail("no run has a noise.csv: the script's --evaluate CHECKPOINT --observation-noise 0 5 10 writes it")
    runs = name_variants(runs[runs.index.isin(measured_runs)])
    everything = pd.concat(parts).join(runs[["variant"]], on="run")
    style = panels.styles(runs)
    figure, axes = panels.new_figure(everything.title, style)
    rows: list[Row] = []
    for variant in style:
        for title, members in everything[everything.variant == variant].groupby("title", sort=False):
            of_agents = members.pivot_table(index="noise", columns="run", values="return_mean").dropna()
            if of_agents.empty:
                print(f"{title} {variant}: not drawn, as its agents have no level of noise in common")
                continue
            estimates = estimate([of_agents.to_numpy().T], statistic)
            panels.draw(axes[title], of_agents.index, estimates, style[variant], variant)
            first = first_columns(runs.loc[list(of_agents.columns)]) | {"panel": title, "seeds": of_agents.shape[1]}
            rows += [first | {"noise": x} | columns_of(estimates, i) for i, x in enumerate(of_agents.index)]
    for title, ax in axes.items():
        unit = "pixels, 0 to 255" if title.startswith("ALE/") else "parts of each input's own"
        ax.set_xlabel(f"standard deviation of the noise [{unit}]", fontsize=9)
    panels.legend_with_seeds(figure, rows, "variant", "return_mean", statistic)
    levels = list(dict.fromkeys(row["noise"] for row in rows))
    lines = [["panel", "variant", "seeds", *(f"return at noise {level:g}" for level in levels)]]
    for title, variant in dict.fromkeys((row["panel"], row["variant"]) for row in rows):
        there = {row["noise"]: row for row in rows if (row["panel"], row["variant"]) == (title, variant)}
        cells = [number(there[level]["value"]) if level in there else "–" for level in levels]
        lines.append([title, variant, f"{next(iter(there.values()))['seeds']}", *cells])
    return [Picture(figure, rows, markdown(lines))]
