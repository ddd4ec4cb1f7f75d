"""Early-bird tickets in DQN agents (Dimofte 2023: On the existence of early-bird tickets in reinforcement learning).

    python algos/dqn_earlybird.py --experiment similarity                  # figure 3.3, Cart-Pole: a minute
    python algos/dqn_earlybird.py --experiment retrain --threads 2         # figures 3.4 and 3.5: 530 runs
    python algos/dqn_earlybird.py --experiment finetune --env-id Acrobot-v1
    python algos/dqn_earlybird.py --experiment exploit --xi 0.05 --repetitions 3

Does the mask that magnitude pruning draws early in training already belong to a ticket? Four experiments:
    similarity  a mask every 2 episodes of a dense training, all pairs compared (section 3.3)
    retrain     train n episodes, prune, reset to the initial weights, train until early stopping (section 3.4)
    finetune    the same, but go on from the weights of episode n (section 3.5)
    exploit     EB Exploit: prune when exploration is over and two masks in a row agree (section 3.6, algorithm 3.1)
retrain and finetune also have the dense agent and, for each fraction, the "winning ticket": an agent that is pruned
when it reaches early stopping and starts over from its initial weights. exploit also has the dense agent.

All runs (fraction x pruning episode x repetition) are one batched program: every parameter has a leading run axis R,
and each run has its own environment, replay memory, epsilon, target network and phase. Finished runs leave the batch.
A run learns the same, bit for bit, whatever runs train beside it: its random numbers have a key of its own
(repetition, kind, fraction, pruning episode). So each run also has its own initial weights and its own dense
training, as in the paper; retrain and finetune share these, so that the two can be compared run by run.

Writes the folder ``runs/{env}__dqn_earlybird__{experiment}__{seed}__{hash}``, or ``--run-dir``:
    results.csv     a row for each run
                      search_episodes, search_steps: until pruning; search_censored: 1 if what the search waits for
                      did not come (see 3 and 6); episodes, steps: after pruning, or all of a dense agent
                      censored: 1 if early stopping was not reached, and episodes is then the maximum
                      test_mean, test_std: of the returns of 100 greedy episodes
                      distance: of the masks that EB Exploit compared last; from_init: of the mask at pruning from the
                      one that the initial weights give; both also relative to that of random masks, 2P(1 - P)
                      explored_at: episode before pruning at which epsilon was at its floor, or -1
                    for similarity a row for each repetition and fraction, with the mean overlap of pairs of masks
                      within exploration, within exploitation, and across
    returns.npz     returns [runs, 2, episodes] of training episodes before and after pruning; nan where there is none
    similarity.npz  overlap [fractions, masks, masks], the mean over repetitions of 1 - distance; fractions; episodes
    timing.csv, config.json, checkpoint.pt, TensorBoard events. The same command started again goes on bit for bit.

A threshold xi is not equally strict for all fractions P: two random masks differ in 2P(1 - P) of the weights, which
is 0.32 for P = 0.2 and 0.8 but 0.48 for 0.4 and 0.6, and no two masks in more than 2 min(P, 1 - P). Masks that are
few episodes apart are similar by construction. So distances are reported relative to 2P(1 - P), too.

Hyper-parameters: tables A and B (``ACROBOT``). What the paper leaves silent, and what differs:
 1. Epsilon decays per episode on Cart-Pole and per step on Acrobot. The text says per step, but only so does
    exploration last about 90 episodes on the one and 5 to 10 on the other, as it also says. The floor is 0.01.
 2. Early stopping looks at training episodes, with their exploration noise. After pruning its count starts anew.
    Test episodes are greedy.
 3. The base of an early-bird ticket trains exactly n episodes, also beyond the point of early stopping. A winning
    ticket whose base never reaches early stopping is pruned at its last episode (search_censored).
 4. retrain starts all anew: optimizer, replay memory, epsilon and with it exploration. finetune and exploit keep
    them, as they go on in the same phase of training; --finetune-restarts changes that. Adam's moments of pruned
    weights become zero, and the target network a copy of the pruned one.
 5. Step 6 of algorithm 3.1 fine-tunes from m * theta_0; its text, its name and figure 3.8 mean the latest weights.
    --finetune-from init is the former, with a new optimizer.
 6. EB Exploit draws masks from the first episode on, every 2 episodes as in experiment 1 (n is not given), and looks
    at their distance once epsilon is at its floor. Its search does not stop early; if it finds nothing in 500
    episodes, the dense network is tested (search_censored). After pruning there are 500 episodes again.
 7. Biases are never pruned, and are not in the masks that are compared.
 8. At the time limit the value of the last observation is the future's. CartPole-v0 has 200 steps, 12 degrees and a
    reward at the last step too, as in gymnasium; the paper describes 15 degrees and none.
 9. An update is due at every 4th step of a run's life (at every one on Acrobot) if its memory holds enough.
10. Weights and biases start from PyTorch's default.
"""

