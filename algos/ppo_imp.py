"""Lottery tickets in PPO agents by iterative magnitude pruning (Vischer, Lange, Sprekeler 2022).

    python algos/ppo_imp.py                                    # Cart-Pole, 5 seeds, 4 conditions: 15 minutes
    python algos/ppo_imp.py --env-id Acrobot-v1 --seeds 1 2 3 --conditions ticket random_reinit
    python algos/ppo_imp.py --env-id HopperBulletEnv-v0 --seeds 1 --conditions ticket --total-timesteps 300000
    python algos/ppo_imp.py --init kaiming --input-init-scale 0.1            # section 4.2: which inputs survive?
    python algos/ppo_imp.py --rounds 0 --input-mask runs/NAME/tickets/round09_ticket_seed1.pt    # are they enough?
    python algos/ppo_imp.py --evaluate runs/NAME/tickets/round09_ticket_seed1.pt --capture-video
    python plot.py tickets runs/NAME

Each round trains the full budget from the initial weights under the round's masks, takes the best checkpoint of the
round, removes 20% of the weights that remain and rewinds (section 2). Round 0 is dense and shared by the conditions;
after it every condition goes on with its own networks (section 3, figure 1):
    ticket              masks from its own trained networks, initial weights              (mask/weights)
    mask_permuted       the same, initial weights shuffled within each layer              (mask/permuted)
    permuted_permuted   each layer's mask shuffled, too                                   (permuted/permuted)
    random_reinit       a new random mask over all layers, new initial weights            (random/re-init)

All runs (seeds x conditions) of a round are one batched program: every parameter has a leading run axis R and every
batch is [R, ...]. It reads as one agent with one more axis. A run of tanh networks learns the same, bit for bit on one
CPU thread, whatever runs train beside it: its randomness is keyed by (seed, round) and shared by a seed's conditions.

Writes the folder ``runs/{env}__ppo_imp__{actor or both}__{n}seeds__{hash}``, or ``--run-dir``:
    results.csv     a row per round and run: round, seed, condition; remaining (weights), remaining_fraction;
                    inputs_alive and alive_inputs (inputs with a weight left in the actor's first layer, and which);
                    density_* of each layer; best_return (the best evaluation of the round, as in the paper),
                    best_retest (that checkpoint over 100 new episodes: a maximum over noisy evaluations flatters),
                    final_return (of the last evaluation), steps_to_best (to the first evaluation at best_return)
    curves.csv      a row per evaluation: round, seed, condition, step, return_mean, return_std
    tickets/        a file per round and run: masks, initial weights, best weights; su.load_ticket reads it
    config.json, timing.csv, checkpoint.pt, events.*

The same command started again goes on after the last finished round, to the same results.

Hyper-parameters: tables 3, 5, 7 and 9 (``TASKS``). What the paper leaves silent, and what differs:
 1. Rollouts of 64 steps of each environment for Cart-Pole and 128 for others; minibatches of 32 (Cart-Pole), 128
    (Acrobot) and 64 transitions; tanh; learning rate falling to zero; Adam's epsilon 1e-5; gradient norm 0.5;
    advantages normalised per rollout; rewards as they are. With these all dense agents of ten seeds solve Cart-Pole and
    Acrobot in the budget, and stay there.
 2. Evaluation every tenth of the budget, 20 episodes (10 for Bullet, MuJoCo and Atari), mean or most likely
    action. Of equal evaluations the later counts as the best, as it has trained longer. best_retest is ours.
 3. Biases and the log-std are never pruned. Actor and critic share nothing. The log-std does not depend on the state
    and starts at 0. Actions are clipped to their bounds. The optimizer is new in each round.
 4. Every condition re-prunes its own trained networks, as in the authors' later code; --baseline-mask ticket takes
    the masks of the same seed's and round's ticket instead. Masks are shuffled entry by entry.
 5. At the time limit the value of the last observation is the future's, in training.
 6. MuJoCo is not in the paper: Bullet's hyper-parameters, and observations normalised by their running statistics,
    which are rewound with the weights. All tasks that are not named here have the same; MountainCar has Acrobot's.
 7. Atari: table 9 with the Nature CNN, 512 units after it; sticky actions (0.25), four frames of 84 x 84, no other
    tricks in the environment (see envs/vector.py); learning takes the sign of the rewards, returns do not.
 8. MazeGrid with PPO (figure 12) has no table: it has Atari's numbers, with networks and budget as in dqn_imp.py.
 9. Weight decay is L2 through Adam on weights alone; dropout acts in updates, not while acting.
"""

