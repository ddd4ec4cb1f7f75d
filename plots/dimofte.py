"""Pictures of On the Existence of Early-Bird Tickets in RL and How to Find Them (Dimofte 2023): kind earlybird, of runs
of dqn_earlybird.py."""

import math
from itertools import cycle, product
from pathlib import Path
from textwrap import fill
from zipfile import BadZipFile

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import sparse_utils as su
from plots import panels
from plots.estimates import estimate, interval_text, markdown, number, percent, spread_text
from plots.panels import ALL_COLOURS, COLOURS, MARKERS, Picture, Row
from plots.runs import name_variants, say

EXPERIMENTS = {"retrain": "#E69F00", "finetune": "#CC79A7"}  # of what was pruned early, in the paper's colours
KINDS = ["dense", "winning_ticket", *EXPERIMENTS, "exploit", "similarity"]  # in the order of the rows
# The columns of the tables, and their titles. What results.csv has under that name is shown with an interval.
PARTS = ("explore", "exploit", "across")
COLUMNS = {
    "similarity": ["task", "fraction", "seeds", "exploration_end"]
    + [f"overlap_{part}" for part in PARTS]
    + [f"distance_{part}_relative" for part in PARTS],
    "exploit": ["task", "what", "fraction", "test_mean", "search_episodes", "episodes", "total_episodes"]
    + ["distance_relative", "unpruned", "censored", "early_bird"],
    "pruned": ["task", "what", "fraction", "prune_at", "test_mean", "episodes", "censored", "early_bird"],
}
TITLES = {
    "fraction": "pruned",
    "exploration_end": "exploration ends",
    "overlap_explore": "overlap within exploration",
    "overlap_exploit": "overlap within exploitation",
    "overlap_across": "overlap across the two",
    "distance_explore_relative": "distance / that of random masks, within exploration",
    "distance_exploit_relative": "distance / that of random masks, within exploitation",
    "distance_across_relative": "distance / that of random masks, across the two",
    "distance_relative": "distance / that of random masks",
    "prune_at": "at episode",
    "test_mean": "test return",
    "search_episodes": "search episodes",
    "episodes": "episodes after pruning",
    "total_episodes": "together",
    "unpruned": "not pruned",
    "censored": "not stopped",
    "early_bird": "early-bird ticket?",
}


# ---- The table behind the pictures -----------------------------------------------------------------------------------


def finished_runs(runs: pd.DataFrame) -> pd.DataFrame:
    """Those with a row for each repetition, fraction and episode of pruning. Ends the program if there are none."""

    def planned(run: pd.Series) -> int:
        fractions, episodes = len(run.prune_fractions), len(run.prune_episodes)
        rows = {"similarity": fractions, "exploit": 1 + fractions}  # of a repetition
        return run.repetitions * rows.get(run.experiment, 1 + fractions * (1 + episodes))

    finished = runs.n_rows >= runs.apply(planned, axis=1)
    say(runs.index[~finished], "run", "left out as unfinished")
    if not finished.any():
        su.fail("no run is finished")
    return runs[finished]


def finite_rows(results: pd.DataFrame) -> pd.DataFrame:
    """Without agents that have no finite return or length. Column ``diverged`` is the step at which weights were no
    longer finite, which ends a run, 0 for never; older files do not have it."""
    agents = zip(results.env_id, results.kind, results.fraction, results.prune_at, results["seed"], strict=True)
    names = np.array([f"{env}, {kind} {p:g} at {at:.0f}, seed {seed:.0f}" for env, kind, p, at, seed in agents])
    finite = np.isfinite(results.test_mean) & np.isfinite(results.total_episodes)
    finite &= ~(results.get("diverged", pd.Series(0, results.index)) > 0)
    say(names[~finite], "agent", "left out that diverged or have no finite return")
    return results[finite]


def exploration_end(run: pd.Series, agents: pd.DataFrame) -> float:
    """The episode in which the epsilon of dense agents gets to its floor; nan if that is not known. Where epsilon
    decays per step and the script did not note it, the mean steps before each episode of pruning tell about when."""
    if "explored_at" in agents:  # those pruned early have it only if they were early to explore
        dense = agents[agents.kind == "dense"] if (agents.kind == "dense").any() else agents
        return float(dense.explored_at[dense.explored_at >= 0].mean())
    if not (run.end_e > 0 and 0 < run.epsilon_decay < 1):
        return math.nan  # it never gets there
    decays = math.ceil(math.log(run.end_e / run.start_e) / math.log(run.epsilon_decay))
    if run.epsilon_decay_unit == "episode":
        return decays
    steps = agents[agents.prune_at > 0].groupby("prune_at").search_steps.mean()
    return float(np.interp(decays, [0, *steps], [0, *steps.index], right=math.nan))


