"""Lottery tickets in DQN agents by iterative magnitude pruning (Vischer, Lange, Sprekeler 2022).

    # a first look, in a minute: 2.3% of the weights are left, and plot.py goggles shows which pixels they still read
    python algos/dqn_imp.py --seeds 1 --conditions ticket --rounds 2 --prune-fraction 0.85 --total-timesteps 100000
    python algos/dqn_imp.py                      # MazeGrid, 3 seeds, 4 conditions, 20 rounds of 5M steps: two days
    python algos/dqn_imp.py --env-id MinAtar/Breakout-v1 --network cnn --seeds 1    # 20 rounds of 15M steps
    python algos/dqn_imp.py --env-id CartPole-v1                             # figure 12
    python algos/dqn_imp.py --evaluate runs/NAME/tickets/round09_ticket_seed1.pt --capture-video

The rounds of ppo_imp.py with Double DQN (van Hasselt et al. 2016) and prioritized replay (Schaul et al. 2016): each
trains the full budget from the initial weights under the round's masks, takes the best checkpoint of the round, removes
20% of the weights that remain and rewinds (section 2). Round 0 is dense and shared by the conditions; after it every
condition goes on with its own networks (section 3, figure 1):
    ticket              masks from its own trained networks, initial weights              (mask/weights)
    mask_permuted       the same, initial weights shuffled within each layer              (mask/permuted)
    permuted_permuted   each layer's mask shuffled, too                                   (permuted/permuted)
    random_reinit       a new random mask over all layers, new initial weights            (random/re-init)

All runs (seeds x conditions) of a round are one batched program: every parameter has a leading run axis R and every
batch is [R, B, ...]. A run of fully connected networks learns the same, bit for bit on one CPU thread, whatever runs
train beside it: its randomness is keyed by (seed, round) and shared by a seed's conditions.

Writes the folder ``runs/{env}__dqn_imp__{mlp or cnn}__{n}seeds__{hash}``, or ``--run-dir``:
    results.csv     a row per round and run: round, seed, condition; remaining (weights), remaining_fraction;
                    inputs_alive and alive_inputs (inputs with a weight left in the first layer, and which; with
                    --network cnn channels); density_* of each layer; best_return (the best evaluation of the round, as
                    in the paper), best_retest (that checkpoint over 100 new episodes: a maximum over noisy evaluations
                    flatters), final_return (of the last evaluation), steps_to_best (to the first one at best_return)
    curves.csv      a row per evaluation: round, seed, condition, step, return_mean, return_std
    tickets/        a file per round and run: masks, initial weights, best weights; su.load_ticket reads it
    timing.csv      a row per round: seconds by what they went to, and the steps per second of all its runs together
    config.json, checkpoint.pt, events.*; round.pt, with the replay memory, until a round is finished

The same command started again goes on where the last evaluation was, or where a signal stopped it, to the same
results; tasks of gymnasium start new episodes there.

Hyper-parameters: tables 8 and 11 (``MAZEGRID``, ``MINATAR``). What the paper leaves silent, and what differs:
 1. "Data replay ratio 4" is samples consumed per environment step, as in rlpyt, which the paper used: with batches of
    256 transitions one update for every 64 steps.
 2. 64 environments of each run, as 64 steps come between two updates; learning starts after 20,000 steps; the target
    network is copied every 312 updates (rlpyt's default, as is Adam's epsilon of 0.01 / batch size). Priorities are
    not clipped at 1, as rlpyt's are, and a new transition gets the largest so far; importance weights are divided by
    the largest in the batch. ReLU networks with hidden layers of 256 and 128 units for MazeGrid and 64 and 64 for
    Cart-Pole; MinAtar has table 10's 512-256, or with --network cnn 16 kernels of 3 x 3 and 128-64.
 3. Cart-Pole has no table: batches of 64, a ratio of 16 (with 4 it stays at 200 of 500), a copy every 100 updates.
 4. Evaluation every tenth of the budget, 20 episodes at the paper's epsilon of 0.001. Of equal evaluations the later
    counts as the best, as it has trained longer. best_retest, over 100 new episodes, is ours.
 5. Exploration and replay start anew in each round, and so do optimizer and target network.
 6. Biases are never pruned. The paper's one network is called "actor" here, as in ppo_imp.py.
 7. At the time limit the value of the last observation is the future's, in training.
 8. Every condition re-prunes its own trained networks, as in the authors' later code; --baseline-mask ticket takes
    the masks of the same seed's and round's ticket instead. After --rewind-steps a round has the full budget.
 9. Weight decay is L2 through Adam on weights alone. Dropout acts in updates on units of fully connected hidden layers.
10. MazeGrid's map and when its enemies move are ours (envs/mazegrid.py). MinAtar has its own defaults, sticky actions
    and rising difficulty, with the minimal action set and at most 10,000 steps.
"""