import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import tyro
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

sys.path.append(str(Path(__file__).resolve().parent.parent))  # sparse_utils.py and envs/ are one folder up
import envs.classic  # noqa: E402
import envs.vector  # noqa: E402
import sparse_utils as su  # noqa: E402

# Tables A and B; the defaults of Args are those of Cart-Pole. Flags given on the command line win.
ACROBOT = {"hidden_sizes": (128,), "learning_rate": 1e-3, "batch_size": 64, "buffer_size": 2000}
ACROBOT |= {"learning_starts": 1000, "train_frequency": 1, "stop_return": -100.0}
ACROBOT |= {"epsilon_decay": 0.999, "epsilon_decay_unit": "step"}
TASKS = {"Acrobot-v1": ACROBOT}
KINDS = ("dense", "winning_ticket", "early_bird", "exploit", "similarity")  # of runs
CHUNK = 32  # runs that an update computes together: what they need fits into a core's cache
BLOCK = 256  # steps for which a run draws its random numbers at once


@dataclass
class Args:
    # Run
    experiment: Literal["similarity", "retrain", "finetune", "exploit"] = "retrain"
    """experiment 1, 2, 3 or 4 of the paper"""
    env_id: str = "CartPole-v0"
    """CartPole-v0, Acrobot-v1 or another task of envs/classic.py"""
    repetitions: int = 10
    """runs of each kind"""
    seed: int = 1
    """the first repetition's; the others count on from it"""
    run_dir: str = ""
    """folder to write to"""
    fresh: bool = False
    """delete what is in the run folder and start over"""
    checkpoint_interval: int = 5_000
    """steps of each run between checkpoints: the most that a kill can cost"""
    threads: int = 1
    """threads that update runs side by side; results do not depend on it"""
    cuda: bool = False
    """use a GPU if there is one"""
    track: bool = False
    """also log to Weights & Biases (pip install wandb)"""
    wandb_project_name: str = "sparse-rl"
    """with --track: the project"""
    wandb_entity: str | None = None
    """with --track: the team"""
    dry_run: bool = False
    """print the network, how many weights pruning keeps and the number of runs, and stop"""

    # Algorithm (tables A and B)
    hidden_sizes: tuple[int, ...] = (128, 128)
    """units of the hidden layers; default 128 for Acrobot"""
    learning_rate: float = 2.5e-3
    """Adam's; default 1e-3 for Acrobot"""
    buffer_size: int = 1000
    """transitions of each run; default 2000 for Acrobot"""
    batch_size: int = 32
    """transitions per update; default 64 for Acrobot"""
    learning_starts: int = 200
    """transitions in the memory before the first update; default 1000 for Acrobot"""
    train_frequency: int = 4
    """steps between updates; default 1 for Acrobot"""
    gamma: float = 0.99
    """discount"""
    start_e: float = 1.0
    """epsilon at the start"""
    end_e: float = 0.01
    """its floor: exploration is over when epsilon is there"""
    epsilon_decay: float = 0.95
    """factor on epsilon for each unit; default 0.999 for Acrobot"""
    epsilon_decay_unit: Literal["episode", "step"] = "episode"
    """default step for Acrobot"""
    stop_return: float = 200.0
    """return of an episode that counts towards early stopping; default -100 for Acrobot"""
    stop_episodes: int = 10
    """so many of them in a row stop training"""
    max_episodes: int = 500
    """longest training, before and again after pruning"""
    test_episodes: int = 100
    """greedy episodes after training"""

    # Pruning
    prune_fractions: tuple[float, ...] = (0.2, 0.4, 0.6, 0.8)
    """P: fractions of the weights that pruning removes"""
    prune_episodes: tuple[int, ...] = (5, 20, 30, 40, 50, 75, 100, 130, 180, 250, 400, 500)
    """retrain, finetune: episodes of training before pruning"""
    mask_window: int = 2
    """similarity, exploit: episodes from one mask to the next"""
    xi: float = 0.1
    """exploit: prune when the distance of masks is below this"""
    mask_history: int = 2
    """exploit: masks to compare, the newest with all older ones: 2 as in the paper, 5 as in You et al. (2020)"""
    finetune_from: Literal["latest", "init"] = "latest"
    """exploit: weights to go on from"""
    finetune_restarts: tuple[Literal["optimizer", "replay", "epsilon"], ...] = ()
    """finetune, exploit: what starts anew after pruning"""


# Flags that some experiments leave alone: there another value would only make another run folder.
OF_EXPERIMENTS = {"prune_episodes": ("retrain", "finetune"), "mask_window": ("similarity", "exploit")}
OF_EXPERIMENTS |= {"xi": ("exploit",), "mask_history": ("exploit",), "finetune_from": ("exploit",)}
OF_EXPERIMENTS |= {"finetune_restarts": ("finetune", "exploit")}


