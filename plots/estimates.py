"""Statistics over seeds, and how numbers are written."""

import math
from functools import partial

import numpy as np
from scipy.stats import trim_mean

STATISTICS = {"iqm": partial(trim_mean, proportiontocut=0.25), "mean": np.mean, "mean_std": np.mean}
STATISTIC_NAMES = {"iqm": "IQM", "mean": "mean", "mean_std": "mean ± std"}


def estimate(tasks: list[np.ndarray], statistic: str, resamples: int = 2000) -> np.ndarray:
    """[value, low, high] of a statistic of all runs of all tasks, with a 95% percentile interval, or, for mean_std,
    one standard deviation of a sample to each side.

    ``tasks`` has one array [seeds, ...] for each task. The bootstrap is stratified (Agarwal et al. 2021): each task's
    seeds are drawn with replacement from its own. Where no task has two seeds there is nothing to draw, and the
    interval is NaN.
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


def profile(tasks: list[np.ndarray], thresholds: np.ndarray) -> np.ndarray:
    """[value, low, high] of the share of runs with a score above each threshold: the performance profile of Agarwal et
    al. 2021."""
    return estimate([scores[:, None] > thresholds for scores in tasks], "mean")


def improvement(tasks: list[np.ndarray], others: list[np.ndarray], resamples: int = 2000) -> np.ndarray:
    """[value, low, high] of the probability that a run scores more than one of the others on the same task, as a mean
    over tasks; equal scores count half (Agarwal et al. 2021). The stratified bootstrap draws both sides anew."""
    wins = [(x[:, None] > y) + 0.5 * (x[:, None] == y) for x, y in zip(tasks, others, strict=True)]  # [runs, others]
    value = np.mean([of_task.mean() for of_task in wins])
    if max(max(of_task.shape) for of_task in wins) < 2:
        return np.array([value, np.nan, np.nan])
    rng = np.random.default_rng(0)
    means = []
    for of_task in wins:
        n, m = of_task.shape
        ours, theirs = rng.integers(n, size=(resamples, n, 1)), rng.integers(m, size=(resamples, 1, m))
        means.append(of_task[ours, theirs].mean(axis=(1, 2)))
    return np.array([value, *np.percentile(np.mean(means, axis=0), [2.5, 97.5])])


def columns_of(estimates: np.ndarray, *index: int) -> dict[str, float]:
    return {name: float(x) for name, x in zip(("value", "low", "high"), estimates[:, *index], strict=True)}


def number(x: float) -> str:
    if math.isnan(x):
        return "–"
    return f"{x:,.0f}" if abs(x) >= 100 else f"{x:.3g}"


def percent(fraction: float) -> str:
    return f"{100 * fraction:.0f}" if fraction > 0.095 else f"{100 * fraction:.2g}"


def interval_text(value: float, low: float, high: float, statistic: str) -> str:
    if statistic == "mean_std":
        return f"{number(value)} ± {number(high - value)}"
    return f"{number(value)} [{number(low)}, {number(high)}]"


def spread_text(statistic: str) -> str:
    """What ``interval_text`` shows."""
    return STATISTIC_NAMES[statistic] + " [95% interval]" * (statistic != "mean_std")


def markdown(lines: list[list[str]]) -> str:
    """A table of these lines, the first of which is its head."""
    return "\n".join(f"| {' | '.join(line)} |" for line in [lines[0], ["---"] * len(lines[0]), *lines[1:]])
