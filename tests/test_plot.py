"""plot.py: the numbers it draws and prints, from run folders with known ones."""

import csv
import json
import math
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import bootstrap

import plot
import sparse_utils as su

ROOT = Path(__file__).resolve().parent.parent
ARGS = {"env_id": "A-v1", "seed": 1, "total_timesteps": 200, "threads": 1, "method": "rigl", "sparsity": 0.9}
ARGS |= {"actor_share": None, "sparsity_distribution": "erk", "update_interval": 1000, "weight_decay": 1e-6}


@pytest.fixture
def make_run(tmp_path, monkeypatch):
    """Writes a run folder with one evaluation of each of ``returns`` every 10 steps, in the working directory."""
    monkeypatch.chdir(tmp_path)

    def make(returns, folder="", parameters=1000, **args):
        args = ARGS | {"total_timesteps": 10 * len(returns)} | args
        path = Path(folder or f"runs/{'-'.join(str(value) for value in args.values())}")
        path.mkdir(parents=True)
        (path / "config.json").write_text(json.dumps({"args": args, "command": ["algos/sac_rigl.py", "--seed", "1"]}))
        rows = [
            {"step": 10 * (i + 1), "return_mean": r, "snr": math.nan if i == 0 else r / 10, "parameters": parameters}
            for i, r in enumerate(returns)
        ]
        su.write_csv(path / "results.csv", rows)
        return path

    return make


@pytest.fixture
def make_tickets(tmp_path, monkeypatch):
    """Writes the run folder of a ticket script, in which 80% of the weights remain from round to round.

    ``scores`` has, for each seed, the dense score and those of the later rounds by condition.
    ``weights(round, seed)`` is the first layer, [in, out] or that of a convolution, whose mask is where it is not
    zero; without it there are no tickets."""
    monkeypatch.chdir(tmp_path)

    def make(scores, folder="runs/a", script="ppo_imp", weights=None, ticket=None, **args):
        path, rows = Path(folder), []
        path.mkdir(parents=True)
        args = {"env_id": "CartPole-v1", "seeds": list(scores), "rounds": 20, "hidden_sizes": [64, 64]} | args
        (path / "config.json").write_text(json.dumps({"args": args, "command": [f"algos/{script}.py"]}))
        for seed, (dense, later) in scores.items():
            for condition, values in ({"dense": [dense]} | later).items():
                for round_, score in enumerate(values, start=int(condition != "dense")):
                    row = {"round": round_, "seed": seed, "condition": condition, "remaining_fraction": 0.8**round_}
                    row |= {"alive_inputs": "" if round_ else "0 1", "density_actor.layers.0": 0.5**round_}
                    rows.append(row | {"best_return": 2 * score, "best_retest": score})
                    if weights:
                        w = torch.tensor(np.array(weights(round_, seed)))
                        file = path / f"tickets/round{round_:02}_{condition}_seed{seed}.pt"
                        file.parent.mkdir(exist_ok=True)
                        name = "actor.layers.0.weight"
                        su.save_ticket(file, {name: (w != 0).float()}, best={name: w}, **ticket or {})
        su.write_csv(path / "results.csv", rows)
        return path

    return make


@pytest.fixture
def draw(monkeypatch, capsys):
    """Runs plot.py; returns the rows of its csv and what it printed."""

    def run(kind, *arguments):
        monkeypatch.setattr(sys, "argv", ["plot.py", kind, *arguments])
        runpy.run_path(str(ROOT / "plot.py"), run_name="__main__")
        plot.plt.close("all")
        assert Path(f"figures/{kind}.png").read_bytes().startswith(b"\x89PNG")
        with open(f"figures/{kind}.csv", newline="") as stream:
            rows = list(csv.DictReader(stream))
        return [{name: as_number(text) for name, text in row.items()} for row in rows], capsys.readouterr().out

    return run


