"""Draws the figures from run folders, and prints the table behind them.

    python plot.py curves runs                                      # learning curves of all runs in the folder
    python plot.py curves runs --column snr_critic --where method=dense,rigl
    python plot.py sparsity runs/sac_scaling-small.txt              # final score against parameters
    python plot.py iqm runs/sac_iqm-paper.txt                       # IQM over tasks, relative to dense
    python plot.py flag runs/sac_weight_decay-small.txt --flag weight_decay
    python plot.py tickets runs/CartPole-v1__*                      # lottery tickets: return against weights left
    python plot.py inputs runs/CartPole-v1__ppo_imp__*              # which inputs and layers are pruned first
    python plot.py goggles runs/MazeGrid-v0__dqn_imp__* --rounds 0 5 10    # what the pruned agents still see
    python plot.py earlybird runs/*__dqn_earlybird__*               # early-bird tickets: all experiments and tasks

RUN is a run folder, a folder of run folders, a pattern in quotes, or a list that benchmark.sh wrote. Runs that differ
in nothing but their seed are one variant, named by its method, its sparsity and those flags in which the runs of its
method differ. A run's final score is the mean of the last 10% of its evaluations. Intervals are 95% stratified
bootstrap intervals over seeds (Agarwal et al. 2021), and only variants with two seeds or more have one. An unfinished
run has a curve, as long as what all seeds of its variant have, but no final score.

Kinds tickets, inputs and goggles draw runs of dqn_imp.py, ppo_imp.py and bc_distill.py, the first two with a panel or
column for each task, script and set of flags. Runs that differ only in --seeds, --conditions and --rounds are one, in
which a seed counts once; it is drawn as far as all its seeds got. In the table of kind tickets, a column's level of
remaining weights is that of the nearest round, if it is within 25%; the last column is the smallest remaining
fraction at which the statistic is at least its dense value minus 5% of the difference between that and the worst
condition's value in its last round. Kind inputs shows means over seeds; what it shows in grey is 0.

Kind goggles draws agents that observe pictures, of one task, script and set of flags, as means over seeds or for one
of them. For a few rounds it shows how much |w| the first layer has for each pixel, summed over its units. A grey pixel
is dead: no weight is left for it in any seed, or --input-mask hides it. Of convolutional networks it shows the cells
of the first layer's kernels, not pixels. The table counts what is alive; for MazeGrid-v0 it tells "possible" pixels,
such as the cells that an enemy can reach, from "impossible" ones, which are always 0.

Kind earlybird draws finished runs of dqn_earlybird.py, as means over repetitions, and saves a picture for each
experiment that is there as figures/earlybird_{picture}.png, or as --out with _{picture} after its name:
    similarity  how much the masks of any two episodes overlap (figure 3.3 of Dimofte 2023). The csv has mean overlaps
                of pairs; the matrices are in the run's similarity.npz
    pruned      test return and training length against the episode of pruning, a column for each of retrain and
                finetune, with the dense agent and each fraction's winning tickets (3.4 and 3.7)
    compared    the same with a column for each fraction, in which retrain and finetune are two lines (3.5 and 3.6)
    exploit     EB Exploit's test return, and its episodes of search and of fine-tuning (3.8)

A run that did not reach early stopping counts with the most episodes that it may have, as "not stopped". The line of
exploration is where the dense agents' epsilon gets to its floor. What was pruned early is an early-bird ticket if the
four conditions of section 3.4 hold for the means, and of EB Exploit the first two; the table has the numbers of those
that do not. Where no run reached early stopping, 2 and 3 do not hold.
    1  a test return similar to the dense agent's, or higher: at most 5% of its absolute value lower
    2  as many episodes as the dense agent or fewer: at most 10% more. EB Exploit's search counts, too
    3  both of these beside the winning ticket of the same fraction
    4  pruned earlier than the winning ticket, which is where dense agents stop early

Writes figures/{kind}.png, or --out, and beside it the .csv of what was drawn.
"""

import csv
import glob
import json
import math
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import cycle, product, zip_longest
from pathlib import Path
from textwrap import fill
from typing import Annotated, Any, Literal
from zipfile import BadZipFile

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402
import tyro  # noqa: E402
from matplotlib.colors import PowerNorm  # noqa: E402
from matplotlib.patches import Patch  # noqa: E402
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter  # noqa: E402
from scipy.stats import trim_mean  # noqa: E402

import envs  # noqa: E402
import sparse_utils as su  # noqa: E402
from envs import mazegrid  # noqa: E402

# Okabe & Ito's colours, which colour-blind people can tell apart. A method that is not here gets one of the others.
COLOURS = {"dense": "#000000", "small": "#0072B2", "prune": "#E69F00", "static": "#CC79A7"}
COLOURS |= {"set": "#009E73", "rigl": "#D55E00"}
OTHER_COLOURS = ["#56B4E9", "#F0E442", "#999999"]
DASHES = ["-", (0, (5, 1.2))]  # of neighbours among the variants of one method, which share its colour
MARKERS = ["o", "s", "^", "D", "v", "P"]
DEFAULT_ACTOR_SHARE = 0.337  # where the run without --actor-share is drawn: the same to 0.002 in all MuJoCo tasks

TICKET_KINDS = ("tickets", "inputs", "goggles")
SCRIPTS = {"ppo_imp": "PPO", "dqn_imp": "DQN", "bc_distill": "behavioural cloning"}
CONDITIONS = {"ticket": "#D55E00", "mask_permuted": "#009E73", "permuted_permuted": "#0072B2"}
CONDITIONS |= {"random_reinit": "#E69F00"}
MANY_INPUTS = 40  # more names than that do not fit beside a picture
EXPERIMENTS = {"retrain": "#E69F00", "finetune": "#CC79A7"}  # of dqn_earlybird.py, in the paper's colours


@dataclass
class Args:
    kind: Annotated[
        Literal["curves", "sparsity", "iqm", "flag", "tickets", "inputs", "goggles", "earlybird"],
        tyro.conf.Positional,
    ]
    """which picture"""
    runs: Annotated[tuple[str, ...], tyro.conf.Positional]
    """run folders, folders of run folders, patterns, or lists written by benchmark.sh"""
    column: str = ""
    """column of results.csv; default best_retest for kinds tickets, inputs and goggles, return_mean for the others;
    not for kind earlybird"""
    statistic: Literal["iqm", "mean", "mean_std"] | None = None
    """interquartile mean or mean over seeds with intervals, or mean and one standard deviation; default mean_std for
    kind tickets, as in the paper, mean for kind earlybird, iqm for the others"""
    flag: str = ""
    """with kind flag: the flag on the x axis, such as actor_share"""
    condition: str = "ticket"
    """with kinds inputs and goggles: which condition"""
    rounds: tuple[int, ...] = ()
    """with kind goggles: which rounds; default those next to 100%, 30% and 10% of the weights, and the last"""
    seed: int | None = None
    """with kind goggles: which seed; default the mean over all of them"""
    where: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """only runs with FLAG=VALUE or FLAG=VALUE,VALUE; may be given many times"""
    out: Path | None = None
    """the picture; default figures/{kind}.png; with kind earlybird the pictures' names begin so"""

    def __post_init__(self):
        if self.kind != "earlybird":
            self.column = self.column or ("best_retest" if self.kind in TICKET_KINDS else "return_mean")
        self.statistic = self.statistic or {"tickets": "mean_std", "earlybird": "mean"}.get(self.kind, "iqm")


# ---- Runs ------------------------------------------------------------------------------------------------------------


@dataclass
class Run:
    """A run folder: all arguments, and results.csv by columns. In that of a ticket script many runs lie together,
    with a row for each of them and each round; in that of dqn_earlybird.py with a row for each that is done."""

    folder: Path
    args: dict[str, Any]
    columns: dict[str, np.ndarray]
    conditions: list[str]  # of each row, or its kind of run; empty if not the folder of one of these scripts

    @property
    def finished(self) -> bool:
        if "experiment" in self.args:  # of dqn_earlybird.py
            fractions, episodes = len(self.args["prune_fractions"]), len(self.args["prune_episodes"])
            planned = {"similarity": fractions, "exploit": 1 + fractions}  # rows of a repetition
            rows = planned.get(self.args["experiment"], 1 + fractions * (1 + episodes))
            return len(self.conditions) >= rows * self.args["repetitions"]
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
        folders = [folder for folder in candidates if os.path.isfile(folder / "config.json")]  # lines may be anything
        found += folders or su.fail(f"no run folders in {pattern}")
    return list({folder.resolve(): folder for folder in found}.values())


