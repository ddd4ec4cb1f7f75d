"""Early-bird tickets in DQN agents (Dimofte 2023: On the existence of early-bird tickets in reinforcement learning).

    python algos/dqn_earlybird.py --experiment similarity                  # figure 3.3, Cart-Pole: a minute
    python algos/dqn_earlybird.py --experiment retrain --threads 2         # figures 3.4 and 3.5: 530 runs
    python algos/dqn_earlybird.py --experiment finetune --env-id Acrobot-v1
    python algos/dqn_earlybird.py --experiment exploit --xi 0.05 --repetitions 3
    python plot.py earlybird runs/NAME

Does the mask that magnitude pruning draws early in training already belong to a ticket? Four experiments:
    similarity  a mask every 2 episodes of a dense training, all pairs compared (section 3.3)
    retrain     train n episodes, prune, reset to the initial weights, train until early stopping (section 3.4)
    finetune    the same, but go on from the weights of episode n (section 3.5)
    exploit     EB Exploit: prune when exploration is over and two masks in a row agree (section 3.6, algorithm 3.1)
retrain and finetune also have the dense agent and, for each fraction, the "winning ticket": an agent that is pruned
when it reaches early stopping and starts over from its initial weights. exploit also has the dense agent.

All runs (fraction x pruning episode x repetition) are one batched program: every parameter has a leading run axis R,
and each run has its own environment, replay memory, epsilon, target network and phase. Tested runs leave the batch.
A run's random numbers, initial weights included, follow from what it is (repetition, kind, fraction, pruning episode)
and not from what trains beside it; so retrain and finetune share their dense training, run by run.

Writes the folder ``runs/{env}__dqn_earlybird__{experiment}__{seed}__{hash}``, or ``--run-dir``:
    results.csv     a row for each run: the columns of ``Result``, and diverged, the step at which weights were no
                    longer finite, where a run ends and others go on; 0 = never. For similarity a row for each run and
                    fraction, and the mean overlap of pairs of masks within exploration, exploitation, and across
    returns.npz     returns [runs, 2, episodes] of training episodes before and after pruning; nan where there is none
    similarity.npz  overlap [fractions, masks, masks], the mean over repetitions of 1 - distance; fractions; episodes
    timing.csv, config.json, checkpoint.pt, TensorBoard events. The same command started again goes on bit for bit.

Two random masks differ in 2P(1 - P) of the weights, which is 0.32 for fractions P of 0.2 and 0.8 but 0.48 for 0.4 and
0.6; so xi is not equally strict for all of them, and distances are reported relative to this, too. Masks that are few
episodes apart are similar by construction.

Hyper-parameters: tables A and B (``ACROBOT``). What the paper leaves silent, and what differs:
 1. Epsilon decays per episode on Cart-Pole and per step on Acrobot. The text says per step, but only so does
    exploration last about 90 episodes on the one and 5 to 10 on the other, as it also says. The floor is 0.01.
 2. Early stopping looks at training episodes, with their exploration noise. After pruning its count starts anew.
 3. The base of an early-bird ticket trains exactly n episodes, also beyond the point of early stopping. A winning
    ticket whose base never reaches early stopping is pruned at its last episode (search_censored).
 4. retrain starts all anew: optimizer, replay memory, epsilon and with it exploration. finetune and exploit keep
    them, as they go on in the same phase of training. Adam's moments of pruned weights become zero, and the target
    network a copy of the pruned one.
 5. Step 6 of algorithm 3.1 fine-tunes from m * theta_0; its text, its name and figure 3.8 mean the latest weights.
    --finetune-from init is the former, with a new optimizer.
 6. EB Exploit draws masks from the first episode on, every 2 episodes as in experiment 1 (n is not given), and looks
    at their distance once epsilon is at its floor. Its search does not stop early; if it finds nothing in 500
    episodes, the dense network is tested (search_censored). After pruning there are 500 episodes again.
 7. Biases are never pruned, and are not in the masks that are compared. All weights start from PyTorch's default.
 8. At the time limit the value of the last observation is the future's. CartPole-v0 has 200 steps, 12 degrees and a
    reward at the last step too, as in gymnasium; the paper describes 15 degrees and none.
 9. An update is due at every 4th step of a run's life (at every one on Acrobot) if its memory holds enough.
"""

import io
import math
import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import tyro
from torch import Tensor