@pytest.fixture
def fails(monkeypatch, capsys):
    """Runs plot.py, which must end with status 2 and one line; returns the line."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["plot.py", *arguments])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(ROOT / "plot.py"), run_name="__main__")
        assert end.value.code == 2
        plot.plt.close("all")
        error = capsys.readouterr().err
        assert error.startswith("error: ") and error.count("\n") == 1
        return error

    return run


def as_number(text):
    try:
        return float(text)
    except ValueError:
        return text


def table(output):
    """The Markdown table as a list of dicts."""
    lines = [line.strip("| ").split(" | ") for line in output.splitlines() if line.startswith("|")]
    return [dict(zip(lines[0], line, strict=True)) for line in lines[2:]]


# ---- Statistics ------------------------------------------------------------------------------------------------------


def test_iqm_drops_a_quarter_at_each_end():
    scores = np.array([100.0, 1, 2, 3, 4, -50, 5, 6])
    assert plot.estimate([scores], "iqm")[0] == 3.5  # of -50 1 | 2 3 4 5 | 6 100
    assert plot.estimate([scores], "mean")[0] == scores.mean()
    assert plot.estimate([scores[:3], scores[3:]], "iqm")[0] == 3.5  # tasks are pooled


def test_interval_of_equal_scores_has_no_width_and_of_one_seed_does_not_exist():
    assert plot.estimate([np.full(5, 7.0)], "iqm").tolist() == [7, 7, 7]
    value, low, high = plot.estimate([np.array([7.0])], "iqm")
    assert value == 7 and math.isnan(low) and math.isnan(high)


@pytest.mark.parametrize("statistic", ["iqm", "mean"])
def test_interval_of_one_task_is_that_of_scipy(statistic):
    scores = np.random.default_rng(1).normal(100, 20, 20)
    method = {"method": "percentile", "n_resamples": 20_000, "rng": np.random.default_rng(2)}
    theirs = bootstrap((scores,), plot.STATISTICS[statistic], **method).confidence_interval
    _, *ours = plot.estimate([scores], statistic, resamples=20_000)
    assert ours == pytest.approx(theirs, abs=0.5)  # the interval is 18 to 23 wide


def test_bootstrap_is_stratified():
    tasks = [np.full(3, 10.0), np.full(3, 50.0)]
    assert plot.estimate(tasks, "mean").tolist() == [30, 30, 30]  # drawn from all six, it would be from 17 to 43


def test_bootstrap_draws_whole_runs():
    curve = np.array([[0.0, 10.0], [10.0, 0.0]])  # where the one is low the other is high
    low, high = plot.estimate([curve], "mean")[1:]
    assert low.tolist() == [0, 0] and high.tolist() == [10, 10]
    assert plot.estimate([np.array([[1.0, 9.0], [9.0, 1.0]]).sum(1)], "mean").tolist() == [10, 10, 10]


# ---- Curves ----------------------------------------------------------------------------------------------------------


def test_curves_draw_the_statistic_of_all_seeds(make_run, draw):
    for seed, last in enumerate((10, 20, 30, 1000)):
        make_run([seed, last], seed=seed)
    rows, output = draw("curves", "runs")
    assert [(row["step"], row["value"], row["seeds"]) for row in rows] == [(10, 1.5, 4), (20, 25, 4)]
    assert all(row["low"] <= row["value"] <= row["high"] for row in rows)
    rows, _ = draw("curves", "runs", "--statistic", "mean")
    assert [row["value"] for row in rows] == [1.5, 265]
    (line,) = table(output)
    assert (line["env"], line["variant"], line["seeds"]) == ("A-v1", "rigl 90%", "4")


def test_final_score_is_the_mean_of_the_last_tenth(make_run, draw):
    make_run([0] * 18 + [100, 300], seed=1)
    make_run([0] * 18 + [200, 600], seed=2, parameters=1000)
    (line,) = table(draw("curves", "runs")[1])
    assert line["final return_mean, mean ± std"] == "300 ± 141"  # scores 200 and 400
    assert line["IQM [95% interval]"] == "300 [200, 400]"
    assert (line["parameters"], line["acting FLOPs"]) == ("1,000", "–")
    assert plot.read_run(make_run([5, 7, 9], seed=3)).final("return_mean") == 9  # of fewer than ten: the last


def test_curves_are_cut_to_what_all_seeds_have_and_say_so(make_run, draw):
    make_run([1, 2, 3, 4], seed=1)
    make_run([3, 4], seed=2, total_timesteps=40)
    make_run([8, 8, 8], method="static", total_timesteps=40)
    rows, output = draw("curves", "runs")
    rigl = [(row["step"], row["value"]) for row in rows if row["variant"] == "rigl 90%"]
    assert rigl == [(10, 2), (20, 3)]
    assert "A-v1 rigl 90%: cut at step 20 of 40, which all 2 seeds have" in output
    assert [row["step"] for row in rows if row["variant"] == "static 90%"] == [10, 20, 30]
    scores = {line["variant"]: (line["seeds"], line["final return_mean, mean ± std"]) for line in table(output)}
    assert scores == {"rigl 90%": ("1 (+1 unfinished)", "4 ± –"), "static 90%": ("0 (+1 unfinished)", "–")}


def test_another_column_starts_where_it_has_values(make_run, draw):
    make_run([10, 20, 30])
    rows, output = draw("curves", "runs", "--column", "snr")
    assert [(row["step"], row["value"]) for row in rows] == [(20, 2), (30, 3)]
    assert table(output)[0]["final snr, mean ± std"] == "3 ± –"


# ---- Which runs, and what they are called ----------------------------------------------------------------------------


def test_variants_are_named_by_what_differs_within_a_method(make_run, draw):
    make_run([1], method="dense", weight_decay=1e-4)
    make_run([1], method="static", weight_decay=1e-4)  # another weight decay than rigl's, but the only one of static
    make_run([1])
    make_run([1], seed=2, threads=8)  # a flag that changes nothing
    make_run([1], update_interval=200, sparsity_distribution="uniform")
    make_run([1], env_id="B-v1", sparsity=0.95)
    lines = [(line["env"], line["variant"], line["seeds"]) for line in table(draw("curves", "runs")[1])]
    assert lines == [
        ("A-v1", "dense", "1"),
        ("A-v1", "static 90%", "1"),
        ("A-v1", "rigl 90%, erk, update-interval 1000", "2"),
        ("A-v1", "rigl 90%, uniform, update-interval 200", "1"),
        ("B-v1", "rigl 95%, erk, update-interval 1000", "1"),
    ]


def test_runs_are_found_by_folder_pattern_and_list_and_only_once(make_run, draw):
    one, two, three = (make_run([seed], f"some/{name}", seed=seed) for seed, name in ((1, "x1"), (2, "x2"), (3, "y")))
    Path("some/logs").mkdir()
    Path("some/list.txt").write_text("x1\ny\n")
    for arguments, seeds in [
        (["some"], 3),
        (["some/x*"], 2),
        (["some/list.txt"], 2),
        ([str(one), str(two.resolve()), str(two)], 2),
        (["some", "--where", "seed=2,3"], 2),
        (["some", "--where", "seed=2,3", "--where", "weight-decay=1e-6"], 2),
    ]:
        assert draw("curves", *arguments)[0][0]["seeds"] == seeds, arguments
    same = make_run([3], "other/z", seed=3, threads=5)  # the same run once more
    rows, output = draw("curves", "some", "other")
    assert rows[0]["seeds"] == 3 and f"{same} is left out: {three} is the same run" in output
    further = make_run([3, 4], "third/z", seed=3, total_timesteps=10)  # is drawn, in whatever order they are named
    for folders in (("some", "third"), ("third", "some")):
        rows, output = draw("curves", *folders, "--where", "seed=3")
        assert len(rows) == 2 and f"{three} is left out: {further} is the same run" in output
    (three / "results.csv").unlink()
    rows, output = draw("curves", "some")
    assert rows[0]["seeds"] == 2 and "1 of 3 runs have no results yet" in output


def test_a_method_keeps_its_colour_whatever_is_drawn_beside_it(make_run):
    runs = [plot.read_run(make_run([1], method=method)) for method in ("dense", "rigl", "set", "new")]
    for some in (runs, runs[1:], runs[1:2]):
        style = plot.styles(plot.group(some))
        assert matplotlib_hex(style["rigl 90%"]["color"]) == plot.COLOURS["rigl"].lower()
    styles = plot.styles(plot.group(runs + [plot.read_run(make_run([1], sparsity=0.5))]))
    assert len({tuple(style["color"]) for style in styles.values()}) == len(styles) == 5


def matplotlib_hex(colour):
    return plot.matplotlib.colors.to_hex(colour)


# ---- The other pictures ----------------------------------------------------------------------------------------------


def test_sparsity_draws_scores_against_parameters(make_run, draw):
    for seed, score in ((1, 10), (2, 20)):
        make_run([0] * 9 + [score], seed=seed, parameters=1000)
        make_run([0] * 9 + [score + 5], seed=seed, sparsity=0.95, parameters=500)
        make_run([0] * 9 + [30], seed=seed, method="dense", parameters=9000)
    make_run([99], seed=3, total_timesteps=100)
    rows, output = draw("sparsity", "runs")
    assert "1 of 7 runs are left out, as they are unfinished" in output
    drawn = {
        (r["variant"], r["sparsity"]): (r["parameters"], r["value"], r["low"], r["high"], r["seeds"]) for r in rows
    }
    assert drawn == {
        ("dense", 0.9): (9000, 30, 30, 30, 2),
        ("rigl", 0.9): (1000, 15, 10, 20, 2),
        ("rigl", 0.95): (500, 20, 15, 25, 2),
    }


def test_iqm_divides_by_the_dense_mean_of_each_task(make_run, draw):
    for seed, factor in ((1, 0.5), (2, 1.5)):
        make_run([100 * factor], seed=seed, method="dense", env_id="A-v1")
        make_run([10 * factor], seed=seed, method="dense", env_id="B-v1")
        make_run([50], seed=seed, env_id="A-v1")
        make_run([8], seed=seed, env_id="B-v1")
        make_run([3], seed=seed, env_id="B-v1", sparsity=0.99)
        make_run([8], seed=seed, env_id="C-v1")
    rows, output = draw("iqm", "runs")
    assert "C-v1 rigl: left out, as there is no finished dense run" in output
    drawn = {(row["sparsity"], row["variant"]): (row["tasks"], row["runs"], row["value"]) for row in rows}
    assert drawn == {
        (0.9, "dense"): (2, 4, 1),
        (0.9, "rigl"): (2, 4, pytest.approx((0.5 + 0.8) / 2)),
        (0.99, "dense"): (1, 2, 1),  # of the same tasks
        (0.99, "rigl"): (1, 2, pytest.approx(0.3)),
    }
    rigl = next(row for row in rows if row["variant"] == "rigl")
    assert rigl["low"] == rigl["high"] == rigl["value"]  # no spread within a task


def test_flag_draws_scores_over_the_values_of_a_flag(make_run, draw):
    for decay, score in ((0, 1), (1e-4, 2), (1e-3, 4)):
        for seed in (1, 2):
            make_run([score + seed], seed=seed, weight_decay=decay)
    make_run([50], method="dense")
    make_run([60], sparsity=0.5)  # has only one weight decay
    rows, output = draw("flag", "runs", "--flag", "weight-decay")
    assert "left out, as all their runs have the same weight_decay: rigl 50%" in output
    assert {(row["variant"], row["weight_decay"]): row["value"] for row in rows} == {
        ("dense", 1e-6): 50,
        ("rigl 90%", 0): 2.5,
        ("rigl 90%", 1e-4): 3.5,
        ("rigl 90%", 1e-3): 5.5,
    }
    assert len(table(output)) == 4  # of what was drawn


def test_default_actor_share_stands_at_its_number(make_run, monkeypatch):
    runs = [plot.read_run(make_run([score], actor_share=share)) for share, score in ((0.5, 3), (None, 2), (0.1, 1))]
    figure, _ = plot.flag(runs, plot.Args("flag", (), flag="actor_share"))
    line = next(line for line in figure.axes[0].get_lines() if line.get_label() == "rigl 90%")
    assert list(line.get_xdata()) == [0.1, plot.DEFAULT_ACTOR_SHARE, 0.5]
    assert list(line.get_ydata()) == [1, 2, 3]


def test_words_stand_side_by_side(make_run, draw):
    make_run([1], sparsity_distribution="erk")
    make_run([2], sparsity_distribution="uniform")
    rows, _ = draw("flag", "runs", "--flag", "sparsity_distribution")
    assert {row["sparsity_distribution"]: row["value"] for row in rows} == {"erk": 1, "uniform": 2}


# ---- Lottery tickets -------------------------------------------------------------------------------------------------


def test_tickets_draw_each_condition_from_the_dense_agent_on(make_tickets, draw):
    make_tickets(
        {
            1: (100, {"ticket": [110, 90], "random_reinit": [50, 10]}),
            2: (140, {"ticket": [126, 110], "random_reinit": [70, 30]}),
        }
    )
    rows, output = draw("tickets", "runs")
    root = math.sqrt(2)  # the std of two numbers is their distance divided by it
    numbers = ("remaining_fraction", "value", "low", "high")
    assert {(row["condition"], row["round"]): [row[name] for name in numbers] for row in rows} == {
        ("dense", 0): pytest.approx([1, 120, 120 - 40 / root, 120 + 40 / root]),
        ("ticket", 1): pytest.approx([0.8, 118, 118 - 16 / root, 118 + 16 / root]),
        ("ticket", 2): pytest.approx([0.64, 100, 100 - 20 / root, 100 + 20 / root]),
        ("random_reinit", 1): pytest.approx([0.8, 60, 60 - 20 / root, 60 + 20 / root]),
        ("random_reinit", 2): pytest.approx([0.64, 20, 20 - 20 / root, 20 + 20 / root]),
    }
    assert {(row["env"], row["script"], row["variant"]) for row in rows} == {("CartPole-v1", "ppo_imp", "PPO")}
    ticket, random = table(output)
    assert (ticket["condition"], ticket["seeds"]) == ("ticket", "2")
    assert ticket["best_retest at 100%, mean ± std"] == random["best_retest at 100%, mean ± std"] == "120 ± 28.3"
    # The worst condition has lost 100 in its last round, so the level is 120 - 5.
    assert ticket["fewest weights near dense"] == "80% (≥ 115)"
    assert random["fewest weights near dense"] == "100% (≥ 115)"
    rows, _ = draw("tickets", "runs", "--column", "best_return")
    assert rows[0]["value"] == 240


def test_ticket_table_takes_seven_rounds_of_the_longest_chain(make_tickets, draw):
    """Of a shorter chain it has those that come near, and of a run that prunes more in a round those that it has."""
    make_tickets({1: (100, {"ticket": [100 - k for k in range(1, 15)]})})
    (line,) = table(draw("tickets", "runs")[1])
    levels = {name: cell for name, cell in line.items() if name.endswith("%")}
    assert levels == {
        "64%": "98 ± –",
        "33%": "95 ± –",
        "21%": "93 ± –",
        "13%": "91 ± –",
        "6.9%": "88 ± –",
        "4.4%": "86 ± –",
    }
    make_tickets({1: (100, {"ticket": [99, 98, 97]})}, "runs/short", rounds=3, hidden_sizes=[4])
    (line,) = table(draw("tickets", "runs/short")[1])
    assert [name for name in line if name.endswith("%")] == ["80%", "64%", "51%"]
    both = {(line["64%"], line["33%"]) for line in table(draw("tickets", "runs")[1])}
    assert both == {("98 ± –", "95 ± –"), ("98 ± –", "–")}  # 51% is not 33%


def test_tickets_can_show_the_iqm(make_tickets, draw):
    make_tickets({seed: (score, {}) for seed, score in enumerate((10, 20, 30, 1000))})
    (row,), output = draw("tickets", "runs", "--statistic", "iqm")
    assert (row["value"], row["low"], row["high"]) == (25, *plot.estimate([np.array([10, 20, 30, 1000])], "iqm")[1:])
    assert table(output)[0]["best_retest at 100%, IQM [95% interval]"].startswith("25 [")
    assert draw("tickets", "runs", "--statistic", "mean")[0][0]["value"] == 265


def test_ticket_runs_of_other_seeds_and_conditions_are_one(make_tickets, draw):
    make_tickets({1: (1, {"ticket": [10]}), 2: (2, {"ticket": [20]})})
    others = {seed: (dense, {"random_reinit": [score]}) for seed, dense, score in ((2, 2, 5), (3, 6, 7))}
    make_tickets(others, "runs/b", conditions=["random_reinit"])
    make_tickets({3: (6, {"ticket": [60, 61]})}, "runs/c", rounds=2)
    make_tickets({1: (50, {})}, "runs/d", hidden_sizes=[512])
    make_tickets({1: (70, {})}, "runs/e", script="bc_distill", teacher="x")
    rows, output = draw("tickets", "runs")
    drawn = {(row["variant"], row["condition"], row["round"]): (row["value"], row["seeds"]) for row in rows}
    assert drawn == {
        ("PPO, hidden-sizes 64 64", "dense", 0): (3, 3),  # seed 2 counts once
        ("PPO, hidden-sizes 64 64", "ticket", 1): (30, 3),
        ("PPO, hidden-sizes 64 64", "random_reinit", 1): (6, 2),
        ("PPO, hidden-sizes 512", "dense", 0): (50, 1),
        ("behavioural cloning", "dense", 0): (70, 1),
    }
    assert "CartPole-v1, PPO, hidden-sizes 64 64, ticket: cut at round 1 of 2, which all 3 seeds have" in output
    for where, value in (("hidden-sizes=64 64", 3), ("hidden_sizes=512", 50), ("script=bc_distill", 70)):
        assert draw("tickets", "runs", "--where", where)[0][0]["value"] == value


def test_scripts_stand_side_by_side_and_tasks_below_each_other(make_tickets):
    folders = {(env, script): f"runs/{env}{script}" for env in "AB" for script in ("bc_distill", "ppo_imp")}
    folders.pop(("A", "bc_distill"))
    for (env, script), folder in folders.items():
        make_tickets({1: (1, {"ticket": [3]})}, folder, script, env_id=env)
    figure, _ = plot.tickets([plot.read_run(Path(f), "tickets") for f in folders.values()], plot.Args("tickets", ()))
    spans = {ax.get_title(): ax.get_subplotspec() for ax in figure.axes}
    places = {title: (span.rowspan.start, span.colspan.start) for title, span in spans.items()}
    assert places == {"A, PPO": (0, 0), "B, PPO": (1, 0), "B, behavioural cloning": (1, 1)}
    assert all(ax.xaxis_inverted() for ax in figure.axes)


def first_layer(round_, seed):
    """The second input is lost in round 2 by seed 1 and in round 1 by seed 2; the first input never."""
    return [[3.0, -1.0], [0.0, 1.0 if round_ < 3 - seed else 0.0]]


def test_inputs_draw_the_first_layer_and_the_densities(make_tickets, draw):
    scores = {1: (9, {"ticket": [8, 7]}), 2: (9, {"ticket": [6, 5]})}
    make_tickets(scores, env_id="MountainCar-v0", weights=first_layer)
    rows, output = draw("inputs", "runs")
    drawn = {}
    for row in rows:
        drawn.setdefault((row["quantity"], row["name"]), []).append(row["value"])
        assert (row["env"], row["variant"], row["condition"], row["seeds"]) == ("MountainCar-v0", "PPO", "ticket", 2)
    assert drawn == {
        ("weight", "position"): [1, 1, 1],
        ("weight", "velocity"): [0.25, 0.125, 0],  # 1 of 4 in both seeds, in one, in none
        ("alive", "position"): [1, 1, 1],
        ("alive", "velocity"): [1, 0.5, 0],
        ("density", "all layers"): pytest.approx([1, 0.8, 0.64]),
        ("density", "actor.layers.0"): [1, 0.5, 0.25],
    }
    position, velocity = table(output)
    assert list(position.values())[3:] == ["position", "–", "–", "2 of 2 seeds"]
    # lost in rounds 2 and 1, with scores 7 and 6
    assert list(velocity.values())[3:] == ["velocity", "1.5", "6.5", "0 of 2 seeds"]


def test_inputs_are_named_if_they_are_known(make_tickets):
    for i, (env, ticket, names) in enumerate(
        [
            ("MountainCar-v0", {"inputs": None}, ["position", "velocity"]),
            ("Acrobot-v1", {"inputs": [1, 5]}, ["sin(angle 1)", "velocity 2"]),
            ("Acrobot-v1", {}, ["input 0", "input 1"]),  # two of the six, but which?
            ("Unknown-v0", {"inputs": [3, 5]}, ["input 3", "input 5"]),
        ]
    ):
        run = make_tickets({1: (9, {})}, f"runs/{i}", weights=first_layer, ticket=ticket, env_id=env)
        (history,) = plot.input_histories([plot.read_run(run, "inputs")], plot.Args("inputs", ()))
        assert list(history.inputs.values()) == names


def test_many_inputs_are_counted(make_tickets):
    """Their names would be a table of a thousand rows."""
    run = make_tickets(
        {1: (9, {"ticket": [8, 7]})}, weights=lambda round_, _: np.ones((41, 2)) * (np.arange(41) >= round_)[:, None]
    )
    args = plot.Args("inputs", ())
    lines = table(plot.input_table(plot.input_histories([plot.read_run(run, "inputs")], args), args))
    counted = [(line["round"], line["inputs alive, mean over seeds"], line["best_retest"]) for line in lines]
    assert counted == [("0", "41", "9"), ("1", "40", "8"), ("2", "39", "7")]


def test_an_input_that_comes_back_was_not_lost(make_tickets):
    """As random masks can do."""
    scores = {1: (1, {"random_reinit": [2, 3, 4]})}
    run = make_tickets(scores, weights=lambda round_, _: [[1.0], [float(round_ in (0, 2))]])
    args = plot.Args("inputs", (), condition="random_reinit")
    (_, line) = table(plot.input_table(plot.input_histories([plot.read_run(run, "inputs")], args), args))
    assert (line["lost in round"], line["best_retest in that round"]) == ("3", "4")


def test_each_kind_leaves_out_the_other_scripts_runs(make_run, make_tickets, draw, fails):
    make_run([1, 2], "runs/sac")
    make_tickets({1: (1, {})}, "runs/imp", weights=first_layer)
    assert "runs/imp is a run of ppo_imp.py, which kind curves does not draw: left out" in draw("curves", "runs")[1]
    for kind in ("tickets", "inputs"):
        _, output = draw(kind, "runs")
        assert f"runs/sac is a run of sac_rigl.py, which kind {kind} does not draw: left out" in output
        assert "no results yet" not in output
        assert f"none of 1 run folders has results for kind {kind}" in fails(kind, "runs/sac")


def test_inputs_leave_out_convolutional_runs(make_tickets, draw):
    make_tickets({1: (1, {})}, "runs/cnn", weights=lambda *_: [[[[1.0]]]], network="cnn")
    make_tickets({1: (1, {})}, "runs/mlp", weights=first_layer, network="mlp")
    make_tickets({1: (1, {})}, "runs/students", weights=first_layer, script="bc_distill")  # which has no --network
    rows, output = draw("inputs", "runs")
    assert "network cnn: left out, as actor.layers.0.weight is not fully connected" in output
    assert {row["script"] for row in rows} == {"ppo_imp", "bc_distill"}
    rows, _ = draw("inputs", "runs", "--where", "network=mlp")  # those without the flag do not match
    assert {row["script"] for row in rows} == {"ppo_imp"}


def test_ticket_errors_are_one_line_and_status_2(make_tickets, fails):
    make_tickets({1: (1, {"ticket": [1]})})
    assert "no column foo in runs/a" in fails("tickets", "runs", "--column", "foo")
    assert "no column condition in runs/a" in fails("tickets", "runs", "--column", "condition")
    assert "--condition chooses what kinds inputs and goggles draw" in fails(
        "tickets", "runs", "--condition", "random_reinit"
    )
    assert "no condition foo in runs/a; there are dense, ticket" in fails("inputs", "runs", "--condition", "foo")
    assert "tickets/round00_dense_seed1.pt as a ticket" in fails("inputs", "runs")
    make_tickets({1: (1, {})}, "cnn/a", weights=lambda *_: [[[[1.0]]]])
    assert "kind inputs draws 1 to 4 columns, and these runs make 0: none" in fails("inputs", "cnn")
    for i in range(5):
        make_tickets({1: (1, {})}, f"five/{i}", weights=first_layer, dropout=i / 10)
    assert "kind inputs draws 1 to 4 columns, and these runs make 5: " in fails("inputs", "five")


# ---- What pruned agents see of pictures ------------------------------------------------------------------------------


def random_layer(*shape, seeds=2, rounds=6):
    """``weights(round, seed)`` of make_tickets: with half of the weights that there were the round before."""
    rng = np.random.default_rng(0)
    draws = {seed: (rng.normal(size=shape), rng.random(shape)) for seed in range(1, seeds + 1)}
    return lambda round_, seed: draws[seed][0] * (round_ + 1) * (draws[seed][1] < 0.5**round_)


def parts(rows, part, round_):
    return {row["name"]: row for row in rows if (row["part"], row["round"]) == (part, round_)}


def test_goggles_sum_the_weights_of_each_pixel(make_tickets, draw):
    layer, shape = random_layer(2 * 3 * 4, 5), (2, 3, 4)
    scores = {1: (10, {"ticket": [9, 8, 7]}), 2: (20, {"ticket": [19, 18, 17]})}
    make_tickets(scores, env_id="Pictures-v0", weights=layer, ticket={"obs_shape": shape})
    rows, output = draw("goggles", "runs", "--rounds", "3", "1")
    lines = {(line["round"], line["channel"]): line for line in table(output)}
    assert list(lines) == [(round_, f"channel {c}") for round_ in "13" for c in (0, 1)]
    assert "Pictures-v0, PPO, ticket, mean over 2 seeds" in output
    for round_ in range(4):
        weights = np.abs([layer(round_, seed) for seed in (1, 2)])  # [seeds, inputs, units]
        pixels = [row for row in rows if (row["part"], row["round"]) == ("pixel", round_)]
        assert len(pixels) == (24 if round_ in (1, 3) else 0)
        for row in pixels:
            i = np.ravel_multi_index((int(row["name"][-1]), int(row["row"]), int(row["column"])), shape)
            assert row["weight"] == pytest.approx(weights[:, i].sum() / 2)
            assert row["alive"] == np.mean([weights[seed, i].any() for seed in (0, 1)])
            assert row["best_retest"] == 15 - round_
        layers = parts(rows, "layer", round_)
        assert layers["all layers"]["density"] == pytest.approx(0.8**round_)
        assert layers["actor.layers.0"]["density"] == 0.5**round_
        for c, (name, row) in enumerate(parts(rows, "channel", round_).items()):
            own = weights[:, 12 * c : 12 * c + 12]
            share, alive = own.sum() / weights.sum(), own.any(2).sum() / 2
            assert row["density"] == pytest.approx((own != 0).mean())
            assert (row["weight_share"], row["alive"], row["pixels"]) == (pytest.approx(share), alive, 12)
            if round_ in (1, 3):
                line = lines[f"{round_}", name]
                assert line["share of weight"] == f"{100 * share:.1f}%"
                assert line["pixels alive"] == f"{alive:g} of 12 ({100 * alive / 12:.0f}%)"
                assert (line["remaining"], line["best_retest"]) == (f"{100 * 0.8**round_:.0f}%", f"{15 - round_}")
    rows, output = draw("goggles", "runs", "--rounds", "2", "--seed", "2", "--column", "best_return")
    of_seed = np.abs(layer(2, 2)).sum(1)
    assert [row["weight"] for row in rows if row["part"] == "pixel"] == pytest.approx(of_seed)
    assert "Pictures-v0, PPO, ticket, seed 2" in output and table(output)[0]["best_return"] == "36"


def test_goggles_draw_rounds_near_100_30_and_10_percent_and_the_last(make_tickets):
    layer = random_layer(8, 3)
    for rounds, expected in ((20, [0, 5, 10, 20]), (4, [0, 4]), (0, [0])):
        scores = {1: (10, {"ticket": list(range(rounds))} if rounds else {})}
        run = make_tickets(scores, f"runs/{rounds}", weights=layer, ticket={"obs_shape": (2, 2, 2)})
        assert plot.read_goggles([plot.read_run(run, "goggles")], plot.Args("goggles", ())).drawn == expected


def test_possible_pixels_are_those_that_random_play_shows():
    mazes = plot.mazegrid.make_vec("MazeGrid-v0", 1, 256)
    shown, rng = mazes.reset(seed=[1])[0].any(0), np.random.default_rng(0)
    actions = rng.integers(4, size=256)
    for _ in range(1000):  # straight on, more often than not
        actions = np.where(rng.random(256) < 0.3, rng.integers(4, size=256), actions)
        shown |= mazes.step(actions)[0].any(0)
    assert (plot.possible_pixels() == shown.reshape(plot.mazegrid.SHAPE)).all()


def test_goggles_tell_possible_from_impossible_pixels_of_the_maze(make_tickets, draw):
    """In round 1 seed 1 has the pixels of row 3, which are those of enemy a and of walls, and seed 2 has none."""

    def layer(round_, seed):
        weights = np.ones((6, 10, 20, 2))
        if round_:
            weights[:, np.arange(10) != 3] = 0
            weights *= seed == 1
        return weights.reshape(1200, 2)

    scores = {1: (10, {"ticket": [9]}), 2: (20, {"ticket": [19]})}
    make_tickets(scores, env_id="MazeGrid-v0", weights=layer, ticket={"obs_shape": [1200]})
    rows, output = draw("goggles", "runs")
    lines = [(*line.values(),)[3:4] + (*line.values(),)[6:] for line in table(output)]
    cells = {"agent": 122, "enemy a": 7, "enemy b": 7, "coins": 42, "poisons": 12, "empty": 122}
    whole = {name: [f"{part} of {part} (100%)" for part in (200, n, 200 - n)] for name, n in cells.items()}
    assert lines[:6] == [(name, *texts) for name, texts in whole.items()]
    assert lines[6:] == [
        ("agent", "10 of 200 (5%)", "3.5 of 122 (3%)", "6.5 of 78 (8%)"),
        ("enemy a", "10 of 200 (5%)", "3.5 of 7 (50%)", "6.5 of 193 (3%)"),
        ("enemy b", "10 of 200 (5%)", "0 of 7 (0%)", "10 of 193 (5%)"),
        ("coins", "10 of 200 (5%)", "0 of 42 (0%)", "10 of 158 (6%)"),
        ("poisons", "10 of 200 (5%)", "0 of 12 (0%)", "10 of 188 (5%)"),
        ("empty", "10 of 200 (5%)", "3.5 of 122 (3%)", "6.5 of 78 (8%)"),
    ]
    enemy = parts(rows, "channel", 1)["enemy a"]
    assert [enemy[name] for name in ("alive", "pixels", "possible", "possible_alive")] == [10, 200, 7, 3.5]


def test_inputs_that_a_mask_hides_are_dead(make_tickets, draw):
    inputs = [0, 5, 205, 399]  # red and green; of blue there is nothing
    make_tickets(
        {1: (1, {"ticket": [1]})},
        env_id="MazeGridRGB-v0",
        weights=lambda round_, _: np.array([[2.0, 1], [3, 3], [4, 4], [5 - 5 * round_, 5]]),
        ticket={"obs_shape": [600], "inputs": inputs},
    )
    rows, output = draw("goggles", "runs")
    alive = [row for row in rows if row["part"] == "pixel" and row["round"] == 1 and row["alive"]]
    places = [(row["name"], row["row"], row["column"], row["weight"]) for row in alive]
    assert places == [("red", 0, 0, 3), ("red", 0, 5, 6), ("green", 0, 5, 8), ("green", 9, 19, 5)]
    red, green, blue = parts(rows, "channel", 1).values()
    assert (red["density"], green["density"], blue["weight"]) == (1, 0.75, 0) and math.isnan(blue["density"])
    line = table(output)[-1]
    assert (line["channel"], line["density"], line["pixels alive"]) == ("blue", "–", "0 of 200 (0%)")


def test_goggles_show_the_kernels_of_a_convolution(make_tickets, draw):
    layer = random_layer(5, 4, 3, 3)  # [out, in, kernel height, kernel width]
    scores = {seed: (1, {"ticket": [1, 1]}) for seed in (1, 2)}
    make_tickets(scores, env_id="Pictures-v0", weights=layer, ticket={"obs_shape": [4, 84, 84]})
    rows, output = draw("goggles", "runs", "--rounds", "2")
    weights = np.abs([layer(2, 1), layer(2, 2)])
    pixels = [row for row in rows if row["part"] == "pixel"]
    assert [row["weight"] for row in pixels] == pytest.approx((weights.sum((0, 1)) / 2).ravel())
    assert [row["alive"] for row in pixels] == list((weights.any(1).sum(0) / 2).ravel())
    density = (weights != 0).mean((0, 1, 3, 4))
    assert [row["density"] for row in parts(rows, "channel", 2).values()] == pytest.approx(density)
    assert table(output)[3]["kernel cells alive"].endswith(f"of 9 ({100 * weights.any(1)[:, 3].mean():.0f}%)")


def test_channels_have_the_games_names_where_it_is_installed(monkeypatch):
    assert plot.channel_names("MazeGrid-v0", 6) == plot.mazegrid.MAPS
    assert plot.channel_names("Pictures-v0", 2) == ("channel 0", "channel 1")
    assert plot.channel_names("MinAtar/Unknown-v0", 2) == ("channel 0", "channel 1")
    monkeypatch.setitem(sys.modules, "envs.minatar", None)  # so it cannot be imported
    assert plot.channel_names("MinAtar/Breakout-v1", 4) == tuple(f"channel {i}" for i in range(4))
    monkeypatch.undo()
    pytest.importorskip("minatar")
    assert plot.channel_names("MinAtar/Breakout-v1", 4) == ("paddle", "ball", "trail", "brick")


def test_goggles_errors_are_one_line_and_status_2(make_tickets, fails):
    scores = {1: (1, {"ticket": [1, 1]})}
    make_tickets(scores, weights=first_layer, ticket={"obs_shape": [2]})
    assert "observe pictures; CartPole-v1 has observations [2]" in fails("goggles", "runs")
    assert "no round 7 of ticket in runs/a; there are 0, 1, 2" in fails("goggles", "runs", "--rounds", "1", "7")
    assert "no seed 3 in runs/a; there are 1" in fails("goggles", "runs", "--seed", "3")
    assert "no condition foo in runs/a" in fails("goggles", "runs", "--condition", "foo")
    assert "--rounds and --seed choose what kind goggles draws" in fails("inputs", "runs", "--seed", "1")
    assert "--rounds and --seed choose what kind goggles draws" in fails("tickets", "runs", "--rounds", "1")
    make_tickets(scores, "entangled/a", env_id="MazeGridEntangled-v0")
    assert "MazeGridEntangled-v0 has none: each input is a mixture" in fails("goggles", "entangled")
    error = fails("goggles", "runs", "entangled")
    assert "but these are 2: " in error and "entangled-v0" in error.lower() and "choose with --where" in error
    make_tickets(scores, "gone/a", env_id="MazeGrid-v0")
    assert "tickets/round00_dense_seed1.pt as a ticket" in fails("goggles", "gone")


# ---- Early-bird tickets ----------------------------------------------------------------------------------------------


@pytest.fixture
def make_earlybird(tmp_path, monkeypatch):
    """Writes the run folder of dqn_earlybird.py. ``scores`` has test returns and episodes of all seeds by (kind,
    fraction, episode of pruning); 120 episodes are too many, and a base's episode has 100 steps."""
    monkeypatch.chdir(tmp_path)

    def make(experiment, scores, folder="", search=lambda _kind, at: at, leave_out=0, **args):
        path = Path(folder or f"runs/{experiment}")
        path.mkdir(parents=True)
        fractions = sorted({fraction for _, fraction, _ in scores if fraction})
        args = {"fractions": fractions, "episodes": sorted({at for *_, at in scores if at})} | args
        args = {f"prune_{name}" if name in ("fractions", "episodes") else name: x for name, x in args.items()}
        args = {"experiment": experiment, "env_id": "CartPole-v0", "seed": 1, "repetitions": 3, "start_e": 1.0} | args
        args = {"end_e": 0.01, "epsilon_decay": 0.95, "epsilon_decay_unit": "episode"} | args
        (path / "config.json").write_text(json.dumps({"args": args, "command": ["algos/dqn_earlybird.py"]}))
        rows = []
        for (kind, fraction, at), values in scores.items():
            for seed, (score, length, *more) in enumerate(values, start=args["seed"]):
                row = {"run": len(rows), "kind": kind, "seed": seed, "fraction": fraction, "prune_at": at}
                row |= {"search_episodes": search(kind, at), "search_steps": 100 * search(kind, at)}
                row |= {"episodes": min(length, 120), "censored": int(length >= 120), "test_mean": score}
                row["total_episodes"] = row["search_episodes"] + row["episodes"]
                row["distance_relative"] = 0.1 * seed if kind == "exploit" else ""
                rows.append(row | (more[0] if more else {}))
        su.write_csv(path / "results.csv", rows[: len(rows) - leave_out])
        return path

    return make


