"""plot.py: the numbers it draws and prints, from run folders with known ones."""

import csv
import json
import math
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
import tyro
from matplotlib.colors import to_hex
from scipy.stats import bootstrap

import plot
import sparse_utils as su
from plots import aggregate, dimofte, flops, goggles, panels, random_scores
from plots.estimates import STATISTICS, estimate, improvement, profile

NAN, INF = math.nan, math.inf


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield
    plt.close("all")


def write_run(folder, args, rows, script, given=()):
    path = Path(folder)
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps({"args": args, "command": [f"algos/{script}.py", *given]}))
    su.write_csv(path / "results.csv", rows)
    return path


def sac(returns, folder="", parameters=1000, given=(), snr=None, script="sac_rigl", **args):
    """A run of SAC with an evaluation of each of ``returns`` every 10 steps; or of another script, with those of each
    seed, which train together."""
    by_seed = returns if isinstance(returns, dict) else {None: returns}
    evaluations = list(zip(*by_seed.values(), strict=True))
    default = {"env_id": "Pendulum-v1", "seed": 1, "threads": 1, "method": "rigl", "sparsity": 0.9, "snr_interval": 10}
    flags = {"actor_share": None, "sparsity_distribution": "erk", "update_interval": 1000, "weight_decay": 1e-6}
    args = default | flags | {"total_timesteps": 10 * len(evaluations)} | args
    args |= {} if by_seed is not returns else {"seeds": list(by_seed)}
    rows = []
    for i, of_seeds in enumerate(evaluations):
        for seed, r in zip(by_seed, of_seeds, strict=True):
            row = {"step": 10 * (i + 1)} | ({} if seed is None else {"seed": seed}) | {"return_mean": r}
            x = snr[i] if snr else r
            row |= {"snr": x} if script == "dqn_rigl" else {"snr_actor": 2 * x, "snr_critic": x}
            rows.append(row | {"sparsity": args["sparsity"], "parameters": parameters, "acting_flops": 2 * parameters})
    return write_run(folder or f"runs/{script}-{'-'.join(map(str, args.values()))}", args, rows, script, given)


def imp(scores, folder="runs/a", script="ppo_imp", weights=None, ticket=(), diverged=None, **args):
    """A run of a ticket script, in which 80% of the weights remain from round to round. ``scores`` has, for each seed,
    the dense score and those of the later rounds by condition. ``weights(round, seed)`` is the first layer, [in, out]
    or that of a convolution, whose mask is where it is not zero; without it there are no tickets. ``diverged`` has
    (round, seed)."""
    args = {"env_id": "CartPole-v1", "seeds": list(scores), "hidden_sizes": [64, 64]} | args
    rows = []
    for seed, (dense, later) in scores.items():
        places = [(i, name, score) for name, values in later.items() for i, score in enumerate(values, start=1)]
        for round_, condition, score in [(0, "dense", dense), *places]:
            row = {"round": round_, "seed": seed, "condition": condition, "remaining_fraction": 0.8**round_}
            row |= {"alive_inputs": "" if round_ else "0 1", "density_actor.layers.0": 0.5**round_}
            row |= {"best_return": 2 * score, "best_retest": score}
            rows.append(row if diverged is None else row | {"diverged": int((round_, seed) in diverged)})
    path = write_run(folder, args, rows, script)
    for row in rows if weights else ():
        w = torch.tensor(np.array(weights(row["round"], row["seed"])))
        file = path / f"tickets/round{row['round']:02}_{row['condition']}_seed{row['seed']}.pt"
        file.parent.mkdir(exist_ok=True)
        su.save_ticket(file, {"actor.layers.0": (w != 0).float()}, best={"actor.layers.0": w}, **dict(ticket))
    return path


def earlybird(experiment, scores, folder="", search=lambda _kind, at: at, leave_out=0, **args):
    """A run of dqn_earlybird.py. ``scores`` has test returns and episodes, and further columns, of all seeds by (kind,
    fraction, episode of pruning); 120 episodes are too many, and a base's episode has 100 steps."""
    default = {"experiment": experiment, "env_id": "CartPole-v0", "seed": 1, "repetitions": 3, "start_e": 1.0}
    default |= {"end_e": 0.01, "epsilon_decay": 0.95, "epsilon_decay_unit": "episode", "xi": 0.1}
    fractions, episodes = (sorted({key[i] for key in scores if key[i]}) for i in (1, 2))
    args = default | {"prune_fractions": fractions, "prune_episodes": episodes} | args
    rows = []
    for (kind, fraction, at), values in scores.items():
        for seed, (score, length, *more) in enumerate(values, start=args["seed"]):
            before, length, censored = search(kind, at), min(length, 120), int(length >= 120)
            row = {"kind": kind, "seed": seed, "fraction": fraction, "prune_at": at, "test_mean": score}
            row |= {"search_episodes": before, "search_steps": 100 * before, "episodes": length, "censored": censored}
            row |= {"total_episodes": before + length, "distance_relative": 0.1 * seed if kind == "exploit" else ""}
            rows.append(row | (more[0] if more else {}))
    return write_run(folder or f"runs/{experiment}", args, rows[: len(rows) - leave_out], "dqn_earlybird")


@pytest.fixture
def draw(capsys):
    """What plot.py would save; without saving it, which takes most of the time."""

    def run(kind, *arguments, name=""):
        pictures = plot.draw(tyro.cli(plot.Args, args=[kind, *map(str, arguments)]))
        (picture,) = (picture for picture in pictures if picture.name == name)
        lines = [line.strip("| ").split(" | ") for line in picture.table.splitlines() if line.startswith("|")]
        table = [dict(zip(lines[0], line, strict=True)) for line in lines[2:]]
        said = capsys.readouterr().out + picture.table
        return SimpleNamespace(rows=picture.rows, table=table, said=said, figure=picture.figure)

    return run


@pytest.fixture
def fails(capsys):
    """The line with which plot.py must end, with status 2."""

    def run(*arguments):
        with pytest.raises(SystemExit) as end:
            plot.draw(tyro.cli(plot.Args, args=list(map(str, arguments))))
        error = capsys.readouterr().err
        assert end.value.code == 2 and error.startswith("error: ") and error.count("\n") == 1
        return error

    return run


def pick(rows, *names):
    return [tuple(row[name] for name in names) for row in rows]


def line_of(figure, label, panel=0):
    return next(line for line in figure.axes[panel].get_lines() if line.get_label() == label)


# ---- Statistics ------------------------------------------------------------------------------------------------------


def test_iqm_drops_a_quarter_at_each_end_and_pools_tasks():
    scores = np.array([100.0, 1, 2, 3, 4, -50, 5, 6])
    assert (
        estimate([scores], "iqm")[0] == estimate([scores[:3], scores[3:]], "iqm")[0] == 3.5
    )  # -50 1 | 2 3 4 5 | 6 100


@pytest.mark.parametrize("statistic", ["iqm", "mean"])
def test_interval_of_one_task_is_that_of_scipy(statistic):
    scores = np.random.default_rng(1).normal(100, 20, 20)
    method = {"method": "percentile", "n_resamples": 20_000, "rng": np.random.default_rng(2)}
    theirs = bootstrap((scores,), STATISTICS[statistic], **method).confidence_interval
    assert estimate([scores], statistic, resamples=20_000)[1:] == pytest.approx(theirs, abs=0.5)  # it is 18 to 23 wide
    assert np.isnan(estimate([scores[:1]], statistic)[1:]).all()  # one seed has none


def test_bootstrap_is_stratified_and_draws_whole_runs():
    tasks = [np.full(3, 10.0), np.full(3, 50.0)]
    assert estimate(tasks, "mean").tolist() == [30, 30, 30]  # drawn from all six, it would be from 17 to 43
    curves = np.array([[0.0, 10.0], [10.0, 0.0]])  # where the one is low the other is high
    assert estimate([curves], "mean")[1:].tolist() == [[0, 0], [10, 10]]


def test_statistics_are_those_of_rliable():
    """The constants are those of rliable 1.2.0 (with pandas 2.3.3), for the same x and y:
    metrics.aggregate_iqm(x), metrics.probability_of_improvement(x, y), and with 50,000 resamples (5,000 for y)
    library.get_interval_estimates of both and library.create_performance_profile({"x": x}, thresholds)."""
    x, y = (np.arange(3 * n) * k % m / 10 for n, k, m in ((6, 7, 17), (8, 5, 19)))
    x, y = list(x.reshape(6, 3).T), list(y.reshape(8, 3).T)  # three tasks, six and eight runs of each
    value, *interval = estimate(x, "iqm", resamples=20_000)
    assert value == pytest.approx(0.75) and interval == pytest.approx([0.44, 1.06], abs=0.02)
    value, *interval = improvement(x, y, resamples=20_000)
    assert value == pytest.approx(0.4618055555555556)
    assert interval == pytest.approx([0.27777778, 0.64583333], abs=0.02)
    value, low, high = profile(x, np.array([0.5, 0.8, 1.0, 1.5]))
    assert value == pytest.approx([0.61111111, 0.44444444, 0.33333333, 0.05555556])
    # a bound of a profile is a number of 18 runs, so at most one of them away
    assert low == pytest.approx([0.38888889, 0.22222222, 0.11111111, 0], abs=1.01 / 18)
    assert high == pytest.approx([0.83333333, 0.66666667, 0.55555556, 0.16666667], abs=1.01 / 18)
    assert str(improvement([np.ones(1)], [np.zeros(1)])) == "[ 1. nan nan]"


