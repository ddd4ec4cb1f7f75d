"""Run folders, and the csv files that --save-data wrote, as two tables. ``runs`` has a row for each run, whose name is
its index, and a column for each flag; ``results`` has the rows of all their results.csv, and columns ``run`` and
``folder``. A run is a folder; or, where results.csv has a row per evaluation and seed, a seed of it."""

import glob
import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

import sparse_utils as su

# The column of results.csv that says what a row is of, by the kind of picture that draws such runs; others have none.
MARKS = {"tickets": "condition", "inputs": "condition", "goggles": "condition", "earlybird": "kind"}
SCRIPTS = {  # what they train, in the order of panels and legends
    "dqn_rigl": "DQN",
    "dqn_atari_rigl": "DQN",
    "sac_rigl": "SAC",
    "ppo_rigl": "PPO",
    "ppo_imp": "PPO",
    "dqn_imp": "DQN",
    "bc_distill": "behavioural cloning",
}
METHODS = ("dense", "small", "prune", "static", "set", "rigl")  # in the order of the legend
# Flags in which the runs of a variant may differ, as they do not change what a seed learns under a condition. The
# second line is how often a run is measured, which in the ticket scripts decides what is pruned.
UNNAMED = su.FREE_FLAGS | {"env_id", "seed", "seeds", "conditions", "rounds"}
UNNAMED_RIGL = {"eval_interval", "eval_episodes", "snr_interval"}
# Columns of ``runs`` that are no flags; those of the second line are from results.csv.
NO_FLAGS = {"flags", "given", "folder", "n_rows", "reached", "variant", "n_given", "panel"}
NO_FLAGS |= {"finished", "score", "parameters", "acting_flops", "reached_sparsity"}


# Columns of timing.csv whose seconds do not count as those of learning, in the column "seconds" of ``results``.
NOT_LEARNING = ("evaluate", "snr", "checkpoint")


Runs = dict[str, tuple[dict[str, Any], pd.DataFrame]]  # by name, a row of ``runs`` and its rows of results.csv


def say(names: Iterable[Any], what: str, text: str) -> None:
    """One line: how many there are, what is to be said of them, and the names of three; nothing if there are none."""
    names = [str(name) for name in dict.fromkeys(names)]
    if names:
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        print(f"{len(names)} {what}{'s' * (len(names) > 1)} {text}: {'; '.join(names[:3])}{more}")


def find_folders(patterns: Iterable[str]) -> list[Path]:
    """All folders with a config.json that are named, matched, listed or inside such a folder, and csv files that are
    named or matched; each once."""
    found = []
    for pattern in patterns:
        there = []
        for path in map(Path, sorted(glob.glob(pattern)) or [pattern]):
            if path.suffix == ".csv" and path.is_file():
                there.append(path)
                continue
            if path.is_file():
                folders = [path.parent / line for line in path.read_text(errors="replace").split("\n") if line]
                gone = [folder for folder in folders if "__" in folder.name and not os.path.isdir(folder)]
                say(gone, "run", f"left out, listed in {path} but not there")
            else:
                folders = [path, *sorted(path.glob("*"))]
            there += [folder for folder in folders if os.path.isfile(folder / "config.json")]  # lines may be anything
        found += there or su.fail(f"no run folders in {pattern}")
    return list({path.resolve(): path for path in found}.values())


