"""Lottery tickets in DQN agents by iterative magnitude pruning (Vischer, Lange, Sprekeler 2022).

    # a first look, in a minute: 2.3% of the weights are left, and plot.py goggles shows which pixels they still read
    python algos/dqn_imp.py --seeds 1 --conditions ticket --rounds 2 --prune-fraction 0.85 --total-timesteps 100000
    python algos/dqn_imp.py                      # MazeGrid, 3 seeds, 4 conditions, 20 rounds of 5M steps: two days
    python algos/dqn_imp.py --env-id MinAtar/Breakout-v1 --network cnn --seeds 1    # 20 rounds of 15M steps
    python algos/dqn_imp.py --env-id CartPole-v1                             # figure 12
    python algos/dqn_imp.py --evaluate runs/NAME/tickets/round09_ticket_seed1.pt --capture-video

The rounds of ppo_imp.py with Double DQN (van Hasselt et al. 2016) and prioritized replay (Schaul et al. 2016). What all
ticket scripts share is in README.md, "Ticket runs": the rounds and their conditions, the columns of results.csv and
curves.csv, how a stopped run goes on (here the replay memory is in round.pt, too; tasks of gymnasium start new
episodes).

All runs (seeds x conditions) of a round are one batched program: every parameter has a leading run axis R and every
batch is [R, B, ...].

Writes the folder ``runs/{env}__dqn_imp__{mlp or cnn}__{n}seeds__{hash}``, or ``--run-dir``.

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
    counts as the best, as it has trained longer.
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
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import gymnasium as gym
import numpy as np
import torch
import torch.nn.functional as F
import tyro
from torch import Tensor, nn

# sparse_utils.py and envs/ are one folder up; --env-id my_envs:Reach-v0 means my_envs.py where you stand
sys.path += [str(Path(__file__).resolve().parent.parent), os.getcwd()]
import envs.vector  # noqa: E402
import sparse_utils as su  # noqa: E402
from envs.view import View, inputs_of_ticket  # noqa: E402

# Tables 8 and 11, with the sizes of table 10. Flags given on the command line win.
MAZEGRID = {}  # the defaults of Args are those of MazeGrid
MINATAR = {
    "total_timesteps": 15_000_000,
    "learning_rate": 2.5e-4,
    "end_e": 0.05,
    "exploration_fraction": 0.5,
    "hidden_sizes": (512, 256),
}
CLASSIC = {
    "total_timesteps": 200_000,
    "hidden_sizes": (64, 64),
    "num_envs": 4,
    "batch_size": 64,
    "replay_ratio": 16.0,
    "learning_starts": 1_000,
    "target_interval": 100,
}
CNN = {"hidden_sizes": (128, 64)}  # with --network cnn


@dataclass
class Args:
    # Run
    env_id: str = "MazeGrid-v0"  # MazeGrid*-v0, MinAtar/*-v1, or any task with Discrete actions
    seeds: tuple[int, ...] = (1, 2, 3)  # a chain of rounds for each seed and condition
    total_timesteps: int = 5_000_000  # environment steps of a run in each round; default by task
    rounds: int = 20  # pruning rounds after the dense round 0; raise it, and a finished run goes on
    max_episode_steps: int | None = None  # time limit of an episode, in steps; default the task's own
    run_dir: str = ""  # folder to write to; default one of its own in runs/
    fresh: bool = False  # delete what is in the run folder and start over
    eval_interval: int = 0  # environment steps of a run between evaluations; 0 = a tenth of --total-timesteps
    eval_episodes: int = 20  # episodes per evaluation; default by task
    eval_epsilon: float = 0.001  # probability of a random action in evaluations
    retest_episodes: int = 100  # new episodes for the best checkpoint of each round
    threads: int = 1  # CPU threads of PyTorch
    matmul_precision: Literal["highest", "medium"] = "highest"  # medium: hidden layers in bfloat16, where it is fast
    kernel: Literal["masked", "sparse"] = "masked"  # sparse: products of active weights alone, faster in late rounds
    cuda: bool = False  # use a GPU if there is one
    track: bool = False  # also log to Weights & Biases (pip install wandb)
    wandb_project_name: str = "sparse-rl"  # with --track: the project
    wandb_entity: str | None = None  # with --track: the team
    evaluate: str = ""  # a file in tickets/: evaluate its best weights, in its own task, for --eval-episodes and stop
    seed: int = 1  # with --evaluate: of its episodes
    capture_video: bool = False  # with --evaluate: write one episode as a gif, with what the agent sees beside it
    dry_run: bool = False  # print the networks and how many weights each round keeps, and stop

    # Algorithm (tables 8 and 11)
    num_envs: int = 64  # environments of each run; default by task
    learning_rate: float = 5e-4  # Adam's
    buffer_size: int = 100_000  # transitions of each run: 100,000 are 16 MB of MazeGrid, 480 MB of MazeGridEntangled
    gamma: float = 0.99  # discount
    batch_size: int = 256  # transitions per update
    replay_ratio: float = 4.0  # samples per environment step: an update each batch_size / replay_ratio steps
    learning_starts: int = 20_000  # environment steps before the first update
    target_interval: int = 312  # updates between copies to the target network
    start_e: float = 1.0  # epsilon at the start of exploration
    end_e: float = 0.01  # epsilon at its end
    exploration_fraction: float = 0.2  # fraction of --total-timesteps that epsilon takes from start to end
    priority_alpha: float = 0.6  # exponent of the priorities
    priority_beta: float = 0.4  # exponent of the importance weights at the start; it rises to 1
    max_grad_norm: float = 10.0  # largest norm of a run's gradient

    # Networks
    network: Literal["mlp", "cnn"] = "mlp"  # cnn: 16 convolutions of 3 x 3 first, for observations that are pictures
    hidden_sizes: tuple[int, ...] = (256, 128)  # units of the hidden layers; default by task
    init: su.Init = "kaiming"  # kaiming is PyTorch's default (a = sqrt 5), he has the gain of ReLU
    input_init_scale: float = 1.0  # factor on the initial weights of the first layer (section 4.2)
    weight_decay: float = 0.0  # L2 on the weights, through Adam (figure 14)
    dropout: float = 0.0  # probability with which an update leaves out a hidden unit (figure 14)

    # Tickets
    conditions: tuple[su.Condition, ...] = su.CONDITIONS  # what to compare
    prune_fraction: float = 0.2  # fraction of the remaining weights that each round removes
    baseline_mask: Literal["own", "ticket"] = "own"  # whose trained networks a baseline's masks come from
    rewind_steps: int = 0  # rewind to the weights that round 0 had after so many steps, not to the initial ones
    input_mask: str = ""  # a file in tickets/: see only the inputs that its first layer still reads (figure 5, bottom)

    def __post_init__(self) -> None:
        su.check_ticket_flags(self)
        su.check_flags(self, "above 0", "total_timesteps", "buffer_size", "batch_size", "replay_ratio")
        su.check_flags(self, "above 0", "target_interval", "exploration_fraction", "max_grad_norm")
        su.check_flags(self, "0 or more", "weight_decay", "learning_rate", "learning_starts")
        su.check_flags(self, "in [0, 1]", "gamma", "start_e", "end_e", "eval_epsilon")
        su.check_flags(self, "in [0, 1]", "priority_alpha", "priority_beta")
        su.check_flags(self, "in [0, 1)", "dropout")
        between = self.batch_size / self.replay_ratio
        if between % self.num_envs:
            raise ValueError(
                f"--num-envs {self.num_envs} does not divide the {between:g} steps between updates, "
                "batch_size / replay_ratio"
            )
        if not 2 * self.num_envs <= self.learning_starts < self.total_timesteps:
            raise ValueError(
                f"--learning-starts {self.learning_starts} must be at least 2 * --num-envs, {2 * self.num_envs}, "
                f"and below --total-timesteps, {self.total_timesteps}"
            )
        if self.buffer_size < 3 * self.num_envs:
            raise ValueError(f"--buffer-size {self.buffer_size} must be three steps of --num-envs {self.num_envs}")
        last = self.total_timesteps - self.total_timesteps % self.num_envs
        if self.rewind_steps > last:
            raise ValueError(f"--rewind-steps {self.rewind_steps} is beyond the last step, {last}")
        if self.input_mask and self.network == "cnn":
            raise ValueError("--input-mask is for fully connected networks, not for --network cnn")


def parse_args() -> Args:
    """The command line, over the defaults of its task."""
    env_id = su.flag_given("env-id", Args.env_id)
    task = MAZEGRID if env_id.startswith("MazeGrid") else MINATAR if "MinAtar" in env_id else CLASSIC
    network = CNN if su.flag_given("network", Args.network) == "cnn" else {}
    args = tyro.cli(Args, description=__doc__, default=Args(**{**task, **network}))
    args.eval_interval = args.eval_interval or max(1, args.total_timesteps // 10)
    return args


# ---- Replay ----------------------------------------------------------------------------------------------------------


class Replay:
    """Prioritized replay memory of R runs with N environments each (Schaul et al. 2016).

    A column of T rows for each environment. A row is one step: the observation, the action taken, the reward and
    whether the episode terminated. The observation that the step led to is that of the next row, so each is stored
    once, and binary ones as bits. After the last step of an episode comes a row that holds only its last observation:
    like the newest row of each column, whose next one is not there yet, it has priority zero and is never drawn.
    """

    def __init__(self, runs: int, n_envs: int, size: int, obs_space: gym.spaces.Box, n_actions: int, alpha: float):
        self.runs, self.n_envs, self.rows = runs, n_envs, -(-size // n_envs)
        self.bits = obs_space.dtype == np.uint8 and obs_space.high.max() == 1
        self.obs_dim, self.alpha = math.prod(obs_space.shape), alpha
        shape = (runs, self.rows, n_envs)
        self.obs = np.zeros((*shape, self.width(obs_space)), np.uint8 if obs_space.dtype == np.uint8 else np.float32)
        self.action = np.zeros(shape, np.uint8 if n_actions <= 256 else np.int32)
        self.terminated = np.zeros(shape, bool)
        self.reward, self.priority = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        self.largest = np.ones((runs, 1), np.float32)  # priority of each run
        self.newest = -1
        self.real = np.zeros((runs, n_envs), bool)  # is the newest row a step, not the last observation of an episode?

    @staticmethod
    def width(obs_space: gym.spaces.Box) -> int:
        """Numbers that an observation takes: with bits, bytes."""
        obs_dim = math.prod(obs_space.shape)
        return -(-obs_dim // 8) if obs_space.dtype == np.uint8 and obs_space.high.max() == 1 else obs_dim

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
        obs = self.obs.reshape(self.runs, self.rows * self.n_envs, -1)
        return place, {
            "obs": self.unpack(obs[run, place]),
            "next_obs": self.unpack(obs[run, following]),
            **{name: values[run, place] for name, values in flat.items()},
            "weight": (weight / weight.max(1, keepdims=True)).astype(np.float32),
        }

    def get_state(self) -> dict[str, Any]:
        """All that changes, for ``set_state`` of a memory made like this one: views, to be written at once."""
        arrays = ("obs", "action", "terminated", "reward", "priority", "largest", "real")
        return {"newest": self.newest, **{name: torch.from_numpy(getattr(self, name)) for name in arrays}}

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

    def restart(self, runs: Sequence[int]) -> None:
        """Give the steps of these runs equal priorities, as at first: those of weights that have exploded are so large
        that nothing else would be drawn."""
        self.largest[runs] = 1
        self.priority[runs] = self.priority[runs] > 0


# ---- Networks --------------------------------------------------------------------------------------------------------


class QNetwork(nn.Module):
    """R independent ReLU networks: x [R, B, in] -> action values [R, B, A]. Where x are flattened pictures [C, h, w],
    they go through 16 convolutions of 3 x 3 first."""

    bfloat16 = False  # compute hidden layers with 8 bits of precision

    def __init__(self, runs: int, n_in: int, picture: Sequence[int], hidden_sizes: Sequence[int], n_actions: int):
        super().__init__()
        self.picture, layers = picture, []
        if picture:
            channels, height, width = picture
            layers, n_in = [su.BatchedConv2d(runs, channels, 16, 3)], 16 * (height - 2) * (width - 2)
        sizes = (n_in, *hidden_sizes, n_actions)
        layers += [su.BatchedLinear(runs, *ends) for ends in zip(sizes[:-1], sizes[1:], strict=True)]
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor, kept: Sequence[Tensor] = ()) -> Tensor:
        """``kept``: with dropout, a factor [R, B, units] for each fully connected hidden layer, of 0 or 1 / (1 - p)."""
        kept, (*hidden, last) = iter(kept), self.layers
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.bfloat16):
            if self.picture:
                x = torch.relu(hidden.pop(0)(x.unflatten(2, self.picture))).flatten(2)
            for layer in hidden:
                x = torch.relu(layer(x))
                factor = next(kept, None)
                x = x if factor is None else x * factor
        return last(x.float())


def make_networks(
    runs: int, args: Args, obs_space: gym.spaces.Box, n_actions: int, inputs: Sequence[int] | None
) -> nn.ModuleDict:
    """Networks of R runs, and what they see of observations."""
    view = View(runs, obs_space, inputs)
    picture = obs_space.shape if args.network == "cnn" else ()
    actor = QNetwork(runs, view.shape[0], picture, args.hidden_sizes, n_actions)
    actor.bfloat16 = su.bfloat16(args.matmul_precision, args.cuda)
    return nn.ModuleDict({"actor": actor, "view": view})


# ---- Double DQN ------------------------------------------------------------------------------------------------------


def td_target(q_next: Tensor, q_next_target: Tensor, reward: Tensor, terminated: Tensor, gamma: float) -> Tensor:
    """reward + gamma * Q_target(s', argmax Q(s')) [R, B], from action values [R, B, A] (van Hasselt et al. 2016). Only
    a true end (terminated) has no future."""
    value = q_next_target.gather(-1, q_next.argmax(-1, keepdim=True)).squeeze(-1)
    return reward + gamma * (1 - terminated) * value


def policy(nets: nn.ModuleDict, epsilon: float, seeds: Sequence[int]) -> Callable[[np.ndarray], np.ndarray]:
    """The function from observations [R * N, ...] to the agents' actions [R, N]: those of the largest value, or with
    probability epsilon random ones, by a stream for each run from ``seeds``."""
    device, runs = nets["actor"].layers[0].weight.device, len(seeds)
    streams = [np.random.default_rng(seed) for seed in seeds]

    @torch.no_grad()
    def act(obs: np.ndarray) -> np.ndarray:
        values = nets["actor"](nets["view"](torch.from_numpy(obs).to(device).unflatten(0, (runs, -1))))
        action = values.argmax(-1).cpu().numpy()
        noise = np.stack([s.random((2, action.shape[1])) for s in streams], 1)  # [2, R, N]
        return np.where(noise[0] < epsilon, (noise[1] * values.shape[-1]).astype(int), action)

    return act


def train(args: Args, rounds: su.Rounds, nets: nn.ModuleDict, masks: su.Masks, task: dict[str, Any]) -> np.ndarray:
    """One round of Double DQN: train ``nets`` under ``masks`` from what they hold, one run for each of
    ``rounds.tickets``.

    Returns the best weights' returns in new episodes [R, --retest-episodes]; in round 0 a ticket's "rewind" becomes the
    weights after --rewind-steps. Goes on from round.pt, and leaves the program after a signal."""
    R, device = len(rounds.tickets), nets["actor"].layers[0].weight.device
    q, view, parameters = nets["actor"], nets["view"], dict(nets.named_parameters())
    target = copy.deepcopy(nets).requires_grad_(False)
    optimizer = su.run_adam(parameters, args.learning_rate, args.weight_decay, eps=0.01 / args.batch_size)
    kernels = su.SparseKernels(masks, [optimizer], nets, target, args.kernel == "sparse")
    best = su.Best(nets.state_dict(), optimizer, target.state_dict())
    streams, stream_of = rounds.streams()  # one for each seed, shared by its conditions
    task = {**task, "matrix_seeds": [ticket["seed"] for ticket in rounds.tickets]}
    train_envs = envs.vector.make(args.env_id, R, args.num_envs, next_step=True, **task)
    eval_envs = envs.vector.make(args.env_id, R, args.eval_episodes, first_episode=True, **task)
    obs_space, action_space = train_envs.single_observation_space, train_envs.single_action_space
    n_actions = int(action_space.n)
    replay = Replay(R, args.num_envs, args.buffer_size, obs_space, n_actions, args.priority_alpha)
    last_step = args.total_timesteps - args.total_timesteps % args.num_envs
    steps_per_update = round(args.batch_size / args.replay_ratio)
    updates, losses = 0, {}

    learner = {"nets": nets, "target": target, "optimizer": optimizer, "best": best}
    done, saved = rounds.go_on(**learner, streams=streams, replay=replay, envs=train_envs)
    if saved:
        updates = saved["updates"]
    if saved and saved["envs"] is not None:
        obs, real = saved["obs"].numpy(), saved["real"].numpy()
    else:  # new episodes start, and the newest row of the memory, if there is one, has no next one
        key = (2, done // args.num_envs + 1) if saved else (2,)
        obs = envs.vector.reset(train_envs, rounds.seeds(*key))
        real = np.ones((R, args.num_envs), dtype=bool)  # is this row a step, or the last observation of an episode?
        replay.real[:] = False
    rounds.watch.lap("prune")
    for step in range(done, last_step + 1, args.num_envs):
        # ---- Evaluate what these steps have taught; keep the best checkpoint of each run
        due = (step > 0 and step % args.eval_interval < args.num_envs) or step == last_step
        if due or rounds.stop.signal:
            kernels.unpack()
        if due and not rounds.has_evaluated(step):
            act = policy(nets, args.eval_epsilon, rounds.seeds(3, step))
            returns = rounds.stop.interruptible(envs.vector.play, eval_envs, act, rounds.seeds(3, step))
            if returns is not None:
                replay.restart(rounds.evaluated(step, returns, losses))
            rounds.watch.lap("evaluate")
        if due and step > done or rounds.stop.signal:
            rows = {"obs": torch.from_numpy(obs), "real": torch.from_numpy(real)}
            rounds.save(rounds.state(step, updates=updates, **rows))
        if rounds.stop.signal:
            rounds.leave()
        if step == last_step:
            break
        kernels.pack()

        # ---- Act: epsilon-greedy, epsilon falling linearly (tables 8 and 11)
        explored = min(1.0, (step + args.num_envs) / (args.exploration_fraction * args.total_timesteps))
        epsilon = args.start_e + explored * (args.end_e - args.start_e)
        noise = np.stack([s.random((2, args.num_envs)) for s in streams], 1)[:, stream_of]  # [2, R, N]
        action = (noise[1] * n_actions).astype(np.int64)
        obs = obs.reshape(R, args.num_envs, -1)
        if epsilon < 1:
            with torch.no_grad():
                best_action = q(view(torch.from_numpy(obs).to(device))).argmax(-1).cpu().numpy()
            action = np.where(noise[0] < epsilon, action, best_action)
        rounds.watch.lap("act")
        next_obs, reward, terminated, truncated, _ = train_envs.step(envs.vector.to_rows(action, action_space))
        reward, terminated = reward.reshape(R, -1), terminated.reshape(R, -1)
        replay.add(obs, action, reward, terminated, real)
        real = ~(terminated | truncated.reshape(R, -1))
        obs = next_obs
        rounds.watch.lap("env")

        # ---- Learn: replay_ratio samples for each step
        step_after = step + args.num_envs
        if step_after >= args.learning_starts and step_after % steps_per_update == 0:
            beta = args.priority_beta + (1 - args.priority_beta) * step_after / last_step
            uniform = np.stack([s.random(args.batch_size) for s in streams])[stream_of]
            places, sampled = replay.sample(uniform, beta)
            batch = {name: torch.from_numpy(array).to(device) for name, array in sampled.items()}
            rounds.watch.lap("sample")
            with torch.no_grad():
                next_obs_seen = view(batch["next_obs"])
                q_next, q_next_target = q(next_obs_seen), target["actor"](next_obs_seen)
                wanted = td_target(q_next, q_next_target, batch["reward"], batch["terminated"].float(), args.gamma)
            kept = su.dropout_factors(streams, stream_of, args.batch_size, args.hidden_sizes, args.dropout, device)
            value = q(view(batch["obs"]), kept).gather(-1, batch["action"].long()[..., None]).squeeze(-1)
            huber = F.smooth_l1_loss(value, wanted, reduction="none")
            loss = (batch["weight"] * huber).mean(1)  # [R]
            optimizer.zero_grad()
            loss.sum().backward()
            su.mask_gradients(parameters, masks)  # so that pruned weights stay zero
            su.clip_run_gradients([p.grad for p in parameters.values()], args.max_grad_norm)
            optimizer.step()
            replay.update(places, (wanted - value.detach()).cpu().numpy())
            updates += 1
            if updates % args.target_interval == 0:
                target.load_state_dict(nets.state_dict())
            losses = {"losses/td_loss": loss.detach(), "losses/q_values": value.detach().mean(1)}
            rounds.watch.lap("learn")
        if rounds.round == 0 and step < args.rewind_steps <= step_after:
            rounds.rewind_to(nets.state_dict())
        rounds.progress.update(args.num_envs)

    # ---- Retest the best checkpoints in new episodes: a maximum over noisy evaluations flatters
    nets.load_state_dict(best.weights)
    act = policy(nets, args.eval_epsilon, rounds.seeds(4))
    retest = rounds.stop.interruptible(
        envs.vector.retest, eval_envs, act, rounds.seeds(4), args.retest_episodes, args.env_id, task
    )
    if retest is None:
        rounds.leave()
    train_envs.close()
    eval_envs.close()
    rounds.watch.lap("evaluate")
    return retest


def draws_pixels(env_id: str, vector: gym.vector.VectorEnv) -> bool:
    """Is each input a pixel of a picture that can be drawn?"""
    return hasattr(vector.unwrapped, "render_seen") and env_id != "MazeGridEntangled-v0"


def evaluate_ticket(args: Args) -> None:
    """Play with the best weights of a ticket, in its own task."""
    su.exit_on_signal()
    ticket, there = su.load_ticket_of("dqn_imp", args.evaluate, Args)
    task = {
        "max_episode_steps": args.max_episode_steps or there.max_episode_steps,
        "matrix_seeds": [ticket["result"]["seed"]],
    }
    vector = envs.vector.make(there.env_id, 1, args.eval_episodes, first_episode=True, **task)
    obs_space, n_actions = vector.single_observation_space, int(vector.single_action_space.n)
    nets = make_networks(1, there, obs_space, n_actions, ticket["inputs"])
    nets.load_state_dict({name: tensor[None] for name, tensor in ticket["best"].items()})
    act = policy(nets, args.eval_epsilon, [args.seed])
    returns = envs.vector.play(vector, act, [args.seed])[0]
    print(f"{there.env_id}, --seed {args.seed}, {su.describe_returns(returns)}")
    if args.capture_video:
        # Beside the game what the agent sees of it, where the first layer reads each pixel alone
        alive = None
        if draws_pixels(there.env_id, vector) and there.network == "mlp":
            alive = np.zeros(math.prod(obs_space.shape), dtype=bool)
            inputs = slice(None) if ticket["inputs"] is None else ticket["inputs"]
            alive[inputs] = ticket["masks"]["actor.layers.0.weight"].sum(1).numpy() > 0
        envs.vector.record(there.env_id, act, Path(args.evaluate).with_suffix(".gif"), args.seed, alive, **task)


if __name__ == "__main__":
    args = parse_args()
    device = su.set_up_torch(args)
    task, inputs = {"max_episode_steps": args.max_episode_steps}, None  # the networks see all of them
    try:
        if args.evaluate:
            evaluate_ticket(args)
            raise SystemExit(0)
        probe = envs.vector.make(args.env_id, 1, 1, matrix_seeds=[0], **task)
        obs_space, action_space = probe.single_observation_space, probe.single_action_space
        if not isinstance(action_space, gym.spaces.Discrete):
            raise ValueError(f"DQN needs Discrete actions; {args.env_id} has {action_space}")
        if args.network == "cnn" and len(obs_space.shape) != 3:
            raise ValueError(f"--network cnn needs pictures; {args.env_id} has observations {obs_space.shape}")
        if args.input_mask:
            inputs = inputs_of_ticket(su.load_ticket(args.input_mask), args.env_id, obs_space, args.seeds)
            print(f"the networks see {len(inputs)} of {math.prod(obs_space.shape)} inputs")
    except ValueError as error:
        su.fail(str(error))
    template = make_networks(1, args, obs_space, int(action_space.n), inputs)
    pruned_layers = su.prunable(actor=template["actor"])
    if args.dry_run:
        print(su.describe(pruned_layers, {}))
        keep = su.remaining_by_round(su.count(pruned_layers), args.prune_fraction, args.rounds)
        print(f"weights in rounds 0 to {args.rounds}: {' '.join(map(str, keep))}")
        raise SystemExit(0)
    n_runs = len(args.seeds) * (len(args.conditions) if args.rounds else 1)
    n_bytes = obs_space.dtype.itemsize * Replay.width(obs_space) + 10  # of a transition
    su.check_memory(n_runs * args.buffer_size * n_bytes, f"the replay memory of {n_runs} runs", "--buffer-size")
    contents = {
        "activation": "relu",
        "obs_shape": list(obs_space.shape),
        "inputs": inputs,
    }
    per_round = args.total_timesteps - args.total_timesteps % args.num_envs
    reads = [Path(args.input_mask)] if args.input_mask else []
    timed = ("prune", "act", "env", "sample", "learn", "evaluate", "save")

    rounds = su.Rounds(args, "dqn_imp", args.network, per_round, "step", timed, reads)
    for round_ in rounds:
        # ---- Prune and rewind (section 2, table 1): masks and initial parameters of each run
        rounds.tickets = []
        for condition in args.conditions if round_ else ("dense",):
            for seed in args.seeds:
                generator = torch.Generator().manual_seed(su.seeds(seed, round_, 0)[0])
                initial = su.initial_state(template, args.init, args.input_init_scale, generator)
                masks = {name: torch.ones_like(initial[name]) for name in pruned_layers}
                if round_ > 0:
                    parent = condition if args.baseline_mask == "own" else "ticket"
                    trained = rounds.ticket(round_ - 1, parent if round_ > 1 else "dense", seed)
                    rewind = rounds.ticket(0, "dense", seed)["rewind"]
                    pruned = su.prune_ticket(trained["best"], trained["masks"], args.prune_fraction)
                    masks, initial = su.next_ticket(condition, pruned, rewind, initial, generator)
                ticket = {"seed": seed, "condition": condition, "masks": masks, "initial": initial}
                rounds.tickets.append(ticket if round_ else {**ticket, "rewind": initial})

        # ---- Train from the initial parameters under the masks
        nets = make_networks(len(rounds.tickets), args, obs_space, int(action_space.n), inputs).to(device)
        nets.load_state_dict(su.stack([ticket["initial"] for ticket in rounds.tickets]))
        masks = su.stack([ticket["masks"] for ticket in rounds.tickets], device)
        rounds.finish(train(args, rounds, nets, masks, task), contents)
    if draws_pixels(args.env_id, probe):
        print(f"draw what they still see: python plot.py goggles {rounds.folder}")
    print(f"draw: python plot.py tickets {rounds.folder}")