# ---- SAC, DQN, PPO ---------------------------------------------------------------------------------------------------


def test_curves_draw_the_statistic_of_all_seeds_and_score_is_the_mean_of_the_last_tenth(draw):
    for seed, last in enumerate((10, 20, 30, 1000)):
        sac([seed, last], seed=seed)
    drawn = draw("curves", "runs")
    assert pick(drawn.rows, "step", "value", "seeds") == [(10, 1.5, 4), (20, 25, 4)]
    assert list(line_of(drawn.figure, "rigl 90%").get_ydata()) == [1.5, 25]
    assert drawn.figure.axes[0].get_ylim()[1] > drawn.rows[1]["high"] > 25 > drawn.rows[1]["low"]
    assert pick(draw("curves", "runs", "--statistic", "mean").rows, "value") == [(1.5,), (265,)]
    for seed, last in ((1, [100, 300]), (2, [200, 600])):  # scores 200 and 400
        sac([0] * 18 + last, f"long/{seed}", seed=seed)
    line = tuple(draw("curves", "long").table[0].values())
    assert line[3:7] == ("300 ± 141", "300 [200, 400]", "1,000", "2,000")


def test_curves_are_cut_to_what_all_seeds_have_and_say_so(draw):
    sac([1, 2, 3, 4], seed=1)
    sac([3, 4], seed=2, total_timesteps=40)
    sac([8], method="static", total_timesteps=40)
    drawn = draw("curves", "runs")
    drawn_points = [("static 90%", 10, 8), ("rigl 90%", 10, 2), ("rigl 90%", 20, 3)]
    assert pick(drawn.rows, "variant", "step", "value") == drawn_points
    assert "Pendulum-v1 rigl 90%: cut at step 20 of 40, which all 2 seeds have" in drawn.said
    scores = pick(drawn.table, "variant", "seeds", "final return_mean, mean ± std")
    assert scores == [("static 90%", "0 (+1 unfinished)", "–"), ("rigl 90%", "1 (+1 unfinished)", "4 ± –")]


def test_curves_against_the_seconds_that_learning_took(draw, fails):
    """Of runs that train together the program's, of others the mean; without evaluations, SNR and checkpoints."""
    seconds = {"static": (3.0, 4.0), "rigl": (1.0, 2.0), "rigl 2": (3.0, 6.0)}
    for i, (name, parts) in enumerate(seconds.items()):
        folder = sac([10, 20], seed=i, method=name.split()[0])
        rows = [
            {"step": 10 * (j + 1), "steps_per_second": 9, "act": 0.5, "update": s - 0.5, "evaluate": 50, "snr": 7}
            for j, s in enumerate(parts)
        ]
        su.write_csv(folder / "timing.csv", rows)
    drawn = draw("curves", "runs", "--against", "seconds", "--save-data", "kept.csv")
    points = [("static 90%", 10, 3), ("static 90%", 20, 7), ("rigl 90%", 10, 2), ("rigl 90%", 20, 6)]
    assert pick(drawn.rows, "variant", "step", "seconds") == points
    assert list(line_of(drawn.figure, "rigl 90%").get_xdata()) == [2, 6]
    assert drawn.figure.axes[0].get_xlabel() == "seconds of training"
    assert pick(draw("curves", "kept.csv", "--against", "seconds").rows, "variant", "step", "seconds") == points
    assert "seconds" not in draw("curves", "runs").rows[0]
    assert "--against chooses the x axis of kind curves" in fails("snr", "runs", "--against", "seconds")
    sac([1, 2], "other/untimed")
    assert "no column seconds" in fails("curves", "other", "--against", "seconds")


@pytest.mark.parametrize(
    ("interval", "snr", "points", "final"),
    [
        (10, [NAN, 2, 3, 4, 5], [(20, 2), (30, 3), (40, 4), (50, 5)], "5"),
        (20, [NAN, 2, 2, 4, 4], [(20, 2), (40, 4)], "4"),  # those of steps 30 and 50 are carried forward
        (15, [NAN, 2, 3, 3, 4], [(15, 2), (30, 3), (45, 4)], "4"),  # drawn where they were measured
        (5, [1, 2, 3, 4, 5], [(10, 1), (20, 2), (30, 3), (40, 4), (50, 5)], "5"),
    ],
)
def test_snr_curves_have_the_measured_points_only(draw, interval, snr, points, final):
    sac([0] * 5, snr=snr, snr_interval=interval)
    drawn = draw("curves", "runs", "--column", "snr_critic")
    assert pick(drawn.rows, "step", "value") == points
    assert drawn.table[0]["final snr_critic, mean ± std"] == f"{final} ± –"


@pytest.mark.parametrize("kind", ["curves", "scaling"])
def test_runs_that_are_not_finite_are_left_out_and_named(draw, fails, kind):
    sac([1, 2, 3], "runs/good")
    for seed, returns in enumerate(([1, NAN, 3], [1, 2, INF], [1, 2, NAN], [NAN] * 3), start=2):
        sac(returns, f"runs/bad{seed}", seed=seed)
    drawn = draw(kind, "runs")
    assert {row["seeds"] for row in drawn.rows} == {1} and drawn.rows[-1]["value"] == 3
    assert "3 runs left out, as return_mean is not finite in all rows: runs/bad2; runs/bad3; runs/bad4\n" in drawn.said
    assert "1 run left out, without a value of return_mean: runs/bad5\n" in drawn.said
    assert "nothing to draw: return_mean has no values yet" in fails(kind, "runs/bad*")


def test_variants_are_named_by_what_differs_within_a_method(draw):
    sac([1], method="dense", weight_decay=1e-4)
    sac([1], method="static", weight_decay=1e-4)  # another weight decay than rigl's, but the only one of static
    sac([1], method="static", weight_decay=1e-4, actor_share=0.1)
    sac([1])
    sac([1], seed=2, threads=8)  # a flag that changes nothing
    sac([1], update_interval=200, sparsity_distribution="uniform")
    sac([1], env_id="Reacher-v5", sparsity=0.95)
    assert pick(draw("curves", "runs").table, "env", "variant", "seeds") == [
        ("Pendulum-v1", "dense", "1"),
        ("Pendulum-v1", "static 90%, actor-share default", "1"),
        ("Pendulum-v1", "static 90%, actor-share 0.1", "1"),
        ("Pendulum-v1", "rigl 90%, erk, update-interval 1000", "2"),
        ("Pendulum-v1", "rigl 90%, uniform, update-interval 200", "1"),
        ("Reacher-v5", "rigl 95%, erk, update-interval 1000", "1"),
    ]


def test_runs_are_found_by_folder_pattern_list_and_flag_and_only_once(draw, fails):
    one, two, three = (sac([seed], f"some/{name}", seed=seed) for seed, name in ((1, "x1"), (2, "x2"), (3, "y")))
    Path("some/list.txt").write_text("x1\ny\n")
    for arguments, seeds in [
        (["some"], 3),
        (["some/x*"], 2),
        (["some/list.txt"], 2),
        ([one, two.resolve(), two], 2),
        (["some", "--where", "seed=2,3", "--where", "weight-decay=1e-6"], 2),
        (["some", "--where", "seed >= 2 and method == 'rigl'"], 2),
        (["some", "--where", "actor_share=None"], 3),
    ]:
        assert draw("curves", *arguments).rows[0]["seeds"] == seeds, arguments
    for where, error in (("foo=1", "no flag 'foo'"), ("foo > 1", "'foo' is not defined"), ("seed >", "invalid syntax")):
        assert error in fails("curves", "some", "--where", where)
    sac([3, 4], "third/z", seed=3, threads=5, total_timesteps=10)  # the same, further: whatever order they are named in
    for folders in (("some", "third"), ("third", "some")):
        drawn = draw("curves", *folders, "--where", "seed=3")
        assert len(drawn.rows) == 2 and f"as the same run is there and as far or further: {three}\n" in drawn.said


@pytest.mark.parametrize("given", ["--update-interval", "--update_interval=200"])
def test_the_default_method_with_default_flags_is_the_prominent_line(draw, given):
    sac([1, 2], update_interval=200, given=[given])
    sac([1, 2], given=["--sparsity", "0.9"])
    for method in ("dense", "new"):
        sac([1, 2], method=method)
    lines = {line.get_label(): line for line in draw("curves", "runs").figure.axes[0].get_lines()}
    assert len({to_hex(line.get_color()) for line in lines.values()}) == 4
    default = lines.pop("rigl 90%, update-interval 1000")
    assert to_hex(default.get_color()) == panels.COLOURS["rigl"].lower() and default.get_linestyle() == "-"
    assert sum(lines["rigl 90%, update-interval 200"].get_color()) > sum(default.get_color())  # lighter
    for line in lines.values():
        assert default.get_linewidth() > line.get_linewidth() and default.get_zorder() > line.get_zorder()