def read_run(folder: Path, kind: str = "curves") -> Run | None:
    """A run, or None if it has not evaluated yet, or is not of those that this kind draws."""
    try:
        config = json.loads((folder / "config.json").read_text())
        args = {"script": Path(config["command"][0]).stem} | config["args"]
        args = {flag: tuple(value) if isinstance(value, list) else value for flag, value in args.items()}
        if not (folder / "results.csv").exists():
            return None
        with (folder / "results.csv").open(newline="") as stream:
            rows = list(csv.DictReader(stream))
        mark = next((name for name in ("condition", "kind") if name in rows[0]), "")
        conditions = [row.pop(mark) for row in rows if mark]
        if mark != ("condition" if kind in TICKET_KINDS else "kind" if kind == "earlybird" else ""):
            print(f"{folder} is a run of {args['script']}.py, which kind {kind} does not draw: left out")
            return None
        names = [name for name in rows[0] if name != "alive_inputs"]  # which is text; the tickets tell the same
        cells = {name: [row[name] for row in rows] for name in names}
        columns = {name: np.array([math.nan if x == "" else float(x) for x in cells[name]]) for name in names}
    except (KeyError, IndexError, TypeError, ValueError) as error:
        su.fail(f"cannot read {folder} as a run folder: {type(error).__name__} {error}")
    return Run(folder, args, columns, conditions)


def matches(value: Any, text: str) -> bool:
    """Whether a flag's value is what --where says: 1e-4 is 0.0001."""
    try:
        if float(text) == value:
            return True
    except ValueError:
        pass
    return as_text(value).lower() == text.lower()


def find_runs(args: Args, columns: Iterable[str]) -> list[Run]:
    """The runs that are named and match --where, all with these columns. Ends the program if there are none."""
    folders = find_folders(args.runs)
    runs = [run for folder in folders if (run := read_run(folder, args.kind)) is not None]
    new = sum(not (folder / "results.csv").exists() for folder in folders)
    if new:
        print(f"{new} of {len(folders)} runs have no results yet")
    for condition in args.where:
        name, _, values = condition.partition("=")
        name = name.replace("-", "_")
        if not any(name in run.args for run in runs):
            su.fail(f"--where {condition}: no flag {name}; write FLAG=VALUE")
        runs = [r for r in runs if name in r.args and any(matches(r.args[name], text) for text in values.split(","))]
    if not runs:
        matching = " and matches --where" if args.where else ""
        su.fail(f"none of {len(folders)} run folders has results for kind {args.kind}{matching}")
    different: dict[str, Run] = {}
    for run in runs:
        same = json.dumps({flag: value for flag, value in run.args.items() if flag not in su.FREE_FLAGS})
        shorter, longer = sorted((run, different.get(same, run)), key=lambda one: len(next(iter(one.columns.values()))))
        different[same] = longer
        if shorter is not longer:
            print(f"{shorter.folder} is left out: {longer.folder} is the same run, and as far or further")
    runs = list(different.values())
    for run in runs:
        for column in columns:
            if column not in run.columns:
                su.fail(f"no column {column} in {run.folder}/results.csv; there are {', '.join(run.columns)}")
    return runs


def as_text(value: Any) -> str:
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    return f"{value:g}" if type(value) in (int, float) else str(value)


def flag_text(name: str, value: Any, named: bool = False) -> str:
    """``named``: with the flag's name even if the value is a word."""
    if isinstance(value, bool):
        return f"{'' if value else 'no-'}{name.replace('_', '-')}"
    if isinstance(value, str) and not named:
        return value
    return f"{name.replace('_', '-')} {'default' if value is None else as_text(value) or 'none'}"


def group(runs: list[Run], axis: str = "") -> dict[tuple[str, str], list[Run]]:
    """Runs by (task, variant), in the legend's order; within a group only the seed and the flag ``axis`` differ, and,
    in runs of ticket scripts, flags that do not change what a seed learns under a condition; in those of SAC, how often
    it is measured."""
    by = "script" if runs[0].conditions else "method"
    values: dict[tuple[str, str, str], set] = {}
    for run in runs:
        for flag, value in run.args.items():
            values.setdefault((run.args["env_id"], run.args[by], flag), set()).add(value)
    unnamed = su.FREE_FLAGS | {"env_id", "seed", by, axis, "seeds", "conditions", "rounds"}
    unnamed |= {"eval_interval", "eval_episodes", "snr_interval"} if by == "method" else set()

    def differing(run: Run) -> list[str]:
        differ = {flag for (_, name, flag), several in values.items() if name == run.args[by] and len(several) > 1}
        return [flag for flag in run.args if flag in differ - unnamed]

    def variant(run: Run) -> str:
        name, flags = run.args[by], differing(run)
        if by == "script":
            return ", ".join([SCRIPTS.get(name, name), *(flag_text(flag, run.args[flag], True) for flag in flags)])
        if axis != "sparsity" and (name != "dense" or "sparsity" in flags):
            name += f" {100 * run.args['sparsity']:g}%"
        return ", ".join([name, *(flag_text(flag, run.args[flag]) for flag in flags if flag != "sparsity")])

    def order(run: Run) -> tuple:
        name, names = run.args[by], [*COLOURS, *SCRIPTS, run.args[by]]
        flags = ((run.args[flag] is not None, run.args[flag]) for flag in differing(run))
        sparsity, seed = (run.args.get(flag, 0) for flag in ("sparsity", "seed"))
        return run.args["env_id"], names.index(name), name, sparsity, *flags, seed

    groups: dict[tuple[str, str], list[Run]] = {}
    for run in sorted(runs, key=order):
        groups.setdefault((run.args["env_id"], variant(run)), []).append(run)
    return groups


# ---- Statistics ------------------------------------------------------------------------------------------------------


STATISTICS = {"iqm": partial(trim_mean, proportiontocut=0.25), "mean": np.mean, "mean_std": np.mean}
STATISTIC_NAMES = {"iqm": "IQM", "mean": "mean", "mean_std": "mean ± std"}


def quantity(args: Args) -> str:
    """What --column measures, for an axis."""
    return "return" if args.column in ("return_mean", "best_retest") else args.column


def estimate(tasks: list[np.ndarray], statistic: str, resamples: int = 2000) -> np.ndarray:
    """[value, low, high] of a statistic of all runs of all tasks, with a 95% percentile interval, or, for mean_std,
    one standard deviation of a sample to each side.

    ``tasks`` has one array [seeds, ...] for each task. The bootstrap is stratified: each task's seeds are drawn with
    replacement from its own. Where no task has two seeds there is nothing to draw, and the interval is NaN.
    """
    function = STATISTICS[statistic]
    value = function(np.concatenate(tasks), axis=0)
    if max(map(len, tasks)) < 2:
        return np.stack([value, np.full_like(value, np.nan), np.full_like(value, np.nan)])
    if statistic == "mean_std":
        std = np.concatenate(tasks).std(axis=0, ddof=1)
        return np.stack([value, value - std, value + std])
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
    lines = [[*head, "parameters", "acting FLOPs", "sparsity"]]
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
    few = any(line[2] in ("1", "2", "3") for line in lines)
    return markdown(lines) + "\n\nThe IQM of fewer than 4 seeds is their mean." * few


def markdown(lines: list[list[str]]) -> str:
    """A table of these lines, the first of which is its head."""
    return "\n".join(f"| {' | '.join(line)} |" for line in [lines[0], ["---"] * len(lines[0]), *lines[1:]])


# ---- Pictures: each returns its figure and the rows of its csv -------------------------------------------------------


LEGEND_WIDTH = 50  # characters; longer labels take several lines