@pytest.fixture
def draw_earlybird(monkeypatch, capsys):
    """Runs plot.py earlybird; returns the rows of each picture's csv, and what it printed."""

    def run(*arguments, out="figures/earlybird"):
        monkeypatch.setattr(sys, "argv", ["plot.py", "earlybird", *arguments])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(ROOT / "plot.py"), run_name="__main__")
        assert not end.value.code
        plot.plt.close("all")
        rows = {}
        for file in Path().glob(f"{out}_*.csv"):
            assert file.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
            with file.open(newline="") as stream:
                there = [{name: as_number(text) for name, text in row.items()} for row in csv.DictReader(stream)]
            rows[file.stem.removeprefix(f"{Path(out).name}_")] = there
        return rows, capsys.readouterr().out

    return run


# Three seeds each: test return and episodes. The dense agents have means 180 and 80.
PRUNED = {("dense", 0.0, 0): [(160, 60), (180, 80), (200, 100)]}
PRUNED |= {("winning_ticket", f, 0): [(190, 70), (190, 80), (190, 90)] for f in (0.2, 0.8)}
PRUNED |= {("early_bird", 0.2, 50): [(181, 80), (181, 85), (181, 90)]}  # 190 - 5% and 80 + 10% are 180.5 and 88
PRUNED |= {("early_bird", 0.8, 50): [(180, 80), (180, 85), (180, 90)]}  # not as good as the winning ticket
PRUNED |= {("early_bird", 0.2, 5): [(170, 30), (190, 130), (100, 200)]}
PRUNED |= {("early_bird", 0.8, 5): [(200, 120), (200, 121), (200, 500)]}