def test_seeds_that_train_together_are_runs_of_their_own(draw, fails):
    sac({1: [0, 10], 2: [0, 20], 4: [0, NAN]}, "runs/a", script="dqn_rigl", snr=[1, 2])
    sac({3: [0, 60], 1: [0, 99]}, "runs/b", script="dqn_rigl")  # of seed 1 the first is enough
    sac({5: [0, 1], 6: [0, 2]}, "runs/c", script="dqn_rigl", total_timesteps=30)
    drawn = draw("scaling", "runs")
    assert pick(drawn.rows, "script", "variant", "value", "seeds") == [("dqn_rigl", "rigl", 30, 3)]
    assert "1 run left out, as return_mean is not finite in all rows: runs/a, seed 4\n" in drawn.said
    assert "1 run left out, as the same run is there and as far or further: runs/b, seed 1\n" in drawn.said
    assert "2 runs left out as unfinished: runs/c, seed 5; runs/c, seed 6\n" in drawn.said
    assert draw("curves", "runs", "--where", "seed=2,3").rows[-1]["value"] == 40
    for column in ("snr", "return_mean"):  # a run that diverged has other values that are finite
        assert draw("curves", "runs/a", "--column", column).rows[-1]["seeds"] == 2
    assert "no flag 'seeds'" in fails("curves", "runs", "--where", "seeds=1")


def test_agents_have_panels_and_names_of_their_own(draw, fails):
    sac([1, 2], weight_decay=0.1)
    sac({1: [5, 6]}, script="ppo_rigl")
    sac({1: [7, 8]}, script="ppo_rigl", update_interval=5)
    sac({1: [3, 4]}, script="dqn_rigl", env_id="CartPole-v1", snr=[NAN, 9])
    drawn = draw("curves", "runs")
    assert [ax.get_title() for ax in drawn.figure.axes] == ["CartPole-v1, DQN", "Pendulum-v1, SAC", "Pendulum-v1, PPO"]
    assert pick(drawn.table, "env", "variant", "final return_mean, mean ± std") == [
        ("CartPole-v1, DQN", "rigl 90%", "4 ± –"),
        ("Pendulum-v1, SAC", "rigl 90%", "2 ± –"),
        ("Pendulum-v1, PPO", "rigl 90%, update-interval 5", "8 ± –"),
        ("Pendulum-v1, PPO", "rigl 90%, update-interval 1000", "6 ± –"),
    ]
    drawn = draw("snr", "runs", "--where", "update_interval=1000")
    titles = ["CartPole-v1, DQN, snr"]
    titles += [f"Pendulum-v1, {agent}, snr_{of}" for agent in ("SAC", "PPO") for of in ("actor", "critic")]
    assert [ax.get_title() for ax in drawn.figure.axes] == titles
    for i, values in enumerate(([9], [2, 4], [1, 2], [10, 12], [5, 6])):
        assert list(line_of(drawn.figure, "rigl 90%", i).get_ydata()) == values
    assert pick(drawn.rows[:2], "column", "step", "value") == [("snr", 20, 9), ("snr_actor", 10, 2)]
    sac([1], "none/a", snr=[NAN])
    assert "no run has a signal-to-noise ratio" in fails("snr", "none")


def test_scaling_draws_scores_against_parameters(draw):
    for seed, score in ((1, 10), (2, 20)):
        sac([0] * 9 + [score], seed=seed, parameters=1000)
        sac([0] * 9 + [score + 5], seed=seed, sparsity=0.95, parameters=500)
        sac([0] * 9 + [10 * score], seed=seed, method="dense", parameters=9000)
    sac([99], "runs/unfinished", seed=3, total_timesteps=100)
    drawn = draw("scaling", "runs")
    assert "1 run left out as unfinished: runs/unfinished" in drawn.said
    assert pick(drawn.rows, "variant", "sparsity", "parameters", "value", "low", "high", "seeds") == [
        ("dense", 0.9, 9000, 150, 100, 200, 2),
        ("rigl", 0.9, 1000, 15, 10, 20, 2),
        ("rigl", 0.95, 500, 20, 15, 25, 2),
    ]
    (ax,) = drawn.figure.axes
    assert ax.get_ylim()[0] < 10 and ax.get_ylim()[1] > 200  # all of the bands
    assert (ax.patches[0].get_y(), ax.patches[0].get_height()) == (100, 100)  # that of the dense line


def test_iqm_is_from_a_random_agent_to_the_dense_mean_of_each_task(draw, fails, monkeypatch):
    monkeypatch.setattr(aggregate, "RANDOM_SCORES", {"Zero-v0": 0, "Negative-v0": -1000, "Bad-v0": 10, "Alone-v0": 0})
    for seed, factor in ((1, 0.5), (2, 1.5)):
        sac([100 * factor], seed=seed, method="dense", env_id="Zero-v0")
        sac([-500 * factor], seed=seed, method="dense", env_id="Negative-v0")
        sac([50], seed=seed, env_id="Zero-v0")
        sac([-600], seed=seed, env_id="Negative-v0")  # worse than dense: divided by -500 it would be 1.2
        sac([-750], seed=seed, env_id="Negative-v0", sparsity=0.99)
        sac([8], seed=seed, env_id="Alone-v0")
        for env, method in (("Unknown-v0", "dense"), ("Unknown-v0", "rigl"), ("Bad-v0", "dense"), ("Bad-v0", "rigl")):
            sac([5], seed=seed, env_id=env, method=method)
    drawn = draw("iqm", "runs")
    assert pick(drawn.rows, "sparsity", "variant", "tasks", "runs", "value") == [
        (0.9, "dense", 2, 4, 1),
        (0.9, "rigl", 2, 4, pytest.approx((0.5 + 0.8) / 2)),
        (0.99, "dense", 1, 2, 1),  # of the same tasks
        (0.99, "rigl", 1, 2, pytest.approx(0.5)),
    ]
    assert drawn.rows[1]["low"] == drawn.rows[1]["high"] == drawn.rows[1]["value"]  # no spread within a task
    for env, reason in (
        ("Alone", "no finished dense run"),
        ("Bad", "no better than"),
        ("Unknown", "no random agent's"),
    ):
        for text in (drawn.said, drawn.rows[0]["left_out"], drawn.figure.get_supxlabel().replace("\n", " ")):
            assert env in text and reason in text
    sac([7], method="dense", env_id="Zero-v0", weight_decay=0)
    assert "Zero-v0 has several kinds of dense runs" in fails("iqm", "runs")


def test_iqm_of_other_agents_is_normalised_by_dense_sac_where_it_is_there(draw, fails, monkeypatch):
    monkeypatch.setattr(aggregate, "RANDOM_SCORES", dict.fromkeys(("A-v0", "B-v0"), 0))
    sac([100], method="dense", env_id="A-v0")
    for env in ("A-v0", "B-v0"):
        for method, scores in (("dense", (40, 60)), ("static", (20, 30)), ("rigl", (30, 40))):
            sac({1: [scores[0]], 2: [scores[1]]}, script="ppo_rigl", env_id=env, method=method)
    drawn = draw("iqm", "runs", "--statistic", "mean")
    assert "1 PPO task normalised by the dense runs of SAC: A-v0\n" in drawn.said
    assert "1 PPO task normalised by the dense runs of PPO: B-v0\n" in drawn.said
    values = {("dense"): (0.5 + 1) / 2, "static": (0.25 + 0.5) / 2, "rigl": (0.35 + 0.7) / 2}
    assert [(row["variant"], row["value"]) for row in drawn.rows] == list(values.items())
    assert pick(drawn.rows[:1], "script", "normaliser") == [("ppo_rigl", "SAC, PPO")]
    curve = {row["score"]: row["value"] for row in draw("iqm", "runs", name="profile").rows if row["variant"] == "rigl"}
    for score, share in ((0.29, 1), (0.39, 0.75), (0.59, 0.5), (0.79, 0.25), (0.81, 0)):  # runs have .3, .4, .6, .8
        assert curve[min(curve, key=lambda x: abs(x - score))] == share
    drawn = draw("iqm", "runs", name="improvement")
    pairs = [("static", "dense", 0), ("rigl", "dense", 0.125), ("rigl", "static", 0.875)]  # 40 = 40, 30 = 30
    assert pick(drawn.rows, "variant", "over", "value") == pairs
    assert drawn.table[2]["probability of improvement [95% interval]"].startswith("0.875 [0.")
    sac([50], env_id="A-v0")  # with runs of SAC there is a line of panels for each agent
    there = draw("iqm", "runs").figure.axes
    assert [ax.get_title() for ax in there] == ["SAC, 90% sparse", "PPO, 90% sparse"]
    sac({3: [50]}, script="ppo_rigl", env_id="A-v0", method="dense", weight_decay=0)
    assert "A-v0, PPO has several kinds of dense runs" in fails("iqm", "runs")


