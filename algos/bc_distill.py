"""Lottery tickets in behavioural cloning: students of a PPO or DQN teacher (Vischer, Lange, Sprekeler 2022).

    python algos/bc_distill.py                                     # Cart-Pole, 5 seeds, 4 conditions: 10 minutes
    python algos/bc_distill.py --env-id Acrobot-v1 --seeds 1 2 3
    python algos/bc_distill.py --env-id Walker2DBulletEnv-v0 --teacher runs/NAME/tickets/round00_dense_seed1.pt
    python algos/bc_distill.py --env-id MinAtar/Breakout-v1 --teacher runs/NAME/tickets/round00_dense_seed1.pt

The supervised counterpart of ppo_imp.py and dqn_imp.py (section 3): the same rounds of training, pruning and
rewinding and the same four conditions, but on a fixed set of transitions, so without exploration and with a
stationary distribution of data. Each seed has its own transitions from the teacher's stochastic policy, the same in
all rounds and conditions. Students minimise the cross-entropy with the teacher's policy, or for Gaussian policies the
divergence KL(teacher || student); those of a DQN teacher the Huber loss of their action values against the teacher's.
Their returns are measured in the environment.

All runs (seeds x conditions) of a round are one batched program: every parameter has a leading run axis R and every
batch is [R, B, ...]. A run of fully connected networks learns the same, bit for bit on one CPU thread, whatever runs
train beside it.

Writes the folder ``runs/{env}__bc_distill__actor__{n}seeds__{hash}``, or ``--run-dir``:
    results.csv     a row per round and run: round, seed, condition; remaining (weights), remaining_fraction;
                    inputs_alive and alive_inputs (inputs with a weight left in the first layer, and which; of
                    convolutions channels); density_* of each layer; best_return (the best evaluation of the round, as
                    in the paper), best_retest (that checkpoint over 100 new episodes: a maximum over noisy evaluations
                    flatters), final_return (of the last evaluation), steps_to_best (updates to the first one at
                    best_return); loss (the last mean of the distillation loss), teacher_return
    curves.csv      a row per evaluation: round, seed, condition, step (updates), return_mean, return_std, loss
    tickets/        a file per round and run: masks, initial weights, best weights; su.load_ticket reads it
    config.json, timing.csv, checkpoint.pt, events.*; transitions.pt until the run is finished

The same command started again goes on after the last finished round, to the same results.

Teachers: ``algos/experts/{env}.pt`` or any ticket of ppo_imp.py or dqn_imp.py. Hyper-parameters: tables 2, 4, 6 and
10 (``TASKS``). What the paper leaves silent, and what differs:
 1. The table's "training environment steps" are the number of transitions. Updates and their size are ours: 5,000 of
    128 transitions for Cart-Pole (where ppo_imp.py makes 9,984 of 32) and 15,000 of 128 for all others (Acrobot with
    ppo_imp.py: 15,616 of 128; Bullet: 234,200 of 64). Batches are drawn with replacement.
    The learning rate stays as it is, gradients are not clipped, and students have no critic.
 2. Students are tanh networks like the teachers of ppo_imp.py, or ReLU networks like those of dqn_imp.py, which start
    with 16 convolutions of 3 x 3 if the teacher does. They see what the teacher sees, normalised as by the teacher.
 3. Evaluation every tenth of the updates, 20 episodes, mean or most likely action, or for action values dqn_imp.py's
    epsilon of 0.001; the best of these is pruned, as in ppo_imp.py. best_retest is that checkpoint over 100 new
    episodes.
 4. The cross-entropy and the KL divergence are against the teacher's whole distribution, not its sampled action. The
    Huber loss, with delta 1, is the mean over all actions.
 5. The stochastic policy of a DQN teacher is epsilon-greedy, with the epsilon that its training ended with: 0.05 for
    MinAtar and 0.01 for MazeGrid.
 6. MinAtar has 200,000 transitions, which are stored as bits, instead of table 10's 10,000,000 (5,000,000 with
    convolutions), which would take 0.5 to 1.3 GB for each seed.
 7. MazeGrid, for which the paper has no such table, has the values of MinAtar; but 20,000 transitions if entangled,
    as these are floats of 5 kB each. Most repeat others, since nothing there is random but the teacher's epsilon.
    Students of entangled observations have the matrix of their teacher's seed.
"""