# sparse_utils.py and envs/ are one folder up; --env-id my_envs:Reach-v0 means my_envs.py where you stand
sys.path += [str(Path(__file__).resolve().parent.parent), os.getcwd()]
import envs.vector  # noqa: E402
import sparse_utils as su  # noqa: E402
from envs.classic import ENV_IDS, ClassicVectorEnv  # noqa: E402

# Tables A and B; the defaults of Args are those of Cart-Pole. Flags given on the command line win.
ACROBOT = {
    "hidden_sizes": (128,),
    "learning_rate": 1e-3,
    "batch_size": 64,
    "buffer_size": 2000,
    "learning_starts": 1000,
    "train_frequency": 1,
    "stop_return": -100.0,
    "epsilon_decay": 0.999,
    "epsilon_decay_unit": "step",
}
TASKS = {"Acrobot-v1": ACROBOT, "MountainCar-v0": {"stop_return": -110.0}}  # -110: where Mountain Car is solved
KINDS = ("dense", "winning_ticket", "early_bird", "exploit", "similarity")  # of runs
CHUNK = 32  # runs that an update computes together: what they need fits into a core's cache
BLOCK = 256  # steps for which a run draws its random numbers at once

Tensors = dict[str, Tensor]
Agent = dict[str, Tensors]
State = dict[str, np.ndarray]


@dataclass
class Args:
    # Run
    experiment: Literal["similarity", "retrain", "finetune", "exploit"] = "retrain"  # 1, 2, 3 or 4 of the paper
    env_id: str = "CartPole-v0"  # CartPole-v0, Acrobot-v1 or another task of envs/classic.py
    repetitions: int = 10  # runs of each kind
    seed: int = 1  # the first repetition's; the others count on from it
    max_episode_steps: int | None = None  # time limit of an episode, in steps; default the task's own
    run_dir: str = ""  # folder to write to; default one of its own in runs/
    fresh: bool = False  # delete what is in the run folder and start over
    checkpoint_interval: int = 5_000  # steps of each run between checkpoints: the most that a kill can cost
    threads: int = 1  # threads that update runs side by side; results do not depend on it
    cuda: bool = False  # use a GPU if there is one
    track: bool = False  # also log to Weights & Biases (pip install wandb)
    wandb_project_name: str = "sparse-rl"  # with --track: the project
    wandb_entity: str | None = None  # with --track: the team
    dry_run: bool = False  # print the network, how many weights pruning keeps and the number of runs, and stop

    # Algorithm (tables A and B)
    hidden_sizes: tuple[int, ...] = (128, 128)  # units of the hidden layers; default 128 for Acrobot
    learning_rate: float = 2.5e-3  # Adam's; default 1e-3 for Acrobot
    buffer_size: int = 1000  # transitions of each run; default 2000 for Acrobot
    batch_size: int = 32  # transitions per update; default 64 for Acrobot
    learning_starts: int = 200  # transitions in the memory before the first update; default 1000 for Acrobot
    train_frequency: int = 4  # steps between updates; default 1 for Acrobot
    gamma: float = 0.99  # discount
    start_e: float = 1.0  # epsilon at the start
    end_e: float = 0.01  # its floor: exploration is over when epsilon is there
    epsilon_decay: float = 0.95  # factor on epsilon for each unit; default 0.999 for Acrobot
    epsilon_decay_unit: Literal["episode", "step"] = "episode"  # default step for Acrobot
    stop_return: float = 200.0  # return of an episode that counts towards early stopping; default by task
    stop_episodes: int = 10  # so many of them in a row stop training
    max_episodes: int = 500  # longest training, before and again after pruning
    test_episodes: int = 100  # greedy episodes after training

    # Pruning
    prune_fractions: tuple[float, ...] = (0.2, 0.4, 0.6, 0.8)  # P: fractions of the weights that pruning removes
    prune_episodes: tuple[int, ...] = (5, 20, 30, 40, 50, 75, 100, 130, 180, 250, 400, 500)  # retrain, finetune: n
    mask_window: int = 2  # similarity, exploit: episodes from one mask to the next
    xi: float = 0.1  # exploit: prune when the distance of masks is below this
    finetune_from: Literal["latest", "init"] = "latest"  # exploit: weights to go on from

    def __post_init__(self) -> None:
        if self.env_id not in ENV_IDS:
            raise ValueError(f"--env-id must be one of {', '.join(ENV_IDS)}, not {self.env_id}")
        su.check_flags(self, "above 0", "repetitions", "checkpoint_interval", "max_episode_steps", "threads")
        su.check_flags(self, "above 0", "hidden_sizes", "buffer_size", "batch_size", "learning_starts")
        su.check_flags(self, "above 0", "train_frequency", "stop_episodes", "max_episodes", "test_episodes")
        su.check_flags(self, "above 0", "prune_episodes", "mask_window")
        su.check_flags(self, "0 or more", "seed", "learning_rate")
        su.check_flags(self, "in [0, 1]", "gamma", "start_e", "end_e", "epsilon_decay", "xi")
        su.check_flags(self, "in (0, 1)", "prune_fractions")
        if self.experiment == "exploit":  # it would never prune
            su.check_flags(self, "above 0", "end_e", "xi")
        for name in ("prune_fractions", "prune_episodes"):  # two runs would be the same one
            if len(set(getattr(self, name))) < len(getattr(self, name)):
                raise ValueError(f"--{name.replace('_', '-')} must be different numbers, not {getattr(self, name)}")
        if BLOCK % self.train_frequency:
            raise ValueError(f"--train-frequency must divide {BLOCK}, not be {self.train_frequency}")
        needed = max(self.prune_episodes) if self.experiment in ("retrain", "finetune") else 2 * self.mask_window
        if self.max_episodes < needed:
            raise ValueError(f"--max-episodes {self.max_episodes} is too short to prune or compare masks at {needed}")