def test_flops_are_those_of_the_networks(monkeypatch):
    """Multiplications in millions were worked out by hand from the layers' shapes and densities, with 6 actions."""
    monkeypatch.setattr(flops, "ACTIONS", 6)
    (picture,) = plot.draw(tyro.cli(plot.Args, args=["flops", "nature", "impala", "17-256-256-12"]))
    rows = {(row["network"], row["variant"], row["sparsity"]): row for row in picture.rows}
    for network, variant, numbers in [
        ("Nature CNN", "ERK", (16.01, 5.66, 2.82, 1.40, 0.270)),
        ("Nature CNN", "uniform", (16.01, 3.20, 1.60, 0.80, 0.160)),
        ("IMPALA ResNet", "ERK", (208.8, 99.9, 53.8, 29.1, 5.61)),
        ("IMPALA ResNet", "uniform", (208.8, 41.8, 20.9, 10.4, 2.09)),
    ]:
        for sparsity, millions in zip((0, 0.8, 0.9, 0.95, 0.99), numbers, strict=True):
            assert rows[network, variant, sparsity]["multiply_adds"] / 1e6 == pytest.approx(millions, rel=0.006)
    mlp = torch.nn.Sequential(*(torch.nn.Linear(n, m) for n, m in ((17, 256), (256, 256), (256, 12))))
    masks = su.random_masks(weights := su.prunable(mlp=mlp), su.erk_densities(su.layer_shapes(weights), 0.9))
    for sparsity, of in ((0.9, masks), (0, {})):
        row = rows["MLP 17-256-256-12", "ERK", sparsity]
        assert row["flops"] == pytest.approx(sum(su.flops(mlp, torch.zeros(1, 17), of, "mlp")), abs=6)
        assert row["parameters"] == pytest.approx(su.count_parameters(of, mlp=mlp), abs=3)
    width = su.small_width(17, 12, su.count_parameters(masks, mlp=mlp))
    row = rows["MLP 17-256-256-12", "small dense", 0.9]
    assert row["multiply_adds"] == su.mlp_size(17, width, width, 12)[0] and row["of_dense"] == row["flops"] / 146_444
    first = torch.nn.Sequential(torch.nn.ZeroPad2d(2), torch.nn.Conv2d(4, 32, 8, stride=4))  # 88 x 88 to 21 x 21
    (layer, *_) = flops.nature(1)
    assert flops.cost([layer], [1])["flops"] == sum(su.flops(first, torch.zeros(1, 4, 84, 84), {}, "net"))
    assert picture.table.splitlines()[3].startswith("| Nature CNN | uniform |")


def test_iqm_of_atari_is_from_a_random_agent_to_a_human(draw, fails):
    """Of Mnih et al. 2015; no dense run is needed. (score - random) / (human - random)."""
    for env, score in (("ALE/Pong-v5", 9.3), ("ALE/Boxing-v5", 4.3 + 4.2), ("ALE/MsPacman-v5", 307.3)):
        sac([score], f"runs/{env[4:]}", script="dqn_atari_rigl", env_id=env)
    drawn = draw("iqm", "runs", "--statistic", "mean")
    assert "3 DQN tasks normalised by human scores" in drawn.said
    assert drawn.rows[0]["value"] == pytest.approx((1 + 2 + 0) / 3) and drawn.rows[0]["normaliser"] == "human"
    assert drawn.figure.axes[0].get_xlabel() == "mean of return (0: random, 1: human)"
    scores = random_scores.RANDOM_AND_HUMAN_SCORES
    assert len(scores) == 15 and all(random < human for random, human in scores.values())
    for network in ("nature", "impala"):
        task = {"script": "dqn_atari_rigl", "env_id": "ALE/Pong-v5"}
        sac([1], f"runs/dense-{network}", method="dense", network=network, **task)
    assert "ALE/Pong-v5 has several kinds of dense runs" in fails("iqm", "runs")
    assert draw("iqm", "runs", "--where", "method=rigl").rows[0]["runs"] == 3


def test_a_seed_counts_once_however_often_it_was_evaluated(draw):
    """The run that got furthest does."""
    sac([1], seed=1, eval_interval=5, total_timesteps=20)
    sac([500, 1000], seed=1, eval_interval=10)
    sac([900, 1000], seed=1, eval_interval=10, eval_episodes=9)
    sac([1000, 2000], seed=2, eval_interval=10, snr_interval=0)
    drawn = draw("curves", "runs")
    assert (drawn.rows[-1]["seeds"], drawn.rows[-1]["step"]) == (2, 20)
    assert [(line["seeds"], line["final return_mean, mean ± std"]) for line in drawn.table] == [("2", "1,500 ± 707")]


def test_data_files_that_are_drawn_together_keep_apart_what_differs(draw):
    """Also if the flag has one value in each of them; and of a list the runs that are not there are named."""
    for size, folder in ((256, "a"), (512, "b")):
        for seed in (1, 2):
            sac([size, size], f"{folder}/{seed}", seed=seed, batch_size=size)
        draw("curves", folder, "--save-data", f"{folder}.csv")
    rows = draw("scaling", "a.csv", "b.csv").rows
    assert [(row["variant"], row["value"], row["seeds"]) for row in rows] == [
        ("rigl, batch-size 256", 256, 2),
        ("rigl, batch-size 512", 512, 2),
    ]
    Path("list.txt").write_text("a/1\na/Pendulum-v1__sac_rigl__rigl-0.9__2__abcd\n")
    assert "1 run left out, listed in list.txt but not there: a/Pendulum-v1" in draw("curves", "list.txt").said


def noisy(folder: Path, *returns: float, file: str = "noise.csv", agent: int = 1) -> None:
    """What --evaluate writes: returns at noise of 0, 10, 20."""
    rows = [{"agent": agent, "noise": 10.0 * i, "seed": 1, "return_mean": r} for i, r in enumerate(returns)]
    su.write_csv(folder / file, rows)


def test_noise_draws_returns_against_the_noise(draw, fails):
    """Means over seeds at the levels that all of a variant's agents have; wrapping noise has its own panel."""
    sac([1], "runs/sac")
    assert "no run has a noise.csv" in fails("noise", "runs")
    task = {"script": "dqn_atari_rigl", "env_id": "ALE/Pong-v5"}
    for seed, returns in ((2, (20, 10, 0)), (3, (10, 6))):
        noisy(sac([1], f"runs/rigl{seed}", seed=seed, **task), *returns, agent=seed)
    dense = sac([1], "runs/dense", method="dense", **task)
    noisy(dense, 21, 21, 21)
    noisy(dense, 21, -21, file="noise_wrap.csv")
    drawn = draw("noise", "runs", "--where", "script=dqn_atari_rigl", "--statistic", "mean")
    pong, wrapping = "ALE/Pong-v5", "ALE/Pong-v5, wrapping around"
    assert pick(drawn.rows, "panel", "variant", "noise", "value", "seeds") == [
        *((pong, "dense", x, 21, 1) for x in (0, 10, 20)),
        *((wrapping, "dense", x, value, 1) for x, value in ((0, 21), (10, -21))),
        (pong, "rigl 90%", 0, 15, 2),
        (pong, "rigl 90%", 10, 8, 2),
    ]
    assert [ax.get_title() for ax in drawn.figure.axes] == [pong, wrapping]
    assert "[pixels, 0 to 255]" in drawn.figure.axes[0].get_xlabel()
    assert drawn.table[0]["return at noise 20"] == "21" and drawn.table[2]["return at noise 20"] == "–"
    assert "1 run left out, without a noise.csv: runs/sac" in draw("noise", "runs").said
    noisy(sac([1], "runs/more", script="dqn_atari_rigl", seed=9, total_timesteps=100), 1, 1)
    assert "1 run left out as unfinished: runs/more" in draw("noise", "runs").said


def test_random_scores_are_those_of_random_episodes():
    returns = random_scores.random_returns("Pendulum-v1", episodes=20)
    assert np.mean(returns) == pytest.approx(random_scores.RANDOM_SCORES["Pendulum-v1"], abs=3 * np.std(returns) / 4)
    assert random_scores.random_returns("MountainCar-v0", episodes=2) == [-200, -200]


def test_flag_draws_scores_over_the_values_of_a_flag(draw, fails):
    for decay, score in ((0, 1), (1e-4, 2), (1e-3, 4)):
        for seed in (1, 2):
            sac([score + seed], seed=seed, weight_decay=decay)
    dense = sac([50], method="dense", weight_decay=0.5)
    sac([60], sparsity=0.5)  # has only one weight decay
    drawn = draw("sensitivity", "runs", "--flag", "weight-decay")
    assert "1 variant left out, as all their runs have the same weight_decay: rigl 50%" in drawn.said
    rigl = [("rigl 90%", 0, 2.5), ("rigl 90%", 1e-4, 3.5), ("rigl 90%", 1e-3, 5.5)]
    assert pick(drawn.rows, "variant", "weight_decay", "value") == [("dense", 0.5, 50), *rigl]
    assert len(drawn.table) == 4  # of what was drawn
    assert [text.get_text() for text in drawn.figure.axes[0].get_xticklabels()] == ["0", "0.0001", "0.001"]
    config = dense / "config.json"
    config.write_text(config.read_text().replace("weight_decay", "decay"))
    assert f"1 of 8 runs have no such flag (dense): {dense}" in fails("sensitivity", "runs", "--flag", "weight_decay")


def test_default_actor_share_stands_at_its_number_and_words_at_equal_distances(draw):
    for share, score in ((0.5, 3), (None, 2), (0.1, 1)):
        sac([score], actor_share=share)
    line = line_of(draw("split", "runs").figure, "rigl 90%")
    assert list(line.get_xdata()) == [0.1, 0.337, 0.5] and list(line.get_ydata()) == [1, 2, 3]
    sac([2], "words/uniform", sparsity_distribution="uniform")
    sac([1], "words/erk")
    line = line_of(draw("sensitivity", "words", "--flag", "sparsity_distribution").figure, "rigl 90%")
    assert np.ptp(line.get_xdata()) == 1 and list(line.get_ydata()) == [1, 2]