import contextlib
import math
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import gymnasium as gym
import numpy as np
import torch
import torch.nn.functional as F
import tyro
from gymnasium.vector import VectorEnv
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))  # sparse_utils.py and envs/ are one folder up
import envs.vector  # noqa: E402
import sparse_utils as su  # noqa: E402

# Tables 2, 4, 6 and 10. Flags given on the command line win. Updates: see the docstring.
CARTPOLE = {}  # the defaults of Args are those of Cart-Pole
ACROBOT = {"transitions": 200_000, "learning_rate": 5e-4, "hidden_sizes": (128, 64)}
ACROBOT |= {"updates": 15_000}
BULLET = ACROBOT | {"transitions": 500_000, "num_envs": 10, "hidden_sizes": (64, 64), "eval_episodes": 10}
VISUAL = ACROBOT | {"num_envs": 16, "hidden_sizes": (1024, 512)}  # MinAtar and MazeGrid
CNN = {"hidden_sizes": (128, 64)}  # of these, where the teacher has convolutions
TASKS = {"CartPole-v0": CARTPOLE, "CartPole-v1": CARTPOLE, "Acrobot-v1": ACROBOT, "MountainCar-v0": ACROBOT}
TASKS |= {"MazeGridEntangled-v0": VISUAL | {"transitions": 20_000}}

EVAL_EPSILON = 0.001  # of action values (table 11)


@dataclass
class Args:
    # Run
    env_id: str = "CartPole-v1"
    """the teacher's task"""
    seeds: tuple[int, ...] = (1, 2, 3, 4, 5)
    """a chain of rounds for each seed and condition"""
    teacher: str = ""
    """a ticket of ppo_imp.py or dqn_imp.py; default algos/experts/ENV_ID.pt, with - for /"""
    rounds: int = 20
    """pruning rounds, after the dense round 0; a run goes on from where it is if there are more than before"""
    run_dir: str = ""
    """folder to write to"""
    fresh: bool = False
    """delete what is in the run folder and start over"""
    eval_interval: int = 500
    """updates between evaluations; default a tenth of --updates"""
    eval_episodes: int = 20
    """episodes per evaluation; default 10 for Bullet and MuJoCo"""
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
    """print the network and how many weights each round keeps, and stop"""

    # Algorithm (tables 2, 4, 6 and 10)
    transitions: int = 10_000
    """of the teacher, for each seed; default by task"""
    num_envs: int = 4
    """environments of each seed for the teacher; default 10 for Bullet and MuJoCo, 16 for MinAtar and MazeGrid"""
    updates: int = 5_000
    """of a run in each round; default 15,000 but for Cart-Pole"""
    batch_size: int = 128
    """transitions per update"""
    learning_rate: float = 1e-3
    """Adam's; default 5e-4 but for Cart-Pole"""

    # Networks
    hidden_sizes: tuple[int, ...] = (128, 128)
    """units of the student's hidden layers, after the convolutions; default by task"""
    init: Literal["kaiming", "he", "xavier", "orthogonal"] = "kaiming"
    """kaiming is PyTorch's default (a = sqrt 5), he has the gain of ReLU"""
    input_init_scale: float = 1.0
    """factor on the initial weights of the first layer; 0.1 is the paper's rescaling (section 4.2)"""

    # Tickets
    conditions: tuple[Literal["ticket", "mask_permuted", "permuted_permuted", "random_reinit"], ...] = su.CONDITIONS
    """what to compare"""
    prune_fraction: float = 0.2
    """fraction of the remaining weights that each round removes"""
    baseline_mask: Literal["own", "ticket"] = "own"
    """whose trained networks a baseline's masks come from"""
    rewind_steps: int = 0
    """rewind to the weights that round 0 had after so many updates, not to the initial ones"""


def visual(env_id: str) -> bool:
    """Is it one of the tasks that dqn_imp.py is for?"""
    return env_id.startswith(("MazeGrid", "MinAtar/"))


def teacher_file(args: Args) -> Path:
    return Path(args.teacher or ROOT / f"algos/experts/{args.env_id.replace('/', '-')}.pt")