import math
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import gymnasium as gym
import numpy as np
import torch
import tyro
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

sys.path.append(str(Path(__file__).resolve().parent.parent))  # sparse_utils.py and envs/ are one folder up
import envs.vector  # noqa: E402
import sparse_utils as su  # noqa: E402

# Tables 3, 5, 7 and 9, with sizes of the networks from tables 2, 4 and 6. Flags given on the command line win.
CARTPOLE = {}  # the defaults of Args are those of Cart-Pole
LONGER = {"num_steps": 128, "num_minibatches": 4}  # rollouts of all tasks but Cart-Pole
ACROBOT = LONGER | {"total_timesteps": 500_000, "gae_lambda": 0.95, "ent_coef": 0.01, "hidden_sizes": (128, 64)}
BULLET = LONGER | {"total_timesteps": 1_500_000, "num_envs": 10, "gae_lambda": 0.98, "update_epochs": 10}
BULLET |= {"num_minibatches": 20, "eval_episodes": 10, "prune": "both"}
MUJOCO = BULLET | {"normalize_obs": True}  # not in the paper
ATARI = BULLET | {"total_timesteps": 2_500_000, "hidden_sizes": (512,), "prune": "actor"}
MAZEGRID = ATARI | {"total_timesteps": 5_000_000, "hidden_sizes": (256, 128)}
TASKS = {"CartPole-v0": CARTPOLE, "CartPole-v1": CARTPOLE, "Acrobot-v1": ACROBOT, "MountainCar-v0": ACROBOT}


@dataclass
class Args:
    # Run
    env_id: str = "CartPole-v1"
    """any task with Box observations and Discrete or Box actions: Cart-Pole, Acrobot, Bullet, MuJoCo, ALE/*-v5 ..."""
    seeds: tuple[int, ...] = (1, 2, 3, 4, 5)
    """a chain of rounds for each seed and condition"""
    total_timesteps: int = 80_000
    """environment steps of a run in each round; default by task"""
    rounds: int = 20
    """pruning rounds, after the dense round 0; a run goes on from where it is if there are more than before"""
    run_dir: str = ""
    """folder to write to"""
    fresh: bool = False
    """delete what is in the run folder and start over"""
    eval_interval: int = 8_000
    """environment steps of a run between evaluations; default a tenth of --total-timesteps"""
    eval_episodes: int = 20
    """episodes per evaluation; default 10 for all but Cart-Pole, Acrobot and MountainCar"""
    threads: int = 1
    """CPU threads of PyTorch; small networks are fastest with one"""
    async_envs: bool = False
    """a process for each environment of every run, those of evaluations too, where the simulator is slow"""
    cuda: bool = False
    """use a GPU if there is one"""
    track: bool = False
    """also log to Weights & Biases (pip install wandb)"""
    wandb_project_name: str = "sparse-rl"
    """with --track: the project"""
    wandb_entity: str | None = None
    """with --track: the team"""
    evaluate: str = ""
    """a file in tickets/: evaluate its best weights, in its own task, for --eval-episodes and stop"""
    capture_video: bool = False
    """with --evaluate: write one episode beside the ticket, as a gif"""
    dry_run: bool = False
    """print the networks and how many weights each round keeps, and stop"""

    # Algorithm (tables 3, 5, 7 and 9)
    num_envs: int = 4
    """environments of each run; default 10 for all but Cart-Pole, Acrobot and MountainCar"""
    num_steps: int = 64
    """steps of each environment per rollout; default 64 for Cart-Pole, 128 for all others"""
    update_epochs: int = 4
    """passes over each rollout; default 10 for all but Cart-Pole, Acrobot and MountainCar"""
    num_minibatches: int = 8
    """minibatches per pass; default 8 for Cart-Pole, 4 for Acrobot, 20 for all others"""
    learning_rate: float = 5e-4
    """Adam's"""
    anneal_lr: bool = True
    """learning rate falls linearly to zero over a round"""
    gamma: float = 0.99
    """discount"""
    gae_lambda: float = 0.8
    """lambda of generalised advantage estimation; default by task"""
    clip_coef: float = 0.2
    """clipping of the probability ratio"""
    ent_coef: float = 0.001
    """coefficient of the entropy; default by task"""
    vf_coef: float = 0.5
    """coefficient of the value loss"""
    max_grad_norm: float = 0.5
    """largest norm of a run's gradient"""
    normalize_obs: bool = False
    """normalise observations by their running mean and standard deviation; default on for MuJoCo"""

    # Networks
    hidden_sizes: tuple[int, ...] = (64, 64)
    """units of hidden layers of actor and critic (of a Nature CNN: after its convolutions); default by task"""
    init: Literal["kaiming", "he", "xavier", "orthogonal"] = "kaiming"
    """kaiming is PyTorch's default (a = sqrt 5), he has the gain of ReLU; no output layer is scaled down"""
    input_init_scale: float = 1.0
    """factor on the initial weights of the first layers; 0.1 is the paper's rescaling (section 4.2)"""
    weight_decay: float = 0.0
    """L2 on the weights, through Adam (figure 14)"""
    dropout: float = 0.0
    """probability with which an update leaves out a hidden unit (figure 14)"""

    # Tickets
    conditions: tuple[Literal["ticket", "mask_permuted", "permuted_permuted", "random_reinit"], ...] = su.CONDITIONS
    """what to compare"""
    prune: Literal["actor", "both"] = "actor"
    """prune the actor alone, or actor and critic together (figure 15); default both for Bullet and MuJoCo"""
    prune_fraction: float = 0.2
    """fraction of the remaining weights that each round removes"""
    baseline_mask: Literal["own", "ticket"] = "own"
    """whose trained networks a baseline's masks come from"""
    rewind_steps: int = 0
    """rewind to the weights that round 0 had after so many steps, not to the initial ones (figure 14)"""
    input_mask: str = ""
    """a file in tickets/: see only the inputs that its first layer still reads (figures 7 and 8, bottom)"""