import copy
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
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

sys.path.append(str(Path(__file__).resolve().parent.parent))  # sparse_utils.py and envs/ are one folder up
import envs.vector  # noqa: E402
import sparse_utils as su  # noqa: E402

# Tables 8 and 11, with the sizes of table 10. Flags given on the command line win.
MAZEGRID = {}  # the defaults of Args are those of MazeGrid
MINATAR = {"total_timesteps": 15_000_000, "learning_rate": 2.5e-4, "end_e": 0.05, "exploration_fraction": 0.5}
MINATAR |= {"hidden_sizes": (512, 256)}
CLASSIC = {"total_timesteps": 200_000, "hidden_sizes": (64, 64), "num_envs": 4}
CLASSIC |= {"batch_size": 64, "replay_ratio": 16.0, "learning_starts": 1_000, "target_interval": 100}


@dataclass
class Args:
    # Run
    env_id: str = "MazeGrid-v0"
    """MazeGrid-v0, MazeGridRGB-v0, MazeGridEntangled-v0, MinAtar/*-v1, or any task with Discrete actions"""
    seeds: tuple[int, ...] = (1, 2, 3)
    """a chain of rounds for each seed and condition"""
    total_timesteps: int = 5_000_000
    """environment steps of a run in each round; default by task"""
    rounds: int = 20
    """pruning rounds, after the dense round 0; a run goes on from where it is if there are more than before"""
    run_dir: str = ""
    """folder to write to"""
    fresh: bool = False
    """delete what is in the run folder and start over"""
    eval_interval: int = 500_000
    """environment steps of a run between evaluations; default a tenth of --total-timesteps"""
    eval_episodes: int = 20
    """episodes per evaluation"""
    eval_epsilon: float = 0.001
    """probability of a random action in evaluations"""
    threads: int = 1
    """CPU threads of PyTorch"""
    matmul_precision: Literal["highest", "medium"] = "highest"
    """medium: matrix products in bfloat16 where the processor has it, faster and less exact"""
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
    """with --evaluate: write one episode beside the ticket, as a gif; and beside each picture what the agent sees"""
    dry_run: bool = False
    """print the network and how many weights each round keeps, and stop"""

    # Algorithm (tables 8 and 11)
    num_envs: int = 64
    """environments of each run; default 4 for classic tasks"""
    learning_rate: float = 5e-4
    """Adam's"""
    buffer_size: int = 100_000
    """transitions of each run, in memory and in round.pt: 100,000 are 16 MB of MazeGrid, 480 MB of MazeGridEntangled"""
    gamma: float = 0.99
    """discount"""
    batch_size: int = 256
    """transitions per update"""
    replay_ratio: float = 4.0
    """samples consumed per environment step: an update for every batch_size / replay_ratio steps; default 16 for
    classic tasks"""
    learning_starts: int = 20_000
    """environment steps before the first update"""
    target_interval: int = 312
    """updates between copies to the target network"""
    start_e: float = 1.0
    """epsilon at the start of exploration"""
    end_e: float = 0.01
    """epsilon at its end"""
    exploration_fraction: float = 0.2
    """fraction of --total-timesteps that epsilon takes from start to end"""
    priority_alpha: float = 0.6
    """exponent of the priorities"""
    priority_beta: float = 0.4
    """exponent of the importance weights at the start; it rises to 1"""
    max_grad_norm: float = 10.0
    """largest norm of a run's gradient"""

    # Networks
    network: Literal["mlp", "cnn"] = "mlp"
    """cnn: 16 convolutions of 3 x 3 first, for observations that are pictures"""
    hidden_sizes: tuple[int, ...] = (256, 128)
    """units of the hidden layers; default by task"""
    init: Literal["kaiming", "he", "xavier", "orthogonal"] = "kaiming"
    """kaiming is PyTorch's default (a = sqrt 5), he has the gain of ReLU"""
    input_init_scale: float = 1.0
    """factor on the initial weights of the first layer (section 4.2)"""
    weight_decay: float = 0.0
    """L2 on the weights, through Adam (figure 14)"""
    dropout: float = 0.0
    """probability with which an update leaves out a hidden unit (figure 14)"""

    # Tickets
    conditions: tuple[Literal["ticket", "mask_permuted", "permuted_permuted", "random_reinit"], ...] = su.CONDITIONS
    """what to compare"""
    prune_fraction: float = 0.2
    """fraction of the remaining weights that each round removes"""
    baseline_mask: Literal["own", "ticket"] = "own"
    """whose trained networks a baseline's masks come from"""
    rewind_steps: int = 0
    """rewind to the weights that round 0 had after so many steps, not to the initial ones (figure 14)"""
    input_mask: str = ""
    """a file in tickets/: see only the inputs that its first layer still reads (figure 5, bottom)"""


