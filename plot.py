"""Draws the figures from run folders, and prints the table behind them.

    python plot.py curves runs                                      # learning curves of all runs in the folder
    python plot.py curves runs --column snr_critic --where method=dense,rigl
    python plot.py sparsity runs/sac_scaling-small.txt              # final score against parameters
    python plot.py iqm runs/sac_iqm-paper.txt                       # IQM over tasks, relative to dense
    python plot.py flag runs/sac_weight_decay-small.txt --flag weight_decay

RUN is a run folder, a folder of run folders, a pattern in quotes, or a list that benchmark.sh wrote. Runs that differ
in nothing but their seed are one variant, named by its method, its sparsity and those flags in which the runs of its
method differ. A run's final score is the mean of the last 10% of its evaluations. Intervals are 95% stratified
bootstrap intervals over seeds (Agarwal et al. 2021), and only variants with two seeds or more have one. An unfinished
run has a curve, as long as what all seeds of its variant have, but no final score.

Writes figures/{kind}.png, or --out, and beside it the .csv of what was drawn.
"""

import csv
import glob
import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402
import tyro  # noqa: E402
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter  # noqa: E402
from scipy.stats import trim_mean  # noqa: E402

import sparse_utils as su  # noqa: E402

# Okabe & Ito's colours, which colour-blind people can tell apart. A method that is not here gets one of the others.
COLOURS = {"dense": "#000000", "small": "#0072B2", "prune": "#E69F00", "static": "#CC79A7"}
COLOURS |= {"set": "#009E73", "rigl": "#D55E00"}
OTHER_COLOURS = ["#56B4E9", "#F0E442", "#999999"]
DASHES = ["-", (0, (5, 1.2))]  # of neighbours among the variants of one method, which share its colour
MARKERS = ["o", "s", "^", "D", "v", "P"]
DEFAULT_ACTOR_SHARE = 0.337  # where the run without --actor-share is drawn: the same to 0.002 in all MuJoCo tasks


@dataclass
class Args:
    kind: Annotated[Literal["curves", "sparsity", "iqm", "flag"], tyro.conf.Positional]
    """which picture"""
    runs: Annotated[tuple[str, ...], tyro.conf.Positional]
    """run folders, folders of run folders, patterns, or lists written by benchmark.sh"""
    column: str = "return_mean"
    """column of results.csv"""
    statistic: Literal["iqm", "mean"] = "iqm"
    """interquartile mean or mean over seeds"""
    flag: str = ""
    """with kind flag: the flag on the x axis, such as actor_share"""
    where: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """only runs with FLAG=VALUE or FLAG=VALUE,VALUE; may be given many times"""
    out: Path | None = None
    """the picture; default figures/{kind}.png"""


# ---- Runs ------------------------------------------------------------------------------------------------------------