def parse_args() -> Args:
    """The command line over the task's defaults. Ends the program with one line if it makes no sense."""
    given = tyro.cli(Args, args=su.flags_without_help())
    args = tyro.cli(Args, description=__doc__, default=replace(Args(), **TASKS.get(given.env_id, {})))
    if args.env_id not in envs.classic.ENV_IDS:
        su.fail(f"--env-id must be one of {', '.join(envs.classic.ENV_IDS)}, not {args.env_id}")
    su.check_flags(
        args, "above 0", "repetitions", "checkpoint_interval", "buffer_size", "batch_size", "learning_starts"
    )
    su.check_flags(args, "above 0", "train_frequency", "stop_episodes", "max_episodes", "test_episodes")
    su.check_flags(args, "above 0", "mask_window", "threads")
    su.check_flags(args, "0 or more", "seed", "learning_rate")
    su.check_flags(args, "in [0, 1]", "gamma", "start_e", "end_e", "epsilon_decay", "xi")
    if args.experiment == "exploit":  # it would never prune
        su.check_flags(args, "above 0", "end_e", "xi")
    if args.end_e > args.start_e:
        su.fail(f"--end-e {args.end_e} is above --start-e {args.start_e}")
    if args.learning_starts > args.buffer_size:
        su.fail(f"--learning-starts {args.learning_starts} is more than --buffer-size {args.buffer_size} holds")
    if BLOCK % args.train_frequency:
        su.fail(f"--train-frequency must divide {BLOCK}, not be {args.train_frequency}")
    su.check_hidden_sizes(args)
    for name, fine in (("prune_fractions", lambda x: 0 < x < 1), ("prune_episodes", lambda x: x > 0)):
        values = getattr(args, name)
        if not values or len(set(values)) < len(values) or not all(map(fine, values)):
            kind = "fractions in (0, 1)" if name == "prune_fractions" else "numbers above 0"
            su.fail(f"--{name.replace('_', '-')} must be different {kind}, not {values}")
    if args.mask_history < 2:
        su.fail(f"--mask-history must be at least 2, not {args.mask_history}")
    for name, experiments in OF_EXPERIMENTS.items():
        if args.experiment not in experiments and getattr(args, name) != getattr(Args(), name):
            su.fail(f"--{name.replace('_', '-')} does nothing in --experiment {args.experiment}")
    if args.experiment in OF_EXPERIMENTS["prune_episodes"] and max(args.prune_episodes) > args.max_episodes:
        su.fail(f"--prune-episodes {max(args.prune_episodes)} is beyond --max-episodes {args.max_episodes}")
    n_masks = 2 if args.experiment == "similarity" else args.mask_history
    if args.experiment in OF_EXPERIMENTS["mask_window"] and args.max_episodes < n_masks * args.mask_window:
        masks = f"{n_masks} masks, {args.mask_window} episodes apart"
        su.fail(f"--max-episodes {args.max_episodes} is too short for {masks}")
    return args


# ---- The runs of an experiment ---------------------------------------------------------------------------------------


def plan_runs(args: Args) -> list[dict[str, Any]]:
    """What each run is: kind, seed, fraction to prune (0 if none) and episode at which to prune (0 if not fixed)."""
    fractions, plan = args.prune_fractions, []

    def add(kind: str, fraction: float = 0.0, prune_at: int = 0) -> None:
        for seed in range(args.seed, args.seed + args.repetitions):
            plan.append({"kind": kind, "seed": seed, "fraction": fraction, "prune_at": prune_at})

    if args.experiment == "similarity":
        add("similarity")
        return plan
    add("dense")
    if args.experiment == "exploit":
        for fraction in fractions:
            add("exploit", fraction)
        return plan
    for fraction in fractions:
        add("winning_ticket", fraction)
    for episode in sorted(args.prune_episodes, reverse=True):
        for fraction in fractions:
            add("early_bird", fraction, episode)
    return plan


def run_seed(run: dict[str, Any], purpose: int) -> int:
    """A seed of the run's own: 0 for its weights, 1 for its agent's noise, 2 for its episodes, 3 for its test."""
    key = run["seed"], KINDS.index(run["kind"]), round(run["fraction"] * 1e6), run["prune_at"], purpose
    return su.seeds(*key)[0]


def what_next(args: Args, run: dict[str, Any], pruned: bool, episode: int, streak: int, emerged: bool) -> str:
    """Does the run go on, prune or stop after so many episodes of its phase, and so many good ones in a row?

    ``emerged``: exploration is over and the masks of EB Exploit agree.
    """
    over = episode >= args.max_episodes
    stopped = over or streak >= args.stop_episodes
    if pruned or run["kind"] == "dense":
        return "stop" if stopped else "go on"
    if run["kind"] == "winning_ticket":
        return "prune" if stopped else "go on"
    if run["kind"] == "early_bird":
        return "prune" if episode == run["prune_at"] else "go on"
    if run["kind"] == "exploit" and emerged:
        return "prune"
    return "stop" if over else "go on"


