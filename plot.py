"""Draws the figures from run folders, and prints the table behind them.

    python plot.py curves runs                                      # learning curves of all runs in the folder
    python plot.py curves runs --column turnover --where method=set,rigl
    python plot.py curves runs --against seconds                    # the same over the time that learning took
    python plot.py snr runs/sac_snr-small.txt                       # signal-to-noise ratio of the gradients
    python plot.py scaling runs/sac_scaling-small.txt               # final score against parameters
    python plot.py iqm runs/sac_iqm-paper.txt                       # IQM over tasks: 0 is random, 1 dense
    python plot.py sensitivity runs/sac_weight_decay-small.txt --flag weight_decay
    python plot.py split runs/sac_actor_share-small.txt             # final score against the actor's share of weights
    python plot.py noise runs/atari_noise-small.txt                 # return against noise on what the agents see
    python plot.py flops                                            # FLOPs of ERK, uniform and small dense networks
    python plot.py tickets runs/CartPole-v1__*                      # lottery tickets: return against weights left
    python plot.py inputs runs/CartPole-v1__ppo_imp__*              # which inputs and layers are pruned first
    python plot.py goggles runs/MazeGrid-v0__dqn_imp__* --rounds 0 5 10    # what the pruned agents still see
    python plot.py earlybird runs/*__dqn_earlybird__*               # early-bird tickets: all experiments and tasks
    python plot.py scaling runs --save-data docs/data/x.csv         # also keep in one small file what it needs
    python plot.py scaling docs/data/x.csv                          # and draw the same from that

RUN is a run folder, a folder of run folders, a pattern in quotes, a list that benchmark.sh wrote, or a csv file of
--save-data. --where takes FLAG=VALUE, FLAG=VALUE,VALUE or an expression, such as "sparsity > 0.8 or method == 'dense'"
(dense runs have a --sparsity, too: its default). Runs that differ in nothing but their seed are one variant, named by
its method, its sparsity and those flags in which the runs of its script and method differ. A run's final score is the
mean of the last 10% of its evaluations. An unfinished run has a curve, as long as what all seeds of its variant have,
but no final score. A run or seed with values that are not finite is left out, and named.

Statistic iqm is the interquartile mean, mean_std the mean and one standard deviation. The default is mean_std for kind
tickets, as in the paper, mean for kind earlybird and iqm for the others. Intervals of iqm and mean are 95% stratified
bootstrap intervals over seeds (Agarwal et al. 2021); only variants with two seeds or more have one.

Kinds curves, snr, scaling, iqm, sensitivity, split and noise draw runs of the scripts whose names end with _rigl, in a
panel for each task, and for each agent where there are several. Of a method's variants the one with most flags at their
defaults has the full colour, and that of rigl, the default method, the widest line. Curves of the SNR have only the
steps at which it was measured. With --against seconds the x axis is the time of a run's program, with all its --seeds
together and without evaluations, SNR and checkpoints: it means something if the runs had the machine for themselves.

Kind iqm draws scores as parts of the way from a random agent's score to a human's in Atari's games, and in others to
the mean of the task's dense runs: those of SAC where they are among the runs, for other agents, too, else those of the
same script. Random agents' and humans' scores are in plots/random_scores.py; a task that has none there is left out,
and so is one whose dense agents are no better. The picture and the csv say which. Beside it are performance profiles
(the share of runs above each score) as {out}_profile.png, and the probabilities that a variant's run is better than a
dense one, and than a static one, of the same task, as {out}_improvement.png.

Kind noise draws what --evaluate CHECKPOINT --observation-noise wrote beside the checkpoint of each run.

Kind flops needs no runs. It takes networks: nature and impala, which are those for Atari, or an MLP's units such as
17-256-256-12, SAC's actor on HalfCheetah; the default is all three. FLOPs are those of one forward pass.

Kinds tickets, inputs and goggles draw runs of dqn_imp.py, ppo_imp.py and bc_distill.py, the first two with a panel or
column for each task, script and set of flags. Runs that differ only in --seeds, --conditions and --rounds are one, in
which a seed counts once; it is drawn as far as all its seeds got. In the table of kind tickets, a column's level of
remaining weights is that of the nearest round, if it is within 12%; the last column is the smallest remaining
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

A run that did not reach early stopping counts with the most episodes that it may have, as "not stopped". One whose
search found nothing has no episodes of fine-tuning, and counts as "not pruned". The line of exploration is where the
dense agents' epsilon gets to its floor. What was pruned early is an early-bird ticket if the four conditions of section
3.4 hold for the means, and of EB Exploit the first two; the table has the numbers of those that do not. Where no run
reached early stopping, 2 and 3 do not hold.
    1  a test return similar to the dense agent's, or higher: at most 5% of its absolute value lower
    2  as many episodes as the dense agent or fewer: at most 10% more. EB Exploit's search counts, too
    3  both of these beside the winning ticket of the same fraction
    4  pruned earlier than the winning ticket, which is where dense agents stop early

Writes figures/{kind}.png, or --out, and beside it the .csv of what was drawn. The file of --save-data has a row of each
run (kinds scaling, iqm, sensitivity and split), or of each of its evaluations (curves and snr) or rounds (tickets).
Columns --FLAG have all flags of a run, in its first row; the others are columns of results.csv, with six digits.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

import sparse_utils as su
from plots import aggregate, dimofte, flops, goggles, graesser, vischer
from plots.panels import Picture
from plots.runs import load, save_data

Kind = Literal[
    *("curves", "snr", "scaling", "iqm", "sensitivity", "split", "noise", "flops"),  # Graesser et al. 2022
    *("tickets", "inputs", "goggles", "earlybird"),  # Vischer et al. 2022, Dimofte 2023
]
SCORE_KINDS = ("scaling", "iqm", "sensitivity", "split")
TICKET_KINDS = ("tickets", "inputs", "goggles")
# Of each kind that can be drawn from a file of --save-data: the columns of results.csv that it needs beside --column.
SIZES = ("parameters", "acting_flops", "sparsity")
SAVED = dict.fromkeys(SCORE_KINDS, ("step", *SIZES)) | {
    "curves": ("step", "return_mean", *SIZES),
    "snr": ("step", "return_mean", *SIZES, *graesser.SNR_COLUMNS),
    "tickets": ("condition", "seed", "round", "remaining_fraction", "diverged"),
}


@dataclass
class Args:
    kind: Annotated[Kind, tyro.conf.Positional]  # which picture
    runs: Annotated[tuple[str, ...], tyro.conf.Positional] = ()  # what to draw, RUN above; of kind flops networks
    column: str = ""  # of results.csv; default best_retest for tickets, inputs, goggles, else return_mean
    statistic: Literal["iqm", "mean", "mean_std"] | None = None  # over seeds; default by kind, as said above
    against: Literal["step", "seconds"] = "step"  # with kind curves: what is on the x axis
    flag: str = ""  # with kind sensitivity: what is on the x axis, such as weight_decay
    condition: str = "ticket"  # with kinds inputs and goggles: which condition
    rounds: tuple[int, ...] = ()  # with kind goggles; default those next to 100%, 30%, 10% of the weights, and the last
    seed: int | None = None  # with kind goggles: which seed; default the mean over all of them
    where: tyro.conf.UseAppendAction[tuple[str, ...]] = ()  # only such runs, FLAG=VALUE; may be given many times
    out: Path | None = None  # the picture; default figures/{kind}.png; where a kind has several, their names begin so
    save_data: Path | None = None  # also write this csv file, from which the picture can be drawn without the runs

    def __post_init__(self):
        if not self.runs and self.kind != "flops":
            su.fail(f"kind {self.kind} draws runs: name run folders, or what --help calls RUN")
        if (self.kind == "sensitivity") != bool(self.flag):
            su.fail("--flag names the x axis of kind sensitivity, and of no other")
        if self.against != "step" and self.kind != "curves":
            su.fail("--against chooses the x axis of kind curves, and of no other")
        if self.against != "step" and self.column.startswith("snr"):
            su.fail("--against seconds does not go with the SNR, which is measured between evaluations")
        if self.kind not in ("inputs", "goggles") and self.condition != "ticket":
            su.fail("--condition chooses what kinds inputs and goggles draw; kind tickets draws all conditions")
        if self.kind != "goggles" and (self.rounds or self.seed is not None):
            su.fail("--rounds and --seed choose what kind goggles draws, and no other")
        if self.kind in ("iqm", "noise", "earlybird") and self.column not in ("", "return_mean"):
            su.fail(f"kind {self.kind} draws returns: leave out --column")
        if self.kind == "snr" and self.column:
            su.fail("kind snr draws all columns of the SNR: leave out --column, or choose one with kind curves")
        if self.save_data and self.kind not in SAVED:
            su.fail(f"--save-data is for kinds {', '.join(SAVED)}; kind {self.kind} needs the run folders")
        self.column = self.column or ("best_retest" if self.kind in TICKET_KINDS else "return_mean")
        self.statistic = self.statistic or {"tickets": "mean_std", "earlybird": "mean"}.get(self.kind, "iqm")
        self.flag = "actor_share" if self.kind == "split" else self.flag.replace("-", "_")
        self.out = self.out or Path(f"figures/{self.kind}")
        self.out = self.out if self.out.suffix else self.out.with_suffix(".png")
        if self.save_data and self.save_data.resolve() == self.out.with_suffix(".csv").resolve():
            su.fail(f"--save-data {self.save_data} is the csv of what is drawn, beside --out: give it another name")


def draw(args: Args) -> list[Picture]:
    """What was asked for."""
    if args.kind == "flops":
        return flops.flops(args.runs)
    needed = dict.fromkeys(SCORE_KINDS, ["step", args.column, "parameters"]) | {"snr": ["step"]}
    needed |= dict.fromkeys(TICKET_KINDS, [args.column]) | {"earlybird": ["test_mean", "episodes"]}
    columns = needed.get(args.kind, ["step", args.column]) + ["seconds"] * (args.against == "seconds")
    runs, results = load(args.kind, args.runs, args.where, columns)
    if args.kind not in SAVED and any(path.suffix == ".csv" for path in runs.folder):
        su.fail(f"kind {args.kind} needs the run folders: a file of --save-data does not have all that it draws")
    if args.save_data:  # and draw from it, so that it gives the same picture again
        if args.kind in SCORE_KINDS:  # one row of each run is enough
            runs, results = graesser.final_results(runs, results, args.column)
        save_data(args.save_data, runs, results, dict.fromkeys([*SAVED[args.kind], args.column, *columns]))
        runs, results = load(args.kind, [str(args.save_data)], (), columns)
    match args.kind:
        case "curves":
            return graesser.curves(runs, results, [args.column], args.statistic, args.against)
        case "snr":
            return graesser.snr(runs, results, args.statistic)
        case "scaling":
            return graesser.scaling(runs, results, args.column, args.statistic)
        case "iqm":
            return aggregate.iqm(runs, results, args.column, args.statistic)
        case "sensitivity" | "split":
            return graesser.sensitivity(runs, results, args.column, args.statistic, args.flag)
        case "noise":
            return graesser.noise(runs, args.statistic)
        case "tickets":
            return vischer.tickets(results, args.column, args.statistic)
        case "inputs":
            return vischer.inputs(results, args.column, args.condition)
        case "goggles":
            return goggles.goggles(results, args.column, args.condition, args.rounds, args.seed)
        case "earlybird":
            return dimofte.earlybird(runs, results, args.statistic)


def save(picture: Picture, out: Path) -> None:
    """The picture, the csv beside it, and its table on the terminal."""
    file = out.with_stem(f"{out.stem}_{picture.name}") if picture.name else out
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        picture.figure.savefig(file, dpi=150)
        su.write_csv(file.with_suffix(".csv"), picture.rows)
    except (OSError, ValueError) as error:  # ValueError: a kind of picture that matplotlib does not write
        su.fail(f"cannot write {file}: {error}")
    print(f"{file} and {file.with_suffix('.csv')}\n\n{picture.table}")


if __name__ == "__main__":
    args = tyro.cli(Args, description=__doc__)
    for picture in draw(args):
        save(picture, args.out)