def is_similar(row: Row, reference: Row, length: str = "episodes") -> tuple[bool, bool]:
    """Whether test return and training length are similar to those of a reference, or better. Where no run was pruned
    and reached early stopping the length is not, whatever the reference did."""
    lowest = reference["test_mean"] - 0.05 * abs(reference["test_mean"])
    stops = row["unpruned"] + row["censored"] < row["seeds"]
    return row["test_mean"] >= lowest, stops and row[length] <= 1.1 * reference[length]


def verdict(row: Row, references: dict[float, Row]) -> str:
    """Whether it is an early-bird ticket, or which of the conditions of section 3.4 do not hold (the list is in
    plot.py). ``references`` are the dense agent, under fraction 0, and the winning tickets."""
    dense, winning_ticket = references.get(0.0), references.get(row["fraction"])
    if row["what"] == "exploit" and dense:
        holds = is_similar(row, dense, "total_episodes")
    elif row["what"] in EXPERIMENTS and dense and winning_ticket:
        as_good = all(is_similar(row, winning_ticket))
        holds = (*is_similar(row, dense), as_good, row["prune_at"] < winning_ticket["prune_at"])
    else:
        return ""
    missing = ", ".join(f"{i}" for i, it_does in enumerate(holds, start=1) if not it_does)
    return f"no: {missing}" if missing else "yes"


def earlybird_rows(runs: pd.DataFrame, results: pd.DataFrame, kind: str, statistic: str) -> list[Row]:
    """Of each task, kind of agent, fraction and episode of pruning the statistic of what is tabled, over the seeds that
    have a value. A seed counts once: retrain and finetune have the same dense agents and winning tickets."""
    keys = ["what", "fraction", "prune_at"]
    columns = [column for column in COLUMNS[kind] if column in results and column not in (*keys, "censored")]
    rows: list[Row] = []
    for (env, variant), members in runs.groupby(["env_id", "variant"], sort=False):
        agents = results[results.run.isin(members.index)]
        what = agents.kind.where(agents.kind != "early_bird", agents.run.map(members.experiment))
        agents = agents.assign(what=pd.Categorical(what, KINDS)).drop_duplicates([*keys, "seed"])
        task = ", ".join([env, *variant.split(", ")[1:]])  # without the script, the same for all
        explored = exploration_end(members.iloc[0], agents)
        references: dict[float, Row] = {}
        for (what, fraction, prune_at), cell in agents.groupby(keys, observed=True):
            row = {"task": task, "exploration_end": explored, "what": what, "fraction": fraction}
            row |= {"prune_at": int(prune_at), "seeds": len(cell), "censored": int(cell.censored.sum())}
            row["unpruned"] = int(cell.episodes.isna().sum())  # EB Exploit's search found nothing
            for column in columns:
                values = cell[column].dropna().to_numpy(float)
                estimates = estimate([values], statistic) if len(values) else np.full(3, math.nan)
                row |= dict(zip((column, f"{column}_low", f"{column}_high"), estimates.tolist(), strict=True))
            if what in ("dense", "winning_ticket"):
                references[fraction] = row
                row["prune_at"] = float(cell.search_episodes.mean())
            rows.append(row | {"early_bird": verdict(row, references)})
    return rows


def ends(row: Row, column: str) -> tuple[float, float, float]:
    """Value, low and high."""
    return row[column], row[f"{column}_low"], row[f"{column}_high"]


def earlybird_table(rows: list[Row], kind: str, statistic: str) -> str:
    titles = {column: TITLES.get(column, column) for column in COLUMNS[kind]}
    if kind == "exploit":
        titles["episodes"] = "fine-tune episodes"
    titles[next(column for column in titles if f"{column}_low" in rows[0])] += f", {spread_text(statistic)}"

    def text(row: Row, column: str) -> str:
        if column in ("censored", "unpruned"):
            return f"{row[column]} of {row['seeds']}"
        if f"{column}_low" in row:
            return interval_text(*ends(row, column), statistic)
        return number(row[column]) if not isinstance(row[column], str) else row[column].replace("_", " ") or "–"

    return markdown([list(titles.values()), *([text(row, column) for column in titles] for row in rows)])