def parse_args() -> Args:
    """The command line over the task's defaults. Ends the program with one line if it makes no sense."""
    given = tyro.cli(Args, args=su.flags_without_help())
    task = TASKS.get(given.env_id, VISUAL if visual(given.env_id) else BULLET)
    with contextlib.suppress(ValueError):  # what is wrong with a teacher is said where it is loaded
        if su.load_ticket(teacher_file(given)).get("args", {}).get("network") == "cnn":
            task = task | CNN
    default = replace(Args(), **task)
    budget = tyro.cli(Args, args=su.flags_without_help(), default=default).updates
    args = tyro.cli(Args, description=__doc__, default=replace(default, eval_interval=max(1, budget // 10)))
    su.check_ticket_flags(args)
    su.check_flags(args, "above 0", "transitions", "updates", "batch_size", "learning_rate")
    if args.transitions % args.num_envs:
        su.fail(f"--num-envs {args.num_envs} does not divide --transitions {args.transitions}")
    if args.rewind_steps > args.updates:
        su.fail(f"--rewind-steps {args.rewind_steps} is beyond --updates {args.updates}")
    return args


# ---- Networks --------------------------------------------------------------------------------------------------------


class Network(nn.Module):
    """R independent networks: x [R, B, in] -> [R, B, out].

    Policies are tanh networks, as in ppo_imp.py; ``log_std`` is that of Gaussian actions. For action ``values`` they
    have ReLU, as in dqn_imp.py. Where x are flattened pictures of shape ``picture`` [C, h, w], they go through 16
    convolutions of 3 x 3 first, whatever sizes[0] is.
    """

    def __init__(
        self, runs: int, sizes: Sequence[int], log_std: bool, values: bool = False, picture: Sequence[int] = ()
    ):
        super().__init__()
        self.values, self.picture, layers = values, picture, []
        if picture:
            channels, height, width = picture
            layers, sizes = [su.BatchedConv2d(runs, channels, 16, 3)], (16 * (height - 2) * (width - 2), *sizes[1:])
        layers += [su.BatchedLinear(runs, *ends) for ends in zip(sizes[:-1], sizes[1:], strict=True)]
        self.layers = nn.ModuleList(layers)
        if log_std:
            self.log_std = nn.Parameter(torch.zeros(runs, 1, sizes[-1]))

    def forward(self, x: Tensor) -> Tensor:
        *hidden, last = self.layers
        if self.picture:
            x = torch.relu(hidden.pop(0)(x.unflatten(2, self.picture))).flatten(2)
        for layer in hidden:
            x = torch.relu(layer(x)) if self.values else torch.tanh(layer(x))
        if last.weight.shape[2] > 1:
            return last(x)
        # One output: a product with one column takes another path, with other rounding, when R is 1
        return (x * last.weight.transpose(1, 2)).sum(-1, keepdim=True) + last.bias


def see(obs: np.ndarray, view: dict[str, Any]) -> Tensor:
    """What of the observations [n, ...] the teacher's network is given, and so the students': its inputs [n, in],
    bytes divided by their bound, normalised by its statistics if it was trained with --normalize-obs."""
    inputs = obs.reshape(len(obs), -1)[:, view["inputs"] or slice(None)]
    x = torch.from_numpy(inputs.astype(np.float32, copy=False)) / view["high"]
    return x if view["mean"] is None else ((x - view["mean"]) / (view["var"] + 1e-8).sqrt()).clamp(-10, 10)


def pack(x: Tensor, high: float) -> Tensor:
    """What ``see`` makes of bytes up to ``high``, as bytes [..., in] again; or where these are bits, as bits."""
    x = (x * high).round().to(torch.uint8)
    return torch.from_numpy(np.packbits(x.numpy(), axis=-1)) if high == 1 else x


def unpack(x: Tensor, high: float, n_in: int) -> Tensor:
    """What ``pack`` was given [..., in]. Floats were not packed and stay as they are."""
    if x.dtype != torch.uint8:
        return x
    if high == 1:
        x = (x[..., None] >> torch.arange(7, -1, -1, dtype=torch.uint8, device=x.device)) & 1
        x = x.flatten(-2)[..., :n_in]
    return x.float() / high


def epsilon_greedy(values: Tensor, epsilon: float, streams: Sequence[np.random.Generator]) -> np.ndarray:
    """Actions [R, N] of the largest of the values [R, N, A], or with probability epsilon random ones, by a stream for
    each run."""
    noise = np.stack([s.random((2, values.shape[1])) for s in streams], 1)  # [2, R, N]
    any_action = (noise[1] * values.shape[2]).astype(int)
    return np.where(noise[0] < epsilon, any_action, values.argmax(-1).cpu().numpy())


def greedy(actor: Network, view: dict[str, Any], seeds: Sequence[int]) -> Callable[[np.ndarray], np.ndarray]:
    """The function from observations [R * N, ...] to the networks' mean or most likely actions [R, N, ...], or to
    those of the largest values, but for EVAL_EPSILON of them, which are random by a stream for each run, from
    ``seeds``."""
    device, runs = actor.layers[0].weight.device, len(actor.layers[0].weight)
    streams = [np.random.default_rng(seed) for seed in seeds]

    @torch.no_grad()
    def act(obs: np.ndarray) -> np.ndarray:
        out = actor(see(obs, view).to(device).unflatten(0, (runs, -1)))
        if actor.values:
            return epsilon_greedy(out, EVAL_EPSILON, streams)
        return (out if hasattr(actor, "log_std") else out.argmax(-1)).cpu().numpy()

    return act


# ---- Distillation ----------------------------------------------------------------------------------------------------


def load_teacher(file: Path, env_id: str, vector: VectorEnv) -> dict[str, Any]:
    """A ticket of ppo_imp.py or dqn_imp.py: {"actor": its best actor's parameters, "kind": arguments of ``Network``,
    "view": what of an observation it sees, "epsilon": of its training's end, "matrix_seed": of what is entangled}.

    Raises ValueError if it is none, or one for other observations or actions than those of ``vector``.
    """
    if not file.exists():
        script = "dqn_imp.py" if visual(env_id) else "ppo_imp.py"
        raise ValueError(f"no teacher {file}: train one with {script} --env-id {env_id} and name a file in tickets/")
    ticket = su.load_ticket(file)
    if ticket.get("script") not in ("ppo_imp", "dqn_imp"):
        raise ValueError(f"{file} is no ticket of ppo_imp.py or dqn_imp.py")
    values = ticket["script"] == "dqn_imp"
    obs_shape, space = vector.single_observation_space.shape, vector.single_action_space
    if tuple(ticket["obs_shape"]) != obs_shape or (len(obs_shape) > 1 and not values):
        raise ValueError(f"{file} is a teacher for observations {tuple(ticket['obs_shape'])}; {env_id} has {obs_shape}")
    gaussian = isinstance(space, gym.spaces.Box)
    n_actions = space.shape[0] if gaussian else int(space.n)
    actor = {name[len("actor.") :]: tensor for name, tensor in ticket["best"].items() if name.startswith("actor.")}
    biases = [tensor for name, tensor in actor.items() if name.endswith("bias")]
    if biases[-1].shape[-1] != n_actions or ("log_std" in actor) != gaussian:
        raise ValueError(f"{file} is a teacher for other actions than those of {env_id}: {space}")
    there = ticket.get("args", {}).get("env_id", env_id)
    if not su.same_task(there, env_id):
        raise ValueError(f"{file} is a teacher for {there}, not for {env_id}")
    obs_space = vector.single_observation_space
    view = {"inputs": ticket["inputs"], "high": float(obs_space.high.max()) if obs_space.dtype == np.uint8 else 1.0}
    view |= {"mean": ticket["best"].get("norm.mean"), "var": ticket["best"].get("norm.var")}
    picture = list(obs_shape) if actor["layers.0.weight"].dim() == 4 else []
    teacher = {"actor": actor, "view": view, "kind": {"values": values, "picture": picture}}
    return teacher | {"epsilon": ticket["args"]["end_e"] if values else 0.0, "matrix_seed": ticket["result"]["seed"]}


def copies_of(actor: dict[str, Tensor], n: int, **kind: Any) -> Network:
    """A network that holds n times the same parameters. ``kind``: arguments of ``Network``."""
    weights = [tensor for name, tensor in actor.items() if name.endswith("weight")]
    sizes = (len(weights[0]), *(weight.shape[1] for weight in weights if weight.dim() == 2))
    net = Network(n, sizes, log_std="log_std" in actor, **kind).requires_grad_(False)
    net.load_state_dict({name: tensor.expand(n, *tensor.shape) for name, tensor in actor.items()})
    return net


def collect(
    teacher: Network, view: dict[str, Any], vector: VectorEnv, args: Args, epsilon: float = 0.0
) -> tuple[Tensor, Tensor]:
    """The teacher plays its stochastic policy: what it sees [S, transitions, in], packed if it is bytes, and its
    outputs there [S, transitions, A]: logits, means or action values. ``teacher`` holds a copy of its network for
    each of the S seeds, ``epsilon`` is the part of random actions if it has action values."""
    n_seeds, steps = len(args.seeds), args.transitions // args.num_envs
    streams = [np.random.default_rng(su.seeds(seed, 0)[0]) for seed in args.seeds]
    obs = envs.vector.reset(vector, [su.seeds(seed, 1)[0] for seed in args.seeds])
    seen, outputs = [], []
    for _ in tqdm(range(steps), unit="step", desc="teacher plays", mininterval=1 if sys.stderr.isatty() else 60):
        x = see(obs, view).unflatten(0, (n_seeds, args.num_envs))
        seen.append(pack(x, view["high"]) if obs.dtype == np.uint8 and view["mean"] is None else x)
        outputs.append(out := teacher(x))
        size = tuple(out.shape[1:])
        if hasattr(teacher, "log_std"):
            noise = np.stack([s.standard_normal(size, np.float32) for s in streams])
            action = (out + teacher.log_std.exp() * torch.from_numpy(noise)).numpy()
        elif teacher.values:
            action = epsilon_greedy(out, epsilon, streams)
        else:  # the Gumbel trick
            action = (out + torch.from_numpy(np.stack([s.gumbel(size=size) for s in streams]))).argmax(-1).numpy()
        obs, *_ = vector.step(envs.vector.to_rows(action, vector.single_action_space))
    return torch.cat(seen, 1), torch.cat(outputs, 1)


def distillation_loss(actor: Network, x: Tensor, teacher_out: Tensor, teacher_log_std: Tensor | None) -> Tensor:
    """Loss of each run [R], the mean over its batch: cross-entropy of the policies (tables 2 and 4), for Gaussian
    ones KL(teacher || student) (table 6), for action values the Huber loss (table 10).
    """
    out = actor(x)
    if actor.values:
        return F.smooth_l1_loss(out, teacher_out, reduction="none").mean(-1).mean(1)
    if teacher_log_std is None:
        return -(torch.softmax(teacher_out, -1) * torch.log_softmax(out, -1)).sum(-1).mean(1)
    log_ratio = actor.log_std - teacher_log_std
    squares = (2 * teacher_log_std).exp() + (teacher_out - out).square()
    return (log_ratio + squares / (2 * (2 * actor.log_std).exp()) - 0.5).sum(-1).mean(1)


if __name__ == "__main__":
    args = parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.set_flush_denormal(True)  # Adam's moments of dead units decay to numbers that are very slow to compute with
    device = torch.device("cuda" if args.cuda and torch.cuda.is_available() else "cpu")

    # ---- Task, teacher and students
    ticket = None
    try:
        if args.evaluate:  # the task and the networks are the ticket's
            ticket = su.load_ticket(Path(args.evaluate))
            if ticket.get("script") != "bc_distill":
                raise ValueError(f"{args.evaluate} is no ticket of bc_distill.py")
            ticket = {"kind": {}, "matrix_seed": 0} | ticket  # that of a policy may be from before there were others
            ticket["view"] = {"high": 1.0} | ticket["view"]
            own = {name: getattr(args, name) for name in ("evaluate", "eval_episodes", "capture_video")}
            args = Args(**ticket["args"] | own)
        probe = envs.vector.make(args.env_id, 1, 1, matrix_seeds=[0])
        if ticket is None:
            teacher = load_teacher(teacher_file(args), args.env_id, probe)
    except ValueError as error:
        su.fail(str(error))
    if ticket is not None:
        actor = {name[len("actor.") :]: tensor for name, tensor in ticket["best"].items()}
        act = greedy(copies_of(actor, 1, **ticket["kind"]), ticket["view"], [1])
        own = {"first_episode": True, "matrix_seeds": [ticket["matrix_seed"]]}
        returns = envs.vector.play(envs.vector.make(args.env_id, 1, args.eval_episodes, **own), act, [1])
        print(f"{args.env_id}, {su.describe_returns(returns[0])}")
        if args.capture_video:
            gif = Path(args.evaluate).with_suffix(".gif")
            envs.vector.record(args.env_id, act, gif, matrix_seeds=[ticket["matrix_seed"]])
        raise SystemExit(0)
    view, kind, matrix_seed = teacher["view"], teacher["kind"], teacher["matrix_seed"]
    obs_space = probe.single_observation_space
    teacher_net = copies_of(teacher["actor"], len(args.seeds), **kind)
    n_in = len(view["inputs"] or range(math.prod(obs_space.shape)))
    sizes = (n_in, *args.hidden_sizes, teacher_net.layers[-1].weight.shape[2])
    gaussian = hasattr(teacher_net, "log_std")
    template = nn.ModuleDict({"actor": Network(1, sizes, log_std=gaussian, **kind)})
    pruned_layers = su.prunable(actor=template["actor"])
    if args.dry_run:
        print(su.describe(pruned_layers, {}))
        total = sum(w.numel() for w in pruned_layers.values())
        keep = su.remaining_by_round(total, args.prune_fraction, args.rounds)
        print(f"weights in rounds 0 to {args.rounds}: {' '.join(map(str, keep))}")
        raise SystemExit(0)

    # ---- Run folder; go on after the last finished round in it
    run_dir = Path(args.run_dir or f"runs/{su.run_name(args, 'bc_distill', 'actor')}")
    checkpoint = su.start_run(args, run_dir, [teacher_file(args)])
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

    # ---- Transitions: one fixed set for each seed, used in all rounds and conditions
    data_file = run_dir / "transitions.pt"
    if data_file.exists():
        data = su.load_checkpoint(data_file)
    else:
        act = greedy(copies_of(teacher["actor"], 1, **kind), view, [1])
        vector = envs.vector.make(args.env_id, 1, 20, first_episode=True, matrix_seeds=[matrix_seed])
        returns = envs.vector.play(vector, act, [1])
        own = {"processes": args.async_envs, "matrix_seeds": [matrix_seed] * len(args.seeds)}
        train_envs = envs.vector.make(args.env_id, len(args.seeds), args.num_envs, **own)
        seen, outputs = collect(teacher_net, view, train_envs, args, teacher["epsilon"])
        train_envs.close()
        data = {"seen": seen, "outputs": outputs, "teacher_return": float(returns.mean())}
        su.save_checkpoint(data_file, data)
    print(f"the teacher's mean return is {data['teacher_return']:.1f}")
    seen, outputs = data["seen"].to(device), data["outputs"].to(device)
    teacher_log_std = teacher_net.log_std[:1].to(device) if gaussian else None

    signals = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _frame: signals.append(number))
    progress = tqdm(total=(args.rounds + 1) * args.updates, initial=first_round * args.updates, unit="update")
    progress.mininterval = 1 if sys.stderr.isatty() else 60
    for round_ in range(first_round, args.rounds + 1):
        watch = su.Stopwatch("prune", "learn", "evaluate", "save")
        # ---- Prune and rewind (section 2): the masks and starting parameters of each run of this round
        runs = [(seed, c) for c in (args.conditions if round_ else ("dense",)) for seed in args.seeds]
        R = len(runs)
        masks_of, start_of = [], []
        for seed, condition in runs:
            generator = torch.Generator().manual_seed(su.seeds(seed, round_, 0)[0])
            fresh = su.initial_parameters(
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
        nets = nn.ModuleDict({"actor": Network(R, sizes, log_std=gaussian, **kind)})
        nets.load_state_dict({name: torch.stack([start[name] for start in start_of]) for name in start_of[0]})
        nets.to(device)
        parameters = dict(nets.named_parameters())
        masks = {name: torch.stack([m[name] for m in masks_of]).to(device) for name in masks_of[0]}
        su.apply_masks(parameters, masks)
        optimizer = su.run_adam(parameters, args.learning_rate)
        best = {name: p.detach().clone() for name, p in parameters.items()}
        best_return, final_return, steps_to_best = np.full(R, -np.inf), np.full(R, np.nan), np.zeros(R, dtype=int)

        # ---- Distil. One random stream per seed, shared by its conditions.
        streams = [np.random.default_rng(su.seeds(seed, round_, 1)[0]) for seed in args.seeds]
        stream_of = torch.tensor([args.seeds.index(seed) for seed, _ in runs], device=device)[:, None]
        own = {"processes": args.async_envs, "matrix_seeds": [matrix_seed] * R}
        eval_envs = envs.vector.make(args.env_id, R, args.eval_episodes, first_episode=True, **own)
        losses = []  # of the updates since the last evaluation
        watch.lap("prune")
        for update in range(1, args.updates + 1):
            rows = np.stack([s.integers(args.transitions, size=args.batch_size) for s in streams])
            index = torch.from_numpy(rows).to(device)[stream_of[:, 0]]  # [R, B]
            x, target = unpack(seen[stream_of, index], view["high"], n_in), outputs[stream_of, index]
            loss = distillation_loss(nets["actor"], x, target, teacher_log_std)
            optimizer.zero_grad()
            loss.sum().backward()
            su.mask_gradients(parameters, masks)
            optimizer.step()
            losses.append(loss.detach())
            watch.lap("learn")
            if round_ == 0 and update == args.rewind_steps:
                for r, (seed, _) in enumerate(runs):
                    start = su.run_slice(nets.state_dict(), r)
                    starts[str(seed)] = {name: tensor.cpu().clone() for name, tensor in start.items()}

            # ---- Evaluate; keep the best checkpoint of each run
            if update % args.eval_interval == 0 or update == args.updates:
                mean_loss, losses = torch.stack(losses, 1).mean(1).tolist(), []
                seeds = [su.seeds(seed, round_, 3, update)[0] for seed, _ in runs]
                returns = envs.vector.play(eval_envs, greedy(nets["actor"], view, seeds), seeds)
                final_return = returns.mean(1)
                steps_to_best[final_return > best_return] = update
                better = final_return >= best_return  # of equals the later, which has trained longer
                best_return[better] = final_return[better]
                for name, p in parameters.items():
                    best[name][better] = p.detach()[better]
                for r, (seed, condition) in enumerate(runs):
                    curves.append({"round": round_, "seed": seed, "condition": condition, "step": update})
                    curves[-1] |= {"return_mean": float(returns[r].mean()), "return_std": float(returns[r].std())}
                    curves[-1] |= {"loss": mean_loss[r]}
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
            retest.append(envs.vector.play(eval_envs, greedy(nets["actor"], view, seeds), seeds))
        best_retest = np.concatenate(retest, 1)[:, :100].mean(1)
        eval_envs.close()
        watch.lap("evaluate")
        for r, (seed, condition) in enumerate(runs):
            chains[f"{seed} {condition}"] = {
                "masks": {name: m.cpu() for name, m in masks_of[r].items()},
                "best": {name: p.cpu().clone() for name, p in su.run_slice(best, r).items()},
            }
            row = {"round": round_, "seed": seed, "condition": condition}
            row |= su.describe_ticket(masks_of[r], view["inputs"])
            row |= {"best_return": float(best_return[r]), "best_retest": float(best_retest[r])}
            row |= {"final_return": float(final_return[r]), "steps_to_best": int(steps_to_best[r])}
            row |= {"loss": mean_loss[r], "teacher_return": data["teacher_return"]}
            results.append(row)
            file = run_dir / "tickets" / f"round{round_:02}_{condition}_seed{seed}.pt"
            file.parent.mkdir(exist_ok=True)
            saved = {"initial": start_of[r], "best": chains[f"{seed} {condition}"]["best"], "result": row}
            saved |= {"script": "bc_distill", "args": asdict(args), "obs_shape": list(obs_space.shape), "view": view}
            saved |= {"inputs": view["inputs"], "kind": kind, "matrix_seed": matrix_seed}
            su.save_ticket(file, masks_of[r], **saved)
            writer.add_scalar(f"best_retest/{condition}/seed{seed}", row["best_retest"], round_)
        writer.add_scalar("remaining_fraction", row["remaining_fraction"], round_)
        su.write_csv(run_dir / "results.csv", results)
        su.write_csv(run_dir / "curves.csv", curves)
        watch.lap("save")
        seconds = watch.take()
        speed = R * args.updates / sum(seconds.values())
        timings.append({"round": round_, "runs": R, "updates_per_second": speed, **seconds})
        su.write_csv(run_dir / "timing.csv", timings)
        writer.add_scalar("charts/updates_per_second", speed, round_)
        after = {"args": asdict(args), "finished": round_ == args.rounds, "round": round_, "chains": chains}
        after |= {"results": results, "curves": curves, "timings": timings, "starts": starts}
        su.save_checkpoint(run_dir / "checkpoint.pt", after)

    data_file.unlink(missing_ok=True)
    progress.close()
    writer.close()
    for condition in ("dense", *args.conditions):
        last = [row["best_retest"] for row in results if row["condition"] == condition][-len(args.seeds) :]
        if last:
            print(f"{condition:18} best_retest in its last round: {np.mean(last):z.1f} over {len(last)} seeds")
    print(f"draw: python plot.py tickets {run_dir}")