def parse_args() -> Args:
    """The command line over the task's defaults. Ends the program with one line if it makes no sense."""
    given = tyro.cli(Args, args=su.flags_without_help())
    task = MAZEGRID if given.env_id.startswith("MazeGrid") else MINATAR if "MinAtar" in given.env_id else CLASSIC
    if given.network == "cnn":
        task = task | {"hidden_sizes": (128, 64)}
    default = replace(Args(), **task)
    budget = tyro.cli(Args, args=su.flags_without_help(), default=default).total_timesteps
    args = tyro.cli(Args, description=__doc__, default=replace(default, eval_interval=max(1, budget // 10)))
    su.check_ticket_flags(args)
    su.check_flags(args, "above 0", "total_timesteps", "buffer_size", "batch_size", "replay_ratio", "target_interval")
    su.check_flags(args, "above 0", "exploration_fraction", "max_grad_norm")
    su.check_flags(args, "0 or more", "weight_decay", "learning_rate", "learning_starts")
    su.check_flags(args, "in [0, 1]", "gamma", "start_e", "end_e", "eval_epsilon", "priority_alpha", "priority_beta")
    su.check_flags(args, "in [0, 1)", "dropout")
    if args.batch_size / args.replay_ratio % args.num_envs:
        su.fail(
            f"--num-envs {args.num_envs} does not divide the {args.batch_size / args.replay_ratio:g} steps "
            "between updates, batch_size / replay_ratio"
        )
    if args.learning_starts < 2 * args.num_envs or args.learning_starts >= args.total_timesteps:
        su.fail(
            f"--learning-starts {args.learning_starts} must be at least 2 * --num-envs, {2 * args.num_envs}, "
            f"and below --total-timesteps, {args.total_timesteps}"
        )
    if args.buffer_size < 3 * args.num_envs:
        su.fail(f"--buffer-size {args.buffer_size} must be at least three steps of --num-envs {args.num_envs}")
    last = args.total_timesteps - args.total_timesteps % args.num_envs
    if args.rewind_steps > last:
        su.fail(f"--rewind-steps {args.rewind_steps} is beyond the last step, {last}")
    return args


# ---- Replay ----------------------------------------------------------------------------------------------------------


class Replay:
    """Prioritized replay memory of R runs with N environments each (Schaul et al. 2016).

    A column of T rows for each environment. A row is one step: the observation, the action taken, the reward and
    whether the episode terminated. The observation that the step led to is that of the next row, so each is stored
    once, and binary ones as bits. After the last step of an episode comes a row that holds only its last observation:
    like the newest row of each column, whose next one is not there yet, it has priority zero and is never drawn.
    """

    def __init__(self, runs: int, n_envs: int, size: int, obs_space: gym.spaces.Box, obs_dim: int, alpha: float):
        self.runs, self.n_envs, self.rows = runs, n_envs, -(-size // n_envs)
        self.bits = obs_space.dtype == np.uint8 and obs_space.high.max() == 1
        shape = (runs, self.rows, n_envs)
        width = -(-obs_dim // 8) if self.bits else obs_dim
        self.obs_dim, self.alpha = obs_dim, alpha
        dtype = np.uint8 if obs_space.dtype == np.uint8 else np.float32
        self.obs = np.zeros((*shape, width), dtype)
        self.action, self.terminated = np.zeros(shape, np.uint8), np.zeros(shape, bool)
        self.reward, self.priority = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        self.largest = np.ones((runs, 1), np.float32)  # priority of each run
        self.newest = -1
        self.real = np.zeros((runs, n_envs), bool)  # is the newest row a step, not the last observation of an episode?

    def add(
        self, obs: np.ndarray, action: np.ndarray, reward: np.ndarray, terminated: np.ndarray, real: np.ndarray
    ) -> None:
        """A row of every environment: obs [R, N, dim], the others [R, N]. ``real`` is False in the row after an
        episode's last step."""
        if self.newest >= 0:  # its next observation is here now
            self.priority[:, self.newest] = np.where(self.real, self.largest, 0)
        self.newest = (self.newest + 1) % self.rows
        t = self.newest
        self.obs[:, t] = np.packbits(obs, axis=-1) if self.bits else obs
        self.action[:, t], self.reward[:, t], self.terminated[:, t] = action, reward, terminated
        self.priority[:, t] = 0
        self.real = real

    def sample(self, uniform: np.ndarray, beta: float) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Places [R, B] and what is there: obs and next_obs [R, B, dim], action, reward, terminated and importance
        weights [R, B]. Draw i of B falls in the i-th of B equal parts of the sum of priorities; ``uniform`` [R, B] are
        numbers in [0, 1) that say where."""
        n_draws, run = uniform.shape[1], np.arange(self.runs)[:, None]
        by_row = self.priority.sum(2, dtype=np.float64).cumsum(1)  # [R, T]
        total = by_row[:, -1:]
        wanted = np.minimum((np.arange(n_draws) + uniform) / n_draws * total, np.nextafter(total, 0))
        t = np.stack([np.searchsorted(c, w, side="right") for c, w in zip(by_row, wanted, strict=True)])
        within = self.priority[run, t].cumsum(2, dtype=np.float64)  # [R, B, N]
        wanted -= by_row[run, t] - within[..., -1]
        wanted = wanted.clip(0, np.nextafter(within[..., -1], 0))  # rounding must not lead to another row
        env = (within <= wanted[..., None]).sum(2)
        place = t * self.n_envs + env
        weight = self.priority[run, t, env] ** -beta  # what else is in it is the same for all, and divided out
        following = (place + self.n_envs) % (self.rows * self.n_envs)
        flat = {name: getattr(self, name).reshape(self.runs, -1) for name in ("action", "reward", "terminated")}
        batch = {name: values[run, place] for name, values in flat.items()}
        obs = self.obs.reshape(self.runs, self.rows * self.n_envs, -1)
        batch |= {"obs": self.unpack(obs[run, place]), "next_obs": self.unpack(obs[run, following])}
        batch["weight"] = (weight / weight.max(1, keepdims=True)).astype(np.float32)
        return place, batch

    def get_state(self) -> dict[str, Any]:
        """All that changes, for ``set_state`` of a memory made like this one: views, to be written at once."""
        arrays = ("obs", "action", "terminated", "reward", "priority", "largest", "real")
        return {"newest": self.newest} | {name: torch.from_numpy(getattr(self, name)) for name in arrays}

    def set_state(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value if name == "newest" else value.numpy())

    def unpack(self, obs: np.ndarray) -> np.ndarray:
        return np.unpackbits(obs, axis=-1, count=self.obs_dim) if self.bits else obs

    def update(self, place: np.ndarray, td_error: np.ndarray) -> None:
        """New priorities |TD error|^alpha [R, B]. A run that has diverged draws anything, and the others go on."""
        error = np.where(np.isfinite(td_error), np.abs(td_error), 0)
        new = (error + 1e-6) ** self.alpha
        self.priority.reshape(self.runs, -1)[np.arange(self.runs)[:, None], place] = new
        np.maximum(self.largest, new.max(1, keepdims=True), out=self.largest)


# ---- Networks --------------------------------------------------------------------------------------------------------


class QNetwork(nn.Module):
    """R independent ReLU networks: x [R, B, ...] -> action values [R, B, A]. Bytes are divided by their highest value;
    pictures [C, h, w] go through 16 convolutions of 3 x 3 first, or are flattened."""

    def __init__(self, runs: int, obs_space: gym.spaces.Box, obs_shape: Sequence[int], n_actions: int, args: Args):
        super().__init__()
        self.high = float(obs_space.high.max()) if obs_space.dtype == np.uint8 else 1.0
        layers, n_in = [], math.prod(obs_shape)
        self.picture = obs_shape if args.network == "cnn" else None
        if self.picture:
            channels, height, width = obs_shape
            layers, n_in = [su.BatchedConv2d(runs, channels, 16, 3)], 16 * (height - 2) * (width - 2)
        sizes = (n_in, *args.hidden_sizes, n_actions)
        layers += [su.BatchedLinear(runs, *ends) for ends in zip(sizes[:-1], sizes[1:], strict=True)]
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor, kept: Sequence[Tensor] = ()) -> Tensor:
        """``kept``: with dropout, a factor [R, B, units] for each fully connected hidden layer, of 0 or 1 / (1 - p)."""
        x = x.float() / self.high if self.high > 1 else x.float()
        kept, layers = iter(kept), list(self.layers)
        if self.picture:
            x = torch.relu(layers.pop(0)(x.unflatten(2, self.picture))).flatten(2)
        for layer in layers[:-1]:
            x = torch.relu(layer(x))
            factor = next(kept, None)
            x = x if factor is None else x * factor
        return layers[-1](x)


# ---- Double DQN ------------------------------------------------------------------------------------------------------


def td_target(q_next: Tensor, q_next_target: Tensor, reward: Tensor, terminated: Tensor, gamma: float) -> Tensor:
    """reward + gamma * Q_target(s', argmax Q(s')) [R, B], from action values [R, B, A] (van Hasselt et al. 2016). Only
    a true end (terminated) has no future."""
    value = q_next_target.gather(-1, q_next.argmax(-1, keepdim=True)).squeeze(-1)
    return reward + gamma * (1 - terminated) * value


def policy(
    q: QNetwork, inputs: list[int] | slice, epsilon: float, seeds: Sequence[int]
) -> Callable[[np.ndarray], np.ndarray]:
    """The function from observations [R * N, ...] to the agents' actions [R, N]: those of the largest value, or with
    probability epsilon random ones, by a stream for each run from ``seeds``."""
    device, runs = q.layers[0].weight.device, len(seeds)
    streams = [np.random.default_rng(seed) for seed in seeds]

    @torch.no_grad()
    def act(obs: np.ndarray) -> np.ndarray:
        x = torch.from_numpy(obs.reshape(len(obs), -1)[:, inputs]).to(device).unflatten(0, (runs, -1))
        values = q(x)
        action = values.argmax(-1).cpu().numpy()
        noise = np.stack([s.random((2, action.shape[1])) for s in streams], 1)  # [2, R, N]
        return np.where(noise[0] < epsilon, (noise[1] * values.shape[-1]).astype(int), action)

    return act


if __name__ == "__main__":
    args = parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.set_float32_matmul_precision(args.matmul_precision)
    torch.set_flush_denormal(True)  # Adam's moments of dead units decay to numbers that are very slow to compute with
    device = torch.device("cuda" if args.cuda and torch.cuda.is_available() else "cpu")

    # ---- Task and networks
    inputs, ticket = slice(None), None  # which inputs the networks see: all, or a list
    try:
        if args.evaluate:  # the task and the networks are the ticket's
            ticket = su.load_ticket(Path(args.evaluate))
            if ticket.get("script") != "dqn_imp":
                raise ValueError(f"{args.evaluate} is no ticket of dqn_imp.py")
            own = {name: getattr(args, name) for name in ("evaluate", "eval_episodes", "eval_epsilon", "capture_video")}
            args, inputs = Args(**ticket["args"] | own), ticket["inputs"] or inputs
        probe = envs.vector.make(args.env_id, 1, 1, matrix_seeds=[0])
        obs_space, action_space = probe.single_observation_space, probe.single_action_space
        pixels = hasattr(probe, "render_seen") and args.env_id != "MazeGridEntangled-v0"  # inputs of a picture
        if not isinstance(action_space, gym.spaces.Discrete):
            raise ValueError(f"DQN needs Discrete actions; {args.env_id} has {action_space}")
        if args.network == "cnn" and len(obs_space.shape) != 3:
            raise ValueError(f"--network cnn needs pictures; {args.env_id} has observations {obs_space.shape}")
        if args.input_mask and ticket is None:
            if args.network == "cnn":
                raise ValueError("--input-mask is for fully connected networks, not for --network cnn")
            inputs = su.read_input_mask(Path(args.input_mask), args.env_id, obs_space.shape, args.seeds)
            print(f"the networks see {len(inputs)} of {math.prod(obs_space.shape)} inputs")
    except ValueError as error:
        su.fail(str(error))
    obs_shape = obs_space.shape if inputs == slice(None) else (len(inputs),)
    obs_dim, n_actions = math.prod(obs_shape), int(action_space.n)
    template = nn.ModuleDict({"actor": QNetwork(1, obs_space, obs_shape, n_actions, args)})
    pruned_layers = su.prunable(actor=template["actor"])
    if args.dry_run:
        print(su.describe(pruned_layers, {}))
        total = sum(w.numel() for w in pruned_layers.values())
        keep = su.remaining_by_round(total, args.prune_fraction, args.rounds)
        print(f"weights in rounds 0 to {args.rounds}: {' '.join(map(str, keep))}")
        raise SystemExit(0)
    if ticket is not None:
        template.load_state_dict({name: tensor[None] for name, tensor in ticket["best"].items()})
        template.to(device)
        q, seed = template["actor"], ticket["result"]["seed"]
        act = policy(q, inputs, args.eval_epsilon, [1])
        vector = envs.vector.make(args.env_id, 1, args.eval_episodes, first_episode=True, matrix_seeds=[seed])
        print(f"{args.env_id}, {su.describe_returns(envs.vector.play(vector, act, [1])[0])}")
        if args.capture_video:
            # Beside the game what the agent sees of it, where the first layer reads each pixel alone
            alive = None
            if pixels and args.network == "mlp":
                alive = np.zeros(math.prod(obs_space.shape), dtype=bool)
                alive[inputs] = ticket["masks"]["actor.layers.0.weight"].sum(1).numpy() > 0
            gif = Path(args.evaluate).with_suffix(".gif")
            envs.vector.record(args.env_id, act, gif, matrix_seeds=[seed], alive=alive)
        raise SystemExit(0)

    # ---- Run folder; go on after the last finished round in it
    run_dir = Path(args.run_dir or f"runs/{su.run_name(args, 'dqn_imp', args.network)}")
    round_file = run_dir / "round.pt"  # what an unfinished round needs to go on
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

    iterations = args.total_timesteps // args.num_envs
    update_every = round(args.batch_size / args.replay_ratio) // args.num_envs  # iterations
    first_update = -(-args.learning_starts // args.num_envs)
    steps = args.num_envs  # of a run in each iteration
    signals = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _frame: signals.append(number))
    progress = tqdm(total=(args.rounds + 1) * iterations * steps, initial=first_round * iterations * steps, unit="step")
    progress.mininterval = 1 if sys.stderr.isatty() else 60
    for round_ in range(first_round, args.rounds + 1):
        watch = su.Stopwatch("prune", "act", "env", "sample", "learn", "evaluate", "save")
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
        nets = nn.ModuleDict({"actor": QNetwork(R, obs_space, obs_shape, n_actions, args)})
        nets.load_state_dict({name: torch.stack([start[name] for start in start_of]) for name in start_of[0]})
        nets.to(device)
        q, parameters, state = nets["actor"], dict(nets.named_parameters()), nets.state_dict()
        masks = {name: torch.stack([m[name] for m in masks_of]).to(device) for name in masks_of[0]}
        su.apply_masks(parameters, masks)
        q_target = copy.deepcopy(q).requires_grad_(False)
        optimizer = su.run_adam(parameters, args.learning_rate, args.weight_decay, eps=0.01 / args.batch_size)
        best = {name: tensor.clone() for name, tensor in state.items()}
        best_return, final_return, steps_to_best = np.full(R, -np.inf), np.full(R, np.nan), np.zeros(R, dtype=int)

        # ---- Train. One random stream per seed, shared by its conditions.
        streams = [np.random.default_rng(su.seeds(seed, round_, 1)[0]) for seed in args.seeds]
        stream_of = [args.seeds.index(seed) for seed, _ in runs]
        matrix_seeds = [seed for seed, _ in runs]
        train_envs = envs.vector.make(args.env_id, R, args.num_envs, next_step=True, matrix_seeds=matrix_seeds)
        own = {"first_episode": True, "matrix_seeds": matrix_seeds}
        eval_envs = envs.vector.make(args.env_id, R, args.eval_episodes, **own)
        obs = envs.vector.reset(train_envs, [su.seeds(seed, round_, 2)[0] for seed, _ in runs])
        real = np.ones((R, args.num_envs), dtype=bool)  # is this row a step, or the last observation of an episode?
        replay = Replay(R, args.num_envs, args.buffer_size, obs_space, obs_dim, args.priority_alpha)
        updates, first = 0, 1
        # ---- Go on within the round, where it was last saved
        if round_file.exists() and (saved := su.load_checkpoint(round_file))["round"] == round_:
            first, updates, curves = saved["iteration"] + 1, saved["updates"], saved["curves"]
            best_return, final_return, steps_to_best = (x.numpy() for x in saved["evaluations"])
            starts, watch.seconds = saved["starts"], saved["seconds"]
            nets.load_state_dict(saved["nets"])
            q_target.load_state_dict(saved["q_target"])
            optimizer.load_state_dict(saved["optimizer"])
            best = {name: tensor.to(device) for name, tensor in saved["best"].items()}
            replay.set_state(saved["replay"])
            for stream, there in zip(streams, saved["streams"], strict=True):
                stream.bit_generator.state = there
            if saved["envs"] is not None:
                train_envs.set_state(saved["envs"])
                obs, real = saved["obs"].numpy(), saved["real"].numpy()
            else:  # new episodes start, and the newest row of the memory has no next one
                obs = envs.vector.reset(train_envs, [su.seeds(seed, round_, 2, first)[0] for seed, _ in runs])
                replay.real[:] = False
            # what was done before says nothing of the speed
            progress.initial = progress.n = progress.last_print_n = progress.n + (first - 1) * steps
            progress.write(f"resuming round {round_} after {(first - 1) * steps:,} steps")
        watch.lap("prune")
        for iteration in range(first, iterations + 1):
            step = iteration * args.num_envs
            # ---- Act: epsilon-greedy, epsilon falling linearly (tables 8 and 11)
            explored = min(1.0, step / (args.exploration_fraction * args.total_timesteps))
            epsilon = args.start_e + explored * (args.end_e - args.start_e)
            noise = np.stack([s.random((2, args.num_envs)) for s in streams], 1)[:, stream_of]  # [2, R, N]
            action = (noise[1] * n_actions).astype(np.int64)
            obs = obs.reshape(R, args.num_envs, -1)[:, :, inputs]
            if epsilon < 1:
                with torch.no_grad():
                    best_action = q(torch.from_numpy(obs).to(device)).argmax(-1).cpu().numpy()
                action = np.where(noise[0] < epsilon, action, best_action)
            watch.lap("act")
            next_obs, reward, terminated, truncated, _ = train_envs.step(action.ravel())
            reward, terminated = reward.reshape(R, -1), terminated.reshape(R, -1)
            replay.add(obs, action, reward, terminated, real)
            real = ~(terminated | truncated.reshape(R, -1))
            obs = next_obs
            watch.lap("env")

            # ---- Learn: replay_ratio samples for each step
            if iteration >= first_update and iteration % update_every == 0:
                beta = args.priority_beta + (1 - args.priority_beta) * iteration / iterations
                uniform = np.stack([s.random(args.batch_size) for s in streams])[stream_of]
                places, sampled = replay.sample(uniform, beta)
                batch = {name: torch.from_numpy(array).to(device) for name, array in sampled.items()}
                watch.lap("sample")
                with torch.no_grad():
                    q_next, q_next_target = q(batch["next_obs"]), q_target(batch["next_obs"])
                    target = td_target(q_next, q_next_target, batch["reward"], batch["terminated"].float(), args.gamma)
                drop = streams, stream_of, args.batch_size, args.hidden_sizes, args.dropout, device
                kept = su.dropout_factors(*drop)
                value = q(batch["obs"], kept).gather(-1, batch["action"].long()[..., None]).squeeze(-1)
                loss = (batch["weight"] * F.smooth_l1_loss(value, target, reduction="none")).mean(1)  # Huber, [R]
                optimizer.zero_grad()
                loss.sum().backward()
                su.mask_gradients(parameters, masks)
                su.clip_run_gradients(parameters, args.max_grad_norm)
                optimizer.step()
                replay.update(places, (target - value.detach()).cpu().numpy())
                updates += 1
                if updates % args.target_interval == 0:
                    q_target.load_state_dict(q.state_dict())
                watch.lap("learn")
            if round_ == 0 and 0 < args.rewind_steps <= step < args.rewind_steps + steps:
                for r, (seed, _) in enumerate(runs):
                    starts[str(seed)] = {name: tensor.cpu().clone() for name, tensor in su.run_slice(state, r).items()}

            # ---- Evaluate; keep the best checkpoint of each run
            if step % args.eval_interval < steps or iteration == iterations:
                seeds = [su.seeds(seed, round_, 3, step)[0] for seed, _ in runs]
                returns = envs.vector.play(eval_envs, policy(q, inputs, args.eval_epsilon, seeds), seeds)
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
            progress.update(steps)

            # ---- Save what the round needs to go on, at evaluations and if the program is told to stop
            if signals or step % args.eval_interval < steps:
                saved = {"round": round_, "iteration": iteration, "updates": updates, "curves": curves}
                saved["evaluations"] = [torch.from_numpy(x) for x in (best_return, final_return, steps_to_best)]
                saved |= {"nets": state, "q_target": q_target.state_dict(), "optimizer": optimizer.state_dict()}
                saved |= {"best": best, "starts": starts, "seconds": watch.seconds, "replay": replay.get_state()}
                saved |= {"streams": [stream.bit_generator.state for stream in streams], "obs": torch.tensor(obs)}
                saved |= {"real": torch.from_numpy(real), "envs": None}
                if hasattr(train_envs, "get_state"):
                    saved["envs"] = train_envs.get_state()
                su.save_checkpoint(round_file, saved)
                if curves:
                    su.write_csv(run_dir / "curves.csv", curves)
                watch.lap("save")
            if signals:
                progress.close()
                print(f"stopped in round {round_}; the same command goes on from here ({run_dir})")
                raise SystemExit(128 + signals[0])

        # ---- Record: retest the best checkpoints, save the tickets, results and what the next round needs
        nets.load_state_dict(best)
        retest = []
        for part in range(-(-100 // args.eval_episodes)):
            seeds = [su.seeds(seed, round_, 4, part)[0] for seed, _ in runs]
            retest.append(envs.vector.play(eval_envs, policy(q, inputs, args.eval_epsilon, seeds), seeds))
        best_retest = np.concatenate(retest, 1)[:, :100].mean(1)
        train_envs.close()
        eval_envs.close()
        watch.lap("evaluate")
        for r, (seed, condition) in enumerate(runs):
            chains[f"{seed} {condition}"] = {
                "masks": {name: m.cpu() for name, m in masks_of[r].items()},
                "best": {name: p.cpu().clone() for name, p in su.run_slice(best, r).items()},
            }
            seen = None if inputs == slice(None) else inputs
            row = {"round": round_, "seed": seed, "condition": condition, **su.describe_ticket(masks_of[r], seen)}
            row |= {"best_return": float(best_return[r]), "best_retest": float(best_retest[r])}
            row |= {"final_return": float(final_return[r]), "steps_to_best": int(steps_to_best[r])}
            results.append(row)
            file = run_dir / "tickets" / f"round{round_:02}_{condition}_seed{seed}.pt"
            file.parent.mkdir(exist_ok=True)
            saved = {"initial": start_of[r], "best": chains[f"{seed} {condition}"]["best"], "result": row}
            saved |= {"script": "dqn_imp", "args": asdict(args), "obs_shape": list(obs_space.shape), "inputs": seen}
            su.save_ticket(file, masks_of[r], **saved)
            writer.add_scalar(f"best_retest/{condition}/seed{seed}", row["best_retest"], round_)
        writer.add_scalar("remaining_fraction", row["remaining_fraction"], round_)
        su.write_csv(run_dir / "results.csv", results)
        su.write_csv(run_dir / "curves.csv", curves)
        watch.lap("save")
        seconds = watch.take()
        speed = R * iterations * steps / sum(seconds.values())
        timings.append({"round": round_, "runs": R, "steps_per_second": speed, **seconds})
        su.write_csv(run_dir / "timing.csv", timings)
        writer.add_scalar("charts/SPS", speed, round_)
        after = {"args": asdict(args), "finished": round_ == args.rounds, "round": round_, "chains": chains}
        after |= {"results": results, "curves": curves, "timings": timings, "starts": starts}
        su.save_checkpoint(run_dir / "checkpoint.pt", after)
        round_file.unlink(missing_ok=True)

    progress.close()
    writer.close()
    for condition in ("dense", *args.conditions):
        last = [row["best_retest"] for row in results if row["condition"] == condition][-len(args.seeds) :]
        if last:
            print(f"{condition:18} best_retest in its last round: {np.mean(last):z.1f} over {len(last)} seeds")
    if pixels:
        print(f"draw what they still see: python plot.py goggles {run_dir}")
    print(f"draw: python plot.py tickets {run_dir}")
