"""Run folders as two tables. ``runs`` has a row for each folder, which is its index, and a column for each flag;
``results`` has the rows of all their results.csv, and a column ``folder``."""

import glob
import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

import sparse_utils as su

# The column of results.csv that says what a row is of, by the kind of picture that draws such runs; SAC's has none.
MARKS = {"tickets": "condition", "inputs": "condition", "goggles": "condition", "earlybird": "kind"}
SCRIPTS = {"ppo_imp": "PPO", "dqn_imp": "DQN", "bc_distill": "behavioural cloning"}
METHODS = ("dense", "small", "prune", "static", "set", "rigl")  # in the order of the legend
# Flags in which the runs of a variant may differ, as they do not change what a seed learns under a condition. The
# second line is SAC's: how often a run is measured, which in the ticket scripts decides what is pruned.
UNNAMED = su.FREE_FLAGS | {"env_id", "seed", "seeds", "conditions", "rounds"}
UNNAMED_SAC = {"eval_interval", "eval_episodes", "snr_interval"}
# Columns of ``runs`` that are no flags; those of the second line are from results.csv.
NO_FLAGS = {"flags", "given", "n_rows", "variant", "n_given"}
NO_FLAGS |= {"finished", "score", "parameters", "acting_flops", "reached_sparsity"}


def say(names: Iterable[Any], what: str, text: str) -> None:
    """One line: how many there are, what is to be said of them, and the names of three; nothing if there are none."""
    names = [str(name) for name in dict.fromkeys(names)]
    if names:
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        print(f"{len(names)} {what}{'s' * (len(names) > 1)} {text}: {'; '.join(names[:3])}{more}")


def find_folders(patterns: Iterable[str]) -> list[Path]:
    """All folders with a config.json that are named, matched, listed or inside such a folder; each once."""
    found = []
    for pattern in patterns:
        candidates = []
        for path in map(Path, sorted(glob.glob(pattern)) or [pattern]):
            if path.is_file():
                candidates += [path.parent / line for line in path.read_text(errors="replace").split("\n") if line]
            else:
                candidates += [path, *sorted(path.glob("*"))]
        folders = [folder for folder in candidates if os.path.isfile(folder / "config.json")]  # lines may be anything
        found += folders or su.fail(f"no run folders in {pattern}")
    return list({folder.resolve(): folder for folder in found}.values())


def read_folder(folder: Path) -> tuple[dict[str, Any], pd.DataFrame]:
    """A row of ``runs``, in which ``flags`` has all flags of its script and ``given`` those that its command named; and
    results.csv, or an empty table."""
    try:
        config = json.loads((folder / "config.json").read_text())
        flags = {flag: tuple(value) if isinstance(value, list) else value for flag, value in config["args"].items()}
        script, *words = config["command"]
        given = {re.sub("^--(no-)?|=.*", "", word).replace("-", "_") for word in words if word.startswith("--")}
        file = folder / "results.csv"
        results = pd.read_csv(file) if file.exists() else pd.DataFrame()
        run = {"script": Path(script).stem} | flags
        return run | {"flags": list(run), "given": given, "n_rows": len(results)}, results
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        su.fail(f"cannot read {folder} as a run folder: {type(error).__name__} {error}")