# ---- R networks, their values and their optimizer --------------------------------------------------------------------


def one_thread() -> None:
    """Settings of the calling thread: Adam's moments of dead units decay to numbers that are very slow to compute
    with, and on one thread a product has the same bits whatever runs are computed beside it."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)


def empty_parameters(sizes: Sequence[int], runs: int = 1) -> dict[str, Tensor]:
    """Weights [R, in, out] and biases [R, 1, out] of fully connected layers."""
    parameters = {}
    for i, (n_in, n_out) in enumerate(pairwise(sizes)):
        parameters[f"actor.layers.{i}.weight"] = torch.zeros(runs, n_in, n_out)
        parameters[f"actor.layers.{i}.bias"] = torch.zeros(runs, 1, n_out)
    return parameters


def q_values(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
    """Action values [R, B, A] of R ReLU networks for observations [R, B, dim]."""
    tensors = list(parameters.values())
    for weight, bias in zip(tensors[:-2:2], tensors[1:-2:2], strict=True):
        x = torch.baddbmm(bias, x, weight).relu_()
    return torch.baddbmm(tensors[-1], x, tensors[-2])


def learn(
    agent: dict[str, Any],
    batch: Tensor,
    due: np.ndarray,
    args: Args,
    obs_dim: int,
    each: Callable[..., Iterable[None]] = map,
) -> None:
    """One update of each run in ``due``, bool [R], in place. ``batch`` [R, B, 2 * obs_dim + 3] are rows of memory.

    Plain DQN (Mnih et al. 2013): squared distance to reward + gamma * max Q_target(s'), and only a true end has no
    future. Runs are taken a chunk at a time, by ``each``: ``map``, or that of a pool of threads.
    """

    def update(first: int) -> None:
        part = slice(first, first + CHUNK)
        rows = np.flatnonzero(due[part]).tolist()
        if not rows:
            return
        obs, next_obs, action, reward, terminated = batch[part].split([obs_dim, obs_dim, 1, 1, 1], -1)
        q = {name: tensor[part].detach().requires_grad_() for name, tensor in agent["q"].items()}
        with torch.no_grad():
            future = q_values({name: tensor[part] for name, tensor in agent["target"].items()}, next_obs)
            target = reward + args.gamma * (1 - terminated) * future.amax(-1, keepdim=True)
        value = q_values(q, obs).gather(-1, action.long())
        loss = (value - target).square().mean(1).sum()  # each run's gradient is that of its own mean
        gradients = dict(zip(q, torch.autograd.grad(loss, list(q.values())), strict=True))
        torch._foreach_mul_([gradients[name] for name in agent["masks"]], [m[part] for m in agent["masks"].values()])
        moments = [{name: t[part] for name, t in agent[kind].items()} for kind in ("exp_avg", "exp_avg_sq")]
        adam(q, gradients, *moments, agent["updates"]["all"][part], rows, args.learning_rate)

    list(each(update, range(0, len(due), CHUNK)))


@torch.no_grad()
def adam(
    parameters: dict[str, Tensor],
    gradients: dict[str, Tensor],
    exp_avg: dict[str, Tensor],
    exp_avg_sq: dict[str, Tensor],
    updates: Tensor,
    rows: list[int],
    learning_rate: float,
) -> None:
    """A step of Adam for the networks in ``rows``, in place.

    The kernel of torch.optim.Adam(fused=True) takes a list of tensors, each with its own step count; those of the
    runs are in ``updates`` [R], as runs start anew at different times.
    """
    updates[rows] += 1
    counts, lists = updates.unbind(0), []
    for tensors in (parameters, gradients, exp_avg, exp_avg_sq):
        slices = [tensor.unbind(0) for tensor in tensors.values()]
        lists.append([layer[r] for layer in slices for r in rows])
    counts = [counts[r] for _ in parameters for r in rows]
    torch._fused_adam_(
        *lists, [], counts, lr=learning_rate, beta1=0.9, beta2=0.999, weight_decay=0.0, eps=1e-8, amsgrad=False,
        maximize=False,
    )  # fmt: skip


def weights_of(agent: dict[str, Any], r: int) -> dict[str, Tensor]:
    """What pruning looks at: the weights of run r, as views."""
    return {name: agent["q"][name][r] for name in agent["masks"]}


def magnitude_mask(weights: dict[str, Tensor], fraction: float) -> su.Masks:
    """The mask of the paper: the smallest of all weights together are zero, whatever was pruned before."""
    return su.prune_ticket(weights, {name: torch.ones_like(w) for name, w in weights.items()}, fraction)


@torch.no_grad()
def prune(agent: dict[str, Any], r: int, masks: su.Masks, start: dict[str, Tensor] | None, new_adam: bool) -> None:
    """Put run r under ``masks``, at its own weights or at those of ``start``, in place."""
    for name, tensor in agent["q"].items():
        if start is not None:
            tensor[r] = start[name]
        for moment in (agent["exp_avg"][name][r], agent["exp_avg_sq"][name][r]):
            moment.mul_(0 if new_adam else masks.get(name, 1))
        if name in masks:
            agent["masks"][name][r] = masks[name]
            tensor[r] *= masks[name]
        agent["target"][name][r] = tensor[r]
    if new_adam:
        agent["updates"]["all"][r] = 0


def test(args: Args, runs: list[dict[str, Any]], nets: dict[str, Tensor]) -> np.ndarray:
    """Returns [R, test episodes] of greedy episodes with the runs' networks."""
    vector, device = envs.vector.make(args.env_id, len(runs), args.test_episodes), next(iter(nets.values())).device

    @torch.no_grad()
    def act(obs: np.ndarray) -> np.ndarray:
        return q_values(nets, torch.from_numpy(obs).to(device).unflatten(0, (len(runs), -1))).argmax(-1).cpu().numpy()

    return envs.vector.play(vector, act, [run_seed(run, 3) for run in runs])


def only(vector: Any, env_id: str, keep: Sequence[int]) -> Any:
    """An environment with the rows in ``keep`` of another, which go on where they are."""
    there = vector.get_state()
    there["physics"] = [[row[r] for r in keep] for row in there["physics"]]
    there |= {name: [there[name][r] for r in keep] for name in ("elapsed", "streams")}
    rest = envs.vector.make(env_id, len(keep), 1)
    rest.set_state(there)
    return rest


# ---- What is written -------------------------------------------------------------------------------------------------


def result_row(number: int, run: dict[str, Any], record: dict[str, Any], n_weights: int) -> dict[str, Any]:
    """A run's row of results.csv. ``record`` is what the loop noted: "search" and "train", the phases before and
    after pruning, and the masks' distances."""
    none = {"episodes": 0, "steps": 0, "censored": 0}
    search = record.get("search", none)
    train = record.get("train", none | {"censored": search["censored"]})
    row = {"run": number, **run, **{f"search_{name}": value for name, value in search.items()}, **train}
    row |= {"total_episodes": search["episodes"] + train["episodes"], "remaining": record.get("remaining", n_weights)}
    row |= {"remaining_fraction": row["remaining"] / n_weights}
    row |= {"explored_at": record["explored_at"]}
    row |= {"test_mean": record["test"][0], "test_std": record["test"][1]}
    for name in ("distance", "from_init"):
        random = 2 * run["fraction"] * (1 - run["fraction"])
        row |= {name: record.get(name, ""), f"{name}_relative": record[name] / random if name in record else ""}
    return row


def overlap_of_bits(bits: np.ndarray, n_weights: int) -> np.ndarray:
    """Overlap [masks, masks] of masks [masks, bytes] with a bit for each weight."""
    masks = torch.from_numpy(np.unpackbits(bits, axis=-1, count=n_weights)).float()
    return su.overlap_matrix([{"all": mask} for mask in masks]).numpy()


def similarity_row(overlap: np.ndarray, episodes: np.ndarray, explored_at: int, fraction: float) -> dict[str, float]:
    """Mean overlap of pairs of masks, from a matrix [masks, masks]: of all, within exploration, within exploitation
    and across the two; and each as a distance relative to that of random masks. nan where there is no such pair."""
    first, second = np.triu_indices(len(episodes), 1)
    early = episodes <= explored_at if explored_at >= 0 else np.ones(len(episodes), bool)
    pairs = {"all": np.ones(len(first), bool), "explore": early[first] & early[second]}
    pairs |= {"exploit": ~early[first] & ~early[second], "across": early[first] ^ early[second]}
    values, row = overlap[first, second], {}
    for name, which in pairs.items():
        row[f"overlap_{name}"] = float(values[which].mean()) if which.any() else float("nan")
        row[f"distance_{name}_relative"] = (1 - row[f"overlap_{name}"]) / (2 * fraction * (1 - fraction))
    return row


def save_npz(file: Path, **arrays: np.ndarray) -> None:
    def write(temporary: Path) -> None:
        with temporary.open("wb") as stream:
            np.savez_compressed(stream, **arrays)

    su.write_atomically(file, write)


if __name__ == "__main__":
    args = parse_args()
    one_thread()
    each = ThreadPoolExecutor(args.threads, initializer=one_thread).map if args.threads > 1 else map
    device = torch.device("cuda" if args.cuda and torch.cuda.is_available() else "cpu")

    # ---- Task, network and runs
    vector = envs.vector.make(args.env_id, 1, 1)
    obs_dim, n_actions = vector.single_observation_space.shape[0], int(vector.single_action_space.n)
    template = empty_parameters((obs_dim, *args.hidden_sizes, n_actions))
    weights = {name: tensor for name, tensor in template.items() if name.endswith("weight")}
    n_weights, plan = sum(w.numel() for w in weights.values()), plan_runs(args)
    episodes = np.arange(args.mask_window, args.max_episodes + 1, args.mask_window)  # of the masks of similarity
    if args.dry_run:
        print(su.describe(weights, {}))
        for fraction in args.prune_fractions:
            print(f"pruned by {fraction:g}: {su.n_remaining(n_weights, fraction):,} weights are left")
        print(f"{len(plan)} runs: {', '.join(f'{n} {k}' for k in KINDS if (n := sum(r['kind'] == k for r in plan)))}")
        raise SystemExit(0)

    def initial_weights(run: dict[str, Any]) -> dict[str, Tensor]:
        return su.initial_parameters(template, generator=torch.Generator().manual_seed(run_seed(run, 0)))

    # ---- Run folder
    run_dir = Path(args.run_dir or f"runs/{su.run_name(args, 'dqn_earlybird', args.experiment)}")
    checkpoint = su.start_run(args, run_dir)
    signals = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _frame: signals.append(number))
    if args.track:
        import wandb

        project = {"project": args.wandb_project_name, "entity": args.wandb_entity}
        wandb.init(**project, name=run_dir.name, config=asdict(args), sync_tensorboard=True)

    # ---- All runs at their start. ``alive`` are the numbers in ``plan`` of those in the batch.
    R, step, alive, records, timings = len(plan), 0, list(range(len(plan))), [{} for _ in plan], []
    starts = [initial_weights(run) for run in plan]
    q = {name: torch.stack([start[name] for start in starts]) for name in template}
    agent = {"q": q, "target": {name: tensor.clone() for name, tensor in q.items()}}
    agent |= {kind: {name: torch.zeros_like(t) for name, t in q.items()} for kind in ("exp_avg", "exp_avg_sq")}
    agent |= {"masks": {name: torch.ones_like(q[name]) for name in weights}, "updates": {"all": torch.zeros(R)}}
    vector = envs.vector.make(args.env_id, R, 1)
    streams = [np.random.default_rng(run_seed(run, 1)) for run in plan]
    # What each run has beside its networks: arrays with the run axis in front. A row of memory is observation, next
    # observation, action, reward, terminated. Noise decides whether to explore and which action to take.
    state = {name: np.zeros(R, int) for name in ("episode", "streak", "steps", "stored")}
    state |= {"pruned": np.zeros(R, bool), "done": np.zeros(R, bool), "return": np.zeros(R)}
    state |= {"epsilon": np.full(R, args.start_e), "explored_at": np.full(R, -1)}  # episode at which epsilon got low
    state |= {"obs": envs.vector.reset(vector, [run_seed(run, 2) for run in plan])}
    state |= {"memory": np.zeros((R, args.buffer_size, 2 * obs_dim + 3), np.float32)}
    state |= {"noise": np.zeros((R, BLOCK, 2))}
    state |= {"places": np.zeros((R, BLOCK // args.train_frequency, args.batch_size))}
    returns = np.full((R, 2, args.max_episodes), np.nan, np.float32)
    detectors = [su.EarlyBird(args.xi, args.mask_history) for _ in plan]
    shape = args.repetitions, len(args.prune_fractions), len(episodes), -(-n_weights // 8)
    drawn = np.zeros(shape if args.experiment == "similarity" else 0, np.uint8)  # all masks, a bit for each weight
    if checkpoint is not None:  # go on
        step, alive, records, timings = (checkpoint[name] for name in ("step", "alive", "records", "timings"))
        agent, returns, drawn = checkpoint["agent"], checkpoint["returns"].numpy(), checkpoint["drawn"].numpy()
        state = {name: tensor.numpy() for name, tensor in checkpoint["state"].items()}
        vector = envs.vector.make(args.env_id, len(alive), 1)
        vector.set_state(checkpoint["envs"])
        streams = [np.random.default_rng() for _ in alive]
        for stream, there in zip(streams, checkpoint["streams"], strict=True):
            stream.bit_generator.state = there
        for detector, (history, distance) in zip(detectors, checkpoint["detectors"], strict=True):
            detector.history = [{name: mask.to(device) for name, mask in masks.items()} for masks in history]
            detector.distance = distance
        print(f"resuming {run_dir} after {step:,} steps of each run")
    agent = {kind: {name: t.to(device) for name, t in tensors.items()} for kind, tensors in agent.items()}
    writer = SummaryWriter(str(run_dir), purge_step=step)

    def save(finished: bool) -> None:
        """All that a run folder holds, of what is there so far."""
        seconds, rows = watch.take(), [row for record in records for row in record.get("rows", [])]
        speed = n_steps / sum(seconds.values())
        timings.append({"step": step, "runs": R, "env_steps": n_steps, "steps_per_second": speed, **seconds})
        writer.add_scalar("charts/SPS", speed, step)
        su.write_csv(run_dir / "timing.csv", timings)
        save_npz(run_dir / "returns.npz", returns=returns)
        if rows:
            su.write_csv(run_dir / "results.csv", rows)
        if finished and args.experiment == "similarity":
            overlap = [
                [overlap_of_bits(bits, n_weights) for bits in masks] for masks in drawn
            ]  # [seeds, fractions, ...]
            axes = {"fractions": np.array(args.prune_fractions), "episodes": episodes}
            save_npz(run_dir / "similarity.npz", overlap=np.mean(overlap, 0, dtype=np.float32), **axes)
        saved = {"args": asdict(args), "finished": finished, "step": step, "alive": alive, "records": records}
        saved |= {"timings": timings, "returns": torch.from_numpy(returns)}
        if not finished:
            saved |= {"agent": agent, "drawn": torch.from_numpy(drawn), "envs": vector.get_state()}
            saved |= {"state": {name: torch.from_numpy(array) for name, array in state.items()}}
            saved |= {"streams": [stream.bit_generator.state for stream in streams]}
            saved |= {"detectors": [(detector.history, detector.distance) for detector in detectors]}
        su.save_checkpoint(run_dir / "checkpoint.pt", saved)
        watch.lap("save")

    watch, n_steps = su.Stopwatch("act", "env", "sample", "learn", "episodes", "test", "save"), 0
    progress = tqdm(total=len(plan), initial=len(plan) - len(alive), unit="run", smoothing=0)
    progress.mininterval = 1 if sys.stderr.isatty() else 60
    while alive:
        # ---- Random numbers. All runs have made as many steps of their lives, and draw at the same time.
        R, here, i = len(alive), np.arange(len(alive)), step % BLOCK
        if i == 0:
            for noise, places, stream in zip(state["noise"], state["places"], streams, strict=True):
                stream.random(out=noise)
                stream.random(out=places)
            progress.set_postfix_str(f"{R} runs after {step:,} steps of each", refresh=False)
        step += 1
        # ---- Act: epsilon-greedy
        with torch.no_grad():
            values = q_values(agent["q"], torch.from_numpy(state["obs"]).to(device)[:, None])
        explore, which = state["noise"][:, i].T
        best = values[:, 0].argmax(-1).cpu().numpy()
        action = np.where(explore < state["epsilon"], (which * n_actions).astype(int), best)
        if args.epsilon_decay_unit == "step":
            state["epsilon"] = np.maximum(state["epsilon"] * args.epsilon_decay, args.end_e)
        watch.lap("act")
        obs, reward, terminated, truncated, info = vector.step(action)
        ended = terminated | truncated
        reached = envs.vector.last_observations(obs, ended, info)
        others = np.stack([action, reward, terminated], 1)
        state["memory"][here, state["stored"] % args.buffer_size] = np.concatenate([state["obs"], reached, others], 1)
        state["stored"] += 1
        state["steps"] += 1
        state["return"] += reward
        state["obs"] = obs
        n_steps += R - int(state["done"].sum())
        watch.lap("env")

        # ---- Learn: the runs whose memory holds enough
        due = (state["stored"] >= args.learning_starts) & ~state["done"]
        if step % args.train_frequency == 0 and due.any():
            stored = np.minimum(state["stored"], args.buffer_size)[:, None]
            places = (state["places"][:, i // args.train_frequency] * stored).astype(int)
            memory = state["memory"].reshape(R * args.buffer_size, -1)
            batch = torch.from_numpy(memory.take(places + here[:, None] * args.buffer_size, axis=0)).to(device)
            watch.lap("sample")
            learn(agent, batch, due, args, obs_dim, each)
            watch.lap("learn")

        # ---- Episodes that ended
        rows = np.flatnonzero(ended & ~state["done"]).tolist()
        for name, tensor in agent["q"].items() if rows else ():
            agent["target"][name][rows] = tensor[rows]
        for r in rows:
            number, run, record, pruned = alive[r], plan[alive[r]], records[alive[r]], bool(state["pruned"][r])
            state["episode"][r] += 1
            episode = int(state["episode"][r])
            returns[number, int(pruned), episode - 1] = state["return"][r]
            state["streak"][r] = state["streak"][r] + 1 if state["return"][r] >= args.stop_return else 0
            state["return"][r] = 0
            if args.epsilon_decay_unit == "episode":
                state["epsilon"][r] = max(state["epsilon"][r] * args.epsilon_decay, args.end_e)
            explored, agree = bool(state["epsilon"][r] <= args.end_e), False
            if explored and not pruned and state["explored_at"][r] < 0:
                state["explored_at"][r] = episode
            # A mask every few episodes: section 3.3, and steps 3 and 4 of algorithm 3.1
            if run["kind"] in ("similarity", "exploit") and not pruned and episode % args.mask_window == 0:
                for f, fraction in enumerate(args.prune_fractions if run["kind"] == "similarity" else ()):
                    flat = su.flat_mask(magnitude_mask(weights_of(agent, r), fraction))
                    drawn[number, f, episode // args.mask_window - 1] = np.packbits(flat.cpu().numpy().astype(bool))
                if run["kind"] == "exploit":
                    agree = detectors[number].update(magnitude_mask(weights_of(agent, r), run["fraction"]))
                    record["distance"] = detectors[number].distance
            streak = int(state["streak"][r])
            event = what_next(args, run, pruned, episode, streak, agree and explored)
            if event != "go on":
                search = not pruned and run["kind"] in ("winning_ticket", "early_bird", "exploit")
                missed = streak < args.stop_episodes  # early stopping; or, of other searches, what they look for
                missed = event == "stop" if search and run["kind"] != "winning_ticket" else missed
                phase = {"episodes": episode, "steps": int(state["steps"][r]), "censored": int(missed)}
                record["search" if search else "train"] = phase
            if event == "stop":
                state["done"][r] = True
            if event == "prune":
                # Equation 2.4 over all weights. Section 3.4 starts over; 3.5 and algorithm 3.1 go on.
                start, over = initial_weights(run), args.experiment == "retrain" or run["kind"] == "winning_ticket"
                masks = magnitude_mask(weights_of(agent, r), run["fraction"])
                record["remaining"] = sum(int(mask.sum()) for mask in masks.values())
                first = magnitude_mask({name: start[name].to(device) for name in weights}, run["fraction"])
                record["from_init"] = su.mask_distance(masks, first)
                from_start = over or run["kind"] == "exploit" and args.finetune_from == "init"
                restarts = ("optimizer", "replay", "epsilon") if over else args.finetune_restarts
                prune(agent, r, masks, start if from_start else None, from_start or "optimizer" in restarts)
                if "replay" in restarts:
                    state["stored"][r] = 0
                if "epsilon" in restarts:
                    state["epsilon"][r] = args.start_e
                state["pruned"][r], state["episode"][r], state["streak"][r], state["steps"][r] = True, 0, 0, 0
        watch.lap("episodes")

        # ---- Test those that are done, and go on without them, once they are a sixteenth of the batch
        done = np.flatnonzero(state["done"])
        if len(done) and 16 * len(done) >= R:
            tests = test(args, [plan[alive[r]] for r in done], {name: t[done] for name, t in agent["q"].items()})
            for r, test_returns in zip(done.tolist(), tests, strict=True):
                number, run, record = alive[r], plan[alive[r]], records[alive[r]]
                record["test"] = [float(test_returns.mean()), float(test_returns.std())]
                record["explored_at"] = explored_at = int(state["explored_at"][r])
                record["rows"] = [result_row(number, run, record, n_weights)]
                if run["kind"] == "similarity":
                    (same,), record["rows"] = record["rows"], []
                    for fraction, bits in zip(args.prune_fractions, drawn[number], strict=True):
                        row = similarity_row(overlap_of_bits(bits, n_weights), episodes, explored_at, fraction)
                        record["rows"].append(same | {"fraction": fraction} | row)
                group = f"{run['kind']}_{run['fraction']:g}"
                writer.add_scalar(f"{group}/test_mean/seed{run['seed']}", record["test"][0], step)
            keep = np.flatnonzero(~state["done"])
            state = {name: array[keep] for name, array in state.items()}
            agent = {kind: {name: t[keep] for name, t in tensors.items()} for kind, tensors in agent.items()}
            streams, alive = [streams[r] for r in keep], [alive[r] for r in keep]
            vector = only(vector, args.env_id, keep) if alive else vector
            progress.update(len(done))
            watch.lap("test")

        # ---- Save
        if alive and (signals or step % args.checkpoint_interval == 0):
            save(finished=False)
            n_steps = 0
        if alive and signals:
            progress.close()
            print(f"stopped after {step:,} steps of each run; the same command goes on from here ({run_dir})")
            raise SystemExit(128 + signals[0])

    save(finished=True)
    progress.close()
    writer.close()
    for kind, fraction in dict.fromkeys((run["kind"], run["fraction"]) for run in plan):
        same = [i for i, run in enumerate(plan) if (run["kind"], run["fraction"]) == (kind, fraction)]
        tests, lengths = ([records[i][a][b] for i in same] for a, b in (("test", 0), ("rows", 0)))
        mean, length = np.mean(tests), np.mean([row["episodes"] for row in lengths])
        name = f"{kind}, P = {fraction:g}" if fraction else kind
        print(f"{name:24} test return {mean:.1f} after {length:.0f} episodes, mean of {len(same)} runs")
    print(f"draw: python plot.py earlybird {run_dir}")