@pytest.mark.parametrize(
    "arguments",
    ["curves", "snr", "scaling", "iqm", "sensitivity --flag weight_decay", "split", "tickets --column best_return"],
)
def test_a_picture_is_drawn_again_from_the_file_that_save_data_wrote(draw, fails, arguments):
    """The same as from the run folders, but for the six digits that numbers have in the file."""
    kind, *more = arguments.split()
    for seed in (1, 2, 3):
        scores = [-300 - seed / 7, -250 - seed / 3, -200 * 1.1**seed]
        sac(scores, seed=seed, method="dense", threads=seed)
        for decay in (0, 1e-6, 1e-3):
            given = ["--weight-decay"] * (decay != 1e-6)
            sac([x - 1000 * decay / seed for x in scores], seed=seed, weight_decay=decay, given=given)
    sac({1: [-400, -300.5], 2: [-350, -299.25], 3: [-100, NAN]}, script="ppo_rigl", method="static", actor_share=0.1)
    sac({1: [-500, -444.5], 2: [-450, -399.75]}, script="ppo_rigl", method="static")
    sac({1: [-500, -444.5]}, script="ppo_rigl", method="static", actor_share=0.3, total_timesteps=30)
    shares = {"iqm": ["script == 'ppo_rigl' or weight_decay == 0 or method == 'dense'"], "split": ["script=ppo_rigl"]}
    where = [word for condition in shares.get(kind, ()) for word in ("--where", condition)]
    for hidden, seeds in (((64, 64), (1, 2)), ((8,), (1, 3))):
        scores = {seed: (100 / seed, {"ticket": [90 / seed, 70 / seed]}) for seed in seeds}
        imp(scores, f"runs/{hidden}", hidden_sizes=list(hidden), diverged=())
    from_runs = draw(kind, "runs", *more, *where)
    file = Path("docs/data/x.csv")
    saved = draw(kind, "runs", *more, *where, "--save-data", file)
    assert f"{file}: {len(su.read_csv(file))} rows, {file.stat().st_size:,} bytes" in saved.said
    again = draw(kind, file, *more)
    assert str(again.rows) == str(saved.rows) and again.table == saved.table and len(again.rows) > 1
    for row, of_runs in zip(again.rows, from_runs.rows, strict=True):
        for name, x in of_runs.items():
            assert row[name] == (pytest.approx(x, rel=1e-5, nan_ok=True) if isinstance(x, float) else x)
    for line, of_runs in zip(*(x.figure.axes[0].get_lines() for x in (again, from_runs)), strict=True):
        assert to_hex(line.get_color()) == to_hex(of_runs.get_color()) and line.get_label() == of_runs.get_label()
    if kind == "tickets":
        assert "kind inputs needs the run folders" in fails("inputs", file, *more)
    both = draw(kind, "runs", file, *more, *where)  # the same runs are not other seeds
    assert both.table == from_runs.table and "as the same run is there" in both.said
    file.write_text("step,return_mean\n1,2\n")
    assert f"{file} is no csv that --save-data wrote" in fails(kind, file, *more)


# ---- Lottery tickets -------------------------------------------------------------------------------------------------


def test_tickets_draw_each_condition_from_the_dense_agent_on(draw):
    two = {"ticket": [126, 110], "random_reinit": [70, 30]}
    imp({1: (100, {"ticket": [110, 90], "random_reinit": [50, 10]}), 2: (140, two)})
    drawn = draw("tickets", "runs")
    expected = [("dense", 0, 120, 40), ("ticket", 1, 118, 16), ("ticket", 2, 100, 20)]
    expected += [("random_reinit", 1, 60, 20), ("random_reinit", 2, 20, 20)]
    for row, (condition, round_, value, distance) in zip(drawn.rows, expected, strict=True):
        assert (row["condition"], row["round"], row["remaining_fraction"]) == (condition, round_, 0.8**round_)
        ends = value - distance / 2**0.5, value + distance / 2**0.5  # the std of two numbers is their distance / sqrt 2
        assert [row["value"], row["low"], row["high"]] == pytest.approx([value, *ends])
    (ax,) = drawn.figure.axes
    assert (ax.patches[0].get_y(), ax.patches[0].get_height()) == pytest.approx((120 - 800**0.5, 3200**0.5))  # dense
    assert ax.get_ylim()[0] < 20 - 200**0.5 and ax.get_ylim()[1] > 120 + 800**0.5  # all of the bands
    assert line_of(drawn.figure, "ticket").get_ydata() == pytest.approx([120, 118, 100])
    # The worst condition has lost 100 in its last round, so what is near dense is at least 120 - 5.
    table = pick(drawn.table, "condition", "best_retest at 100%, mean ± std", "fewest weights near dense")
    assert table == [("ticket", "120 ± 28.3", "80% (≥ 115)"), ("random_reinit", "120 ± 28.3", "100% (≥ 115)")]
    drawn = draw("tickets", "runs", "--column", "best_return", "--statistic", "iqm")
    assert drawn.table[0]["best_return at 100%, IQM [95% interval]"] == "240 [200, 280]"


def test_ticket_table_takes_seven_rounds_of_the_longest_chain(draw):
    """Of a shorter chain it has those that come near, and of a run that prunes more in a round those that it has."""
    imp({1: (100, {"ticket": [100 - k for k in range(1, 15)]})})
    (line,) = draw("tickets", "runs").table
    levels = {name: cell.removesuffix(" ± –") for name, cell in line.items() if name.endswith("%")}
    assert levels == {"64%": "98", "33%": "95", "21%": "93", "13%": "91", "6.9%": "88", "4.4%": "86"}
    imp({1: (100, {"ticket": [99, 98, 97]})}, "runs/short", hidden_sizes=[4])
    both = pick(draw("tickets", "runs").table, "64%", "33%")
    assert both == [("98 ± –", "–"), ("98 ± –", "95 ± –")]  # 51% is not 33%


def test_ticket_runs_of_other_seeds_and_conditions_are_one(draw):
    imp({1: (1, {"ticket": [10]}), 2: (2, {"ticket": [20]})})
    others = {seed: (dense, {"random_reinit": [score]}) for seed, dense, score in ((2, 2, 5), (3, 6, 7))}
    imp(others, "runs/b", conditions=["random_reinit"])
    imp({3: (6, {"ticket": [60, 61]})}, "runs/c", rounds=2)
    imp({1: (50, {})}, "runs/d", hidden_sizes=[512])
    imp({1: (70, {})}, "runs/e", script="bc_distill", teacher="x")
    drawn = draw("tickets", "runs")
    assert set(pick(drawn.rows, "variant", "condition", "round", "value", "seeds")) == {
        ("PPO, hidden-sizes 64 64", "dense", 0, 3, 3),  # seed 2 counts once
        ("PPO, hidden-sizes 64 64", "ticket", 1, 30, 3),
        ("PPO, hidden-sizes 64 64", "random_reinit", 1, 6, 2),
        ("PPO, hidden-sizes 512", "dense", 0, 50, 1),
        ("behavioural cloning", "dense", 0, 70, 1),
    }
    assert "CartPole-v1, PPO, hidden-sizes 64 64, ticket: cut at round 1 of 2, which all 3 seeds have" in drawn.said
    for where, value in (("hidden-sizes=64 64", 3), ("hidden_sizes=512", 50), ("script=bc_distill", 70)):
        assert draw("tickets", "runs", "--where", where).rows[0]["value"] == value


def test_chains_that_are_not_finite_are_left_out_and_those_that_went_on_are_named(draw, fails):
    scores = {seed: (10 * seed, {"ticket": [seed, NAN if seed == 3 else seed]}) for seed in (1, 2, 3)}
    imp(scores, weights=lambda *_: [[1.0], [1.0]], diverged={(1, 2), (2, 3)})
    drawn = draw("tickets", "runs")
    values = pick(drawn.rows, "condition", "round", "value", "seeds")
    assert values == [("dense", 0, 20, 3), ("ticket", 1, 1.5, 2), ("ticket", 2, 1.5, 2)]
    assert "1 chain left out, as best_retest is not finite: CartPole-v1, PPO, ticket, seed 3\n" in drawn.said
    went_on = (
        "1 chain drawn that diverged in a round and went on from finite weights: CartPole-v1, PPO, ticket, seed 2\n"
    )
    assert went_on in drawn.said
    assert {row["seeds"] for row in draw("inputs", "runs").rows} == {2}
    imp({1: (NAN, {"ticket": [1]}), 2: (INF, {})}, "none/a")
    for kind, error in (
        ("tickets", "no dense agents"),
        ("goggles", "no dense agent with finite"),
        ("inputs", "no dense"),
    ):
        assert error in fails(kind, "none")
    scores = {1: (1, {"ticket": [1]}), 2: (5, {"ticket": [7]})}  # an agent with weights of NaN has a return, too
    imp(scores, "weights/a", weights=lambda round_, seed: [[1.0], [NAN if seed == 1 else 2.0 * (round_ == 0)]])
    drawn = draw("inputs", "weights")
    assert "1 agent left out, as its weights are not finite: CartPole-v1, PPO, seed 1" in drawn.said
    assert [row["value"] for row in drawn.rows if row["quantity"] == "weight"] == [0.5, 1, 1, 0]
    assert pick(drawn.table[1:], "lost in round", "best_retest in that round") == [("1", "7")]