def panels(
    names: Iterable[str], variants: Iterable[str] = (), grid: list[list[str]] | None = None
) -> tuple[plt.Figure, dict[str, plt.Axes]]:
    """A figure with a panel for each name, and space for a legend of these variants on the right. ``grid`` has the
    names in lines, "" for an empty place; without it there are three in a line."""
    names = list(dict.fromkeys(names))
    grid = grid or [names[i : i + 3] for i in range(0, len(names), 3)]
    columns, lines = len(grid[0]), len(grid)
    legend = max((1.3 + 0.065 * min(len(variant), LEGEND_WIDTH) for variant in variants), default=0)  # inches
    figure, axes = plt.subplots(
        lines, columns, figsize=(4.2 * columns + legend, 3.4 * lines), squeeze=False, layout="constrained"
    )
    figure.get_layout_engine().set(w_pad=0.08, h_pad=0.08)
    by_name = {}
    for name, ax in zip_longest(sum(grid, []), axes.flat):
        if not name:
            ax.remove()
            continue
        ax.set_title(name)
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(alpha=0.25)
        by_name[name] = ax
    return figure, by_name


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
    ax.plot(x, value, label=variant, **{"linewidth": 1.5, "markersize": 5} | style)
    if error_bars or np.size(x) == 1:
        ax.vlines(x, low, high, color=style["color"], linewidth=1.5)
    else:
        ax.fill_between(x, low, high, color=style["color"], alpha=0.15, linewidth=0)


def draw_reference(ax: plt.Axes, estimates: np.ndarray, style: dict[str, Any], variant: str) -> None:
    """A horizontal line over the whole width, with its interval."""
    value, low, high = estimates
    ax.axhline(value, label=variant, linewidth=1.2, color=style["color"], linestyle="--")
    if not math.isnan(low):
        ax.axhspan(low, high, color=style["color"], alpha=0.08, linewidth=0)