def parse_args() -> Args:
    """The command line, over the defaults of its task."""
    task = TASKS.get(su.flag_given("env-id", Args.env_id), {})
    return tyro.cli(Args, description=__doc__, default=Args(**task))


# ---- The four experiments --------------------------------------------------------------------------------------------


@dataclass
class Result:
    """A row of results.csv."""

    run: int
    kind: str
    seed: int
    fraction: float  # P, of the weights that pruning removes; 0 for none
    prune_at: int  # episode after which it is pruned; 0 if that is not fixed
    search_episodes: int = 0  # until pruning
    search_steps: int = 0
    search_censored: int = 0  # 1 if what the search waits for did not come (see 3 and 6)
    episodes: int | None = None  # after pruning, or all of a dense agent; none if it was never pruned
    steps: int | None = None
    censored: int = 0  # 1 if early stopping was not reached, and episodes is then the maximum
    total_episodes: int = 0
    remaining: int = 0  # weights
    remaining_fraction: float = 1.0
    explored_at: int = -1  # episode before pruning at which epsilon was at its floor, or -1
    test_mean: float = math.nan  # of the returns of greedy episodes
    test_std: float = math.nan
    distance: float | None = None  # of the masks that EB Exploit compared last
    distance_relative: float | None = None  # to that of random masks, 2P(1 - P)
    from_init: float | None = None  # distance of the mask at pruning from the one that the initial weights give
    from_init_relative: float | None = None


@dataclass
class Run(Result):
    """A run: its result, and where it is."""

    phase: int = 0
    began: int = 0  # step at which the phase began
    episode: int = 0  # of the phase
    streak: int = 0  # good episodes in a row, up to the last; what early stopping waits for, once there, stays
    diverged: int = 0  # step
    tested: bool = False
    masks: list[Any] = field(default_factory=list)  # similarity: all, a bit for each weight; exploit: the last one
    overlap: Tensor | None = None  # similarity: of all pairs of masks, [fractions, masks, masks]


class Phase(NamedTuple):
    """Train ``until`` this is true after an episode, for --max-episodes at most; then prune, start what is named anew
    and go on to the next phase. Test after the last one, or if ``or_test`` and it never was true."""

    until: Callable[[Args, Run, Tensors], bool]
    anew: Sequence[str] = ()
    or_test: bool = False


def recipes(args: Args) -> dict[str, list[Phase]]:
    """The kinds of runs of an experiment, and the phases of each."""
    start_over = ("weights", "optimizer", "replay", "epsilon")
    search = Phase(masks_agree, ("weights", "optimizer") if args.finetune_from == "init" else (), or_test=True)
    train = Phase(early_stopping)
    references = {"dense": [train], "winning_ticket": [Phase(early_stopping, start_over), train]}
    return {
        "similarity": {"similarity": [Phase(last_episode)]},  # section 3.3
        "retrain": {**references, "early_bird": [Phase(episode_n, start_over), train]},  # section 3.4
        "finetune": {**references, "early_bird": [Phase(episode_n), train]},  # section 3.5
        "exploit": {"dense": [train], "exploit": [search, train]},  # section 3.6
    }[args.experiment]