def first_layer(round_, seed):
    """The second input is lost in round 2 by seed 1 and in round 1 by seed 2; the first input never."""
    return [[3.0, -1.0], [0.0, 1.0 if round_ < 3 - seed else 0.0]]


def test_inputs_draw_the_first_layer_and_the_densities(draw):
    scores = {1: (9, {"ticket": [8, 7]}), 2: (9, {"ticket": [6, 5]})}
    imp(scores, env_id="MountainCar-v0", weights=first_layer)
    drawn = draw("inputs", "runs")
    lines = {}
    for row in drawn.rows:
        lines.setdefault((row["quantity"], row["name"]), []).append(row["value"])
    assert lines == {
        ("weight", "position"): [1, 1, 1],
        ("weight", "velocity"): [0.25, 0.125, 0],  # 1 of 4 in both seeds, in one, in none
        ("alive", "position"): [1, 1, 1],
        ("alive", "velocity"): [1, 0.5, 0],
        ("density", "all layers"): pytest.approx([1, 0.8, 0.64]),
        ("density", "actor.layers.0"): [1, 0.5, 0.25],
    }
    position, velocity = (list(line.values())[3:] for line in drawn.table)
    assert position == ["position", "–", "–", "2 of 2 seeds"]
    assert velocity == ["velocity", "1.5", "6.5", "0 of 2 seeds"]  # lost in rounds 2 and 1, with scores 7 and 6


def test_inputs_are_named_if_they_are_known(draw):
    for i, (env, ticket, names) in enumerate(
        [
            ("MountainCar-v0", {"inputs": None}, ["position", "velocity"]),
            ("Acrobot-v1", {"inputs": [1, 5]}, ["sin(angle 1)", "velocity 2"]),
            ("Acrobot-v1", {}, ["input 0", "input 1"]),  # two of the six, but which?
            ("Unknown-v0", {"inputs": [3, 5]}, ["input 3", "input 5"]),
        ]
    ):
        run = imp({1: (9, {})}, f"runs/{i}", weights=first_layer, ticket=ticket, env_id=env)
        assert [line["input"] for line in draw("inputs", run).table] == names


def test_many_inputs_are_counted_and_one_that_comes_back_was_not_lost(draw):
    imp({1: (9, {"ticket": [8, 7]})}, weights=lambda round_, _: np.ones((41, 2)) * (np.arange(41) >= round_)[:, None])
    counted = pick(draw("inputs", "runs").table, "round", "inputs alive, mean over seeds", "best_retest")
    assert counted == [("0", "41", "9"), ("1", "40", "8"), ("2", "39", "7")]
    scores = {1: (1, {"random_reinit": [2, 3, 4]})}  # random masks can do so
    imp(scores, "back/a", weights=lambda round_, _: [[1.0], [float(round_ in (0, 2))]])
    line = draw("inputs", "back", "--condition", "random_reinit").table[1]
    assert (line["lost in round"], line["best_retest in that round"]) == ("3", "4")


def test_each_kind_leaves_out_other_runs_in_one_line(draw, fails):
    sac([1, 2], "runs/sac")
    earlybird("retrain", PRUNED, "runs/early")
    for i in range(30):
        imp({1: (1, {})}, f"runs/imp{i:02}", weights=first_layer if i == 0 else None, network="mlp")
    others = (
        "as kind curves does not draw runs of dqn_earlybird.py, ppo_imp.py: runs/early; runs/imp00; runs/imp01 and 28"
    )
    said = draw("curves", "runs").said
    assert f"31 runs left out, {others} more\n" in said and said.count("left out") == 1 and "no results yet" not in said
    assert "none of 1 run folders has results for kind tickets" in fails("tickets", "runs/sac")
    imp({1: (1, {})}, "runs/cnn", weights=lambda *_: [[[[1.0]]]], network="cnn")
    imp({1: (1, {})}, "runs/students", weights=first_layer, script="bc_distill")  # which has no --network
    runs = ["runs/imp00", "runs/cnn", "runs/students"]
    drawn = draw("inputs", *runs)
    assert "1 column left out, as the first layer is a convolution: CartPole-v1, PPO, network cnn" in drawn.said
    assert {row["script"] for row in drawn.rows} == {"ppo_imp", "bc_distill"}
    assert {row["script"] for row in draw("inputs", *runs, "--where", "network=mlp").rows} == {"ppo_imp"}
    assert "these runs make 0: none" in fails("inputs", "runs/cnn")


# ---- What pruned agents see of pictures ------------------------------------------------------------------------------


def random_layer(*shape):
    """``weights(round, seed)`` of imp: with half of the weights that there were the round before."""
    rng = np.random.default_rng(0)
    draws = {seed: (rng.normal(size=shape), rng.random(shape)) for seed in (1, 2)}
    return lambda round_, seed: draws[seed][0] * (round_ + 1) * (draws[seed][1] < 0.5**round_)


def parts(rows, part, round_):
    return [row for row in rows if (row["part"], row["round"]) == (part, round_)]


def test_goggles_sum_the_weights_of_each_pixel(draw):
    layer, shape = random_layer(2 * 3 * 4, 5), (2, 3, 4)
    scores = {1: (10, {"ticket": [9, 8, 7]}), 2: (20, {"ticket": [19, 18, 17]})}
    imp(scores, env_id="Pictures-v0", weights=layer, ticket={"obs_shape": shape})
    drawn = draw("goggles", "runs", "--rounds", "3", "1")
    lines = {(line["round"], line["channel"]): list(line.values()) for line in drawn.table}
    assert list(lines) == [(round_, f"channel {c}") for round_ in "13" for c in (0, 1)]
    for round_ in range(4):
        weights = np.abs([layer(round_, seed) for seed in (1, 2)])  # [seeds, inputs, units]
        pixels = parts(drawn.rows, "pixel", round_)
        assert len(pixels) == (24 if round_ in (1, 3) else 0)
        for row in pixels:
            i = np.ravel_multi_index((int(row["name"][-1]), row["row"], row["column"]), shape)
            assert (row["weight"], row["best_retest"]) == (pytest.approx(weights[:, i].sum() / 2), 15 - round_)
            assert row["alive"] == weights[:, i].any(1).mean()
        densities = pick(parts(drawn.rows, "layer", round_), "name", "density")
        assert densities == [("all layers", pytest.approx(0.8**round_)), ("actor.layers.0", 0.5**round_)]
        for c, row in enumerate(parts(drawn.rows, "channel", round_)):
            own = weights[:, 12 * c : 12 * c + 12]
            alive = own.any(2).sum() / 2
            assert (row["alive"], row["pixels"], row["density"]) == (alive, 12, pytest.approx((own != 0).mean()))
            assert row["weight_share"] == pytest.approx(own.sum() / weights.sum())
            if round_ in (1, 3):
                remaining, *_, text = lines[f"{round_}", row["name"]][1:]
                assert (remaining, text) == (f"{100 * 0.8**round_:.0f}%", f"{alive:g} of 12 ({100 * alive / 12:.0f}%)")
    drawn = draw("goggles", "runs", "--rounds", "2", "--seed", "2", "--column", "best_return")
    assert [row["weight"] for row in parts(drawn.rows, "pixel", 2)] == pytest.approx(np.abs(layer(2, 2)).sum(1))
    assert "Pictures-v0, PPO, ticket, seed 2" in drawn.said and drawn.table[0]["best_return"] == "36"


def test_goggles_draw_rounds_near_100_30_and_10_percent_and_the_last(draw):
    for rounds, expected in ((20, [0, 5, 10, 20]), (4, [0, 4]), (0, [0])):
        scores = {1: (10, {"ticket": list(range(rounds))} if rounds else {})}
        run = imp(scores, f"runs/{rounds}", weights=random_layer(8, 3), ticket={"obs_shape": (2, 2, 2)})
        assert list(dict.fromkeys(int(line["round"]) for line in draw("goggles", run).table)) == expected


def test_possible_pixels_are_those_that_random_play_shows():
    mazes = goggles.mazegrid.make_vec("MazeGrid-v0", 1, 256)
    shown, rng = mazes.reset(seed=[1])[0].any(0), np.random.default_rng(0)
    actions = rng.integers(4, size=256)
    for _ in range(1000):  # straight on, more often than not
        actions = np.where(rng.random(256) < 0.3, rng.integers(4, size=256), actions)
        shown |= mazes.step(actions)[0].any(0)
    assert (goggles.possible_pixels() == shown.reshape(goggles.mazegrid.SHAPE)).all()