def add_legend(figure: plt.Figure, rows: list[dict[str, Any]], column: str = "variant") -> None:
    """One legend of all panels, with the numbers of seeds. ``column`` of the rows has the lines' names."""
    handles = {label: h for ax in figure.axes for h, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    labels = []
    for variant in handles:
        seeds = sorted({row["seeds"] for row in rows if row[column] == variant})
        text = "–".join(str(n) for n in dict.fromkeys((seeds[0], seeds[-1])))
        label = f"{variant} ({text} {'seed' if text == '1' else 'seeds'})"
        labels.append(fill(label, LEGEND_WIDTH + 10, break_on_hyphens=False))
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
    for ax in figure.axes[1:]:
        ax.sharex(figure.axes[0])
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
        ax.set_xlabel(f"{STATISTIC_NAMES[args.statistic]} of {quantity(args)} / dense", fontsize=9)
    return figure, rows


# ---- Lottery tickets -------------------------------------------------------------------------------------------------


def rows_by_round(
    runs: list[Run], name: str, condition: str, only_seed: int | None = None
) -> dict[int, dict[int, dict[str, Any]]]:
    """round -> seed -> row of results.csv, in rounds that all seeds of this condition have; each seed once. ``name``
    is what to call these runs."""
    rounds: dict[int, dict[int, dict[str, Any]]] = {}
    for run in runs:
        for i in (i for i, of_row in enumerate(run.conditions) if of_row == condition):
            row = {column: values[i] for column, values in run.columns.items()}
            round_, seed = int(row["round"]), int(row["seed"])
            if only_seed not in (None, seed):
                continue
            row["file"] = run.folder / "tickets" / f"round{round_:02}_{condition}_seed{seed}.pt"
            rounds.setdefault(round_, {}).setdefault(seed, row)
    seeds = sorted(set().union(*rounds.values()))
    whole = {k: {seed: rounds[k][seed] for seed in seeds} for k in sorted(rounds) if len(rounds[k]) == len(seeds)}
    if len(whole) < len(rounds):
        last = max(whole, default=0)
        print(f"{name}, {condition}: cut at round {last} of {max(rounds)}, which all {len(seeds)} seeds have")
    return whole


def by_round(rounds: dict[int, dict[int, dict[str, Any]]], column: str) -> np.ndarray:
    """[rounds, seeds]"""
    return np.array([[row[column] for row in row_of.values()] for row_of in rounds.values()])


def rows_from_dense(runs: list[Run], name: str, args: Args) -> dict[int, dict[int, dict[str, Any]]]:
    """``rows_by_round`` of --condition, and of --seed if given, with the same seeds' dense agents as round 0."""
    conditions = dict.fromkeys(condition for run in runs for condition in run.conditions)
    if args.condition not in conditions and len(conditions) > 1:
        su.fail(f"no condition {args.condition} in {runs[0].folder}; there are {', '.join(conditions)}")
    dense, later = (rows_by_round(runs, name, c, args.seed) for c in ("dense", args.condition))
    if not dense:
        seeds = sorted({int(seed) for run in runs for seed in run.columns["seed"]})
        su.fail(f"no seed {args.seed} in {runs[0].folder}; there are {', '.join(map(str, seeds))}")
    return {0: {seed: dense[0][seed] for seed in next(iter(later.values()), dense[0])}} | later


def layer_densities(rounds: dict[int, dict[int, dict[str, Any]]]) -> dict[str, np.ndarray]:
    """Of all layers together, then of each: [rounds], means over seeds."""
    columns = [column for column in rounds[0][next(iter(rounds[0]))] if column.startswith("density_")]
    names = {"remaining_fraction": "all layers"} | {column: column.removeprefix("density_") for column in columns}
    return {name: by_round(rounds, column).mean(1) for column, name in names.items()}


def percent(fraction: float) -> str:
    return f"{100 * fraction:.0f}" if fraction > 0.095 else f"{100 * fraction:.2g}"


def tickets(runs: list[Run], args: Args) -> tuple[plt.Figure, list[dict[str, Any]]]:
    """Scores against the weights that remain: a panel for each task, script and variant, a line per condition."""
    groups, rows = group(runs), []
    titles = {key: fill(", ".join(key), 42, break_on_hyphens=False) for key in groups}
    lines, columns = (dict.fromkeys(key[part] for key in groups) for part in (0, 1))
    grid = [[titles.get((env, variant), "") for variant in columns] for env in lines]
    others = sorted({name for run in runs for name in run.conditions} - {"dense", *CONDITIONS})
    colours = CONDITIONS | dict(zip(others, OTHER_COLOURS, strict=False))
    aligned = len(lines) > 1 and 1 < len(columns) <= 4 and any("" not in line for line in grid)
    figure, axes = panels(titles.values(), colours, grid if aligned else None)
    extent: dict[str, list[float]] = {}  # of each task: what single seeds reached, which a band may exceed
    for (env, variant), members in groups.items():
        ax, dense = axes[titles[env, variant]], None
        for condition in ("dense", *colours):
            rounds = rows_by_round(members, f"{env}, {variant}", condition)
            if not rounds:
                continue
            remaining = by_round(rounds, "remaining_fraction").mean(1)
            scores = by_round(rounds, args.column).T
            extent[env] = [*extent.get(env, []), scores.min(), scores.max()]
            estimates = estimate([scores], args.statistic)
            row = {"env": env, "script": members[0].args["script"], "variant": variant, "condition": condition}
            for i, (round_, row_of) in enumerate(rounds.items()):
                row |= {"round": round_, "remaining_fraction": float(remaining[i])}
                rows.append({**row, **columns_of(estimates, i), "seeds": len(row_of)})
            if dense is None:
                dense = estimates
                draw_reference(ax, (dense[0, 0], math.nan, math.nan), {"color": COLOURS["dense"]}, condition)
            else:  # all begin at the dense agent
                marker = MARKERS[list(colours).index(condition) % len(MARKERS)]
                # hollow, and each smaller than the one before, so that equal ones are all seen
                size = max(3.5, 9 - 1.8 * list(colours).index(condition))
                style = {"color": colours[condition], "marker": marker, "markersize": size, "fillstyle": "none"}
                draw(ax, [100, *100 * remaining], np.hstack([dense, estimates]), style, condition)
    smallest = min(0.64, *(row["remaining_fraction"] for row in rows))
    steps = np.arange(round(math.log(smallest, 0.8)) + 1)
    labelled = steps[:: max(2, math.ceil(len(steps) / 11))]
    for (env, _), title in titles.items():
        ax, low, high = axes[title], min(extent[env]), max(extent[env])
        margin = 0.05 * (high - low) or 1
        ax.set_ylim(low - margin, high + margin)  # the same for all panels of a task
        ax.set_title(title, fontsize=10)
        ax.set_xscale("log")
        ax.set_xlim(115, 87 * smallest)
        ax.set_xticks(100 * 0.8**labelled, map(percent, 0.8**labelled), fontsize=8)
        ax.set_xticks(100 * 0.8**steps, [""] * len(steps), minor=True)
        ax.set_xlabel("remaining weights [%]")
    return figure, rows


def interval_text(row: dict[str, Any], statistic: str) -> str:
    if statistic == "mean_std":
        return f"{number(row['value'])} ± {number(row['high'] - row['value'])}"
    return f"{number(row['value'])} [{number(row['low'])}, {number(row['high'])}]"


def ticket_table(rows: list[dict[str, Any]], args: Args) -> str:
    """What kind tickets drew, at seven or fewer of the rounds of the longest chain, in Markdown."""
    chains: dict[tuple[str, ...], list[float]] = {}
    for row in rows:
        chains.setdefault((row["env"], row["variant"], row["condition"]), []).append(row["remaining_fraction"])
    longest = list(dict.fromkeys((1.0, *max(chains.values(), key=len))))
    levels = [longest[round(i)] for i in np.linspace(0, len(longest) - 1, min(len(longest), 7))]
    spread = {"mean_std": "mean ± std"}.get(args.statistic, f"{STATISTIC_NAMES[args.statistic]} [95% interval]")
    head = ["env", "script", "condition", "seeds", f"{args.column} at 100%, {spread}"]
    lines = [[*head, *(f"{100 * level:.2g}%" for level in levels[1:]), "fewest weights near dense"]]
    for env, variant in dict.fromkeys((row["env"], row["variant"]) for row in rows):
        members = [row for row in rows if (row["env"], row["variant"]) == (env, variant)]
        dense, last = members[0], {row["condition"]: row["value"] for row in members}
        level = dense["value"] - 0.05 * (dense["value"] - min(last.values()))
        for condition in list(last)[1:] or list(last):
            points = [dense, *(row for row in members[1:] if row["condition"] == condition)]
            cells = []
            for wanted in levels:
                far = {abs(math.log(row["remaining_fraction"] / wanted)): row for row in points}
                row = far[min(far)] if min(far) < 0.12 else None  # that of the nearest round; a round keeps 80%
                cells.append("–" if row is None else interval_text(row, args.statistic))
            smallest = min((row["remaining_fraction"] for row in points if row["value"] >= level), default=math.nan)
            cells.append(f"{100 * smallest:.3g}% (≥ {number(level)})")
            lines.append([env, variant, condition, f"{points[-1]['seeds']}", *cells])
    return markdown(lines)


@dataclass
class InputHistory:
    """How the inputs and layers of a variant are pruned, in the rounds and seeds that it has."""

    name: dict[str, str]  # the first columns of its rows: env, script, variant, condition
    rounds: list[int]
    inputs: dict[int, str]  # dimension of the observation -> its name
    weights: np.ndarray  # [rounds, seeds, inputs], sum of |w| over the units of the first layer
    alive: np.ndarray  # [rounds, seeds, inputs]
    densities: dict[str, np.ndarray]  # layer, or all of them -> [rounds]
    scores: np.ndarray  # [rounds, seeds]


def load_first_layer(file: Path) -> tuple[dict[str, Any], str, np.ndarray, np.ndarray]:
    """A ticket, and of the first layer that its network has: name, mask and best weights."""
    try:
        ticket = su.load_ticket(file)
    except ValueError as error:
        su.fail(str(error))
    layer, mask = next(iter(ticket["masks"].items()))
    return ticket, layer, mask.numpy(), ticket["best"][layer].numpy()


def read_first_layer(file: Path, env: str) -> tuple[dict[int, str], np.ndarray, np.ndarray]:
    """The inputs that a ticket's network sees by name, the sum of |w| of each, and whether it has any left."""
    ticket, _, mask, weights = load_first_layer(file)
    seen, names = ticket.get("inputs") or range(len(mask)), envs.INPUT_NAMES.get(env, ())
    known = max(seen) < len(names) and (ticket.get("inputs") or len(mask) == len(names))
    named = {i: names[i] if known else f"input {i}" for i in seen}
    return named, np.abs(weights).sum(1), mask.any(1)


def input_histories(runs: list[Run], args: Args) -> list[InputHistory]:
    """What kind inputs draws and tables, of each task, script and variant."""
    histories = []
    for (env, variant), members in group(runs).items():
        name = {"env": env, "script": members[0].args["script"], "variant": variant, "condition": args.condition}
        rounds = rows_from_dense(members, f"{env}, {variant}", args)
        _, layer, mask, _ = load_first_layer(next(iter(rounds[0].values()))["file"])
        if mask.ndim != 2:
            print(f"{env}, {variant}: left out, as {layer} is not fully connected")
            continue
        layers = [[read_first_layer(row["file"], env) for row in row_of.values()] for row_of in rounds.values()]
        weights, alive = (np.array([[seed[part] for seed in seeds] for seeds in layers]) for part in (1, 2))
        scores, densities = by_round(rounds, args.column), layer_densities(rounds)
        histories.append(InputHistory(name, list(rounds), layers[0][0][0], weights, alive, densities, scores))
    if not 0 < len(histories) <= 4:
        names = "; ".join(f"{h.name['env']}, {h.name['variant']}" for h in histories) or "none"
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


def draw_densities(ax: plt.Axes, densities: dict[str, np.ndarray], names: list[str], left: dict[int, float]) -> None:
    """A line over rounds for each of ``densities`` [rounds], in the colour and marker of its place in ``names``.
    ``left`` is the fraction of weights that remains, by round."""
    colours = [*COLOURS.values(), *OTHER_COLOURS]
    for name, density in densities.items():
        i = names.index(name)
        style = {"color": colours[i % len(colours)], "marker": MARKERS[i % len(MARKERS)]}
        ax.plot(density, label=name, markersize=4, **style)
    ax.set_yscale("log", nonpositive="mask")  # a line ends where nothing is left
    lowest = min(min(density[density > 0], default=1) for density in densities.values())
    ax.set_ylim(min(0.27, 0.7 * lowest), 1.3)  # so that 0.3 and 1 are there, and markers are whole
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 3)))
    ax.yaxis.set_major_formatter("{x:g}")
    ax.yaxis.set_minor_formatter(NullFormatter())
    ax.grid(alpha=0.25)
    ax.spines[["top", "right"]].set_visible(False)
    every = math.ceil(len(left) / 7)
    labels = [f"{round_}\n{percent(remaining)}%" for round_, remaining in left.items()]
    ax.set_xlim(-0.5, len(left) - 0.5)
    ax.set_xticks(range(0, len(left), every), labels[::every], fontsize=8)
    ax.set_xlabel("round, remaining weights", fontsize=9)