def winners_at_40(kind, at):
    """Episodes before pruning: winning tickets come late enough for episode 5, and not for 50."""
    return 40 if kind == "winning_ticket" else at


def test_earlybird_draws_test_returns_and_lengths_of_what_was_pruned(make_earlybird, draw_earlybird):
    make_earlybird("retrain", PRUNED, search=winners_at_40)
    pictures, output = draw_earlybird("runs")
    assert pictures.keys() == {"pruned", "compared"} and pictures["pruned"] == pictures["compared"]
    rows = {(row["what"], row["fraction"], row["prune_at"]): row for row in pictures["pruned"]}
    assert len(rows) == len(pictures["pruned"]) == 7
    for (kind, fraction, at), values in PRUNED.items():
        row = rows["retrain" if kind == "early_bird" else kind, fraction, winners_at_40(kind, at)]
        scores, lengths = np.array(values, float).T
        lengths = lengths.clip(max=120)
        assert row["task"] == "CartPole-v0" and row["seeds"] == 3 and row["exploration_end"] == 90
        assert row["censored"] == (lengths == 120).sum()
        for column, of_seeds in (("test_mean", scores), ("episodes", lengths)):
            estimates = [row[column], row[f"{column}_low"], row[f"{column}_high"]]
            assert estimates == pytest.approx(plot.estimate([of_seeds], "mean"))
            assert row[column] == pytest.approx(of_seeds.mean())
    tables = {tuple(line.values())[1:4]: line for line in table(output)}
    assert tables["retrain", "0.2", "5"]["not stopped"] == "2 of 3"
    assert tables["retrain", "0.2", "5"]["episodes after pruning"] == "90 [30, 120]"
    assert tables["winning ticket", "0.8", "40"]["early-bird ticket?"] == "–"
    assert tables["dense", "0", "0"]["test return, mean [95% interval]"] == "180 [160, 200]"