def load(
    kind: str, patterns: Iterable[str], conditions: Iterable[str], columns: Iterable[str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """``runs`` and ``results`` of those that are named, match --where and are of the scripts that this kind draws.
    Ends the program if there are none, or if one lacks one of these columns."""
    read = {folder: read_folder(folder) for folder in find_folders(patterns)}
    frames = {folder: frame for folder, (_, frame) in read.items() if not frame.empty}
    if len(frames) < len(read):
        print(f"{len(read) - len(frames)} of {len(read)} runs have no results yet")
    marks = {folder: "".join(frame.columns.intersection(["condition", "kind"])) for folder, frame in frames.items()}
    others = [folder for folder, mark in marks.items() if mark != MARKS.get(kind, "")]
    scripts = ", ".join(dict.fromkeys(f"{read[folder][0]['script']}.py" for folder in others))
    say(others, "run", f"left out, as kind {kind} does not draw runs of {scripts}")

    drawn = [folder for folder in frames if folder not in others]
    runs = pd.DataFrame([read[folder][0] for folder in drawn], index=pd.Index(drawn, dtype=object), dtype=object)
    for condition in conditions if drawn else ():
        runs = where(runs, condition)
    if runs.empty:
        matching = " and matches --where" if conditions else ""
        su.fail(f"none of {len(read)} run folders has results for kind {kind}{matching}")
    runs = name_variants(without_doubles(runs))
    for folder in runs.index:
        numbers = frames[folder].select_dtypes("number").columns
        for column in columns:
            if column not in numbers:
                su.fail(f"no column {column} in {folder}/results.csv; there are {', '.join(numbers)}")
    results = pd.concat([frames[folder].assign(folder=folder) for folder in runs.index], ignore_index=True)
    return runs, results.join(runs[["env_id", "script", "variant"]], on="folder")


def where(runs: pd.DataFrame, condition: str) -> pd.DataFrame:
    """The runs that match FLAG=VALUE,VALUE or an expression of ``DataFrame.query``."""
    simple = re.fullmatch(r"([\w-]+)=([^=].*|)", condition)
    try:
        if not simple:
            return runs.loc[runs.infer_objects().query(condition).index]
        texts = simple[2].split(",")
        return runs[[any(matches(value, text) for text in texts) for value in runs[simple[1].replace("-", "_")]]]
    except (AttributeError, KeyError, NameError, NotImplementedError, SyntaxError, TypeError, ValueError) as error:
        reason = f"no flag {error}" if isinstance(error, KeyError) else str(error).split("\n")[0]
        su.fail(f"--where {condition}: {reason}; write FLAG=VALUE, or an expression such as 'sparsity > 0.8'")


def matches(value: Any, text: str) -> bool:
    """Whether a flag's value is what --where says: 1e-4 is 0.0001."""
    try:
        if float(text) == value:
            return True
    except ValueError:
        pass
    return as_text(value).lower() == text.lower()


def without_doubles(runs: pd.DataFrame) -> pd.DataFrame:
    """Of runs with the same flags the one that got furthest."""
    furthest_first = runs.sort_values("n_rows", ascending=False, kind="stable")
    kept = furthest_first.drop_duplicates(runs.columns.difference([*su.FREE_FLAGS, *NO_FLAGS]))
    doubles = runs.index.difference(kept.index, sort=False)
    say(doubles, "run", "left out, as the same run is there and as far or further")
    return runs.drop(doubles)


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


def name_variants(runs: pd.DataFrame, axis: str = "") -> pd.DataFrame:
    """``runs`` in the legend's order, with a column ``variant``: the method or script, and those flags in which runs
    of that method or script differ within a task. So the runs of a variant differ only in their seed, in the flag
    ``axis`` and in what ``UNNAMED`` has. ``n_given`` is how many of the flags in its name its command gave."""
    by = "method" if "method" in runs else "script"
    unnamed = UNNAMED | NO_FLAGS | {by, axis} | (UNNAMED_SAC if by == "method" else set())
    values = runs[[flag for flag in runs if flag not in unnamed]].map(lambda x: "default" if x is None else x)
    several = (values.groupby([runs.env_id, runs[by]]).nunique() > 1).groupby(by).any()
    variants, n_given, order = {}, {}, {}
    for folder, run in runs.to_dict("index").items():
        name = run[by]
        flags = [flag for flag in run["flags"] if flag in several and several.loc[name, flag]]
        if by == "script":
            words = [SCRIPTS.get(name, name), *(flag_text(flag, run[flag], True) for flag in flags)]
        else:
            level = axis != "sparsity" and (name != "dense" or "sparsity" in flags)
            words = [name + f" {100 * run['sparsity']:g}%" * level]
            words += [flag_text(flag, run[flag]) for flag in flags if flag != "sparsity"]
        variants[folder] = ", ".join(words)
        n_given[folder] = len(run["given"].intersection(flags))
        place = [*METHODS, *SCRIPTS, name].index(name)
        of_flags = [(flag, run[flag] is not None, run[flag]) for flag in flags]
        order[folder] = run["env_id"], place, name, run.get("sparsity", 0), of_flags, run.get("seed", 0)
    runs = runs.assign(variant=pd.Series(variants), n_given=pd.Series(n_given))
    return runs.loc[sorted(order, key=order.get)]