def test_goggles_tell_possible_from_impossible_pixels_of_the_maze(draw):
    """In round 1 seed 1 has the pixels of row 3, which are those of enemy a and of walls, and seed 2 has none."""

    def layer(round_, seed):
        rows = (np.arange(10) == 3) * (seed == 1) if round_ else np.ones(10)
        return (np.ones((6, 10, 20, 2)) * rows[:, None, None]).reshape(1200, 2)

    scores = {1: (10, {"ticket": [9]}), 2: (20, {"ticket": [19]})}
    imp(scores, env_id="MazeGrid-v0", weights=layer, ticket={"obs_shape": [1200]})
    drawn = draw("goggles", "runs")
    lines = [[line["channel"], *list(line.values())[6:]] for line in drawn.table]
    cells = {"agent": 122, "enemy a": 7, "enemy b": 7, "coins": 42, "poisons": 12, "empty": 122}
    assert lines[:6] == [[name, *(f"{k} of {k} (100%)" for k in (200, n, 200 - n))] for name, n in cells.items()]
    assert lines[7] == ["enemy a", "10 of 200 (5%)", "3.5 of 7 (50%)", "6.5 of 193 (3%)"]
    assert lines[8] == ["enemy b", "10 of 200 (5%)", "0 of 7 (0%)", "10 of 193 (5%)"]
    enemy = parts(drawn.rows, "channel", 1)[1:2]
    assert pick(enemy, "alive", "pixels", "possible", "possible_alive") == [(10, 200, 7, 3.5)]


def test_inputs_that_a_mask_hides_are_dead(draw):
    seen = {"obs_shape": [600], "inputs": [0, 5, 205, 399]}  # red and green; of blue there is nothing
    layer = [np.array([[2.0, 1], [3, 3], [4, 4], [last, 5]]) for last in (5, 0)]
    assert goggles.channel_names("MinAtar/Unknown-v0", 2) == ("channel 0", "channel 1")
    imp({1: (1, {"ticket": [1]})}, env_id="MazeGridRGB-v0", weights=lambda round_, _: layer[round_], ticket=seen)
    drawn = draw("goggles", "runs")
    alive = [row for row in parts(drawn.rows, "pixel", 1) if row["alive"]]
    places = [("red", 0, 0, 3), ("red", 0, 5, 6), ("green", 0, 5, 8), ("green", 9, 19, 5)]
    assert pick(alive, "name", "row", "column", "weight") == places
    red, green, blue = parts(drawn.rows, "channel", 1)
    assert (red["density"], green["density"], blue["weight"]) == (1, 0.75, 0) and math.isnan(blue["density"])
    assert pick(drawn.table[-1:], "channel", "density", "pixels alive") == [("blue", "–", "0 of 200 (0%)")]


def test_goggles_show_the_kernels_of_a_convolution(draw):
    layer = random_layer(5, 4, 3, 3)  # [out, in, kernel height, kernel width]
    scores = {seed: (1, {"ticket": [1, 1]}) for seed in (1, 2)}
    imp(scores, env_id="Pictures-v0", weights=layer, ticket={"obs_shape": [4, 84, 84]})
    drawn = draw("goggles", "runs", "--rounds", "2")
    weights = np.abs([layer(2, 1), layer(2, 2)])
    pixels = parts(drawn.rows, "pixel", 2)
    assert [row["weight"] for row in pixels] == pytest.approx((weights.sum((0, 1)) / 2).ravel())
    assert [row["alive"] for row in pixels] == list((weights.any(1).sum(0) / 2).ravel())
    density = (weights != 0).mean((0, 1, 3, 4))
    assert [row["density"] for row in parts(drawn.rows, "channel", 2)] == pytest.approx(density)
    assert drawn.table[3]["kernel cells alive"].endswith(f"of 9 ({100 * weights.any(1)[:, 3].mean():.0f}%)")


# ---- Early-bird tickets ----------------------------------------------------------------------------------------------

# Three seeds each: test return and episodes. The dense agents have means 180 and 80.
PRUNED = {
    ("dense", 0.0, 0): [(160, 60), (180, 80), (200, 100)],
    ("winning_ticket", 0.2, 0): [(190, 70), (190, 80), (190, 90)],
    ("winning_ticket", 0.8, 0): [(190, 70), (190, 80), (190, 90)],
    ("early_bird", 0.2, 50): [(181, 80), (181, 85), (181, 90)],  # 190 - 5% and 80 + 10% are 180.5 and 88
    ("early_bird", 0.8, 50): [(180, 80), (180, 85), (180, 90)],  # not as good as the winning ticket
    ("early_bird", 0.2, 5): [(170, 30), (190, 130), (100, 200)],
    ("early_bird", 0.8, 5): [(200, 120), (200, 121), (200, 500)],
}


def won_at(episode):
    """Episodes before pruning: 40, for winning tickets, come late enough for episode 5, and not for 50."""
    return lambda kind, at: episode if kind == "winning_ticket" else at


def test_earlybird_draws_test_returns_and_lengths_of_what_was_pruned(draw):
    earlybird("retrain", PRUNED, search=won_at(40))
    drawn = draw("earlybird", "runs", name="pruned")
    rows = {(row["what"], row["fraction"], row["prune_at"]): row for row in drawn.rows}
    assert len(rows) == len(drawn.rows) == 7
    for (kind, fraction, at), values in PRUNED.items():
        row = rows["retrain" if kind == "early_bird" else kind, fraction, won_at(40)(kind, at)]
        scores, lengths = np.array(values, float).T.clip(max=[[999], [120]])
        assert pick([row], "task", "seeds", "exploration_end") == [("CartPole-v0", 3, 90)]
        assert row["censored"] == (lengths == 120).sum()
        for column, of_seeds in (("test_mean", scores), ("episodes", lengths)):
            assert dimofte.ends(row, column) == pytest.approx(estimate([of_seeds], "mean"))
    lines = {tuple(line.values())[1:4]: list(line.values())[4:] for line in drawn.table}
    assert lines["retrain", "0.2", "5"] == ["153 [100, 190]", "90 [30, 120]", "2 of 3", "no: 1, 2, 3"]
    assert lines["dense", "0", "0"] == ["180 [160, 200]", "80 [60, 100]", "0 of 3", "–"]


def test_early_bird_tickets_are_those_of_the_papers_four_conditions(draw):
    earlybird("retrain", PRUNED, search=won_at(51))
    rows = draw("earlybird", "runs", name="pruned").rows
    verdicts = {(row["fraction"], row["prune_at"]): row["early_bird"] for row in rows[3:]}
    assert verdicts == {(0.2, 50): "yes", (0.8, 50): "no: 3", (0.2, 5): "no: 1, 2, 3", (0.8, 5): "no: 2, 3"}
    earlybird("retrain", PRUNED, "late", search=won_at(50))
    rows = draw("earlybird", "late", name="pruned").rows
    assert [row["early_bird"] for row in rows if row["prune_at"] == 50][-2:] == ["no: 4", "no: 3, 4"]
    reference = {"test_mean": -100, "episodes": 100, "unpruned": 0, "censored": 0, "seeds": 3}
    for row, similar in [
        ({"test_mean": -105, "episodes": 110}, (True, True)),  # 5% of a negative return are below it
        ({"test_mean": -106, "episodes": 111}, (False, False)),
        ({"censored": 2}, (True, True)),
        ({"censored": 3}, (True, False)),
        ({"unpruned": 1, "censored": 2}, (True, False)),
    ]:
        assert dimofte.is_similar(reference | row, reference) == similar


def test_agents_that_diverged_are_left_out_and_named(draw, fails):
    scores = {key: [(*value, {"diverged": 0}) for value in values] for key, values in PRUNED.items()}
    scores["dense", 0.0, 0][2] = (NAN, 100, {"diverged": 0})
    scores["early_bird", 0.2, 50][1] = (500, 85, {"diverged": 7})
    earlybird("retrain", scores)
    drawn = draw("earlybird", "runs", name="pruned")
    values = pick(drawn.rows, "what", "fraction", "prune_at", "test_mean", "seeds")
    assert {("dense", 0, 0, 170, 2), ("retrain", 0.2, 50, 181, 2), ("retrain", 0.8, 50, 180, 3)} <= set(values)
    names = "CartPole-v0, dense 0 at 0, seed 3; CartPole-v0, early_bird 0.2 at 50, seed 2\n"
    assert f"2 agents left out that diverged or have no finite return: {names}" in drawn.said
    earlybird("retrain", {key: [(NAN, 1)] * 3 for key in PRUNED}, "none/a")
    assert "nothing to draw: no pruned agent has a finite return" in fails("earlybird", "none")