def test_early_bird_tickets_are_those_of_the_papers_four_conditions(make_earlybird, draw_earlybird):
    make_earlybird("retrain", PRUNED, search=lambda kind, at: 51 if kind == "winning_ticket" else at)
    verdicts = {(r["fraction"], r["prune_at"]): r["early_bird"] for r in draw_earlybird("runs")[0]["pruned"][3:]}
    assert verdicts == {(0.2, 50): "yes", (0.8, 50): "no: 3", (0.2, 5): "no: 1, 2, 3", (0.8, 5): "no: 2, 3"}
    make_earlybird("retrain", PRUNED, "late", search=lambda kind, at: 50 if kind == "winning_ticket" else at)
    verdicts = [row["early_bird"] for row in draw_earlybird("late")[0]["pruned"] if row["prune_at"] == 50]
    assert verdicts[-2:] == ["no: 4", "no: 3, 4"]


def test_five_percent_of_a_negative_return_are_below_it():
    reference = {"test_mean": -100, "episodes": 100, "censored": 0, "seeds": 3}
    assert plot.is_similar(reference | {"test_mean": -105, "episodes": 110}, reference) == (True, True)
    assert plot.is_similar(reference | {"test_mean": -106, "episodes": 111}, reference) == (False, False)
    assert plot.is_similar(reference | {"censored": 2}, reference) == (True, True)
    assert plot.is_similar(reference | {"censored": 3}, reference | {"censored": 3}) == (True, False)