def early_stopping(args: Args, run: Run, q: Tensors) -> bool:
    """Section 3.2: so many good episodes in a row."""
    return run.streak >= args.stop_episodes


def episode_n(args: Args, run: Run, q: Tensors) -> bool:
    return run.episode == run.prune_at


def last_episode(args: Args, run: Run, q: Tensors) -> bool:
    """Section 3.3: a mask for each fraction every few episodes, and no early stopping, but did it come by the end?"""
    if run.episode % args.mask_window == 0:
        masks = torch.stack([su.flat_mask(magnitude_mask(q, p)) for p in args.prune_fractions])
        run.masks.append(torch.from_numpy(np.packbits(masks.numpy().astype(bool), axis=-1)))
    return run.episode == args.max_episodes and early_stopping(args, run, q)


def masks_agree(args: Args, run: Run, q: Tensors) -> bool:
    """Algorithm 3.1, steps 2 to 5: exploration is over, and the newest mask is similar to the one before it."""
    if run.episode % args.mask_window:
        return False
    newest, before = magnitude_mask(q, run.fraction), run.masks
    run.masks = [newest]
    run.distance = su.mask_distance(newest, before[0]) if before else math.nan
    run.distance_relative = run.distance / (2 * run.fraction * (1 - run.fraction))
    return run.distance < args.xi and run.explored_at >= 0


def magnitude_mask(q: Tensors, fraction: float) -> Tensors:
    """Equation 2.4 over all weights of a network together, whatever was pruned before."""
    weights = {name: tensor.cpu() for name, tensor in q.items() if name.endswith("weight")}
    return su.prune_ticket(weights, {name: torch.ones_like(w) for name, w in weights.items()}, fraction)


@torch.no_grad()
def prune(args: Args, run: Run, r: int, agent: Agent, state: State, start: Tensors, anew: Sequence[str]) -> None:
    """Prune the run in row r and start anew what is named, in place. ``start`` are its initial parameters."""
    masks = magnitude_mask(rows_of(agent["q"], r), run.fraction)
    n_weights, run.remaining = run.remaining, sum(int(mask.sum()) for mask in masks.values())
    run.remaining_fraction = run.remaining / n_weights
    run.from_init = su.mask_distance(masks, magnitude_mask(start, run.fraction))
    run.from_init_relative = run.from_init / (2 * run.fraction * (1 - run.fraction))
    for name, tensor in agent["q"].items():
        if name in masks:
            agent["masks"][name][r] = masks[name]
        mask = agent["masks"][name][r] if name in masks else 1
        if "weights" in anew:
            tensor[r] = start[name]
        tensor[r] *= mask
        agent["target"][name][r] = tensor[r]
        agent["exp_avg"][name][r] *= 0 if "optimizer" in anew else mask
        agent["exp_avg_sq"][name][r] *= 0 if "optimizer" in anew else mask
    if "optimizer" in anew:
        agent["updates"]["all"][r] = 0
    if "replay" in anew:
        state["stored"][r] = 0
    if "epsilon" in anew:
        state["epsilon"][r] = args.start_e


# ---- The runs and their networks -------------------------------------------------------------------------------------


def plan_runs(args: Args, n_weights: int) -> list[Run]:
    """All runs of an experiment."""
    by_fraction = [(p, 0) for p in args.prune_fractions]
    by_episode = [(p, n) for n in sorted(args.prune_episodes, reverse=True) for p in args.prune_fractions]
    pruned = {"winning_ticket": by_fraction, "exploit": by_fraction, "early_bird": by_episode}
    seeds = range(args.seed, args.seed + args.repetitions)
    keys = [(kind, seed, p, n) for kind in recipes(args) for p, n in pruned.get(kind, [(0.0, 0)]) for seed in seeds]
    return [Run(i, kind, seed, p, n, remaining=n_weights) for i, (kind, seed, p, n) in enumerate(keys)]


def run_seed(run: Run, purpose: int) -> int:
    """A seed of the run's own: 0 for its weights, 1 for its agent's noise, 2 for its episodes, 3 for its test."""
    return su.seeds(run.seed, KINDS.index(run.kind), round(run.fraction * 1e6), run.prune_at, purpose)[0]