def test_retrain_and_finetune_share_references_and_lie_side_by_side(draw, fails):
    earlybird("finetune", PRUNED, "unfinished/a", leave_out=1, xi=1)
    assert "no run is finished\n" in fails("earlybird", "unfinished")
    earlybird("retrain", PRUNED)
    finetune = {key: [(s, n // 2) for s, n in of] if key[0] == "early_bird" else of for key, of in PRUNED.items()}
    earlybird("finetune", finetune)
    earlybird("retrain", PRUNED, "runs/acrobot", env_id="Acrobot-v1")
    drawn = draw("earlybird", "runs", "unfinished", name="pruned")
    assert "1 run left out as unfinished: unfinished/a" in drawn.said
    assert [row["what"] for row in drawn.rows].count("dense") == 2 and {row["seeds"] for row in drawn.rows} == {3}
    titles = [f"{env}, {what}" for env in ("Acrobot-v1", "CartPole-v0") for what in ("retrain", "finetune")]
    assert [ax.get_title() for ax in drawn.figure.axes if ax.get_title()] == titles
    compared = draw("earlybird", "runs", name="compared").figure
    for figure, panel, label, values in [
        (drawn.figure, 6, "80% pruned", [120, 85]),  # lengths of Cart-Pole's retraining
        (drawn.figure, 7, "80% pruned", [80, 127 / 3]),  # and fine-tuning
        (drawn.figure, 7, "dense", [80, 80]),
        (compared, 7, "retrain", [120, 85]),  # lengths of 80% pruned
        (compared, 7, "finetune", [80, 127 / 3]),
        (compared, 7, "winning ticket", [80, 80]),
    ]:
        assert line_of(figure, label, panel).get_ydata() == pytest.approx(values)


def test_exploration_ends_where_epsilon_gets_to_its_floor(draw):
    steps = {"epsilon_decay_unit": "step", "epsilon_decay": 0.998}  # in step 2301
    never = [steps | {"epsilon_decay": 0.9999}, {"epsilon_decay": 1.0}, {"end_e": 0.0}]
    for args, end in [({}, 90), (steps, 23.01), *((args, NAN) for args in never)]:  # 0.95 ** 90 < 0.01
        run = earlybird("retrain", PRUNED, f"runs/{args}", **args)
        rows = draw("earlybird", run, name="pruned").rows
        assert rows[0]["exploration_end"] == pytest.approx(end, nan_ok=True)


def test_exploration_ends_where_dense_agents_stop_exploring(draw):
    """Those pruned early have an end of it only if theirs was early."""
    ends = {"dense": [4, 10, 10], "early_bird": [4, -1, -1]}
    scores = {
        key: [(score, n, {"explored_at": at}) for (score, n), at in zip(of, ends.get(key[0], [4, 10, 10]), strict=True)]
        for key, of in PRUNED.items()
    }
    run = earlybird("retrain", scores, epsilon_decay_unit="step")
    assert draw("earlybird", run, name="pruned").rows[0]["exploration_end"] == 8


def test_earlybird_draws_search_and_fine_tuning_of_eb_exploit(draw):
    scores = {
        ("dense", 0.0, 0): [(180, 60), (180, 80), (180, 100)],
        ("exploit", 0.2, 0): [(171, 38), (171, 48), (171, 58)],  # 180 - 5%, and 80 + 10% with the search
        ("exploit", 0.8, 0): [(170, 38), (170, 48), (170, 130)],
    }
    earlybird("exploit", scores, search=lambda kind, at: 40 * (kind == "exploit"))
    drawn = draw("earlybird", "runs", name="exploit")
    longest = (40, pytest.approx(206 / 3), pytest.approx(326 / 3), "no: 1, 2")
    found = pick(drawn.rows, "search_episodes", "episodes", "total_episodes", "early_bird")
    assert found == [(0, 80, 80, ""), (40, 48, 88, "yes"), longest]
    assert drawn.table[2]["not stopped"] == "1 of 3" and drawn.table[2]["fine-tune episodes"].startswith("68.7 [")
    assert drawn.table[2]["distance / that of random masks"] == "0.2 [0.1, 0.3]"
    heights = [bar.get_y() + bar.get_height() for bar in drawn.figure.axes[1].patches]
    assert heights == pytest.approx([0, 80, 40, 88, 40, 326 / 3])


def similarity(overlap, folder="", fractions=(0.2, 0.8), score=1, **args):
    """Seed s has an overlap of 0.1 s within exploration, and none elsewhere; exploration ends at episode 10 s."""
    columns = ["overlap_exploit", "overlap_across"]
    columns += [f"distance_{name}_relative" for name in ("explore", "exploit", "across")]
    of_seeds = [dict.fromkeys(columns, NAN) | {"explored_at": 10.0 * s, "overlap_explore": 0.1 * s} for s in (1, 2, 3)]
    scores = {("similarity", f, 0): [(score, 500, row) for row in of_seeds] for f in fractions}
    path = earlybird("similarity", scores, folder, **args)
    np.savez(path / "similarity.npz", overlap=overlap, fractions=fractions, episodes=[5, 10, 15])
    return path


def test_earlybird_draws_the_overlaps_of_masks(draw, fails):
    overlap = np.array([np.full((3, 3), 0.72), np.full((3, 3), 0.9)]) + 0.01 * np.arange(9).reshape(3, 3)
    path = similarity(overlap)
    drawn = draw("earlybird", "runs", name="similarity")
    assert pick(drawn.rows, "fraction", "exploration_end") == [(0.2, 20), (0.8, 20)]
    assert drawn.table[0]["overlap within exploration, mean [95% interval]"] == "0.2 [0.1, 0.3]"
    assert drawn.table[0]["overlap across the two"] == "– [–, –]"
    for ax, matrix in zip(drawn.figure.axes[:2], overlap, strict=True):
        assert np.array_equal(ax.images[0].get_array(), matrix) and ax.images[0].get_clim() == (0.7, 1)
        assert ax.images[0].get_extent() == [2.5, 17.5, 17.5, 2.5]
    # a task with other fractions: nothing is drawn where a task lacks one, or where overlaps are not finite
    similarity(np.array([np.ones((3, 3)), np.full((3, 3), NAN)]), "runs/z", (0.2, 0.6), env_id="Acrobot-v1")
    similarity(overlap, "runs/diverged", env_id="MountainCar-v0", score=NAN)
    drawn = draw("earlybird", "runs", name="similarity")
    assert [len(ax.images) for ax in drawn.figure.axes] == [1, 1, 1, 0]  # and the bar
    assert "Acrobot-v1, 60% pruned: left out, as not all overlaps are finite" in drawn.said
    similarity(overlap, "other/seed", seed=4)
    assert "differ in nothing but the seed: choose with --where seed=1" in fails("earlybird", "runs", "other")
    (path / "similarity.npz").write_text("PK")
    assert "cannot read runs/similarity/similarity.npz" in fails("earlybird", "runs")


# ---- The command line ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["iqm"], ["figures/iqm", "figures/iqm_profile", "figures/iqm_improvement"]),
        (["goggles", "--rounds", "1"], ["figures/goggles"]),
        (["earlybird", "--out", "a/eb"], [f"a/eb_{name}" for name in ("similarity", "pruned", "compared")]),
    ],
)
def test_writes_pictures_and_csv_files(monkeypatch, capsys, arguments, names):
    for seed in (1, 2):
        sac([-1100, -900], f"runs/sac{seed}", seed=seed)
        sac([-1000, -500], f"runs/dense{seed}", seed=seed, method="dense")
    imp({1: (1, {"ticket": [1]})}, "runs/imp", weights=random_layer(8, 2), ticket={"obs_shape": (2, 2, 2)})
    similarity(np.ones((2, 3, 3)))
    earlybird("retrain", PRUNED)
    monkeypatch.setattr(sys, "argv", ["plot.py", arguments[0], "runs", *arguments[1:]])
    runpy.run_path(plot.__file__, run_name="__main__")
    said = capsys.readouterr().out
    for name in names:
        assert Path(f"{name}.png").read_bytes().startswith(b"\x89PNG") and f"{name}.png and {name}.csv\n\n" in said
        with open(f"{name}.csv", newline="") as stream:
            assert list(csv.DictReader(stream))
    assert len(list(Path(names[0]).parent.iterdir())) == 2 * len(names)


def test_what_would_be_drawn_wrong_is_refused_in_one_line(fails):
    sac([1, 2], "runs/sac")
    sac([1], "broken/a").joinpath("config.json").write_text('{"model": 1}')
    imp({1: (1, {"ticket": [1]})}, "two/a", weights=first_layer, ticket={"obs_shape": [2]})
    imp({1: (1, {"ticket": [1]})}, "entangled/a", env_id="MazeGridEntangled-v0")
    for arguments, error in [
        ("curves broken", "cannot read broken/a as a run folder"),
        ("curves runs --column foo", "no column foo in runs/"),
        ("sensitivity runs --flag weight_decay", "no variant has runs with two values of weight_decay"),
        ("iqm runs --column snr_critic", "kind iqm draws returns: leave out --column"),
        ("curves runs --column snr_critic --against seconds", "--against seconds does not go with the SNR"),
        ("curves runs --save-data x/y.csv --out x/y.png", "--save-data x/y.csv is the csv of what is drawn"),
        ("snr runs --column snr_critic", "kind snr draws all columns of the SNR: leave out --column"),
        ("split runs --flag weight_decay", "--flag names the x axis of kind sensitivity"),
        ("split runs", "no variant has runs with two values of actor_share"),
        ("curves", "kind curves draws runs: name run folders"),
        ("goggles two --save-data x.csv", "kind goggles needs the run folders"),
        ("flops 17-", "no network 17-; there are nature, impala"),
        ("tickets two --condition random_reinit", "--condition chooses what kinds inputs and goggles draw"),
        ("inputs two --seed 1", "--rounds and --seed choose what kind goggles draws"),
        ("inputs two --condition foo", "no condition foo in two/a; there are dense, ticket"),
        ("inputs entangled", "tickets/round00_dense_seed1.pt as a ticket"),
        ("goggles two", "observe pictures; CartPole-v1 has observations [2]"),
        ("goggles two --rounds 7", "no round 7 of ticket in two/a; there are 0, 1"),
        ("goggles entangled", "MazeGridEntangled-v0 has none: each input is a mixture"),
        ("goggles two entangled", "but these are 2: "),
    ]:
        assert error in fails(*arguments.split()), arguments