def test_retrain_and_finetune_share_references_and_lie_side_by_side(make_earlybird, draw_earlybird):
    make_earlybird("retrain", PRUNED)
    finetune = {key: [(s, n // 2) for s, n in of] if key[0] == "early_bird" else of for key, of in PRUNED.items()}
    make_earlybird("finetune", finetune)
    make_earlybird("retrain", PRUNED, "runs/acrobot", env_id="Acrobot-v1")
    rows = draw_earlybird("runs")[0]["pruned"]
    assert [row["what"] for row in rows].count("dense") == 2 and {row["seeds"] for row in rows} == {3}
    lengths = {(r["task"], r["what"]): r["episodes"] for r in rows if (r["fraction"], r["prune_at"]) == (0.8, 50)}
    acrobot = {("Acrobot-v1", "retrain"): 85}
    assert lengths == acrobot | {("CartPole-v0", "retrain"): 85, ("CartPole-v0", "finetune"): pytest.approx(127 / 3)}
    figure = plot.pruned(rows, "what")
    assert [ax.get_title() for ax in figure.axes if ax.get_title()] == [
        *("Acrobot-v1, retrain", "Acrobot-v1, finetune", "CartPole-v0, retrain", "CartPole-v0, finetune")
    ]
    lines = {line.get_label(): line for line in figure.axes[7].lines}  # Cart-Pole's lengths of fine-tuning
    assert lines["80% pruned"].get_ydata() == pytest.approx([80, 127 / 3])
    assert lines["dense"].get_ydata()[0] == 80
    figure = plot.pruned(rows, "fraction")
    lines = {line.get_label(): line for line in figure.axes[7].lines}  # of 80% pruned
    assert lines["retrain"].get_ydata() == pytest.approx([120, 85])
    assert lines["finetune"].get_ydata() == pytest.approx([80, 127 / 3])
    assert lines["winning ticket"].get_ydata()[0] == 80
    plot.plt.close("all")


def test_exploration_ends_where_epsilon_gets_to_its_floor(make_earlybird):
    def end(**args):
        run = plot.read_run(make_earlybird("retrain", PRUNED, f"runs/{args}", **args), "earlybird")
        return plot.exploration_end(run.args, plot.read_cells([run]))

    assert end() == 90  # 0.95 ** 90 < 0.01
    assert end(epsilon_decay_unit="step", epsilon_decay=0.998) == pytest.approx(23.01)  # in step 2301
    assert math.isnan(end(epsilon_decay_unit="step", epsilon_decay=0.9999))
    assert math.isnan(end(epsilon_decay=1.0)) and math.isnan(end(end_e=0.0))


def test_earlybird_draws_search_and_fine_tuning_of_eb_exploit(make_earlybird, draw_earlybird):
    scores = {("dense", 0.0, 0): [(180, 60), (180, 80), (180, 100)]}
    scores |= {("exploit", 0.2, 0): [(171, 38), (171, 48), (171, 58)]}  # 180 - 5%, and 80 + 10% with the search
    scores |= {("exploit", 0.8, 0): [(170, 38), (170, 48), (170, 130)]}
    make_earlybird("exploit", scores, search=lambda kind, at: 40 * (kind == "exploit"))
    pictures, output = draw_earlybird("runs")
    assert pictures.keys() == {"exploit"}
    found = [[row[c] for c in ("search_episodes", "episodes", "total_episodes")] for row in pictures["exploit"]]
    assert found == [[0, 80, 80], [40, 48, 88], [40, pytest.approx(206 / 3), pytest.approx(326 / 3)]]
    assert [row["early_bird"] for row in pictures["exploit"]] == ["", "yes", "no: 1, 2"]
    line = table(output)[2]
    assert line["not stopped"] == "1 of 3" and line["distance / that of random masks"] == "0.2 [0.1, 0.3]"
    bars = plot.exploit(pictures["exploit"]).axes[1].patches
    assert [bar.get_y() + bar.get_height() for bar in bars] == pytest.approx([0, 80, 40, 88, 40, 326 / 3])
    plot.plt.close("all")


def make_similarity(make_earlybird, overlap, folder="", fractions=(0.2, 0.8), **args):
    """Seed s has an overlap of 0.1 s within exploration, and none elsewhere; exploration ends at episode 10 s."""
    of_seeds = [{"explored_at": 10.0 * seed, "overlap_explore": 0.1 * seed} for seed in (1, 2, 3)]
    others = [f"overlap_{name}" for name in ("exploit", "across")]
    others += [f"distance_{name}_relative" for name in ("explore", "exploit", "across")]
    rows = [(1, 500, row | dict.fromkeys(others, math.nan)) for row in of_seeds]
    path = make_earlybird("similarity", {("similarity", f, 0): rows for f in fractions}, folder, **args)
    np.savez(path / "similarity.npz", overlap=overlap, fractions=fractions, episodes=[5, 10, 15])
    return path


def test_earlybird_draws_the_overlaps_of_masks(make_earlybird, draw_earlybird):
    overlap = np.array([np.full((3, 3), 0.72), np.full((3, 3), 0.9)]) + 0.01 * np.arange(9).reshape(3, 3)
    path = make_similarity(make_earlybird, overlap)
    pictures, output = draw_earlybird("runs", "--out", "pictures/eb", out="pictures/eb")
    assert [(row["fraction"], row["exploration_end"]) for row in pictures["similarity"]] == [(0.2, 20), (0.8, 20)]
    line = table(output)[0]
    assert line["overlap within exploration, mean [95% interval]"] == "0.2 [0.1, 0.3]"
    assert line["overlap across the two"] == "– [–, –]"
    runs = [plot.read_run(path, "earlybird")]
    figure = plot.similarity(runs, pictures["similarity"])
    images = [ax.images[0] for ax in figure.axes[:2]]
    for image, matrix in zip(images, overlap, strict=True):
        assert np.array_equal(image.get_array(), matrix) and image.get_clim() == (0.7, 1)
        assert image.get_extent() == [2.5, 17.5, 17.5, 2.5]
    plot.plt.close("all")


def test_earlybird_draws_tasks_with_other_fractions(make_earlybird, draw_earlybird):
    """Where a task lacks a fraction nothing is drawn."""
    make_similarity(make_earlybird, np.ones((1, 3, 3)), fractions=(0.2,))
    make_similarity(make_earlybird, np.ones((2, 3, 3)), "runs/acrobot", env_id="Acrobot-v1", fractions=(0.2, 0.6))
    pictures, _ = draw_earlybird("runs")
    runs = [plot.read_run(folder, "earlybird") for folder in (Path("runs/acrobot"), Path("runs/similarity"))]
    assert [len(ax.images) for ax in plot.similarity(runs, pictures["similarity"]).axes] == [1, 1, 1, 0]  # and the bar
    plot.plt.close("all")


def test_earlybird_errors_are_one_line_and_status_2(make_earlybird, make_run, draw_earlybird, draw, fails):
    path = make_similarity(make_earlybird, np.ones((2, 3, 3)))
    make_similarity(make_earlybird, np.ones((2, 3, 3)), "other/seed", seed=4)
    assert "differ in nothing but the seed: choose with --where seed=1" in fails("earlybird", "runs", "other")
    (path / "similarity.npz").write_text("PK")
    assert "cannot read runs/similarity/similarity.npz" in fails("earlybird", "runs")
    (path / "similarity.npz").unlink()
    assert "cannot read runs/similarity/similarity.npz: FileNotFoundError" in fails("earlybird", "runs")
    assert "leave out --column" in fails("earlybird", "runs", "--column", "test_mean")
    make_earlybird("finetune", PRUNED, "unfinished/a", leave_out=1)
    assert "no run is finished\n" in fails("earlybird", "unfinished")
    make_earlybird("retrain", PRUNED, "unfinished/b")
    pictures, output = draw_earlybird("unfinished")
    assert "1 of 2 runs are left out, as they are unfinished" in output
    assert {row["what"] for row in pictures["pruned"]} == {"dense", "winning_ticket", "retrain"}
    make_run([1, 2], "unfinished/c")
    output = draw("curves", "unfinished")[1]
    assert "unfinished/b is a run of dqn_earlybird.py, which kind curves does not draw: left out" in output


# ---- Errors ----------------------------------------------------------------------------------------------------------


def test_errors_are_one_line_and_status_2(make_run, fails):
    Path("empty").mkdir()
    assert "no run folders in empty" in fails("curves", "empty")
    make_run([1, 2])
    assert "no run folders in nowhere" in fails("curves", "runs", "nowhere")
    assert "no column foo in runs/" in fails("curves", "runs", "--column", "foo")
    assert "no flag foo" in fails("curves", "runs", "--where", "foo=1")
    for file in ("results.csv", "binary.pt"):
        Path("empty", file).write_bytes(bytes(range(256)) * 20 + b"x" * 5000)
        assert f"no run folders in empty/{file}" in fails("curves", f"empty/{file}")
    assert "matches --where" in fails("curves", "runs", "--where", "seed=9")
    assert "--flag" in fails("flag", "runs")
    assert "--flag" in fails("curves", "runs", "--flag", "seed")
    assert "no such flag" in fails("flag", "runs", "--flag", "foo")
    assert "no variant has runs with two values of weight_decay" in fails("flag", "runs", "--flag", "weight_decay")
    assert "no task with finished runs of dense and of other networks" in fails("iqm", "runs")
    assert "cannot write picture.foo" in fails("curves", "runs", "--out", "picture.foo")
    make_run([1, 2], "dense/1", method="dense")
    make_run([1, 2], "dense/2", method="dense", weight_decay=0)
    assert "several kinds of dense runs" in fails("iqm", "runs", "dense")
    make_run([1, 2], "unfinished/1", total_timesteps=1000)
    assert "no run is finished" in fails("sparsity", "unfinished")
    make_run([1], "first/1")
    assert "snr has no values yet" in fails("curves", "first", "--column", "snr")
    Path("first/1/config.json").write_text('{"model": 1}')
    assert "cannot read first/1 as a run folder" in fails("curves", "first")