def initial_parameters(sizes: Sequence[int], run: Run) -> Tensors:
    """Weights [in, out] and biases [1, out] of a run's fully connected layers."""
    like = {}
    for i, (n_in, n_out) in enumerate(pairwise(sizes)):
        like[f"{i}.weight"] = torch.empty(1, n_in, n_out)
        like[f"{i}.bias"] = torch.empty(1, 1, n_out)
    return su.initial_parameters(like, generator=torch.Generator().manual_seed(run_seed(run, 0)))


def new_agent(starts: Sequence[Tensors]) -> Agent:
    """What DQN learns with, from the initial parameters of each run. All tensors have the run axis in front."""
    q = {name: torch.stack([start[name] for start in starts]) for name in starts[0]}
    return {
        "q": q,
        "target": {name: tensor.clone() for name, tensor in q.items()},
        "exp_avg": {name: torch.zeros_like(tensor) for name, tensor in q.items()},
        "exp_avg_sq": {name: torch.zeros_like(tensor) for name, tensor in q.items()},
        "masks": {name: torch.ones_like(tensor) for name, tensor in q.items() if name.endswith("weight")},
        "updates": {"all": torch.zeros(len(starts))},
    }


def rows_of(tensors: Tensors, rows: Any) -> Tensors:
    """Of some runs, or of one: views, if ``rows`` is a slice or a number."""
    return {name: tensor[rows] for name, tensor in tensors.items()}


def q_values(q: Tensors, x: Tensor) -> Tensor:
    """Action values [R, B, A] of R ReLU networks for observations [R, B, dim]."""
    tensors = list(q.values())
    for weight, bias in zip(tensors[:-2:2], tensors[1:-2:2], strict=True):
        x = torch.baddbmm(bias, x, weight).relu_()
    return torch.baddbmm(tensors[-1], x, tensors[-2])


@torch.no_grad()
def greedy(q: Tensors, obs: np.ndarray) -> np.ndarray:
    """Best actions [R, N] for observations [R * N, dim]."""
    weight = next(iter(q.values()))
    x = torch.from_numpy(obs).to(weight.device).unflatten(0, (len(weight), -1))
    return q_values(q, x).argmax(-1).cpu().numpy()


def learn(agent: Agent, batch: Tensor, due: np.ndarray, args: Args, obs_dim: int, each: Callable = map) -> None:
    """One update of each run in ``due``, bool [R], in place. ``batch`` [R, B, 2 * obs_dim + 3] are rows of memory.

    Plain DQN (Mnih et al. 2013): squared distance to reward + gamma * max Q_target(s'), and only a true end has no
    future. Runs are taken a chunk at a time, by ``each``: ``map``, or that of a pool of threads.
    """

    def update(begin: int) -> None:
        chunk = slice(begin, begin + CHUNK)
        rows = np.flatnonzero(due[chunk]).tolist()
        if not rows:
            return
        agents = {kind: rows_of(tensors, chunk) for kind, tensors in agent.items()}
        obs, next_obs, action, reward, terminated = batch[chunk].split([obs_dim, obs_dim, 1, 1, 1], -1)
        q = {name: tensor.detach().requires_grad_() for name, tensor in agents["q"].items()}
        with torch.no_grad():
            future = q_values(agents["target"], next_obs).amax(-1, keepdim=True)
            target = reward + args.gamma * (1 - terminated) * future
        value = q_values(q, obs).gather(-1, action.long())
        loss = (value - target).square().mean(1).sum()  # each run's gradient is that of its own mean
        gradients = dict(zip(q, torch.autograd.grad(loss, list(q.values())), strict=True))
        torch._foreach_mul_([gradients[name] for name in agents["masks"]], list(agents["masks"].values()))
        adam(agents, gradients, rows, args.learning_rate)

    list(each(update, range(0, len(due), CHUNK)))


@torch.no_grad()
def adam(agent: Agent, gradients: Tensors, rows: list[int], learning_rate: float) -> None:
    """A step of Adam for the networks in ``rows``, in place: the kernel of torch.optim.Adam(fused=True), which takes a
    step count for each tensor, as runs start anew at different times."""
    agent["updates"]["all"][rows] += 1
    updates = dict.fromkeys(gradients, agent["updates"]["all"])
    parameters, grads, exp_avgs, exp_avg_sqs, steps = (
        [networks[r] for networks in map(torch.unbind, tensors.values()) for r in rows]
        for tensors in (agent["q"], gradients, agent["exp_avg"], agent["exp_avg_sq"], updates)
    )
    torch._fused_adam_(
        parameters, grads, exp_avgs, exp_avg_sqs, [], steps, lr=learning_rate, beta1=0.9, beta2=0.999, eps=1e-8,
        weight_decay=0.0, amsgrad=False, maximize=False,
    )  # fmt: skip