def inputs(histories: list[InputHistory], args: Args) -> tuple[plt.Figure, list[dict[str, Any]]]:
    """A column for each history: how much weight each input has, in how many seeds it has any, and how dense the
    layers are; means over seeds."""
    longest = max(len(name) for history in histories for name in history.inputs.values())
    height = min(6, max(1.5, 0.3 + 0.19 * max(len(history.inputs) for history in histories)))  # inches
    size = 1.2 + (2.8 + 0.06 * longest) * len(histories), 2 * height + 3.2
    figure, axes = plt.subplots(3, len(histories), figsize=size, height_ratios=[height, height, 2.3], squeeze=False)
    figure.set_layout_engine("constrained", w_pad=0.06, h_pad=0.06)
    layers = list(dict.fromkeys(layer for history in histories for layer in history.densities))
    rows = []
    for history, (top, middle, bottom) in zip(histories, axes.T, strict=True):
        weights, alive = history.weights.mean(1), history.alive.mean(1)  # [rounds, inputs]
        weights /= weights.max(1, keepdims=True).clip(1e-30)
        heat_map(top, weights, history.inputs.values())
        heat_map(middle, alive, history.inputs.values())
        remaining = history.densities["all layers"]
        draw_densities(bottom, history.densities, layers, dict(zip(history.rounds, remaining, strict=True)))
        for ax in (top, middle):
            ax.set_xticks(bottom.get_xticks(), [])
        title = ", ".join([history.name["env"], history.name["variant"], args.condition])
        top.set_title(fill(title, 42, break_on_hyphens=False), fontsize=9)
        drawn = [("weight", *pair) for pair in zip(history.inputs.values(), weights.T, strict=True)]
        drawn += [("alive", *pair) for pair in zip(history.inputs.values(), alive.T, strict=True)]
        drawn += [("density", *pair) for pair in history.densities.items()]
        for quantity, name, values in drawn:
            for round_, left, value in zip(history.rounds, remaining, values, strict=True):
                row = history.name | {"quantity": quantity, "name": name, "round": round_, "remaining_fraction": left}
                rows.append({**row, "value": value, "seeds": history.scores.shape[1]})
    for ax_row, text in zip(axes, ("sum of |w|\n(largest = 1)", "share of seeds\nthat have any w"), strict=False):
        bar = figure.colorbar(ax_row[0].images[0], ax=ax_row, pad=0.02, ticks=[0, 0.5, 1])
        bar.set_label(text, fontsize=8)
    axes[2, 0].set_ylabel("density")
    lines_of = {label: h for ax in axes[2] for h, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    place = {"loc": "outside lower center", "ncols": min(len(layers), 2 * len(histories)), "fontsize": 8}
    figure.legend(lines_of.values(), lines_of, frameon=False, **place)
    return figure, rows


def input_table(histories: list[InputHistory], args: Args) -> str:
    """When each input was lost, in Markdown: the round after the last one in which it had a weight. Of many inputs,
    as those of a picture, how many are alive in each round."""
    if max(len(history.inputs) for history in histories) > MANY_INPUTS:
        lines = [["env", "script", "condition", "round", "inputs alive, mean over seeds", args.column]]
        for history in histories:
            name = [history.name[column] for column in ("env", "variant", "condition")]
            for round_, alive, scores in zip(history.rounds, history.alive, history.scores, strict=True):
                lines.append([*name, f"{round_}", number(alive.sum(1).mean()), number(scores.mean())])
        return markdown(lines) + "\n\nWhich: alive_inputs in results.csv; of a picture, python plot.py goggles RUN"
    head = ["env", "script", "condition", "input", "lost in round", f"{args.column} in that round"]
    lines = [[*head, "alive in the last round"]]
    for history in histories:
        for i, name in enumerate(history.inputs.values()):
            ages = [int(np.flatnonzero(alive)[-1]) + 1 for alive in history.alive[:, :, i].T]  # rounds that it lasted
            lost = [(age, seed) for seed, age in enumerate(ages) if age < len(history.rounds)]
            line = [*(history.name[column] for column in ("env", "variant", "condition")), name]
            for values in ([history.rounds[age] for age, _ in lost], [history.scores[at] for at in lost]):
                line.append(number(np.mean(values)) if lost else "–")
            lines.append([*line, f"{len(ages) - len(lost)} of {len(ages)} seeds"])
    return markdown(lines)


# ---- What pruned agents see of pictures ------------------------------------------------------------------------------


@dataclass
class Goggles:
    """What the first layer reads of the picture that a variant observes, as means over its seeds. Pixels are those of
    the picture, [channels, height, width], or the cells of a convolution's kernels."""

    name: dict[str, Any]  # the first columns of its rows: env, script, variant, condition, seeds
    title: str
    rounds: dict[int, float]  # round -> fraction of the weights that remain
    drawn: list[int]  # the rounds that have a column
    weights: np.ndarray  # [rounds, *pixels], sum of |w| over the units of the first layer
    alive: np.ndarray  # [rounds, *pixels], share of the seeds in which there is any weight left
    densities: dict[str, np.ndarray]  # layer, or all of them -> [rounds]
    of_channels: dict[str, np.ndarray]  # channel -> [rounds], its density in the first layer
    scores: np.ndarray  # [rounds]
    possible: np.ndarray | None  # bool [*pixels], which can be other than 0; None where that is not known
    convolution: bool
    hidden: bool  # does --input-mask hide some of them?


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


def read_pixels(file: Path, shape: tuple[int, ...]) -> np.ndarray:
    """Of each pixel of a ticket's first layer the sum of |w|, how many weights it has and how many it had in a dense
    network, [3, *pixels]: none if --input-mask hides it."""
    ticket, _, mask, weights = load_first_layer(file)
    parts = np.stack([np.abs(weights), mask, np.ones_like(mask)])
    if mask.ndim == 4:  # [out, channels, height, width]
        return parts.sum(1)
    pixels = np.zeros((3, math.prod(shape)))
    pixels[:, ticket.get("inputs") or slice(None)] = parts.sum(2)
    return pixels.reshape(3, *shape)


def read_goggles(runs: list[Run], args: Args) -> Goggles:
    """What kind goggles draws and tables."""
    groups = group(runs)
    ((env, variant), members), *others = groups.items()
    if others:
        names = "; ".join(map(", ".join, groups))
        su.fail(f"kind goggles draws one task and variant, but these are {len(groups)}: {names}; choose with --where")
    if env == "MazeGridEntangled-v0":
        su.fail(f"kind goggles draws pixels, and {env} has none: each input is a mixture of all of them")
    rounds = rows_from_dense(members, f"{env}, {variant}", args)
    unknown = [round_ for round_ in args.rounds if round_ not in rounds]
    if unknown:
        there = ", ".join(map(str, rounds))
        su.fail(f"no round {unknown[0]} of {args.condition} in {members[0].folder}; there are {there}")
    files = [[row["file"] for row in row_of.values()] for row_of in rounds.values()]
    ticket, _, mask, _ = load_first_layer(files[0][0])
    shape = (len(MAZE_CHANNELS[env]), *MAZE.shape) if env in MAZE_CHANNELS else ticket.get("obs_shape", ())
    shape = mask.shape[1:] if mask.ndim == 4 else tuple(shape)
    if len(shape) != 3:
        su.fail(f"kind goggles draws agents that observe pictures; {env} has observations {list(shape)}")

    pixels = np.array([[read_pixels(file, shape) for file in of_seeds] for of_seeds in files])
    weights, left, dense = np.moveaxis(pixels, 2, 0)  # each [rounds, seeds, *pixels]
    with np.errstate(invalid="ignore"):  # a channel that --input-mask hides has no density
        of_channels = (left.sum((1, 3, 4)) / dense.sum((1, 3, 4))).T
    densities = layer_densities(rounds)
    remaining = dict(zip(rounds, densities["all layers"], strict=True))
    nearest = [min(rounds, key=lambda r: abs(math.log(remaining[r] / level))) for level in (1, 0.3, 0.1)]
    name = {"env": env, "script": members[0].args["script"], "variant": variant, "condition": args.condition}
    seeds = list(rounds[0])
    whose = f"mean over {len(seeds)} seeds" if len(seeds) > 1 else f"seed {seeds[0]}"
    kernels = ["kernels of the first layer"] * (mask.ndim == 4)
    return Goggles(
        name=name | {"seeds": len(seeds)},
        title=", ".join([env, variant, args.condition, *kernels, whose]),
        rounds=remaining,
        drawn=sorted(set(args.rounds or [*nearest, max(rounds)])),
        weights=weights.mean(1),
        alive=(left > 0).mean(1),
        densities=densities,
        of_channels=dict(zip(channel_names(env, shape[0]), of_channels, strict=True)),
        scores=by_round(rounds, args.column).mean(1),
        possible=possible_pixels() if env == "MazeGrid-v0" else None,
        convolution=mask.ndim == 4,
        hidden=bool(ticket.get("inputs")),
    )


def outline(ax: plt.Axes, cells: np.ndarray, colour: str) -> plt.Artist:
    """Lines around the cells of an image that are true, bool [height, width]; returns some of them for the legend."""
    padded = np.pad(cells, 1)
    y, x = np.nonzero(np.diff(padded[1:-1], axis=1))
    ax.vlines(x - 0.5, y - 0.5, y + 0.5, color=colour, linewidth=0.6)
    y, x = np.nonzero(np.diff(padded[:, 1:-1], axis=0))
    return ax.hlines(y - 0.5, x - 0.5, x + 0.5, color=colour, linewidth=0.6)


def amounts(history: Goggles, *place: int) -> dict[str, float]:
    """What is at a place, (round, channel) or (round, channel, row, column), as columns of the csv."""
    weight, alive = history.weights[place].sum(), history.alive[place]
    row = {"weight": weight, "weight_share": weight / history.weights[place[0]].sum().clip(1e-30)}
    row |= {"alive": alive.sum(), "pixels": alive.size}
    if history.possible is not None:
        possible = history.possible[place[1:]]
        row |= {"possible": possible.sum(), "possible_alive": (alive * possible).sum()}
    return row


def goggles(history: Goggles, args: Args) -> tuple[plt.Figure, list[dict[str, Any]]]:
    """A column of images for each round drawn; below them, how dense layers and channels are in all rounds. The rows
    of the csv have parts of three kinds: layers and channels in all rounds, and pixels in those drawn."""
    names, columns, (height, width) = list(history.of_channels), len(history.drawn), history.weights.shape[2:]
    panel = (1.15 * width / height, 1.15) if width > height else (1.35, 1.35)  # inches
    upper = 1.75 + (panel[1] + 0.1) * len(names)
    figure = plt.figure(figsize=(max(8.5, 2.5 + (panel[0] + 0.1) * columns), upper + 2.6), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=[upper, 2.6])
    axes, rows = top.subplots(len(names), columns, squeeze=False), []
    several = " in any seed" if history.name["seeds"] > 1 else ""
    hidden = ", or hidden by --input-mask" * history.hidden
    legend: dict[str, Any] = {f"dead: no weight left{several}{hidden}": Patch(facecolor="0.75", edgecolor="black")}
    for i, (round_, remaining) in enumerate(history.rounds.items()):
        shared = history.name | {"round": round_, "remaining_fraction": remaining, args.column: history.scores[i]}
        shared |= dict.fromkeys(["part", "name", "row", "column", "density", *amounts(history, 0, 0)], "")
        for part, densities in (("layer", history.densities), ("channel", history.of_channels)):
            rows += [shared | {"part": part, "name": name, "density": d[i]} for name, d in densities.items()]
        for c, row in enumerate(rows[-len(names) :]):  # of the channels
            row |= amounts(history, i, c)
        if round_ not in history.drawn:
            continue
        for c, y, x in np.ndindex(history.weights[i].shape):
            pixel = {"part": "pixel", "name": names[c], "row": y, "column": x}
            rows.append(shared | pixel | amounts(history, i, c, y, x))
        column = axes[:, history.drawn.index(round_)]
        shares = np.where(history.alive[i] > 0, history.weights[i] / history.weights[i].max().clip(1e-30), np.nan)
        for c, ax in enumerate(column):
            image = ax.imshow(shares[c], norm=PowerNorm(0.5, 0, 1), interpolation="nearest")
            ax.set(xticks=[], yticks=[], facecolor="0.75")
            if history.name["env"] in MAZE_CHANNELS:
                legend["walls"] = outline(ax, MAZE == "#", "white")
            if history.possible is not None:
                legend["pixels that can be 1"] = outline(ax, history.possible[c], "red")
        title = f"round {round_}\n{percent(remaining)}% of weights\n{args.column} {number(history.scores[i])}"
        column[0].set_title(title, fontsize=9)
    for ax, channel in zip(axes[:, 0], names, strict=True):
        ax.set_ylabel(channel, rotation=0, ha="right", va="center", fontsize=9)
    bar = top.colorbar(image, ax=axes, pad=0.02, aspect=40, panchor=False, ticks=[0, 0.01, 0.1, 0.3, 0.6, 1])
    bar.ax.yaxis.set_major_formatter("{x:g}")
    bar.set_label("sum of |w| in the first layer (largest of the round = 1)", fontsize=9)
    top.legend(legend.values(), legend, loc="outside lower center", ncols=3, fontsize=8, facecolor="0.75")
    top.suptitle(history.title, fontsize=10)
    lines = {"density of the layers": history.densities, "density of the first layer's channels": history.of_channels}
    for ax, (title, densities) in zip(bottom.subplots(1, 2), lines.items(), strict=True):
        draw_densities(ax, densities, list(densities), history.rounds)
        ax.set_title(title, fontsize=9)
        ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize=8)
    return figure, rows