# ---- Pictures --------------------------------------------------------------------------------------------------------


def earlybird(runs: pd.DataFrame, results: pd.DataFrame, statistic: str) -> list[Picture]:
    """Those that can be drawn of these runs."""
    runs = finished_runs(runs)
    results = finite_rows(results[results.run.isin(runs.index)])
    pictures = []
    for kind in COLUMNS:
        members = runs[runs.experiment.isin(EXPERIMENTS if kind == "pruned" else [kind])]
        members = members[members.index.isin(results.run)]
        if members.empty:
            continue
        members = name_variants(members, "experiment")
        rows = earlybird_rows(members, results, kind, statistic)
        if all(row["what"] in ("dense", "winning_ticket") for row in rows):
            continue
        table = earlybird_table(rows, kind, statistic)
        if kind == "similarity":
            pictures.append(Picture(similarity(members, rows), rows, table, kind))
        elif kind == "exploit":
            pictures.append(Picture(exploit(rows), rows, table, kind))
        else:
            pictures.append(Picture(pruned(rows, "fraction"), rows, "", "compared"))
            pictures.append(Picture(pruned(rows, "what"), rows, table, kind))
    return pictures or su.fail("nothing to draw: no pruned agent has a finite return")


def finish(figure: plt.Figure) -> plt.Figure:
    """A grid in all panels, and one legend."""
    for ax in figure.axes:
        panels.tidy(ax)
        ax.set_axisbelow(True)
    handles = panels.handles_of(figure)
    figure.legend(handles.values(), handles, loc="outside right upper", frameon=False, fontsize=8)
    return figure


def read_overlaps(runs: pd.DataFrame, task: str) -> dict[tuple[str, float], tuple[np.ndarray, np.ndarray]]:
    """(task, fraction) -> episodes, and the overlap of the masks of any two of them."""
    folder: Path = runs.folder.iloc[0]
    if len(runs) > 1:
        folders, seed = " and ".join(map(str, runs.index)), runs["seed"].iloc[0]
        su.fail(f"{folders} differ in nothing but the seed: choose with --where seed={seed}")
    try:
        with np.load(folder / "similarity.npz") as file:
            overlaps, episodes = file["overlap"], file["episodes"]
    except (OSError, EOFError, KeyError, ValueError, BadZipFile) as error:
        su.fail(f"cannot read {folder}/similarity.npz: {type(error).__name__} {error}")
    images = {}
    for fraction, overlap in zip(runs.prune_fractions.iloc[0], overlaps, strict=True):
        if np.isfinite(overlap).all():
            images[task, fraction] = episodes, overlap
        else:
            print(f"{task}, {percent(fraction)}% pruned: left out, as not all overlaps are finite")
    return images


def similarity(runs: pd.DataFrame, rows: list[Row]) -> plt.Figure:
    """The overlap of the masks of any two episodes (figure 3.3): a line of images for each task, with one for each
    fraction."""
    images = {}
    explored = {row["task"]: row["exploration_end"] for row in rows}
    for task, (_, members) in zip(explored, runs.groupby(["env_id", "variant"], sort=False), strict=True):
        images |= read_overlaps(members, task)
    if not images:
        su.fail("nothing to draw: no overlaps are finite")
    tasks, fractions = (sorted(set(keys)) for keys in zip(*images, strict=True))
    size = (1.3 + 2.5 * len(fractions), 0.4 + 2.9 * len(tasks))
    figure, axes = plt.subplots(len(tasks), len(fractions), figsize=size, squeeze=False, layout="constrained")
    lowest = math.floor(20 * min(overlap.min() for _, overlap in images.values())) / 20
    for (task, fraction), ax in zip(product(tasks, fractions), axes.flat, strict=True):
        if (task, fraction) not in images:
            ax.remove()
            continue
        episodes, overlap = images[task, fraction]
        around = episodes[0] / 2, episodes[-1] + episodes[0] / 2  # the first mask is drawn after one window
        image = ax.imshow(overlap, vmin=lowest, vmax=1, extent=(*around, *around[::-1]), interpolation="nearest")
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