# ---- Environments, and what is written -------------------------------------------------------------------------------


def make_envs(args: Args, runs: int, envs_per_run: int = 1) -> ClassicVectorEnv:
    return envs.vector.make(args.env_id, runs, envs_per_run, max_episode_steps=args.max_episode_steps)


def test(args: Args, runs: Sequence[Run], q: Tensors) -> np.ndarray:
    """Returns [R, test episodes] of greedy episodes."""
    vector = make_envs(args, len(runs), args.test_episodes)
    return envs.vector.play(vector, lambda obs: greedy(q, obs), [run_seed(run, 3) for run in runs])


def overlaps(args: Args, run: Run) -> Tensor:
    """Of all pairs of a run's masks, [fractions, masks, masks]; nan if it has diverged."""
    n_masks = args.max_episodes // args.mask_window
    if run.diverged:
        return torch.full((len(args.prune_fractions), n_masks, n_masks), math.nan)
    bits = torch.stack(run.masks, 1).numpy()
    return su.overlap_matrix(torch.from_numpy(np.unpackbits(bits, axis=-1, count=run.remaining)).float())


def result_rows(args: Args, run: Run) -> list[dict[str, Any]]:
    """Of results.csv. Those of similarity also have the mean overlap of pairs of masks, within exploration and so on,
    and the same as a distance relative to that of random masks; nan where there is no such pair."""
    row = {column.name: getattr(run, column.name) for column in fields(Result)}
    if run.overlap is None:
        return [{**row, "diverged": run.diverged}]
    table, episodes = [], args.mask_window * np.arange(1, 1 + run.overlap.shape[1])
    early = episodes <= (run.explored_at if run.explored_at >= 0 else args.max_episodes)
    first, second = np.triu_indices(len(episodes), 1)
    n_early = early[first].astype(int) + early[second]
    pairs = {"all": n_early >= 0, "explore": n_early == 2, "exploit": n_early == 0, "across": n_early == 1}
    for p, overlap in zip(args.prune_fractions, run.overlap.numpy(), strict=True):
        means = {}
        for name, chosen in pairs.items():
            mean = float(overlap[first, second][chosen].mean()) if chosen.any() else math.nan
            means[f"overlap_{name}"] = mean
            means[f"distance_{name}_relative"] = (1 - mean) / (2 * p * (1 - p))
        table.append({**row, "fraction": p, **means, "diverged": run.diverged})
    return table


def save_npz(file: Path, **arrays: np.ndarray) -> None:
    contents = io.BytesIO()
    np.savez_compressed(contents, **arrays)
    su.write_atomically(file, lambda temporary: temporary.write_bytes(contents.getvalue()))