def parse_args() -> Args:
    """The command line over the task's defaults. Ends the program with one line if it makes no sense."""
    given = tyro.cli(Args, args=su.flags_without_help())
    families = {"ALE/": ATARI, "MazeGrid": MAZEGRID, "Bullet": BULLET}
    family = next((flags for name, flags in families.items() if name in given.env_id), MUJOCO)
    task = TASKS.get(given.env_id, family)
    default = replace(Args(), **task)
    budget = tyro.cli(Args, args=su.flags_without_help(), default=default).total_timesteps
    args = tyro.cli(Args, description=__doc__, default=replace(default, eval_interval=max(1, budget // 10)))
    su.check_ticket_flags(args)
    su.check_flags(args, "above 0", "total_timesteps", "num_steps", "update_epochs", "clip_coef", "max_grad_norm")
    su.check_flags(args, "0 or more", "weight_decay", "learning_rate", "ent_coef", "vf_coef")
    su.check_flags(args, "in [0, 1]", "gamma", "gae_lambda")
    su.check_flags(args, "in [0, 1)", "dropout")
    if args.num_minibatches < 1 or args.num_envs * args.num_steps % args.num_minibatches:
        su.fail(f"--num-minibatches {args.num_minibatches} does not divide {args.num_envs} * {args.num_steps} steps")
    if args.total_timesteps < args.num_envs * args.num_steps:
        su.fail(
            f"--total-timesteps {args.total_timesteps} is less than a rollout of {args.num_envs} * {args.num_steps}"
        )
    last = args.total_timesteps - args.total_timesteps % (args.num_envs * args.num_steps)
    if args.rewind_steps > last:
        su.fail(f"--rewind-steps {args.rewind_steps} is beyond the last update, after {last} steps")
    return args


# ---- Networks --------------------------------------------------------------------------------------------------------


class Network(nn.Module):
    """R independent networks: x [R, B, ...] -> [R, B, out]. Vectors go through tanh layers, pictures [C, 84, 84] of
    bytes through the Nature CNN (Mnih et al. 2015) with ReLU. ``log_std`` is that of Gaussian actions."""

    def __init__(self, runs: int, obs_shape: Sequence[int], hidden_sizes: Sequence[int], n_out: int, log_std: bool):
        super().__init__()
        layers, n_in = [], obs_shape[0]
        if len(obs_shape) == 3:
            for channels, kernel_size, stride in ((32, 8, 4), (64, 4, 2), (64, 3, 1)):
                layers.append(su.BatchedConv2d(runs, n_in, channels, kernel_size, stride))
                n_in = channels
            n_in = 64 * 7 * 7
        sizes = (n_in, *hidden_sizes, n_out)
        layers += [su.BatchedLinear(runs, *ends) for ends in zip(sizes[:-1], sizes[1:], strict=True)]
        self.layers = nn.ModuleList(layers)
        self.activation = torch.relu if len(obs_shape) == 3 else torch.tanh
        if log_std:
            self.log_std = nn.Parameter(torch.zeros(runs, 1, n_out))

    def forward(self, x: Tensor, kept: Sequence[Tensor] = ()) -> Tensor:
        """``kept``: with dropout, a factor [R, B, units] for each hidden layer, of 0 or 1 / (1 - p)."""
        if x.dim() == 5:
            x = x.float() / 255
        kept = iter(kept)
        for layer in self.layers[:-1]:
            if x.dim() == 5 and isinstance(layer, su.BatchedLinear):
                x = x.flatten(2)
            x = self.activation(layer(x))
            factor = next(kept, None) if x.dim() == 3 else None
            x = x if factor is None else x * factor
        last = self.layers[-1]
        if last.weight.shape[2] > 1:
            return last(x)
        # One output: a product with one column takes another path, with other rounding, when R is 1
        return (x * last.weight.transpose(1, 2)).sum(-1, keepdim=True) + last.bias


class ObservationNorm(nn.Module):
    """Observations [R, B, dim] by the running mean and standard deviation that each run has seen so far."""

    def __init__(self, runs: int, dim: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(runs, 1, dim))
        self.register_buffer("var", torch.ones(runs, 1, dim))
        self.register_buffer("count", torch.zeros(runs, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return ((x - self.mean) / (self.var + 1e-8).sqrt()).clamp(-10, 10)

    @torch.no_grad()
    def update(self, x: Tensor) -> None:
        """Add the observations x [R, B, dim] (Chan et al. 1979)."""
        n = x.shape[1]
        delta, total = x.mean(1, keepdim=True) - self.mean, self.count + n
        squares = self.var * self.count + x.var(1, keepdim=True, correction=0) * n
        self.var.copy_((squares + delta.square() * self.count * n / total) / total)
        self.mean.add_(delta * n / total)
        self.count.copy_(total)


def make_networks(runs: int, args: Args, obs_shape: Sequence[int], action_space: gym.Space) -> nn.ModuleDict:
    """Actors (logits, or the means of Gaussian actions), critics, and what observations go through, of R runs."""
    gaussian = isinstance(action_space, gym.spaces.Box)
    n_actions = action_space.shape[0] if gaussian else int(action_space.n)
    nets = {"actor": Network(runs, obs_shape, args.hidden_sizes, n_actions, log_std=gaussian)}
    nets["critic"] = Network(runs, obs_shape, args.hidden_sizes, 1, log_std=False)
    nets["norm"] = ObservationNorm(runs, obs_shape[0]) if args.normalize_obs else nn.Identity()
    return nn.ModuleDict(nets)


def add_noise(actor: Network, out: Tensor, noise: Tensor) -> Tensor:
    """Sampled actions from the actor's output [R, N, A]: Gaussian ones from normal noise, one of A by the Gumbel trick,
    which makes the sampling an argmax."""
    return out + actor.log_std.exp() * noise if hasattr(actor, "log_std") else (out + noise).argmax(-1)


def log_prob_and_entropy(actor: Network, out: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
    """Of actions [R, B] or [R, B, A] under the actor's output [R, B, A]: both [R, B]."""
    if hasattr(actor, "log_std"):
        z = (action - out) / actor.log_std.exp()
        log_prob = (-0.5 * z.square() - actor.log_std - 0.5 * math.log(2 * math.pi)).sum(-1)
        return log_prob, (actor.log_std + 0.5 * math.log(2 * math.pi * math.e)).sum(-1).expand_as(log_prob)
    log_probs = torch.log_softmax(out, -1)
    return log_probs.gather(-1, action.long()[..., None]).squeeze(-1), -(log_probs.exp() * log_probs).sum(-1)


# ---- PPO -------------------------------------------------------------------------------------------------------------


def gae(rewards: Tensor, values: Tensor, next_values: Tensor, terminated: Tensor, ended: Tensor, args: Args) -> Tensor:
    """Generalised advantages [T, ...]. next_values are those of the true next observations, the last one of an episode
    too; only a true end (terminated) has no future, and no advantage flows back across an end of either kind."""
    deltas = rewards + args.gamma * (1 - terminated) * next_values - values
    carry = args.gamma * args.gae_lambda * (1 - ended)
    advantages = torch.empty_like(deltas)
    advantage = torch.zeros_like(deltas[0])
    for t in reversed(range(len(deltas))):
        advantages[t] = advantage = deltas[t] + carry[t] * advantage
    return advantages


def ppo_loss(nets: nn.ModuleDict, batch: dict[str, Tensor], kept: dict[str, list[Tensor]], args: Args) -> Tensor:
    """Loss of each run [R]: clipped surrogate, value error and entropy bonus, each the mean over the run's batch."""
    out = nets["actor"](batch["obs"], kept.get("actor", ()))
    log_prob, entropy = log_prob_and_entropy(nets["actor"], out, batch["action"])
    ratio = (log_prob - batch["log_prob"]).exp()
    clipped = ratio.clamp(1 - args.clip_coef, 1 + args.clip_coef)
    surrogate = torch.minimum(ratio * batch["advantage"], clipped * batch["advantage"])
    value = nets["critic"](batch["obs"], kept.get("critic", ())).squeeze(-1)
    value_error = 0.5 * (value - batch["return"]).square()
    return (args.vf_coef * value_error - surrogate - args.ent_coef * entropy).mean(1)


def seen(obs: np.ndarray, inputs: list[int] | slice, high: float) -> np.ndarray:
    """What the networks are given of observations [n, ...]: pictures as they are; of vectors the ``inputs``, float32
    and divided by ``high``, which is 1 but for vectors of bytes."""
    return obs if obs.ndim == 4 else obs[:, inputs].astype(np.float32, copy=False) / np.float32(high)


def greedy(nets: nn.ModuleDict, inputs: list[int] | slice, high: float = 1.0) -> Callable[[np.ndarray], np.ndarray]:
    """The function from observations [R * N, ...] to the agents' mean or most likely actions [R, N, ...]."""
    actor = nets["actor"]
    device, runs = actor.layers[0].weight.device, len(actor.layers[0].weight)

    @torch.no_grad()
    def act(obs: np.ndarray) -> np.ndarray:
        x = torch.from_numpy(seen(obs, inputs, high)).to(device).unflatten(0, (runs, -1))
        out = actor(nets["norm"](x))
        return (out if hasattr(actor, "log_std") else out.argmax(-1)).cpu().numpy()

    return act


if __name__ == "__main__":
    args = parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.set_flush_denormal(True)  # Adam's moments of dead units decay to numbers that are very slow to compute with
    device = torch.device("cuda" if args.cuda and torch.cuda.is_available() else "cpu")

    # ---- Task and networks
    inputs, ticket = slice(None), None  # which inputs the networks see: all, or a list
    try:
        if args.evaluate:  # the task and the networks are the ticket's
            ticket = su.load_ticket(Path(args.evaluate))
            if ticket.get("script") != "ppo_imp":
                raise ValueError(f"{args.evaluate} is no ticket of ppo_imp.py")
            own = {name: getattr(args, name) for name in ("evaluate", "eval_episodes", "capture_video")}
            args, inputs = Args(**ticket["args"] | own), ticket["inputs"] or inputs
        probe = envs.vector.make(args.env_id, 1, 1)
        obs_space, action_space = probe.single_observation_space, probe.single_action_space
        if len(obs_space.shape) == 3 and (obs_space.shape[1:] != (84, 84) or obs_space.dtype != np.uint8):
            raise ValueError(f"pictures must be bytes [channels, 84, 84]; {args.env_id} has {obs_space}")
        if args.input_mask and ticket is None:
            inputs = su.read_input_mask(Path(args.input_mask), args.env_id, obs_space.shape, args.seeds)
            names = envs.INPUT_NAMES.get(args.env_id, range(obs_space.shape[0]))
            named = ", ".join(str(names[i]) for i in inputs)
            print(f"the networks see {len(inputs)} of {obs_space.shape[0]} inputs: {named}")
    except ValueError as error:
        su.fail(str(error))
    obs_shape = obs_space.shape if inputs == slice(None) else (len(inputs),)
    high = float(obs_space.high.max()) if obs_space.dtype == np.uint8 else 1.0
    template = make_networks(1, args, obs_shape, action_space)
    pruned_nets = ("actor", "critic") if args.prune == "both" else ("actor",)
    pruned_layers = su.prunable(**{name: template[name] for name in pruned_nets})
    if args.dry_run:
        print(su.describe(su.prunable(actor=template["actor"], critic=template["critic"]), {}))
        total = sum(w.numel() for w in pruned_layers.values())
        keep = su.remaining_by_round(total, args.prune_fraction, args.rounds)
        print(f"weights of the {' and '.join(pruned_nets)} in rounds 0 to {args.rounds}: {' '.join(map(str, keep))}")
        raise SystemExit(0)
    if ticket is not None:
        template.load_state_dict({name: tensor[None] for name, tensor in ticket["best"].items()})
        template.to(device)
        act = greedy(template, inputs, high)
        vector = envs.vector.make(args.env_id, 1, args.eval_episodes, first_episode=True)
        print(f"{args.env_id}, {su.describe_returns(envs.vector.play(vector, act, [1])[0])}")
        if args.capture_video:
            envs.vector.record(args.env_id, act, Path(args.evaluate).with_suffix(".gif"))
        raise SystemExit(0)

    # ---- Run folder; go on after the last finished round in it
    run_dir = Path(args.run_dir or f"runs/{su.run_name(args, 'ppo_imp', args.prune)}")
    checkpoint = su.start_run(args, run_dir, [Path(args.input_mask)] if args.input_mask else [])
    # A chain is what one seed and condition hand on from round to round: masks, and the best weights of the round.
    first_round, results, curves, timings = 0, [], [], []
    chains: dict[str, dict[str, dict[str, Tensor]]] = {}
    starts: dict[str, dict[str, Tensor]] = {}  # of each seed: the weights to rewind to
    if checkpoint is not None:
        first_round, results, curves = checkpoint["round"] + 1, checkpoint["results"], checkpoint["curves"]
        chains, starts, timings = checkpoint["chains"], checkpoint["starts"], checkpoint["timings"]
        print(f"resuming {run_dir} at round {first_round}")
    if args.track:
        import wandb

        project = {"project": args.wandb_project_name, "entity": args.wandb_entity}
        wandb.init(**project, name=run_dir.name, config=asdict(args), sync_tensorboard=True)
    writer = SummaryWriter(str(run_dir), purge_step=first_round)

    batch_size = args.num_envs * args.num_steps
    iterations = args.total_timesteps // batch_size
    minibatch_size = batch_size // args.num_minibatches
    signals = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _frame: signals.append(number))
    progress = tqdm(total=(args.rounds + 1) * iterations, initial=first_round * iterations, unit="rollout")
    progress.mininterval = 1 if sys.stderr.isatty() else 60
    for round_ in range(first_round, args.rounds + 1):
        watch = su.Stopwatch("prune", "act", "env", "learn", "evaluate", "save")
        # ---- Prune and rewind (section 2): the masks and starting parameters of each run of this round
        runs = [(seed, c) for c in (args.conditions if round_ else ("dense",)) for seed in args.seeds]
        R = len(runs)
        masks_of, start_of = [], []
        for seed, condition in runs:
            generator = torch.Generator().manual_seed(su.seeds(seed, round_, 0)[0])
            fresh = {name: tensor[0] for name, tensor in template.state_dict().items()}
            fresh |= su.initial_parameters(
                dict(template.named_parameters()), args.init, args.input_init_scale, generator
            )
            if round_ == 0:
                masks, start = {name: torch.ones_like(fresh[name]) for name in pruned_layers}, fresh
                starts[str(seed)] = start
            else:
                parent = condition if args.baseline_mask == "own" else "ticket"
                chain = chains[f"{seed} {parent if round_ > 1 else 'dense'}"]
                pruned = su.prune_ticket(chain["best"], chain["masks"], args.prune_fraction)
                masks, start = su.next_ticket(condition, pruned, starts[str(seed)], fresh, generator)
            masks_of.append(masks)
            start_of.append(start)
        nets = make_networks(R, args, obs_shape, action_space)
        nets.load_state_dict({name: torch.stack([start[name] for start in start_of]) for name in start_of[0]})
        nets.to(device)
        parameters, state = dict(nets.named_parameters()), nets.state_dict()
        masks = {name: torch.stack([m[name] for m in masks_of]).to(device) for name in masks_of[0]}
        su.apply_masks(parameters, masks)
        optimizer = su.run_adam(parameters, args.learning_rate, args.weight_decay, eps=1e-5)
        best = {name: tensor.clone() for name, tensor in state.items()}
        best_return, final_return, steps_to_best = np.full(R, -np.inf), np.full(R, np.nan), np.zeros(R, dtype=int)

        # ---- Train. One random stream per seed, shared by its conditions.
        streams = [np.random.default_rng(su.seeds(seed, round_, 1)[0]) for seed in args.seeds]
        stream_of = [args.seeds.index(seed) for seed, _ in runs]
        train_envs = envs.vector.make(args.env_id, R, args.num_envs, processes=args.async_envs)
        eval_envs = envs.vector.make(args.env_id, R, args.eval_episodes, first_episode=True, processes=args.async_envs)
        obs = envs.vector.reset(train_envs, [su.seeds(seed, round_, 2)[0] for seed, _ in runs])
        shape = (args.num_steps, R, args.num_envs)
        store = {name: np.zeros(shape, np.float32) for name in ("reward", "terminated", "ended")}
        store["action"] = np.zeros((*shape, *action_space.shape), np.float32)
        obs_dtype = np.uint8 if len(obs_shape) == 3 else np.float32
        store |= {name: np.zeros((*shape, *obs_shape), obs_dtype) for name in ("obs", "next_obs")}
        all_runs = torch.arange(R, device=device)[:, None]
        watch.lap("prune")
        for iteration in range(1, iterations + 1):
            # ---- Collect a rollout
            size = (args.num_steps, args.num_envs, template["actor"].layers[-1].weight.shape[2])
            draw = [s.gumbel(size=size) if action_space.shape == () else s.standard_normal(size) for s in streams]
            noise = torch.from_numpy(np.stack(draw, 1).astype(np.float32)[:, stream_of]).to(device)  # [T, R, N, A]
            for t in range(args.num_steps):
                store["obs"][t] = seen(obs, inputs, high).reshape(store["obs"][t].shape)
                with torch.no_grad():
                    out = nets["actor"](nets["norm"](torch.from_numpy(store["obs"][t]).to(device)))
                    action = add_noise(nets["actor"], out, noise[t]).cpu().numpy()
                watch.lap("act")
                obs, reward, terminated, truncated, info = train_envs.step(envs.vector.to_rows(action, action_space))
                ended = terminated | truncated
                next_obs = envs.vector.last_observations(obs, ended, info)
                store["next_obs"][t] = seen(next_obs, inputs, high).reshape(store["obs"][t].shape)
                reward = np.sign(reward) if args.env_id.startswith("ALE/") else reward
                for name, value in (("reward", reward), ("terminated", terminated), ("ended", ended)):
                    store[name][t] = value.reshape(R, args.num_envs)
                store["action"][t] = action
                watch.lap("env")

            # ---- Learn
            def by_run(x: Tensor) -> Tensor:
                """[T, R, N, ...] -> [R, T * N, ...]"""
                return x.transpose(0, 1).flatten(1, 2)

            rollout = {name: torch.from_numpy(array).to(device) for name, array in store.items()}
            raw_obs = by_run(rollout["obs"])
            with torch.no_grad():
                batch = {"obs": nets["norm"](raw_obs), "action": by_run(rollout["action"])}
                values, next_values = (
                    nets["critic"](x).view(R, args.num_steps, args.num_envs).transpose(0, 1)
                    for x in (batch["obs"], nets["norm"](by_run(rollout["next_obs"])))
                )
                advantages = gae(rollout["reward"], values, next_values, rollout["terminated"], rollout["ended"], args)
                out = nets["actor"](batch["obs"])
                batch["log_prob"], _ = log_prob_and_entropy(nets["actor"], out, batch["action"])
            batch["return"] = by_run(advantages + values)
            advantage = by_run(advantages)
            mean, std = advantage.mean(1, keepdim=True), advantage.std(1, keepdim=True)
            batch["advantage"] = (advantage - mean) / (std + 1e-8)
            for group in optimizer.param_groups:
                group["lr"] = args.learning_rate * (1 - (iteration - 1) / iterations if args.anneal_lr else 1)
            for _ in range(args.update_epochs):
                order = np.stack([s.permutation(batch_size) for s in streams])[stream_of]
                order = torch.from_numpy(order).to(device)
                shuffled = {name: x[all_runs, order] for name, x in batch.items()}
                for part in range(0, batch_size, minibatch_size):
                    minibatch = {name: x[:, part : part + minibatch_size] for name, x in shuffled.items()}
                    drop = streams, stream_of, minibatch_size, args.hidden_sizes, args.dropout, device
                    kept = {name: su.dropout_factors(*drop) for name in ("actor", "critic")}
                    loss = ppo_loss(nets, minibatch, kept, args)
                    for p in parameters.values():
                        p.grad = None  # on small networks optimizer.zero_grad() takes 4% of an update
                    loss.sum().backward()
                    su.mask_gradients(parameters, masks)
                    su.clip_run_gradients(parameters, args.max_grad_norm)
                    optimizer.step()
            if args.normalize_obs:
                nets["norm"].update(raw_obs)
            watch.lap("learn")
            step = iteration * batch_size
            if round_ == 0 and 0 < args.rewind_steps <= step < args.rewind_steps + batch_size:
                for r, (seed, _) in enumerate(runs):
                    starts[str(seed)] = {name: tensor.cpu().clone() for name, tensor in su.run_slice(state, r).items()}

            # ---- Evaluate; keep the best checkpoint of each run
            if step % args.eval_interval < batch_size or iteration == iterations:
                seeds = [su.seeds(seed, round_, 3, step)[0] for seed, _ in runs]
                returns = envs.vector.play(eval_envs, greedy(nets, inputs, high), seeds)
                final_return = returns.mean(1)
                steps_to_best[final_return > best_return] = step
                better = final_return >= best_return  # of equals the later, which has trained longer
                best_return[better] = final_return[better]
                for name, tensor in state.items():
                    best[name][better] = tensor[better]
                for (seed, condition), values_of_run in zip(runs, returns, strict=True):
                    curves.append({"round": round_, "seed": seed, "condition": condition, "step": step})
                    curves[-1] |= {"return_mean": float(values_of_run.mean()), "return_std": float(values_of_run.std())}
                progress.set_postfix_str(f"round {round_}, return {final_return.mean():.1f}")
                watch.lap("evaluate")
            progress.update()
            if signals:
                progress.close()
                print(f"stopped in round {round_}; the same command starts this round again ({run_dir})")
                raise SystemExit(128 + signals[0])

        # ---- Record: retest the best checkpoints, save the tickets, results and what the next round needs
        nets.load_state_dict(best)
        retest = []
        for part in range(-(-100 // args.eval_episodes)):
            seeds = [su.seeds(seed, round_, 4, part)[0] for seed, _ in runs]
            retest.append(envs.vector.play(eval_envs, greedy(nets, inputs, high), seeds))
        best_retest = np.concatenate(retest, 1)[:, :100].mean(1)
        train_envs.close()
        eval_envs.close()
        watch.lap("evaluate")
        for r, (seed, condition) in enumerate(runs):
            chains[f"{seed} {condition}"] = {
                "masks": {name: m.cpu() for name, m in masks_of[r].items()},
                "best": {name: p.cpu().clone() for name, p in su.run_slice(best, r).items()},
            }
            numbers = None if inputs == slice(None) else inputs
            row = {"round": round_, "seed": seed, "condition": condition, **su.describe_ticket(masks_of[r], numbers)}
            row |= {"best_return": float(best_return[r]), "best_retest": float(best_retest[r])}
            row |= {"final_return": float(final_return[r]), "steps_to_best": int(steps_to_best[r])}
            results.append(row)
            file = run_dir / "tickets" / f"round{round_:02}_{condition}_seed{seed}.pt"
            file.parent.mkdir(exist_ok=True)
            saved = {"initial": start_of[r], "best": chains[f"{seed} {condition}"]["best"], "result": row}
            saved |= {"script": "ppo_imp", "args": asdict(args), "obs_shape": list(obs_space.shape), "inputs": numbers}
            su.save_ticket(file, masks_of[r], **saved)
            writer.add_scalar(f"best_retest/{condition}/seed{seed}", row["best_retest"], round_)
        writer.add_scalar("remaining_fraction", row["remaining_fraction"], round_)
        su.write_csv(run_dir / "results.csv", results)
        su.write_csv(run_dir / "curves.csv", curves)
        watch.lap("save")
        seconds = watch.take()
        speed = R * iterations * batch_size / sum(seconds.values())
        timings.append({"round": round_, "runs": R, "steps_per_second": speed, **seconds})
        su.write_csv(run_dir / "timing.csv", timings)
        writer.add_scalar("charts/SPS", speed, round_)
        after = {"args": asdict(args), "finished": round_ == args.rounds, "round": round_, "chains": chains}
        after |= {"results": results, "curves": curves, "timings": timings, "starts": starts}
        su.save_checkpoint(run_dir / "checkpoint.pt", after)

    progress.close()
    writer.close()
    for condition in ("dense", *args.conditions):
        last = [row["best_retest"] for row in results if row["condition"] == condition][-len(args.seeds) :]
        if last:
            print(f"{condition:18} best_retest in its last round: {np.mean(last):z.1f} over {len(last)} seeds")
    print(f"draw: python plot.py tickets {run_dir}")