def pruned(rows: list[Row], by: str) -> plt.Figure:
    """Test return and, below it, episodes against the episode of pruning, for each task (figures 3.4 to 3.7). ``by`` is
    what has a column: "what", each experiment, with a line for each fraction, or "fraction", with a line for each
    experiment."""
    early = [row for row in rows if row["what"] in EXPERIMENTS]
    fractions = sorted({row["fraction"] for row in early})
    experiments = [name for name in EXPERIMENTS if any(row["what"] == name for row in early)]
    over, columns, lines = ("fraction", experiments, fractions) if by == "what" else ("what", fractions, experiments)
    names = {name: name for name in experiments} | {f: f"{percent(f)}% pruned" for f in fractions}
    colours = EXPERIMENTS | dict(zip(fractions, cycle(ALL_COLOURS[1:]), strict=False))
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    size = (2.2 + (3.9 if by == "what" else 2.7) * len(columns), 5.2 * len(tasks))
    layout = {"sharex": True, "sharey": "row", "squeeze": False, "layout": "constrained"}
    figure, axes = plt.subplots(2 * len(tasks), len(columns), figsize=size, **layout)
    places = product(tasks, ("test_mean", "episodes"), columns)
    for (task, value, column), ax in zip(places, axes.flat, strict=True):
        of_task = [row for row in rows if row["task"] == task]
        for row in of_task:
            if row["what"] == "dense":
                panels.draw_reference(ax, ends(row, value), COLOURS["dense"], "dense")
            elif row["what"] == "winning_ticket" and by == "what":  # without intervals: these are many lines
                ax.axhline(row[value], color=colours[row["fraction"]], linewidth=1.2, linestyle="--")
                ax.plot([], "--", color="0.5", label="winning ticket, in\nits fraction's colour")
            elif row["what"] == "winning_ticket" and row["fraction"] == column:
                panels.draw_reference(ax, ends(row, value), COLOURS["small"], "winning ticket")
        for line, marker in zip(lines, cycle(MARKERS), strict=False):
            points = [row for row in of_task if row["what"] in EXPERIMENTS and (row[by], row[over]) == (column, line)]
            style = {"color": colours[line], "marker": marker}
            if points:
                estimates = np.array([ends(row, value) for row in points]).T
                panels.draw(ax, [row["prune_at"] for row in points], estimates, style, names[line])
            for row in points:
                if row["censored"]:
                    ax.plot(row["prune_at"], row[value], markersize=5, markerfacecolor="white", **style)
        if any(row["censored"] for row in early):
            ax.plot([], "o", color="0.5", markerfacecolor="white", label="hollow: some runs\nwere not stopped")
        explored = of_task[0]["exploration_end"]
        if not math.isnan(explored):
            ax.axvline(explored, color="0.5", linestyle=":", label="end of exploration\nbefore pruning")
        ax.set_xscale("log")
        panels.log_ticks(ax.xaxis, "{x:g}")
        if value == "test_mean":
            ax.set_title(fill(f"{task}, {names[column]}", 34, break_on_hyphens=False), fontsize=10)
        else:
            ax.set_xlabel("episode of pruning")
        if column == columns[0]:
            ax.set_ylabel({"test_mean": "test return", "episodes": "episodes after pruning"}[value])
    return finish(figure)


def exploit(rows: list[Row]) -> plt.Figure:
    """EB Exploit's test return and, below it, episodes of search and fine-tuning, beside those of the dense agent
    (figure 3.8)."""
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
            rest = row["total_episodes"] - search  # runs that were not pruned count 0, so the bar ends at the total
            bottom.bar(x, rest, bottom=search, color=colour, label="dense" if is_dense else "fine-tune")
            bottom.vlines(x, *ends(row, "total_episodes")[1:], color="0.5")
            counts = {"pruned": row["unpruned"], "stopped": row["censored"]}
            text = "\n".join(f"{n} of {row['seeds']}\nnot\n{what}" for what, n in counts.items() if n)
            if text:
                above = x, np.nanmax(ends(row, "total_episodes"))
                bottom.annotate(text, above, (0, 2), textcoords="offset points", ha="center", fontsize=7)
        names = [f"{percent(row['fraction'])}%" if row["fraction"] else "dense" for row in of_task]
        bottom.set_xticks(range(len(names)), names)
        bottom.set_xlabel("weights pruned")
        bottom.margins(y=0.25)  # for the text above the bars
        top.set_title(fill(task, 42, break_on_hyphens=False), fontsize=10)
    axes[0, 0].set_ylabel("test return")
    axes[1, 0].set_ylabel("episodes")
    return finish(figure)