if __name__ == "__main__":
    args = parse_args()
    alone = replace(args, threads=1)  # small products are fastest on one thread
    device = su.set_up_torch(alone)
    each = map
    if args.threads > 1:
        each = ThreadPoolExecutor(args.threads, initializer=su.set_up_torch, initargs=(alone,)).map

    # ---- Task, network and runs
    vector = make_envs(args, 1)
    obs_dim, n_actions = vector.single_observation_space.shape[0], int(vector.single_action_space.n)
    sizes = (obs_dim, *args.hidden_sizes, n_actions)
    n_weights = sum(n_in * n_out for n_in, n_out in pairwise(sizes))
    phases_of, plan = recipes(args), plan_runs(args, n_weights)
    if args.dry_run:
        weights = initial_parameters(sizes, plan[0])
        print(su.describe({name: tensor for name, tensor in weights.items() if name.endswith("weight")}, {}))
        for p in args.prune_fractions:
            print(f"pruned by {p:g}: {su.n_remaining(n_weights, p):,} weights are left")
        print(f"{len(plan)} runs: {', '.join(f'{sum(run.kind == k for run in plan)} {k}' for k in phases_of)}")
        raise SystemExit(0)

    # ---- All runs at their start, or where they were. ``runs`` are those in the batch; the others have been tested.
    folder, checkpoint = su.start_run(args, "dqn_earlybird", args.experiment)
    stop = su.StopSignal()
    starts = [initial_parameters(sizes, run) for run in plan]
    agent, runs, R, step = new_agent(starts), plan, len(plan), 0
    vector = make_envs(args, R)
    state = {
        "obs": envs.vector.reset(vector, [run_seed(run, 2) for run in plan]),
        "memory": np.zeros((R, args.buffer_size, 2 * obs_dim + 3), np.float32),  # obs, next, action, reward, terminated
        "stored": np.zeros(R, int),  # transitions so far, of which the memory holds the newest
        "return": np.zeros(R),  # of the episode so far
        "epsilon": np.full(R, args.start_e),
        "done": np.zeros(R, bool),  # trained, but not tested
        "noise": np.zeros((R, BLOCK, 2)),  # whether to explore, and which action to take
        "places": np.zeros((R, BLOCK // args.train_frequency, args.batch_size)),  # of batches in the memory
    }
    returns = np.full((R, 2, args.max_episodes), np.nan, np.float32)
    if checkpoint is not None:
        step, agent = checkpoint["step"], checkpoint["agent"]
        state = {name: tensor.numpy() for name, tensor in checkpoint["state"].items()}
        returns = checkpoint["returns"].numpy()
        plan = [Run(**saved) for saved in checkpoint["plan"]]
        runs = [run for run in plan if not run.tested]
        vector = make_envs(args, len(runs))
        vector.set_state(checkpoint["envs"])
    agent = {kind: {name: tensor.to(device) for name, tensor in tensors.items()} for kind, tensors in agent.items()}

    def save() -> None:
        """All that there is so far."""
        seconds = watch.take()
        speed = n_steps / sum(seconds.values())
        timing = {"step": step, "runs": R, "env_steps": n_steps, "steps_per_second": speed, **seconds}
        writer.add_scalar("charts/SPS", speed, step)
        su.write_csv(folder / "timing.csv", [*su.read_csv(folder / "timing.csv"), timing])
        su.write_csv(folder / "results.csv", [row for run in plan if run.tested for row in result_rows(args, run)])
        save_npz(folder / "returns.npz", returns=returns)
        checkpoint = {
            "args": asdict(args),
            "finished": not runs,
            "step": step,
            "plan": [vars(run) for run in plan],
            "returns": torch.from_numpy(returns),
            "agent": agent,
            "state": {name: torch.from_numpy(array) for name, array in state.items()},
            "envs": vector.get_state(),
        }
        su.save_checkpoint(folder / "checkpoint.pt", checkpoint)
        watch.lap("save")

    watch = su.Stopwatch("act", "env", "sample", "learn", "episodes", "test", "save")
    writer = su.summary_writer(args, folder, step)
    progress = su.progress_bar(len(plan), len(plan) - len(runs), "run")
    saved_at, n_steps = step, 0  # n_steps are those of all runs since then
    while True:
        # ---- Test the runs that are done, once they are a sixteenth of the batch, and go on without them
        done, tests = np.flatnonzero(state["done"]).tolist(), None
        if done and 16 * len(done) >= len(runs):
            tests = stop.interruptible(test, args, [runs[r] for r in done], rows_of(agent["q"], done))
        if tests is not None:
            for run, scores in zip([runs[r] for r in done], tests, strict=True):
                run.tested = True
                if not run.diverged:
                    run.test_mean, run.test_std = float(scores.mean()), float(scores.std())
                if run.kind == "similarity":
                    run.overlap, run.masks = overlaps(args, run), []
                writer.add_scalar(f"{run.kind}_{run.fraction:g}/test_mean/seed{run.seed}", run.test_mean, step)
            keep = np.flatnonzero(~state["done"]).tolist()
            agent = {kind: rows_of(tensors, keep) for kind, tensors in agent.items()}
            runs, state = [runs[r] for r in keep], rows_of(state, keep)
            vector = vector.keep(keep) if keep else vector
            progress.update(len(done))
        watch.lap("test")
        if not runs:
            break

        # ---- Save
        if stop.signal or step - saved_at >= args.checkpoint_interval:
            save()
            saved_at, n_steps = step, 0
        if stop.signal:
            progress.close()
            print(f"stopped after {step:,} steps of each run; the same command goes on from here ({folder})")
            raise SystemExit(128 + stop.signal)

        # ---- Random numbers. All runs have made as many steps of their lives, and draw at the same time.
        R, here, i = len(runs), np.arange(len(runs)), step % BLOCK
        if i == 0:
            so_far = step // BLOCK * (state["noise"][0].size + state["places"][0].size)
            for r, run in enumerate(runs):
                stream = np.random.Generator(np.random.PCG64(run_seed(run, 1)).advance(so_far))
                stream.random(out=state["noise"][r])
                stream.random(out=state["places"][r])
            progress.set_postfix_str(f"{R} runs after {step:,} steps of each", refresh=False)
        step += 1

        # ---- Act: epsilon-greedy
        best = greedy(agent["q"], state["obs"])[:, 0]
        explore, which = state["noise"][:, i].T
        action = np.where(explore < state["epsilon"], (which * n_actions).astype(int), best)
        if args.epsilon_decay_unit == "step":
            state["epsilon"] = np.maximum(state["epsilon"] * args.epsilon_decay, args.end_e)
        watch.lap("act")
        obs, reward, terminated, truncated, info = vector.step(action)
        ended = terminated | truncated
        next_obs = envs.vector.last_observations(obs, ended, info)
        transition = np.column_stack([state["obs"], next_obs, action, reward, terminated])
        state["memory"][here, state["stored"] % args.buffer_size] = transition
        state["stored"] += 1
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
        q = rows_of(agent["q"], rows) if rows else {}
        for name, tensor in q.items():
            agent["target"][name][rows] = tensor
        sums = sum(tensor.flatten(1).sum(1) for tensor in q.values())  # not finite if a weight is not
        for r, finite in zip(rows, sums.isfinite().tolist() if rows else [], strict=True):
            run = runs[r]
            returns[run.run, run.phase, run.episode] = state["return"][r]
            run.episode += 1
            good = state["return"][r] >= args.stop_return or early_stopping(args, run, q)
            run.streak = run.streak + 1 if good else 0
            state["return"][r] = 0
            if args.epsilon_decay_unit == "episode":
                state["epsilon"][r] = max(state["epsilon"][r] * args.epsilon_decay, args.end_e)
            if run.phase == 0 and run.explored_at < 0 and state["epsilon"][r] <= args.end_e:
                run.explored_at = run.episode
            phase, *later = phases_of[run.kind][run.phase :]
            came = finite and phase.until(args, run, rows_of(agent["q"], r))
            if finite and not came and run.episode < args.max_episodes:
                continue

            # ---- The phase is over: note its length; test, or prune and go on
            run.total_episodes += run.episode
            if later:
                run.search_episodes, run.search_steps = run.episode, step - run.began
                run.search_censored = int(not came)
            else:
                run.episodes, run.steps = run.episode, step - run.began
                run.censored = int(not came)
            if not finite:
                run.diverged = step
                progress.write(f"{run.kind} of seed {run.seed}, P = {run.fraction:g}: diverged before step {step:,}")
            if later and finite and (came or not phase.or_test):
                prune(args, run, r, agent, state, starts[run.run], phase.anew)
                run.phase, run.began, run.episode, run.streak = run.phase + 1, step, 0, 0
            else:
                state["done"][r] = True
        watch.lap("episodes")

    if args.experiment == "similarity":
        overlap = [run.overlap.numpy() for run in plan if not run.diverged] or [plan[0].overlap.numpy()]
        episodes = np.arange(args.mask_window, args.max_episodes + 1, args.mask_window)
        axes = {"fractions": np.array(args.prune_fractions), "episodes": episodes}
        save_npz(folder / "similarity.npz", overlap=np.mean(overlap, 0, dtype=np.float32), **axes)
    save()
    progress.close()
    writer.close()
    for kind, p in dict.fromkeys((run.kind, run.fraction) for run in plan):
        same = [run for run in plan if (run.kind, run.fraction) == (kind, p) and not run.diverged]
        test = np.mean([run.test_mean for run in same] or [math.nan])
        lengths = [run.episodes for run in same if run.episodes is not None]
        after = f"after {np.mean(lengths):.0f} episodes" if lengths else "without pruning"
        name = f"{kind}, P = {p:g}" if p else kind
        print(f"{name:24} test return {test:.1f} {after}, mean of {len(same)} runs")
    print(f"draw: python plot.py earlybird {folder}")