def read_folder(folder: Path) -> Runs:
    """``flags`` has all flags of the script, and ``given`` those that the command named. results.csv may not be there
    yet."""
    try:
        config = json.loads((folder / "config.json").read_text())
        flags = {flag: tuple(value) if isinstance(value, list) else value for flag, value in config["args"].items()}
        script, *words = config["command"]
        given = {re.sub("^--(no-)?|=.*", "", word).replace("-", "_") for word in words if word.startswith("--")}
        file = folder / "results.csv"
        results = pd.read_csv(file) if file.exists() else pd.DataFrame()
        if (folder / "timing.csv").exists() and "step" in results:
            timing = pd.read_csv(folder / "timing.csv").set_index("step")
            learning = timing[timing.columns.difference(["steps_per_second", *NOT_LEARNING])]
            results["seconds"] = results.step.map(learning.sum(axis=1).cumsum())
        run = {"script": Path(script).stem} | flags
        seeds = {str(folder): ({}, results)}
        if not mark(results):  # a run has one seed, whatever others its command names
            run.pop("seeds", None)
        if "seed" in results and not mark(results):
            of_seeds = results.groupby("seed", sort=False)
            seeds = {f"{folder}, seed {seed}": ({"seed": int(seed)}, rows) for seed, rows in of_seeds}
        more = {"flags": list(run), "given": given, "folder": folder}
        return {name: (run | seed | more | length(rows), rows) for name, (seed, rows) in seeds.items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        su.fail(f"cannot read {folder} as a run folder: {type(error).__name__} {error}")


def length(rows: pd.DataFrame) -> dict[str, Any]:
    """How many rows of results.csv a run has, and how far they reach."""
    return {"n_rows": len(rows), "reached": rows.step.max() if "step" in rows else len(rows)}


def mark(results: pd.DataFrame) -> str:
    """The column of ``MARKS`` that is there, if there is one."""
    return "".join(results.columns.intersection(["condition", "kind"]))


# ---- Data files ------------------------------------------------------------------------------------------------------
# A row of results.csv in each line: script; given, the flags that the command gave; --FLAG, a flag's value as in
# config.json, and nothing where the script has no such flag; and the columns that are drawn. A line without a script
# is of the run above it. (In older files all lines have one, and only flags in which the runs differed are there.)


def save_data(file: Path, runs: pd.DataFrame, results: pd.DataFrame, columns: Iterable[str]) -> None:
    """Everything that the picture of these runs and ``columns`` needs, and all flags, so that it can be drawn beside
    other runs. Numbers have six digits."""
    cells = {
        flag: ["" if flag not in flags else cell(value) for flags, value in zip(runs["flags"], runs[flag], strict=True)]
        for flag in runs
        if flag not in NO_FLAGS | su.FREE_FLAGS | {"script"}
    }
    of_runs = pd.DataFrame(cells, index=runs.index)
    given = [" ".join(sorted(given.intersection(of_runs))) for given in runs["given"]]
    of_runs.columns = ["--" + flag.replace("_", "-") for flag in of_runs]
    of_runs = runs[["script"]].assign(given=given).join(of_runs)
    results = results.sort_values("run", key=lambda names: names.map(runs.index.get_loc), kind="stable")
    kept = results[[column for column in dict.fromkeys(columns) if column in results]]
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        table = of_runs.loc[results.run].set_index(kept.index)
        table = table.mask(results.run.duplicated(), "").join(kept)
        table.to_csv(file, index=False, float_format="%.6g", lineterminator="\n")
    except OSError as error:
        su.fail(f"cannot write {file}: {error}")
    print(f"{file}: {len(table)} rows, {file.stat().st_size:,} bytes, which plot.py draws in place of the run folders")


def cell(value: Any) -> str:
    """A flag's value, as ``from_cell`` reads it."""
    return value if isinstance(value, str) and value and from_cell(value) == value else json.dumps(value)


def from_cell(text: str) -> Any:
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return tuple(value) if isinstance(value, list) else value


def read_data(file: Path) -> Runs:
    """What ``save_data`` wrote. A run's name is its first line in the file."""
    try:
        text = pd.read_csv(file, dtype=str, keep_default_na=False)
        names = [name for name in text if name.startswith("--")]
        results = pd.read_csv(file).drop(columns=["script", "given", *names])
        text = text[["script", "given", *names]].where(text.script != "").ffill()
        data: Runs = {}
        for (script, given, *cells), lines in text.groupby(["script", "given", *names], sort=False):
            flags = {name[2:].replace("-", "_"): from_cell(x) for name, x in zip(names, cells, strict=True) if x}
            run = {"script": script} | flags
            rows = results.loc[lines.index]
            run |= {"flags": list(run), "given": set(given.split()), "folder": file} | length(rows)
            data[f"{file}:{lines.index[0] + 2}"] = run, rows
        return data
    except (KeyError, ValueError) as error:
        reason = str(error).strip('"').split("\n")[0]
        su.fail(f"{file} is no csv that --save-data wrote: {reason}")


# ---- Runs ------------------------------------------------------------------------------------------------------------


def load(
    kind: str, patterns: Iterable[str], conditions: Iterable[str], columns: Iterable[str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """``runs`` and ``results`` of those that are named, match --where and are of the scripts that this kind draws. In
    ``runs``, ``panel`` is the task, and the agent if there are several. Ends the program if there are none, or if one
    lacks one of these columns."""
    read: Runs = {}
    for path in find_folders(patterns):
        read |= read_data(path) if path.suffix == ".csv" else read_folder(path)
    frames = {name: frame for name, (_, frame) in read.items() if not frame.empty}
    if len(frames) < len(read):
        print(f"{len(read) - len(frames)} of {len(read)} runs have no results yet")
    others = [name for name, frame in frames.items() if mark(frame) != MARKS.get(kind, "")]
    scripts = ", ".join(dict.fromkeys(f"{read[name][0]['script']}.py" for name in others))
    say(others, "run", f"left out, as kind {kind} does not draw runs of {scripts}")

    drawn = [name for name in frames if name not in others]
    runs = pd.DataFrame([read[name][0] for name in drawn], index=pd.Index(drawn, dtype=object), dtype=object)
    for condition in conditions if drawn else ():
        runs = where(runs, condition)
    if runs.empty:
        matching = " and matches --where" if conditions else ""
        su.fail(f"none of {len(read)} run folders has results for kind {kind}{matching}")
    runs = name_variants(without_doubles(runs))
    several = runs.script.nunique() > 1
    runs["panel"] = runs.env_id + ", " + runs.script.map(agent) if several else runs.env_id
    for name in runs.index:
        numbers = frames[name].select_dtypes("number").columns
        for column in columns:
            if column not in numbers:
                su.fail(f"no column {column} in {name}; there are {', '.join(numbers)}")
    results = pd.concat([frames[name].assign(run=name) for name in runs.index], ignore_index=True)
    return runs, results.join(runs[["folder", "env_id", "script", "variant"]], on="run")


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
    """Of runs with the same flags the one that got furthest, and of those the one with most evaluations. How often a
    run of a _rigl script is measured does not make it another one. Older data files do not have all flags: theirs are
    compared in those that are there."""
    ignored = su.FREE_FLAGS | NO_FLAGS | (UNNAMED_RIGL if "method" in runs else set())
    kept: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    doubles = []
    for name, run in runs.sort_values(["reached", "n_rows"], ascending=False, kind="stable").to_dict("index").items():
        flags = {flag: run[flag] for flag in run["flags"] if flag not in ignored}
        there = kept.setdefault(tuple(run.get(key) for key in ("script", "env_id", "seed")), [])
        if any(all(flags[flag] == other[flag] for flag in flags.keys() & other.keys()) for other in there):
            doubles.append(name)
        else:
            there.append(flags)
    say(doubles, "run", "left out, as the same run is there and as far or further")
    return runs.drop(doubles)


def as_text(value: Any) -> str:
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    return f"{value:g}" if type(value) in (int, float) else str(value)


def agent(script: str) -> str:
    """What a script trains."""
    return SCRIPTS.get(script, script)


def flag_text(name: str, value: Any, named: bool = False) -> str:
    """``named``: with the flag's name even if the value is a word."""
    if isinstance(value, bool):
        return f"{'' if value else 'no-'}{name.replace('_', '-')}"
    if isinstance(value, str) and not named:
        return value
    return f"{name.replace('_', '-')} {'default' if value is None else as_text(value) or 'none'}"


def name_variants(runs: pd.DataFrame, axis: str = "") -> pd.DataFrame:
    """``runs`` in the legend's order, with a column ``variant``: the method or script, and those flags in which runs
    of that script and method differ within a task. So the runs of a variant and script differ only in their seed, in
    the flag ``axis`` and in what ``UNNAMED`` has. ``n_given`` is how many of the flags in its name its command gave."""
    methods = "method" in runs
    by = runs.script + " " + runs.method if methods else runs.script
    unnamed = UNNAMED | NO_FLAGS | {"script", "method", axis} | (UNNAMED_RIGL if methods else set())
    values = runs[[flag for flag in runs if flag not in unnamed]].map(lambda x: "default" if x is None else x)
    several = (values.groupby([runs.env_id, by.rename("by")]).nunique() > 1).groupby("by").any()
    variants, n_given, order = {}, {}, {}
    for name, run in runs.to_dict("index").items():
        flags = [flag for flag in values if flag in run["flags"] and several.loc[by[name], flag]]
        script = run["script"]
        if methods:
            level = axis != "sparsity" and (run["method"] != "dense" or "sparsity" in flags)
            words = [run["method"] + f" {100 * run['sparsity']:g}%" * level]
            words += [flag_text(flag, run[flag]) for flag in flags if flag != "sparsity"]
        else:
            words = [agent(script), *(flag_text(flag, run[flag], True) for flag in flags)]
        variants[name] = ", ".join(words)
        n_given[name] = len(run["given"].intersection(flags))
        method = run.get("method", "")
        places = [*SCRIPTS, script].index(script), script, [*METHODS, method].index(method), method
        of_flags = [(flag, run[flag] is not None, run[flag]) for flag in flags]
        order[name] = run["env_id"], *places, run.get("sparsity", 0), of_flags, run.get("seed", 0)
    runs = runs.assign(variant=pd.Series(variants), n_given=pd.Series(n_given))
    return runs.loc[sorted(order, key=order.get)]