def goggles_table(history: Goggles, args: Args) -> str:
    """What each channel has in the rounds drawn, in Markdown."""
    pixels = "kernel cells" if history.convolution else "pixels"
    head = ["round", "remaining", args.column, "channel", "density", "share of weight", f"{pixels} alive"]
    lines = [head + ["possible alive", "impossible alive"] * (history.possible is not None)]
    for i, (round_, remaining) in enumerate(history.rounds.items()):
        for c, (channel, density) in enumerate(history.of_channels.items() if round_ in history.drawn else ()):
            has = amounts(history, i, c)
            alive, of = [has["alive"]], [has["pixels"]]
            if history.possible is not None:
                alive += [has["possible_alive"], has["alive"] - has["possible_alive"]]
                of += [has["possible"], has["pixels"] - has["possible"]]
            line = [f"{round_}", f"{percent(remaining)}%", number(history.scores[i]), channel, number(density[i])]
            line.append(f"{100 * has['weight_share']:.1f}%")
            lines.append(line + [f"{number(a)} of {n} ({100 * a / n:.0f}%)" for a, n in zip(alive, of, strict=True)])
    return f"{history.title}\n\n{markdown(lines)}"


# ---- Early-bird tickets ----------------------------------------------------------------------------------------------


Cells = dict[tuple[str, float, int], dict[int, dict[str, float]]]
REFERENCES = ("dense", "winning_ticket")
# The tables: column of the csv -> title. What results.csv has under that name is shown with an interval.
HEAD, TAIL = {"task": "task", "what": "what", "fraction": "pruned"}, {"censored": "not stopped"}
TAIL |= {"early_bird": "early-bird ticket?"}
OVERLAPS = {"explore": "within exploration", "exploit": "within exploitation", "across": "across the two"}
EARLYBIRD_TABLES = {
    "similarity": {"task": "task", "fraction": "pruned", "seeds": "seeds", "exploration_end": "exploration ends"}
    | {f"overlap_{key}": f"overlap {text}" for key, text in OVERLAPS.items()}
    | {f"distance_{key}_relative": f"distance / that of random masks, {text}" for key, text in OVERLAPS.items()},
    "exploit": HEAD
    | {"test_mean": "test return", "search_episodes": "search episodes", "episodes": "fine-tune episodes"}
    | {"total_episodes": "together", "distance_relative": "distance / that of random masks"}
    | TAIL,
    "pruned": HEAD
    | {"prune_at": "at episode", "test_mean": "test return", "episodes": "episodes after pruning"}
    | TAIL,
}


def read_cells(runs: list[Run]) -> Cells:
    """(what, fraction, episode of pruning) -> seed -> row. What it is is the kind of run or, if it was pruned early,
    the experiment. A seed counts once: retrain and finetune have the same dense agents and winning tickets."""
    cells: Cells = {}
    for run in runs:
        for i, kind in enumerate(run.conditions):
            row = {column: float(values[i]) for column, values in run.columns.items()}
            what = run.args["experiment"] if kind == "early_bird" else kind
            cells.setdefault((what, row["fraction"], int(row["prune_at"])), {}).setdefault(int(row["seed"]), row)
    order = [*REFERENCES, *EXPERIMENTS, "exploit", "similarity"]
    return dict(sorted(cells.items(), key=lambda item: (order.index(item[0][0]), *item[0][1:])))