@dataclass
class Run:
    """A run folder: all arguments, and results.csv by columns."""

    folder: Path
    args: dict[str, Any]
    columns: dict[str, np.ndarray]

    @property
    def finished(self) -> bool:
        return self.columns["step"][-1] >= self.args["total_timesteps"]

    def final(self, column: str) -> float:
        """The mean over the last 10% of evaluations, at least one."""
        values = self.columns[column]
        return float(values[-max(1, len(values) // 10) :].mean())


def find_folders(patterns: Iterable[str]) -> list[Path]:
    """All folders with a config.json that are named, matched, listed or inside such a folder; each once."""
    found = []
    for pattern in patterns:
        candidates = []
        for path in map(Path, sorted(glob.glob(pattern)) or [pattern]):
            if path.is_file():
                candidates += [path.parent / line for line in path.read_text(errors="replace").split("\n")]
            else:
                candidates += [path, *sorted(path.glob("*"))]
        folders = [folder for folder in candidates if (folder / "config.json").is_file()]
        found += folders or su.fail(f"no run folders in {pattern}")
    return list({folder.resolve(): folder for folder in found}.values())


def read_run(folder: Path) -> Run | None:
    """A run, or None if it has not evaluated yet."""
    try:
        config = json.loads((folder / "config.json").read_text())
        args = {"script": Path(config["command"][0]).stem} | config["args"]
        if not (folder / "results.csv").exists():
            return None
        with (folder / "results.csv").open(newline="") as stream:
            rows = list(csv.DictReader(stream))
        if "condition" in rows[0]:  # many runs in one folder, a row per round
            print(f"{folder} is a run of {args['script']}.py, which these pictures do not draw: left out")
            return None
        columns = {name: np.array([float(row[name]) for row in rows]) for name in rows[0]}
    except (KeyError, IndexError, TypeError, ValueError) as error:
        su.fail(f"cannot read {folder} as a run folder: {type(error).__name__} {error}")
    return Run(folder, args, columns)


def matches(value: Any, text: str) -> bool:
    """Whether a flag's value is what --where says: 1e-4 is 0.0001."""
    try:
        return float(text) == value
    except ValueError:
        return str(value).lower() == text.lower()


def find_runs(args: Args, columns: Iterable[str]) -> list[Run]:
    """The runs that are named and match --where, all with these columns. Ends the program if there are none."""
    folders = find_folders(args.runs)
    runs = [read_run(folder) for folder in folders]
    if None in runs:
        print(f"{runs.count(None)} of {len(runs)} runs have no results yet")
    runs = [run for run in runs if run is not None]
    for condition in args.where:
        name, _, values = condition.partition("=")
        name = name.replace("-", "_")
        if not all(name in run.args for run in runs):
            su.fail(f"--where {condition}: no flag {name}; write FLAG=VALUE")
        runs = [run for run in runs if any(matches(run.args[name], text) for text in values.split(","))]
    if not runs:
        su.fail(f"none of {len(folders)} run folders has results{' and matches --where' if args.where else ''}")
    different = {json.dumps({k: v for k, v in run.args.items() if k not in su.FREE_FLAGS}): run for run in runs}
    if len(different) < len(runs):
        print(f"{len(runs) - len(different)} runs are left out: they differ from others in nothing but the folder")
    runs = list(different.values())
    for run in runs:
        for column in columns:
            if column not in run.columns:
                su.fail(f"no column {column} in {run.folder}/results.csv; there are {', '.join(run.columns)}")
    return runs


def flag_text(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return f"{'' if value else 'no-'}{name.replace('_', '-')}"
    if isinstance(value, str):
        return value
    return f"{name.replace('_', '-')} {'default' if value is None else f'{value:g}'}"


def group(runs: list[Run], axis: str = "") -> dict[tuple[str, str], list[Run]]:
    """Runs by (task, variant), in the legend's order; within a group only the seed and the flag ``axis`` differ."""
    values: dict[tuple[str, str, str], set] = {}
    for run in runs:
        for flag, value in run.args.items():
            values.setdefault((run.args["env_id"], run.args["method"], flag), set()).add(value)
    unnamed = su.FREE_FLAGS | {"env_id", "seed", "method", axis}

    def differing(run: Run) -> list[str]:
        differ = {flag for (_, m, flag), several in values.items() if m == run.args["method"] and len(several) > 1}
        return [flag for flag in run.args if flag in differ - unnamed]

    def variant(run: Run) -> str:
        name, flags = run.args["method"], differing(run)
        if axis != "sparsity" and (name != "dense" or "sparsity" in flags):
            name += f" {100 * run.args['sparsity']:g}%"
        return ", ".join([name, *(flag_text(flag, run.args[flag]) for flag in flags if flag != "sparsity")])

    def order(run: Run) -> tuple:
        method, methods = run.args["method"], [*COLOURS, run.args["method"]]
        flags = ((run.args[flag] is not None, run.args[flag]) for flag in differing(run))
        return run.args["env_id"], methods.index(method), method, run.args["sparsity"], *flags, run.args["seed"]

    groups: dict[tuple[str, str], list[Run]] = {}
    for run in sorted(runs, key=order):
        groups.setdefault((run.args["env_id"], variant(run)), []).append(run)
    return groups


# ---- Statistics ------------------------------------------------------------------------------------------------------


STATISTICS = {"iqm": partial(trim_mean, proportiontocut=0.25), "mean": np.mean}


def estimate(tasks: list[np.ndarray], statistic: str, resamples: int = 2000) -> np.ndarray:
    """[value, low, high] of a statistic of all runs of all tasks, with a 95% percentile interval.

    ``tasks`` has one array [seeds, ...] for each task. The bootstrap is stratified: each task's seeds are drawn with
    replacement from its own. Where no task has two seeds there is nothing to draw, and the interval is NaN.
    """
    function = STATISTICS[statistic]
    value = function(np.concatenate(tasks), axis=0)
    if max(map(len, tasks)) < 2:
        return np.stack([value, np.full_like(value, np.nan), np.full_like(value, np.nan)])
    rng = np.random.default_rng(0)
    draws = [task[rng.integers(len(task), size=(resamples, len(task)))] for task in tasks]
    low, high = np.percentile(function(np.concatenate(draws, axis=1), axis=1), [2.5, 97.5], axis=0)
    return np.stack([value, low, high])


def final_scores(runs: list[Run], args: Args) -> np.ndarray:
    """[seeds]"""
    return np.array([run.final(args.column) for run in runs])


def number(x: float) -> str:
    if math.isnan(x):
        return "–"
    return f"{x:,.0f}" if abs(x) >= 100 else f"{x:.3g}"


def table(runs: list[Run], args: Args) -> str:
    """Final scores of all variants, in Markdown. The std is that of a sample, divided by n - 1."""
    head = ["env", "variant", "seeds", f"final {args.column}, mean ± std", "IQM [95% interval]"]
    lines = [[*head, "parameters", "acting FLOPs", "sparsity"], ["---"] * 8]
    for (env, variant), members in group(runs).items():
        finished = [run for run in members if run.finished]
        unfinished = len(members) - len(finished)
        line = [env, variant, f"{len(finished)}" + (f" (+{unfinished} unfinished)" if unfinished else "")]
        if finished:
            final = final_scores(finished, args)
            value, low, high = map(number, estimate([final], "iqm"))
            std = final.std(ddof=1) if len(final) > 1 else math.nan
            line += [f"{number(final.mean())} ± {number(std)}", f"{value} [{low}, {high}]"]
        else:
            line += ["–", "–"]
        for name in ("parameters", "acting_flops", "sparsity"):
            line.append(number(np.mean([run.columns.get(name, [math.nan])[-1] for run in finished or members])))
        lines.append(line)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


# ---- Pictures: each returns its figure and the rows of its csv -------------------------------------------------------


def panels(names: Iterable[str], variants: Iterable[str] = ()) -> tuple[plt.Figure, dict[str, plt.Axes]]:
    """A figure with a panel for each name, and space for a legend of these variants on the right."""
    names = list(dict.fromkeys(names))
    columns = min(3, len(names))
    lines = math.ceil(len(names) / columns)
    legend = max((1.3 + 0.065 * len(variant) for variant in variants), default=0)  # inches
    figure, axes = plt.subplots(
        lines, columns, figsize=(4.2 * columns + legend, 3.4 * lines), squeeze=False, layout="constrained"
    )
    figure.get_layout_engine().set(w_pad=0.08, h_pad=0.08)
    for ax in axes.flat[len(names) :]:
        ax.remove()
    for name, ax in zip(names, axes.flat, strict=False):
        ax.set_title(name)
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(alpha=0.25)
    return figure, dict(zip(names, axes.flat, strict=False))


def styles(groups: dict[tuple[str, str], list[Run]]) -> dict[str, dict[str, Any]]:
    """Each variant's colour, by its method, and line and marker, by its place among the method's variants."""
    methods: dict[str, list[str]] = {}
    for (_, variant), runs in groups.items():
        siblings = methods.setdefault(runs[0].args["method"], [])
        siblings += [variant] * (variant not in siblings)
    free = iter(OTHER_COLOURS * len(methods))
    style = {}
    for method, siblings in methods.items():
        colour = np.array(matplotlib.colors.to_rgb(COLOURS.get(method) or next(free)))
        for i, variant in enumerate(siblings):
            shade = i / max(1, len(siblings) - 1) - 0.5 * (len(siblings) > 2)  # -0.5 is dark, 0.5 or 1 is light
            mixed = colour * (1 + shade) if shade < 0 else colour + 0.55 * shade * (1 - colour)
            style[variant] = {"color": mixed, "linestyle": DASHES[i % len(DASHES)], "marker": MARKERS[i % len(MARKERS)]}
    return style


def draw(
    ax: plt.Axes, x: Any, estimates: np.ndarray, style: dict[str, Any], variant: str, error_bars: bool = False
) -> None:
    """A line through [value, low, high] at each x, with its interval as a band or as error bars."""
    value, low, high = estimates
    ax.plot(x, value, label=variant, linewidth=1.5, markersize=5, **style)
    if error_bars:
        ax.vlines(x, low, high, color=style["color"], linewidth=1.5)
    else:
        ax.fill_between(x, low, high, color=style["color"], alpha=0.15, linewidth=0)


def draw_reference(ax: plt.Axes, estimates: np.ndarray, style: dict[str, Any], variant: str) -> None:
    """A horizontal line over the whole width, with its interval."""
    value, low, high = estimates
    ax.axhline(value, label=variant, linewidth=1.2, color=style["color"], linestyle="--")
    if not math.isnan(low):
        ax.axhspan(low, high, color=style["color"], alpha=0.08, linewidth=0)


def add_legend(figure: plt.Figure, rows: list[dict[str, Any]]) -> None:
    """One legend of all panels, with the numbers of seeds."""
    handles = {label: h for ax in figure.axes for h, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    labels = []
    for variant in handles:
        seeds = sorted({row["seeds"] for row in rows if row["variant"] == variant})
        text = "–".join(str(n) for n in dict.fromkeys((seeds[0], seeds[-1])))
        labels.append(f"{variant} ({text} {'seed' if text == '1' else 'seeds'})")
    figure.legend(handles.values(), labels, loc="outside right upper", frameon=False, fontsize=8, handlelength=3)


def columns_of(estimates: np.ndarray, *index: int) -> dict[str, float]:
    return {name: float(x) for name, x in zip(("value", "low", "high"), estimates[:, *index], strict=True)}


def curves(runs: list[Run], args: Args) -> tuple[plt.Figure, list[dict[str, Any]]]:
    """Learning curves, up to the last step that all seeds of a variant have."""
    groups, rows = group(runs), []
    style = styles(groups)
    figure, axes = panels((env for env, _ in groups), style)
    for (env, variant), members in groups.items():
        # A measurement that was not yet taken, as the SNR before learning starts, is NaN.
        series = [dict(zip(*(run.columns[c] for c in ("step", args.column)), strict=True)) for run in members]
        series = [{step: value for step, value in values.items() if not math.isnan(value)} for values in series]
        steps = sorted(set(series[0]).intersection(*series))
        longest = max((step for values in series for step in values), default=0)
        if not steps:
            print(f"{env} {variant}: not drawn, as there is no step with {args.column} in all of {len(members)} runs")
            continue
        if steps[-1] < longest:
            print(
                f"{env} {variant}: cut at step {steps[-1]:,.0f} of {longest:,.0f}, which all {len(members)} seeds have"
            )
        scores = np.array([[values[step] for step in steps] for values in series])
        estimates = estimate([scores], args.statistic)
        draw(axes[env], steps, estimates, style[variant] | {"marker": ""}, variant)
        row = {"env": env, "variant": variant, "seeds": len(members)}
        rows += [{**row, "step": int(step), **columns_of(estimates, i)} for i, step in enumerate(steps)]
    for ax in axes.values():
        ax.xaxis.set_major_formatter(EngFormatter(sep=""))
        ax.set_xlabel("environment steps")
    return figure, rows


def over_flag(
    runs: list[Run], args: Args, axis: str, place: Callable[[Any, Run], float], side_by_side: bool = False
) -> tuple[plt.Figure, list[dict[str, Any]]]:
    """Final scores over the values of the flag ``axis``: a line for each variant, a horizontal one for dense networks
    that all have one value. ``place`` is where a value stands on the x axis, given it and one of its runs."""
    groups, rows = group(runs, axis), []
    style = styles(groups)
    figure, axes = panels((env for env, _ in groups), style)
    offsets = dict(zip(style, np.linspace(-0.15, 0.15, len(style)) * side_by_side, strict=True))
    for (env, variant), members in groups.items():
        points = []
        for value in dict.fromkeys(run.args[axis] for run in members):
            cell = [run for run in members if run.args[axis] == value]
            estimates = estimate([final_scores(cell, args)], args.statistic)
            points.append((place(value, cell[0]) + offsets[variant], estimates))
            row = {"env": env, "variant": variant, axis: value, "parameters": int(cell[0].columns["parameters"][-1])}
            rows.append({**row, "seeds": len(cell), **columns_of(estimates)})
        if members[0].args["method"] == "dense" and len(points) == 1:
            draw_reference(axes[env], points[0][1], style[variant], variant)
        else:
            x, estimates = zip(*sorted(points, key=lambda point: point[0]), strict=True)
            draw(axes[env], x, np.stack(estimates, axis=1), style[variant], variant, side_by_side)
    return figure, rows


def sparsity(runs: list[Run], args: Args) -> tuple[plt.Figure, list[dict[str, Any]]]:
    """Final scores against the number of parameters."""
    figure, rows = over_flag(runs, args, "sparsity", lambda _, run: run.columns["parameters"][-1])
    for ax in figure.axes:
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_major_formatter(EngFormatter(sep=""))
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.set_xlabel("parameters")
        # Above the panel, the sparsities of one line: the methods differ by a few parameters at most.
        sparse = [
            row for row in rows if row["env"] == ax.get_title() and not row["variant"].startswith(("dense", "small"))
        ]
        ax.set_title(ax.get_title(), pad=16)
        for row in {row["sparsity"]: row for row in sparse}.values():
            at, where = (row["parameters"], 1.02), ax.get_xaxis_transform()
            ax.annotate(f"{100 * row['sparsity']:g}%", at, xycoords=where, fontsize=7, color="0.4", ha="center")
    return figure, rows


def swept_runs(runs: list[Run], axis: str) -> list[Run]:
    """Those of variants with two values of the flag ``axis``, and the dense runs to compare them with."""
    if not all(axis in run.args for run in runs):
        su.fail(f"--flag {axis}: no such flag; there are {', '.join(runs[0].args)}")
    swept, dense, left_out = [], [], {}
    for (_, variant), members in group(runs, axis).items():
        if len({run.args[axis] for run in members}) > 1:
            swept += members
        elif members[0].args["method"] == "dense":
            dense += members
        else:
            left_out[variant] = None
    if not swept:
        su.fail(f"no variant has runs with two values of {axis}")
    if left_out:
        print(f"left out, as all their runs have the same {axis}: {'; '.join(left_out)}")
    return swept + dense


def flag(runs: list[Run], args: Args) -> tuple[plt.Figure, list[dict[str, Any]]]:
    """Final scores against the values of --flag."""
    axis = args.flag
    values = {run.args[axis] for run in runs}
    places = {v: DEFAULT_ACTOR_SHARE if v is None and axis == "actor_share" else v for v in values}
    are_words = any(isinstance(v, bool | str | None) for v in places.values())
    if are_words or max(places.values()) > 20 * min((v for v in places.values() if v > 0), default=0):
        # words, or numbers too far apart for one linear axis: at equal distances
        places = {v: i for i, v in enumerate(sorted(values, key=lambda v: (v is not None, v)))}
    figure, rows = over_flag(runs, args, axis, lambda value, _: places[value], are_words)
    for ax in figure.axes:
        named = {v: x for v, x in places.items() if v is not None or axis != "actor_share"}
        ax.set_xticks(list(named.values()), [f"{v:g}" if type(v) in (int, float) else str(v) for v in named])
        ax.set_xlabel(axis.replace("_", " "))
        if len(named) < len(places):
            ax.axvline(places[None], color="0.6", linestyle=":", linewidth=1, zorder=0)
            ax.annotate("default", (places[None], 0.01), xycoords=("data", "axes fraction"), fontsize=7, color="0.4")
    return figure, rows


def over_tasks(runs: list[Run], args: Args) -> tuple[plt.Figure, list[dict[str, Any]]]:
    """Final scores divided by the mean of the task's dense runs, all tasks together: a panel for each sparsity."""
    dense: dict[str, np.ndarray] = {}
    for (env, variant), members in group(runs).items():
        if members[0].args["method"] == "dense":
            if env in dense:
                su.fail(f"{env} has several kinds of dense runs, such as {variant}: choose one with --where")
            dense[env] = final_scores(members, args)
            if dense[env].mean() <= 0:
                print(f"{env}: the dense score is not positive, so larger quotients are not better")
    bars: dict[float, dict[str, dict[str, list[float]]]] = {}  # sparsity -> variant -> task -> scores
    groups = {key: members for key, members in group(runs, "sparsity").items() if members[0].args["method"] != "dense"}
    for (env, variant), members in groups.items():
        if env not in dense:
            print(f"{env} {variant}: left out, as there is no finished dense run to compare with")
            continue
        for run in members:
            scores = bars.setdefault(run.args["sparsity"], {}).setdefault(variant, {}).setdefault(env, [])
            scores.append(run.final(args.column) / dense[env].mean())
    if not bars:
        su.fail("there is no task with finished runs of dense and of other networks")
    style, rows = styles(groups), []
    figure, axes = panels(f"{100 * level:g}% sparse" for level in sorted(bars))
    for level, ax in zip(sorted(bars), axes.values(), strict=True):
        compared = {env for tasks in bars[level].values() for env in tasks}
        reference = {env: list(scores / scores.mean()) for env, scores in dense.items() if env in compared}
        names = []
        for variant, tasks in ({"dense": reference} | bars[level]).items():
            estimates = estimate([np.array(scores) for scores in tasks.values()], args.statistic)
            value, low, high = estimates
            colour = style[variant]["color"] if variant in style else COLOURS["dense"]
            ax.plot([low, high], [len(names)] * 2, color=colour, alpha=0.45, linewidth=16, solid_capstyle="butt")
            ax.plot([value], [len(names)], marker="|", markersize=16, markeredgewidth=2, color=colour)
            counts = {"tasks": len(tasks), "runs": sum(map(len, tasks.values()))}
            rows.append({"sparsity": level, "variant": variant, **counts, **columns_of(estimates)})
            texts = [f"{n} {name if n > 1 else name[:-1]}" for name, n in counts.items()]
            names.append(f"{variant}\n{', '.join(texts)}")
        ax.set_yticks(range(len(names)), names, fontsize=8)
        ax.set_ylim(len(names) - 0.4, -0.6)
        ax.axvline(rows[-len(names)]["value"], color="0.6", linestyle="--", linewidth=1, zorder=0)
        ax.set_xlabel(f"{args.statistic.replace('iqm', 'IQM')} of {args.column} / dense", fontsize=9)
    return figure, rows


if __name__ == "__main__":
    args = tyro.cli(Args, description=__doc__)
    if (args.kind == "flag") != bool(args.flag):
        su.fail("--flag names the x axis of kind flag, and of no other")
    out = args.out or Path(f"figures/{args.kind}.png")
    columns = ["step", args.column] + ["parameters"] * (args.kind in ("sparsity", "flag"))
    runs = find_runs(args, columns)
    drawn = runs if args.kind == "curves" else [run for run in runs if run.finished]
    if len(drawn) < len(runs):
        print(f"{len(runs) - len(drawn)} of {len(runs)} runs are left out, as they are unfinished")
    if not drawn:
        su.fail("no run is finished; kind curves draws unfinished ones, too")
    if args.kind == "flag":
        args.flag = args.flag.replace("-", "_")
        drawn = swept_runs(drawn, args.flag)
    figure, rows = {"curves": curves, "sparsity": sparsity, "iqm": over_tasks, "flag": flag}[args.kind](drawn, args)
    if not rows:
        su.fail(f"nothing to draw: {args.column} has no values yet")
    if args.kind != "iqm":
        figure.supylabel(f"{args.column} ({args.statistic.replace('iqm', 'IQM')})", fontsize=10)
        add_legend(figure, rows)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(out, dpi=150)
        su.write_csv(out.with_suffix(".csv"), rows)
    except (OSError, ValueError) as error:  # ValueError: a kind of picture that matplotlib does not write
        su.fail(f"cannot write {out}: {error}")
    print(f"{out} and {out.with_suffix('.csv')}\n\n{table(drawn, args)}")
