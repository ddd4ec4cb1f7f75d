"""Kind iqm: scores of all tasks together (figures 1 and 15 to 18 of The State of Sparse Training in Deep RL), and what
Agarwal et al. 2021 show beside it, performance profiles and probabilities of improvement."""

from textwrap import fill
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import sparse_utils as su
from plots import panels
from plots.estimates import STATISTIC_NAMES, columns_of, estimate, improvement, interval_text, markdown, profile
from plots.graesser import finished_runs, table
from plots.panels import Picture, Row
from plots.random_scores import HUMAN_SCORES, RANDOM_SCORES
from plots.runs import agent, name_variants, say

REFERENCES = ("dense", "static")  # the methods with which the others are compared
SHOWN_SCORES = (0.25, 0.5, 0.75, 1.0)  # in the table of the profiles

Tasks = dict[str, np.ndarray]  # task -> normalised scores of its runs


class Panel(NamedTuple):
    """The runs of an agent that have one sparsity, and its dense runs on the same tasks."""

    title: str
    columns: Row  # of the csv: script, sparsity, whose dense runs have the score 1
    scores: dict[str, Tasks]  # by variant
    methods: dict[str, str]  # of these variants

    def axis_text(self, text: str) -> str:
        one = self.columns["normaliser"]
        return f"{text} (0: random, 1: {'' if one == 'human' else 'dense '}{one})"

    def first_columns(self, variant: str) -> Row:
        tasks = self.scores[variant]
        return self.columns | {"variant": variant, "tasks": len(tasks), "runs": sum(map(len, tasks.values()))}


def normalise(runs: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, str]]:
    """``runs`` with scores as parts of the way from a random agent's score to that of a human in Atari's games, and in
    others to the mean of the task's dense runs, and whose these are, ``normaliser``: SAC's, as in the paper, PPO's
    scores included, or where there are none the script's own. And the tasks that are left out, with the reason. The
    paper (figure 1) divides by the dense score, which is the same where a random agent gets 0, but has the wrong sign
    where scores are negative."""
    left_out: dict[str, str] = {}
    tasks = []
    for (env, script), members in runs.groupby(["env_id", "script"], sort=False):
        panel, random = members.panel.iloc[0], RANDOM_SCORES.get(env, np.nan)
        kinds = members.variant[members.method == "dense"]
        if kinds.nunique() > 1:
            su.fail(f"{panel} has several kinds of dense runs, such as {kinds.iloc[-1]}: choose one with --where")
        of_task = runs[(runs.env_id == env) & (runs.method == "dense")]
        by = "sac_rigl" if "sac_rigl" in set(of_task.script) else script
        dense = of_task[of_task.script == by]
        human = HUMAN_SCORES.get(env)
        span = (dense.score.mean() if human is None else human) - random
        if human is None and dense.empty:
            left_out[panel] = "there is no finished dense run"
        elif np.isnan(random):
            left_out[panel] = "no random agent's score is known"
        elif span <= 0:
            left_out[panel] = "the dense agents are no better than a random one"
        elif (members.method != "dense").any():
            normaliser = agent(by) if human is None else "human"
            tasks.append(members.assign(score=(members.score - random) / span, normaliser=normaliser))
    for reason in dict.fromkeys(left_out.values()):
        say([panel for panel, why in left_out.items() if why == reason], "task", f"left out, as {reason}")
    if not tasks:
        su.fail("there is no task with finished runs of dense and of other networks that can be compared")
    normalised = pd.concat(tasks)
    for (script, by), members in normalised.groupby(["script", "normaliser"], sort=False):
        say(
            members.env_id,
            f"{agent(script)} task",
            f"normalised by {f'the dense runs of {by}' if by != 'human' else 'human scores'}",
        )
    return normalised, left_out


def compare(runs: pd.DataFrame) -> tuple[list[Panel], list[list[str]] | None]:
    """A panel for each agent and sparsity, and where they are: a line for each agent, if there are several."""
    compared, grid = [], []
    levels = sorted(set(runs.sparsity[runs.method != "dense"]))
    several = runs.script.nunique() > 1
    for script, of_script in runs.groupby("script", sort=False):
        grid.append([""] * len(levels))
        for i, level in enumerate(levels):
            members = of_script[(of_script.method != "dense") & (of_script.sparsity == level)]
            if members.empty:
                continue
            dense = of_script[(of_script.method == "dense") & of_script.env_id.isin(members.env_id)]
            bars = pd.concat([dense, members]).groupby("variant", sort=False)
            grid[-1][i] = f"{agent(script)}, " * several + f"{100 * level:g}% sparse"
            normaliser = ", ".join(dict.fromkeys(members.normaliser))
            scores = {v: {env: x.to_numpy() for env, x in bar.groupby("env_id").score} for v, bar in bars}
            columns = {"script": script, "sparsity": level, "normaliser": normaliser}
            compared.append(Panel(grid[-1][i], columns, scores, {v: bar.method.iloc[0] for v, bar in bars}))
    return compared, grid if several else None


def iqm(runs: pd.DataFrame, results: pd.DataFrame, column: str, statistic: str) -> list[Picture]:
    """Normalised scores of all tasks together, in three pictures."""
    finished = finished_runs(runs, results, column)
    runs, left_out = normalise(finished)
    dense, others = runs[runs.method == "dense"], runs[runs.method != "dense"]
    runs = pd.concat([dense.assign(variant="dense"), name_variants(others, "sparsity")])
    style = panels.styles(runs)
    compared, grid = compare(runs)
    omitted = "; ".join(f"{panel}, as {why}" for panel, why in left_out.items())
    figure, rows = draw_intervals(compared, grid, style, statistic)
    if omitted:
        figure.supxlabel(fill(f"left out: {omitted}", 70 * len(figure.axes)), fontsize=8)
    rows = [row | {"left_out": omitted} for row in rows]
    pictures = [Picture(figure, rows, table(finished, column)), draw_profiles(compared, grid, style)]
    return pictures + draw_improvement(compared, grid, style)