def exploration_end(args: dict[str, Any], cells: Cells) -> float:
    """The episode in which the epsilon of dense agents gets to its floor; nan if that is not known. Where epsilon
    decays per step and the script did not note it, the mean steps before each episode of pruning tell about when."""
    rows = [row for cell in cells.values() for row in cell.values()]
    if "explored_at" in rows[0]:
        noted = [row["explored_at"] for row in rows if row["explored_at"] >= 0]
        return float(np.mean(noted)) if noted else math.nan
    with suppress(ValueError, ZeroDivisionError):  # it never gets there
        decays = math.ceil(math.log(args["end_e"] / args["start_e"]) / math.log(args["epsilon_decay"]))
        if args["epsilon_decay_unit"] == "episode":
            return decays
        episodes = [0, *sorted({row["prune_at"] for row in rows if row["prune_at"]})]
        steps = [np.mean([row["search_steps"] for row in rows if row["prune_at"] == at]) for at in episodes[1:]]
        return float(np.interp(decays, [0, *steps], episodes, right=math.nan))
    return math.nan


def is_similar(row: dict[str, Any], reference: dict[str, Any], length: str = "episodes") -> tuple[bool, bool]:
    """Whether test return and training length are similar to those of a reference, or better. Where no run reached
    early stopping the length is not, whatever the reference did."""
    lowest = reference["test_mean"] - 0.05 * abs(reference["test_mean"])
    stops = row["censored"] < row["seeds"]
    return row["test_mean"] >= lowest, stops and row[length] <= 1.1 * reference[length]


def earlybird_rows(runs: list[Run], kind: str, args: Args) -> list[dict[str, Any]]:
    """Of each cell the statistic of what is tabled, over the seeds that have a value, and whether it is a ticket."""
    rows: list[dict[str, Any]] = []
    keys = {"fraction", "prune_at", "censored"}
    columns = [column for column in EARLYBIRD_TABLES[kind] if column in runs[0].columns and column not in keys]
    for (env, variant), members in group(runs, "experiment").items():
        cells, references = read_cells(members), {}
        shared = {"task": ", ".join([env, *variant.split(", ")[1:]])}  # without the script, the same for all
        shared["exploration_end"] = exploration_end(members[0].args, cells)
        for (what, fraction, prune_at), cell in cells.items():
            row = shared | {"what": what, "fraction": fraction, "prune_at": prune_at, "seeds": len(cell)}
            row["censored"] = sum(int(of_seed["censored"]) for of_seed in cell.values())
            for column in columns:
                values = np.array([of_seed[column] for of_seed in cell.values()])
                values = values[~np.isnan(values)]
                estimates = estimate([values], args.statistic) if len(values) else np.full(3, math.nan)
                row |= dict(zip((column, f"{column}_low", f"{column}_high"), estimates.tolist(), strict=True))
            rows.append(row)
            holds: list[bool] = []  # the conditions for an early-bird ticket
            if what in REFERENCES:
                references[fraction] = row  # the dense agent has fraction 0
                row["prune_at"] = float(np.mean([of_seed["search_episodes"] for of_seed in cell.values()]))
            elif what == "exploit":
                holds += is_similar(row, references[0], "total_episodes")
            elif what in EXPERIMENTS:
                holds += is_similar(row, references[0])
                holds += [all(is_similar(row, references[fraction]))]
                holds += [prune_at < references[fraction]["prune_at"]]
            missing = ", ".join(f"{i}" for i, it_does in enumerate(holds, start=1) if not it_does)
            row["early_bird"] = f"no: {missing}" if missing else "yes" * bool(holds)
    return rows


def earlybird_table(rows: list[dict[str, Any]], kind: str, args: Args) -> str:
    spread = STATISTIC_NAMES[args.statistic] + " [95% interval]" * (args.statistic != "mean_std")
    titles = dict(EARLYBIRD_TABLES[kind])
    first = next(column for column in titles if f"{column}_low" in rows[0])
    titles[first] += f", {spread}"

    def text(row: dict[str, Any], column: str) -> str:
        if column == "censored":
            return f"{row['censored']} of {row['seeds']}"
        if f"{column}_low" in row:
            return interval_text(dict(zip(("value", "low", "high"), ends(row, column), strict=True)), args.statistic)
        return number(row[column]) if not isinstance(row[column], str) else row[column].replace("_", " ") or "–"

    return markdown([list(titles.values()), *([text(row, column) for column in titles] for row in rows)])


def ends(row: dict[str, Any], column: str) -> tuple[float, float, float]:
    """Value, low and high."""
    return row[column], row[f"{column}_low"], row[f"{column}_high"]


def similarity(runs: list[Run], rows: list[dict[str, Any]]) -> plt.Figure:
    """The overlap of the masks of any two episodes: a line of images for each task, with one for each fraction."""
    images = {}
    explored = {row["task"]: row["exploration_end"] for row in rows}
    for task, members in zip(explored, group(runs, "experiment").values(), strict=True):
        if len(members) > 1:
            folders = " and ".join(str(run.folder) for run in members)
            su.fail(f"{folders} differ in nothing but the seed: choose with --where seed={members[0].args['seed']}")
        try:
            with np.load(members[0].folder / "similarity.npz") as file:
                overlap, episodes = file["overlap"], file["episodes"]
        except (OSError, EOFError, KeyError, ValueError, BadZipFile) as error:
            su.fail(f"cannot read {members[0].folder}/similarity.npz: {type(error).__name__} {error}")
        for fraction, matrix in zip(members[0].args["prune_fractions"], overlap, strict=True):
            images[task, fraction] = episodes, matrix
    tasks, fractions = (sorted(set(keys)) for keys in zip(*images, strict=True))
    size = (1.3 + 2.5 * len(fractions), 0.4 + 2.9 * len(tasks))
    figure, axes = plt.subplots(len(tasks), len(fractions), figsize=size, squeeze=False, layout="constrained")
    lowest = math.floor(20 * min(matrix.min() for _, matrix in images.values())) / 20
    for (task, fraction), ax in zip(product(tasks, fractions), axes.flat, strict=True):
        if (task, fraction) not in images:
            ax.remove()
            continue
        episodes, matrix = images[task, fraction]
        around = episodes[0] / 2, episodes[-1] + episodes[0] / 2  # the first mask is drawn after one window
        image = ax.imshow(matrix, vmin=lowest, vmax=1, extent=(*around, *around[::-1]), interpolation="nearest")
        for line in (ax.axvline, ax.axhline):
            handle = line(explored[task], color="red", linestyle="--", linewidth=0.8)
        random = 1 - 2 * fraction * (1 - fraction)
        title = fill(task, 34, break_on_hyphens=False)
        ax.set_title(f"{title}\n{percent(fraction)}% pruned (random masks: {random:.2f})", fontsize=9)
        ax.set_xlabel("episode", fontsize=9)
        ax.set_ylabel("episode" if fraction == fractions[0] else "", fontsize=9)
        ax.tick_params(labelsize=8)
    bar = figure.colorbar(image, ax=figure.axes, pad=0.02, aspect=40)
    bar.set_label("overlap of two masks", fontsize=9)
    figure.legend([handle], ["end of exploration"], loc="outside lower center", frameon=False, fontsize=8)
    return figure