def draw_bar(ax: plt.Axes, y: int, estimates: np.ndarray, colour: Any) -> None:
    """An interval and its value."""
    value, low, high = estimates
    ax.plot([low, high], [y, y], color=colour, alpha=0.45, linewidth=16, solid_capstyle="butt")
    ax.plot([value], [y], marker="|", markersize=16, markeredgewidth=2, color=colour)


def name_bars(ax: plt.Axes, names: list[str]) -> None:
    ax.set_yticks(range(len(names)), names, fontsize=8)
    ax.set_ylim(len(names) - 0.4, -0.6)


def draw_intervals(
    compared: list[Panel], grid: list[list[str]] | None, style: dict[str, Row], statistic: str
) -> tuple[plt.Figure, list[Row]]:
    """The statistic of all runs of a variant."""
    figure, axes = panels.new_figure((panel.title for panel in compared), grid=grid)
    for ax in figure.axes[1:]:
        ax.sharex(figure.axes[0])
    rows: list[Row] = []
    for panel in compared:
        ax, names = axes[panel.title], []
        for variant, tasks in panel.scores.items():
            estimates = estimate(list(tasks.values()), statistic)
            draw_bar(ax, len(names), estimates, style[variant]["color"])
            if variant == "dense":
                ax.axvline(estimates[0], color="0.6", linestyle="--", linewidth=1, zorder=0)
                ax.axvspan(*estimates[1:], color="0.6", alpha=0.15, linewidth=0, zorder=0)
            row = panel.first_columns(variant)
            rows.append(row | columns_of(estimates))
            counts = [f"{row[name]} {name if row[name] > 1 else name[:-1]}" for name in ("tasks", "runs")]
            names.append(f"{variant}\n{', '.join(counts)}")
        name_bars(ax, names)
        ax.set_xlabel(panel.axis_text(f"{STATISTIC_NAMES[statistic]} of return"), fontsize=9)
    return figure, rows


def draw_profiles(compared: list[Panel], grid: list[list[str]] | None, style: dict[str, Row]) -> Picture:
    """Performance profiles: the share of a variant's runs that have a score above each threshold."""
    figure, axes = panels.new_figure((panel.title for panel in compared), style, grid)
    everything = np.concatenate([x for panel in compared for tasks in panel.scores.values() for x in tasks.values()])
    low, high = min(0, everything.min()), max(1, everything.max())
    thresholds = np.linspace(low, high, 101)
    rows: list[Row] = []
    lines = [["panel", "variant", "runs", *(f"share above {score:g} [95% interval]" for score in SHOWN_SCORES)]]
    for panel in compared:
        for variant, tasks in panel.scores.items():
            first = panel.first_columns(variant)
            estimates = profile(list(tasks.values()), thresholds)
            panels.draw(axes[panel.title], thresholds, estimates, style[variant] | {"marker": ""}, variant)
            rows += [first | {"score": float(x)} | columns_of(estimates, i) for i, x in enumerate(thresholds)]
            cells = [interval_text(*x, "mean") for x in profile(list(tasks.values()), np.array(SHOWN_SCORES)).T]
            lines.append([panel.title, variant, f"{first['runs']}", *cells])
        axes[panel.title].set_xlabel(panel.axis_text("return τ"), fontsize=9)
        axes[panel.title].set_ylim(-0.03, 1.03)
    figure.supylabel("share of runs with a return above τ", fontsize=10)
    handles = panels.handles_of(figure)
    figure.legend(handles.values(), handles, loc="outside right upper", frameon=False, fontsize=8, handlelength=3)
    return Picture(figure, rows, markdown(lines), "profile")


def draw_improvement(compared: list[Panel], grid: list[list[str]] | None, style: dict[str, Row]) -> list[Picture]:
    """The probability that a run of a variant is better than one of the dense, or static, agents on the same task."""
    figure, axes = panels.new_figure((panel.title for panel in compared), grid=grid)
    rows: list[Row] = []
    lines = [["panel", "variant", "over", "tasks", "probability of improvement [95% interval]"]]
    for panel in compared:
        ax, names = axes[panel.title], []
        references = [v for method in REFERENCES for v in panel.scores if panel.methods[v] == method]
        for i, reference in enumerate(references):
            for variant in panel.scores:
                if variant in references[: i + 1]:
                    continue
                ours, theirs = panel.scores[variant], panel.scores[reference]
                shared = [env for env in ours if env in theirs]
                if not shared:
                    continue
                estimates = improvement([ours[env] for env in shared], [theirs[env] for env in shared])
                draw_bar(ax, len(names), estimates, style[variant]["color"])
                names.append(f"{variant} over {reference}")
                rows.append(panel.columns | {"variant": variant, "over": reference, "tasks": len(shared)})
                rows[-1] |= columns_of(estimates)
                lines.append([panel.title, variant, reference, f"{len(shared)}", interval_text(*estimates, "mean")])
        name_bars(ax, names)
        ax.axvline(0.5, color="0.6", linestyle="--", linewidth=1, zorder=0)
        ax.set_xlim(-0.03, 1.03)
        ax.set_xlabel("probability of improvement", fontsize=9)
    return [Picture(figure, rows, markdown(lines), "improvement")] if rows else []