def pruned(rows: list[dict[str, Any]], by: str) -> plt.Figure:
    """Test return and, below it, episodes against the episode of pruning, for each task. ``by`` is what has a column:
    "what", each experiment, with a line for each fraction, or "fraction", with a line for each experiment."""
    early = [row for row in rows if row["what"] in EXPERIMENTS]
    fractions = sorted({row["fraction"] for row in early})
    experiments = [name for name in EXPERIMENTS if any(row["what"] == name for row in early)]
    over, columns, lines = ("fraction", experiments, fractions) if by == "what" else ("what", fractions, experiments)
    names = {name: name for name in experiments} | {f: f"{percent(f)}% pruned" for f in fractions}
    colours = EXPERIMENTS | dict(zip(fractions, cycle([*COLOURS.values(), *OTHER_COLOURS][1:]), strict=False))
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    size = (2.2 + (3.9 if by == "what" else 2.7) * len(columns), 5.2 * len(tasks))
    layout = {"sharex": True, "sharey": "row", "squeeze": False, "layout": "constrained"}
    figure, axes = plt.subplots(2 * len(tasks), len(columns), figsize=size, **layout)
    panels = product(tasks, ("test_mean", "episodes"), columns)
    for (task, value, column), ax in zip(panels, axes.flat, strict=True):
        of_task = [row for row in rows if row["task"] == task]
        here = [row for row in of_task if row["what"] in EXPERIMENTS and row[by] == column]
        for row in of_task:
            if row["what"] == "dense":
                draw_reference(ax, ends(row, value), {"color": COLOURS["dense"]}, "dense")
            elif row["what"] == "winning_ticket" and by == "what":  # without intervals: these are many lines
                ax.axhline(row[value], color=colours[row["fraction"]], linewidth=1.2, linestyle="--")
                ax.plot([], "--", color="0.5", label="winning ticket, in\nits fraction's colour")
            elif row["what"] == "winning_ticket" and row["fraction"] == column:
                draw_reference(ax, ends(row, value), {"color": COLOURS["small"]}, "winning ticket")
        for i, line in enumerate(lines):
            points = [row for row in here if row[over] == line]
            style = {"color": colours[line], "marker": MARKERS[i % len(MARKERS)]}
            if points:
                estimates = np.array([ends(row, value) for row in points]).T
                draw(ax, [row["prune_at"] for row in points], estimates, style, names[line])
            for row in points:
                if row["censored"]:
                    ax.plot(row["prune_at"], row[value], markersize=5, markerfacecolor="white", **style)
        if any(row["censored"] for row in early):
            ax.plot([], "o", color="0.5", markerfacecolor="white", label="hollow: some runs\nwere not stopped")
        explored = of_task[0]["exploration_end"]
        ax.axvline(explored, color="0.5", linestyle=":", label="end of exploration\nbefore pruning")
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_major_formatter("{x:g}")
        ax.xaxis.set_minor_formatter(NullFormatter())
        if value == "test_mean":
            ax.set_title(fill(f"{task}, {names[column]}", 34, break_on_hyphens=False), fontsize=10)
        else:
            ax.set_xlabel("episode of pruning")
        if column == columns[0]:
            ax.set_ylabel({"test_mean": "test return", "episodes": "episodes after pruning"}[value])
    tidy(figure)
    return figure


def exploit(rows: list[dict[str, Any]]) -> plt.Figure:
    """EB Exploit's test return and, below it, episodes of search and fine-tuning, beside those of the dense agent."""
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    layout = {"sharex": "col", "squeeze": False, "layout": "constrained"}
    figure, axes = plt.subplots(2, len(tasks), figsize=(2 + 3.4 * len(tasks), 5), **layout)
    for task, (top, bottom) in zip(tasks, axes.T, strict=True):
        of_task = [row for row in rows if row["task"] == task]
        for x, row in enumerate(of_task):
            is_dense, search = row["what"] == "dense", row["search_episodes"]
            colour = COLOURS["dense"] if is_dense else EXPERIMENTS["finetune"]
            top.vlines(x, *ends(row, "test_mean")[1:], color=colour)
            top.plot(x, row["test_mean"], "o", color=colour)
            bottom.bar(x, search, color=COLOURS["small"], label="search")
            bottom.bar(x, row["episodes"], bottom=search, color=colour, label="dense" if is_dense else "fine-tune")
            bottom.vlines(x, *ends(row, "total_episodes")[1:], color="0.5")
            if row["censored"]:
                text = f"{row['censored']} of {row['seeds']}\nnot\nstopped"
                above = x, np.nanmax(ends(row, "total_episodes"))
                bottom.annotate(text, above, (0, 2), textcoords="offset points", ha="center", fontsize=7)
        names = [f"{percent(row['fraction'])}%" if row["fraction"] else "dense" for row in of_task]
        bottom.set_xticks(range(len(names)), names)
        bottom.set_xlabel("weights pruned")
        bottom.margins(y=0.25)  # for the text above the bars
        top.set_title(fill(task, 42, break_on_hyphens=False), fontsize=10)
    axes[0, 0].set_ylabel("test return")
    axes[1, 0].set_ylabel("episodes")
    tidy(figure)
    return figure


def tidy(figure: plt.Figure) -> None:
    """A grid in all panels, and one legend."""
    handles: dict[str, Any] = {}
    for ax in figure.axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(alpha=0.25)
        ax.set_axisbelow(True)
        handles |= {label: handle for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles, loc="outside right upper", frameon=False, fontsize=8)


def earlybird(runs: list[Run], args: Args) -> dict[str, tuple[plt.Figure, list[dict[str, Any]], str]]:
    """The pictures that can be drawn of these runs, with the rows of their csv and their table."""
    drawn = {}
    for kind in EARLYBIRD_TABLES:
        members = [run for run in runs if run.args["experiment"] in (EXPERIMENTS if kind == "pruned" else [kind])]
        if not members:
            continue
        rows = earlybird_rows(members, kind, args)
        text = earlybird_table(rows, kind, args)
        if kind == "similarity":
            drawn[kind] = similarity(members, rows), rows, text
        elif kind == "exploit":
            drawn[kind] = exploit(rows), rows, text
        else:
            drawn |= {"compared": (pruned(rows, "fraction"), rows, ""), kind: (pruned(rows, "what"), rows, text)}
    return drawn


def save(out: Path, figure: plt.Figure, rows: list[dict[str, Any]], text: str) -> None:
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(out, dpi=150)
        su.write_csv(out.with_suffix(".csv"), rows)
    except (OSError, ValueError) as error:  # ValueError: a kind of picture that matplotlib does not write
        su.fail(f"cannot write {out}: {error}")
    print(f"{out} and {out.with_suffix('.csv')}\n\n{text}")


if __name__ == "__main__":
    args = tyro.cli(Args, description=__doc__)
    if (args.kind == "flag") != bool(args.flag):
        su.fail("--flag names the x axis of kind flag, and of no other")
    if args.kind not in ("inputs", "goggles") and args.condition != "ticket":
        su.fail("--condition chooses what kinds inputs and goggles draw; kind tickets draws all conditions")
    if args.kind != "goggles" and (args.rounds or args.seed is not None):
        su.fail("--rounds and --seed choose what kind goggles draws, and no other")
    out = args.out or Path(f"figures/{args.kind}")
    out = out if out.suffix else out.with_suffix(".png")
    if args.kind == "earlybird" and args.column:
        su.fail("kind earlybird draws test_mean and episodes: leave out --column")
    columns = ["step", args.column] + ["parameters"] * (args.kind in ("sparsity", "flag"))
    columns = ["test_mean", "episodes"] if args.kind == "earlybird" else columns
    runs = find_runs(args, [args.column] if args.kind in TICKET_KINDS else columns)
    drawn = runs if args.kind in ("curves", *TICKET_KINDS) else [run for run in runs if run.finished]
    if len(drawn) < len(runs):
        print(f"{len(runs) - len(drawn)} of {len(runs)} runs are left out, as they are unfinished")
    if not drawn:
        su.fail("no run is finished" + "; kind curves draws unfinished ones, too" * (args.kind != "earlybird"))
    if args.kind == "earlybird":
        for name, picture in earlybird(drawn, args).items():
            save(out.with_stem(f"{out.stem}_{name}"), *picture)
        raise SystemExit(0)
    if args.kind == "flag":
        args.flag = args.flag.replace("-", "_")
        drawn = swept_runs(drawn, args.flag)
    if args.kind == "inputs":
        drawn = input_histories(drawn, args)
    if args.kind == "goggles":
        drawn = read_goggles(drawn, args)
    pictures = {"curves": curves, "sparsity": sparsity, "iqm": over_tasks, "flag": flag}
    figure, rows = (pictures | {"tickets": tickets, "inputs": inputs, "goggles": goggles})[args.kind](drawn, args)
    if not rows:
        su.fail(f"nothing to draw: {args.column} has no values yet")
    if args.kind not in ("iqm", "inputs", "goggles"):
        figure.supylabel(f"{quantity(args)} ({STATISTIC_NAMES[args.statistic]} over seeds)", fontsize=10)
        add_legend(figure, rows, "condition" if args.kind == "tickets" else "variant")
    make_table = {"tickets": ticket_table, "inputs": input_table, "goggles": goggles_table}.get(args.kind, table)
    text = make_table(rows if args.kind == "tickets" else drawn, args)
    save(out, figure, rows, text)
