"""DQN on Atari with sparse networks: dense, small-dense, pruning, static, SET and RigL (Graesser, Evci, Elsen, Castro
2022).

    python algos/dqn_atari_rigl.py --env-id ALE/Pong-v5 --sparsity 0.9           # RigL, Nature CNN, 40M frames
    python algos/dqn_atari_rigl.py --network impala --method static --seeds 1 2 3    # a process for each
    python algos/dqn_atari_rigl.py --method prune --sparsity 0.95 --dry-run      # show the sparse network and stop
    python algos/dqn_atari_rigl.py --evaluate runs/NAME/checkpoint.pt --observation-noise 0 5 10 15 20 25 30

The task is ALE's C++ vector environment: frame skip 4, the maximum of two frames, 84 x 84 grey pixels, four frames,
sticky actions (0.25), minimal actions, whole episodes of at most 27,000 steps; no no-ops, no fire resets. A step is one
action, of four frames. Learning takes the sign of the rewards; returns are those of the game.

Writes the folder ``runs/{env}__dqn_atari_rigl__{method}-{sparsity}__{seed}__{hash}``, or ``--run-dir``.
What all scripts of sparse training share is in README.md, "A run folder" and "Sparse-training runs": the files, the
columns of results.csv, how a stopped run goes on, more on some differences.

The same command started again resumes at the last checkpoint, with its masks. Checkpoints hold the replay memory: 7 GB
if full. ALE's vector environment cannot save its games, so new episodes start there: a run that was stopped is as good
as one that was not, but not the same. A run whose weights are no longer finite ends with one line and exit status 1.

Hyper-parameters: tables 4 to 7 (``NETWORKS``).

Differences from the paper and its public code (google-research/rigl, rigl/rl), where they part or are silent. Where
results can depend on it, a flag has the code's way:
 1. Epsilon falls over 25,000 steps, as in table 6, from the first update on. In the code it takes ten times as long:
    --exploration-steps 250000.
 2. The ResNet has 512 hidden units, as in table 7; in the code 256: --hidden-size 256.
 3. Convolutions are padded as in the code (TensorFlow's SAME): with this the CNN has the 4 million parameters of the
    paper. --padding valid is the network of Mnih et al. 2015, with 1.7 million.
 4. At the cap of 27,000 steps the last observation is followed by its value. In the code its value is 0, as if the game
    had ended: --cap-is-terminal.
 5. The target network starts as a copy. In the code it has initial weights of its own until it is first set, about
    1,000 updates later: --separate-target. There it has no masks until then; here it has those of the online network.
 6. Rewiring replaces no Adam step. In the code a step of RigL (not of SET) does: --rewire-replaces-step.
 7. Static networks have the sparse initialisation, as in tables 4 and 5; in the code not: --no-sparse-init. It goes
    by active fan-in and fan-out, as in the code, not by fan-in alone (README).
 8. Pruning's ERK is that of the network's own shapes. The code takes 7,744 inputs for the first dense layer at every
    width, and for the ResNet always 512 units.
 9. Inactive weights take no Adam step; in the code they take one that is zeroed before the next update, but not
    before acting or evaluations (README). A weight that is dropped is dropped from the target network at once, in the
    code when that is next set.
10. No noise is added to magnitudes to break ties.
11. --total-timesteps counts the step that starts an episode, too. Schedules count the gradient steps that are really
    made: pruning runs from 20% to 80% of them, SET and RigL rewire from the first one to 80%.
12. A resumed run has its masks; the code draws new ones.
13. --num-envs above 1, which is faster, has no counterpart in the paper. Updates stay one for four steps.
"""

import copy
import math
import os
import sys
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import gymnasium as gym
import numpy as np
import torch
import torch.nn.functional as F
import tyro
from torch import Tensor, nn
from torch.func import functional_call

# sparse_utils.py and envs/ are one folder up
sys.path += [str(Path(__file__).resolve().parent.parent), os.getcwd()]
import envs.noise  # noqa: E402
import envs.vector  # noqa: E402
import sparse_utils as su  # noqa: E402

# Tables 4, 5 and 7. Any flag given on the command line wins.
NETWORKS = {
    "nature": {"learning_rate": 2.5e-4, "adam_eps": 1e-8, "weight_decay": 0.0},
    "impala": {"learning_rate": 1e-4, "adam_eps": 3.125e-4, "weight_decay": 1e-5},
}


@dataclass
class Args:
    # Run
    env_id: str = "ALE/Pong-v5"  # any ALE/*-v5 (the number does not matter: frame skip and sticky actions are ours)
    seed: int = 1  # seed of everything; with --evaluate, of its episodes
    seeds: tuple[int, ...] = ()  # instead of --seed: a process, and a run folder, for each, as many at once as cores
    total_timesteps: int = 10_000_000  # environment steps, the initial random ones included; four frames each
    max_episode_steps: int | None = None  # time limit of an episode, in steps; default 27,000
    num_envs: int = 1  # environments of each run; steps, updates and the replay memory are of all together
    run_dir: str = ""  # folder to write to; default one of its own in runs/
    fresh: bool = False  # delete what is in the run folder and start over
    eval_interval: int = 250_000  # environment steps between evaluations: a million frames
    eval_steps: int = 125_000  # steps of an evaluation; the episodes that have begun by then are played to their end
    eval_episodes: int = 8  # episodes per evaluation at once; more follow until --eval-steps
    eval_epsilon: float = 0.001  # probability of a random action in evaluations
    snr_interval: int = 250_000  # environment steps between measurements of the gradients' SNR; 0 = never
    checkpoint_interval: int = 500_000  # environment steps between checkpoints: the most that a kill can cost
    threads: int = 1  # CPU threads of PyTorch; 0 = PyTorch's own choice
    matmul_precision: Literal["highest", "medium"] = "highest"  # medium: hidden layers in bfloat16, where it is fast
    kernel: Literal["masked", "sparse"] = "masked"  # sparse: products of fc1's active weights alone; faster, on a CPU
    compile: bool = False  # compile the loss, on a GPU with CUDA graphs
    cuda: bool = True  # use a GPU if there is one
    track: bool = False  # also log to Weights & Biases (pip install wandb)
    wandb_project_name: str = "sparse-rl"  # with --track: the project
    wandb_entity: str | None = None  # with --track: the team
    evaluate: str = ""  # a checkpoint.pt: evaluate its agent as in its run, but for the flags given here, and stop
    observation_noise: tuple[float, ...] = ()  # with --evaluate: std of the noise on pixels, 0 to 255 (figure 6)
    noise_wrap: bool = False  # with --evaluate: let noisy pixels wrap around, as in the code, instead of clipping them
    capture_video: bool = False  # at the end write one episode to videos/ as a gif; with --evaluate, beside the file
    dry_run: bool = False  # print each layer's density (with prune: the final one) and FLOPs, and stop

    # Algorithm (tables 6 and 7)
    learning_rate: float = 2.5e-4  # Adam's; 1e-4 for impala
    adam_eps: float = 1e-8  # Adam's epsilon; 3.125e-4 for impala
    buffer_size: int = 1_000_000  # transitions, of 7.06 kB each
    batch_size: int = 32  # transitions per update
    gamma: float = 0.99  # discount
    target_interval: int = 8_000  # environment steps between copies to the target network
    learning_starts: int = 20_000  # random steps before learning
    train_frequency: int = 4  # environment steps per update
    start_e: float = 1.0  # epsilon when learning starts
    end_e: float = 0.01  # epsilon after --exploration-steps
    exploration_steps: int = 25_000  # environment steps that epsilon takes from start to end
    cap_is_terminal: bool = False  # learn as if the game had ended at the time limit
    separate_target: bool = False  # a target network with initial weights of its own

    # Network
    network: Literal["nature", "impala"] = "nature"  # the CNN of Mnih et al. 2015 or the ResNet of Espeholt et al. 2018
    padding: Literal["same", "valid"] = "same"  # of nature's convolutions
    hidden_size: int = 512  # units of the dense hidden layer
    width_scale: float | None = None  # channels and hidden units = ceil(scale * n); default 1, or what small needs

    # Sparsity
    method: su.Method = "rigl"  # small is a dense network narrowed to the parameter count that --sparsity leaves
    sparsity: float = 0.9  # fraction of weights that are zero, in [0, 1)
    sparsity_distribution: Literal["erk", "uniform"] = "erk"  # how a network's sparsity is spread over its layers
    dense_output_layer: bool = False  # leave the last layer dense
    sparse_init: bool = True  # scale initial weights by each unit's active fans (section 6)
    weight_decay: float = 0.0  # L2 on the weights, through Adam; 1e-5 for impala
    update_interval: int = 5000  # gradient steps between two changes of the masks
    drop_fraction: float = 0.3  # of connections that the first rewiring drops, falling by a cosine
    rewire_replaces_step: bool = False  # a step of RigL takes the place of an Adam step

    def __post_init__(self) -> None:
        su.check_flags(self, "in [0, 1)", "sparsity")
        su.check_flags(self, "in [0, 1]", "drop_fraction", "gamma", "start_e", "end_e", "eval_epsilon")
        su.check_flags(self, "above 0", "eval_interval", "eval_episodes", "checkpoint_interval", "num_envs")
        su.check_flags(self, "above 0", "buffer_size", "batch_size", "learning_starts", "width_scale", "hidden_size")
        su.check_flags(self, "above 0", "max_episode_steps", "target_interval", "train_frequency", "exploration_steps")
        su.check_flags(self, "above 0", "update_interval", "adam_eps")
        su.check_flags(self, "0 or more", "seed", "threads", "snr_interval", "weight_decay", "learning_rate")
        su.check_flags(self, "0 or more", "eval_steps")
        su.check_noise_flags(self)
        su.check_small_flags(self)
        if self.seeds:
            su.check_seeds(self)
        if self.total_timesteps < self.learning_starts + self.train_frequency:
            raise ValueError(
                f"--total-timesteps {self.total_timesteps} ends before the first update, which comes after "
                f"--learning-starts {self.learning_starts} and --train-frequency {self.train_frequency}"
            )
        for name in ("total_timesteps", "learning_starts", "eval_interval", "checkpoint_interval", "snr_interval"):
            if getattr(self, name) % self.num_envs:
                flag = f"--{name.replace('_', '-')} {getattr(self, name)}"
                raise ValueError(f"{flag} must be a multiple of --num-envs {self.num_envs}")
        if self.buffer_size < 8 * self.num_envs:
            raise ValueError(f"--buffer-size must be at least 8 for each of --num-envs {self.num_envs}")
        if self.network == "impala" and self.padding == "valid":
            raise ValueError("--padding valid is for --network nature")


def parse_args() -> Args:
    """The command line, over tables 4, 5 and 7's defaults for its network."""
    tuned = NETWORKS.get(su.flag_given("network", Args.network), {})
    return tyro.cli(Args, description=__doc__, default=Args(**tuned))


# ---- Networks --------------------------------------------------------------------------------------------------------


class QNetwork(nn.Module):
    """Action values of pictures, from ``hidden`` and the layer ``fc2`` of the networks below."""

    bfloat16 = False  # compute hidden layers with 8 bits of precision

    def forward(self, obs: Tensor) -> Tensor:
        """obs [B, 4, 84, 84] of bytes -> [B, A]."""
        with torch.autocast(obs.device.type, torch.bfloat16, enabled=self.bfloat16):
            features = self.hidden(obs)[-1]
        return self.fc2(features.float())  # action values differ by too little for 8 bits


class NatureNetwork(QNetwork):
    """The CNN of Mnih et al. 2015."""

    def __init__(self, n_actions: int, scale: float, hidden_size: int, padding: str):
        super().__init__()
        c1, c2, c3, units = (math.ceil(scale * n) for n in (32, 64, 64, hidden_size))
        self.conv1 = nn.Conv2d(4, c1, 8, 4)
        self.conv2 = nn.Conv2d(c1, c2, 4, 2)
        self.conv3 = nn.Conv2d(c2, c3, 3, 1)
        # TensorFlow's SAME pads unevenly: 84 -> 21 -> 11 -> 11; without it 84 -> 20 -> 9 -> 7
        self.pads = ((2, 2, 2, 2), (1, 2, 1, 2), (1, 1, 1, 1)) if padding == "same" else ((0, 0, 0, 0),) * 3
        self.fc1 = su.Linear(c3 * (11 * 11 if padding == "same" else 7 * 7), units)
        self.fc2 = su.Linear(units, n_actions)

    def hidden(self, obs: Tensor) -> list[Tensor]:
        """obs [B, 4, 84, 84] of bytes -> activations of the hidden layers, [B, channels, h, w] or [B, units]."""
        x, activations = as_input(obs), []
        for conv, pad in zip((self.conv1, self.conv2, self.conv3), self.pads, strict=True):
            x = torch.relu(conv(F.pad(x, pad)))
            activations.append(x)
        return [*activations, torch.relu(self.fc1(x.flatten(1)))]


class ImpalaStack(nn.Module):
    """A convolution, a pooling layer that halves height and width, and two residual blocks."""

    def __init__(self, channels_in: int, channels: int, pad: tuple[int, int, int, int]):
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels, 3, padding=1)
        self.block1 = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))
        self.block2 = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))
        self.pad = pad

    def forward(self, x: Tensor, activations: list[Tensor]) -> Tensor:
        """x [B, channels_in, h, w] -> [B, channels, h / 2, w / 2]; what a ReLU alone has read is added to the list."""
        x = F.max_pool2d(F.pad(self.conv(x), self.pad, value=-math.inf), 3, 2)
        for first, second in (self.block1, self.block2):
            activations.append(torch.relu(first(torch.relu(x))))
            x = x + second(activations[-1])
        return x


class ImpalaNetwork(QNetwork):
    """The ResNet of Espeholt et al. 2018, without its LSTM."""

    def __init__(self, n_actions: int, scale: float, hidden_size: int):
        super().__init__()
        c1, c2, c3, units = (math.ceil(scale * n) for n in (32, 64, 64, hidden_size))
        # TensorFlow's SAME for the pooling: 84 -> 42 -> 21 -> 11
        self.stack1 = ImpalaStack(4, c1, (0, 1, 0, 1))
        self.stack2 = ImpalaStack(c1, c2, (0, 1, 0, 1))
        self.stack3 = ImpalaStack(c2, c3, (1, 1, 1, 1))
        self.fc1 = su.Linear(c3 * 11 * 11, units)
        self.fc2 = su.Linear(units, n_actions)

    def hidden(self, obs: Tensor) -> list[Tensor]:
        """obs [B, 4, 84, 84] of bytes -> activations within each residual block [B, channels, h, w], and of the dense
        hidden layer [B, units]."""
        x, activations = as_input(obs), []
        for stack in (self.stack1, self.stack2, self.stack3):
            x = stack(x, activations)
        return [*activations, torch.relu(self.fc1(torch.relu(x).flatten(1)))]


def as_input(obs: Tensor) -> Tensor:
    """Bytes as numbers in [0, 1], with the channels last in memory: convolutions are up to twice as fast with that."""
    kind = obs.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else torch.float32
    return obs.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2).to(dtype) / 255


def make_network(args: Args, n_actions: int) -> QNetwork:
    """The network, not initialised; method small: of the width whose parameter count comes nearest to the sparse
    one's."""

    def build(scale: float) -> QNetwork:
        if args.network == "nature":
            return NatureNetwork(n_actions, scale, args.hidden_size, args.padding)
        return ImpalaNetwork(n_actions, scale, args.hidden_size)

    def parameters(units: int) -> int:
        with torch.device("meta"):
            return su.count(dict(build(units / args.hidden_size).named_parameters()))

    scale = args.width_scale or 1
    if args.method == "small" and args.width_scale is None:
        with torch.device("meta"):
            n_weights = su.count(su.prunable(q=build(1)))
        wanted = parameters(args.hidden_size) - args.sparsity * n_weights
        wider = bisect_left(range(args.hidden_size), wanted, lo=1, key=parameters)
        scale = min((wider - 1 or 1, wider), key=lambda units: abs(parameters(units) - wanted)) / args.hidden_size
    q = build(scale)
    q.bfloat16 = su.bfloat16(args.matmul_precision, args.cuda)
    return q


@torch.no_grad()
def initialise(q: QNetwork, masks: su.Masks, args: Args, seed: int) -> None:
    """New parameters: Glorot-uniform weights, inactive ones zero, and biases of zero."""
    weights = su.prunable(q=q)
    su.sparse_init_(weights, masks if args.sparse_init else {}, torch.Generator().manual_seed(seed))
    su.apply_masks(weights, masks)
    for name, parameter in q.named_parameters():
        if "bias" in name:
            nn.init.zeros_(parameter)


# ---- Replay memory ---------------------------------------------------------------------------------------------------


class Replay:
    """The last transitions of N games, with each frame once, as bytes.

    Row t holds of each game the newest frame of its observation t, and what came of it: action, reward, ``terminated``.
    Observation t + 1 follows in row t + 1, whose frame is known as soon as row t is complete. ``age`` is the number of
    frames of its episode before it, at most 3: earlier ones of the four are zero. The last observation of an episode
    has no action: with ``last`` it is followed by another episode, or after a resumption by anything.
    """

    SMALL = ("action", "reward", "terminated", "last", "age")

    def __init__(self, rows: int, n: int, device: torch.device | str):
        self.frames = torch.empty((rows, n, 84, 84), dtype=torch.uint8, device=device)
        self.action, self.terminated, self.last, self.age = (np.zeros((rows, n), np.uint8) for _ in range(4))
        self.reward = np.zeros((rows, n), np.int8)
        self.t = 0  # rows that have been completed

    def start(self, obs: np.ndarray) -> None:
        """First observations [N, 4, 84, 84] of new episodes. What came of those before is not known."""
        self.last[(self.t - 1) % len(self.last)] = 1
        self._put(obs, np.zeros(len(obs), np.uint8))

    def add(
        self, action: np.ndarray, reward: np.ndarray, terminated: np.ndarray, started: np.ndarray, obs: np.ndarray
    ) -> None:
        """What came of the newest observations, [N] each, and the ones that follow [N, 4, 84, 84]; where ``started``,
        these are the first of an episode, and the newest ones were the last."""
        row = self.t % len(self.last)
        self.action[row], self.reward[row], self.terminated[row] = action, reward, terminated
        self.last[row], age = started, np.where(started, 0, np.minimum(self.age[row] + 1, 3))
        self.t += 1
        self._put(obs, age)

    def _put(self, obs: np.ndarray, age: np.ndarray) -> None:
        row = self.t % len(self.last)
        self.frames[row] = torch.from_numpy(obs[:, -1]).to(self.frames.device)
        self.age[row], self.last[row] = age, 0

    def draw(self, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """n places, as numbers of observations and of games, uniformly among all transitions that are there."""
        oldest = max(0, self.t + 4 - len(self.last))  # the newest observation has no action, the oldest no stack
        t, game = np.zeros(n, np.int64), np.zeros(n, np.int64)
        redraw = np.ones(n, bool)
        while redraw.any():
            t[redraw] = rng.integers(oldest, self.t, size=redraw.sum())
            game[redraw] = rng.integers(self.last.shape[1], size=redraw.sum())
            redraw = self.last[t % len(self.last), game] == 1
        return t, game

    def batch(self, t: np.ndarray, game: np.ndarray, device: torch.device) -> tuple[Tensor, ...]:
        """obs and next_obs [B, 4, 84, 84] of bytes, action, reward and terminated [B] at these places."""
        back = np.arange(3, -2, -1)  # frames of obs are 3, 2, 1 and 0 steps back, of next_obs 2, 1, 0 and -1
        rows, now = (t[:, None] - back) % len(self.last), t % len(self.last)
        where = self.frames.device
        frames = self.frames[torch.from_numpy(rows).to(where), torch.from_numpy(game[:, None]).to(where)]
        there = (back <= self.age[now, game][:, None]).astype(np.uint8)
        if not there.all():
            frames *= torch.from_numpy(there).to(where)[..., None, None]
        frames = frames.to(device)
        action = torch.from_numpy(self.action[now, game].astype(np.int64))
        reward, terminated = (torch.from_numpy(x[now, game].astype(np.float32)) for x in (self.reward, self.terminated))
        return frames[:, :4], frames[:, 1:], action.to(device), reward.to(device), terminated.to(device)

    def get_state(self) -> dict[str, Any]:
        """All complete rows. The frames are in parts that, on a CPU, share the memory: nothing is there twice."""
        rows = min(self.t, len(self.last))
        parts = [self.frames[i : min(i + 10_000, rows)].cpu().numpy() for i in range(0, rows, 10_000)]
        small = {name: torch.from_numpy(getattr(self, name)) for name in self.SMALL}
        return {"t": self.t, "frames": [torch.from_numpy(part) for part in parts], **small}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from there, with ``start``. Takes the frames out of the state, so that they are not there twice."""
        self.t = state["t"]
        for name in self.SMALL:
            getattr(self, name)[:] = state[name].numpy()
        for i in range(len(state["frames"])):
            part = state["frames"].pop(0)
            self.frames[10_000 * i : 10_000 * i + len(part)] = part.to(self.frames.device)


# ---- DQN -------------------------------------------------------------------------------------------------------------


def td_target(q_target: QNetwork, next_obs: Tensor, reward: Tensor, terminated: Tensor, gamma: float) -> Tensor:
    """r + gamma * max Q'(s', a') [B]. Only a true end of the game has no future: at a time limit terminated is 0."""
    with torch.no_grad():
        return reward + gamma * (1 - terminated) * q_target(next_obs).amax(1)


def td_loss(values: Tensor, action: Tensor, target: Tensor) -> Tensor:
    """Huber loss of each transition [B] from action values [B, A]."""
    return F.smooth_l1_loss(values.gather(1, action[:, None]).squeeze(1), target, reduction="none")


def batch_loss(q: QNetwork, q_target: QNetwork, batch: tuple[Tensor, ...], gamma: float) -> tuple[Tensor, Tensor]:
    """The mean loss of a batch of the replay memory, and the action values [B, A] in it."""
    obs, next_obs, action, reward, terminated = batch
    target = td_target(q_target, next_obs, reward, terminated, gamma)
    values = q(obs)
    return td_loss(values, action, target).mean(), values.detach()


def gradient_snr(q: QNetwork, q_target: QNetwork, batch: tuple[Tensor, ...], gamma: float) -> float:
    """Signal-to-noise ratio of the gradients on a batch of the replay memory (section 7)."""
    obs, next_obs, action, reward, terminated = batch
    target = td_target(q_target, next_obs, reward, terminated, gamma)

    def example_loss(parameters: dict[str, Tensor], o: Tensor, a: Tensor, y: Tensor) -> Tensor:
        return td_loss(functional_call(q, parameters, o[None]), a[None], y[None]).sum()

    return su.signal_to_noise(example_loss, dict(q.named_parameters()), obs, action, target, chunk_size=8)


@torch.no_grad()
def describe_units(q: QNetwork, obs: Tensor) -> dict[str, float]:
    """Columns of results.csv: how many hidden units, of convolutions channels, do something on obs [B, 4, 84, 84], and
    how much of the last hidden layer's is linearly independent."""
    parts = [[a if a.dim() == 2 else a.mean((2, 3)) for a in q.hidden(part)] for part in obs.split(32)]
    hidden = [torch.cat(activations) for activations in zip(*parts, strict=True)]
    return {name: float(value) for name, value in su.describe_units(hidden).items()}


# ---- Evaluation ------------------------------------------------------------------------------------------------------


def policy(q: QNetwork, epsilon: float, rng: np.random.Generator) -> Callable[[np.ndarray], np.ndarray]:
    """The function from observations [N, 4, 84, 84] to actions [N]: those of the largest value, or with probability
    epsilon random ones."""
    device, n_actions = q.fc2.weight.device, q.fc2.out_features

    @torch.no_grad()
    def act(obs: np.ndarray) -> np.ndarray:
        random = rng.random(len(obs)) < epsilon
        action = rng.integers(n_actions, size=len(obs))
        if not random.all():
            action = np.where(random, action, q(torch.from_numpy(obs).to(device)).argmax(1).cpu().numpy())
        return action

    return act


def evaluate(
    q: QNetwork, vector: gym.vector.VectorEnv, args: Args, key: list[int], sigma: float = 0, wrap: bool = False
) -> np.ndarray:
    """Returns of whole episodes: those that begin within --eval-steps steps of all games together, and at least the
    first one of each. ``key`` is that of ``su.seeds``. Each new frame gets noise of standard deviation ``sigma``, in
    pixels, but not the first of an episode, and is the same in all observations that it is part of (as in the code)."""
    rng = np.random.default_rng(su.seeds(*key))
    act, n = policy(q, args.eval_epsilon, rng), vector.num_envs
    obs = envs.vector.reset(vector, su.seeds(*key))
    running, ended, playing, steps, returns = np.zeros(n), np.zeros(n, bool), np.ones(n, bool), 0, []
    while playing.any():
        new, reward, terminated, truncated, _ = vector.step(act(obs))
        if sigma:
            noisy = np.concatenate([obs[:, 1:], envs.noise.add_to_pixels(new[:, -1:], sigma, wrap, rng)], 1)
            new = np.where(ended[:, None, None, None], new, noisy)  # where an episode has ended, the next one starts
        obs, ended = new, terminated | truncated
        running, steps = running + reward, steps + int(playing.sum())
        returns += running[ended & playing].tolist()
        running[ended] = 0
        if steps >= args.eval_steps:
            playing &= ~ended
    return np.array(returns)


def make_envs(args: Args, n: int) -> gym.vector.VectorEnv:
    """n games. Ends the program with one line if there is no such game or it is none of Atari's."""
    try:
        vector = envs.vector.make(args.env_id, 1, n, next_step=True, max_episode_steps=args.max_episode_steps)
    except ValueError as error:
        su.fail(str(error))
    space = vector.single_observation_space
    if not args.env_id.startswith("ALE/") or space.shape != (4, 84, 84) or space.dtype != np.uint8:
        su.fail(f"dqn_atari_rigl.py plays ALE/*-v5, with observations of bytes [4, 84, 84]; {args.env_id} has {space}")
    return vector


def describe_sparsity(q: QNetwork, masks: su.Masks, device: torch.device) -> dict[str, float | int]:
    """Columns of results.csv: how sparse the network is, and its size."""
    example = torch.zeros(1, 4, 84, 84, dtype=torch.uint8, device=device)
    return {
        "sparsity": su.sparsity(su.prunable(q=q), masks),
        "parameters": su.count_parameters(masks, q=q),
        "acting_flops": sum(su.flops(q, example, masks, "q")),
    }


def record_video(q: QNetwork, args: Args, file: Path, seed: int) -> None:
    """An episode as a gif."""
    act = policy(q, args.eval_epsilon, np.random.default_rng(seed))
    envs.vector.record(args.env_id, act, file, seed, max_episode_steps=args.max_episode_steps)


def evaluate_checkpoint(args: Args) -> None:
    """Play with the agent of a checkpoint, in its own game, once for each --observation-noise, to noise.csv."""
    device = su.set_up_torch(args)
    su.exit_on_signal()
    try:
        checkpoint = su.load_checkpoint(Path(args.evaluate))
        flags = ("max_episode_steps", "eval_steps", "eval_episodes", "eval_epsilon", "matmul_precision")
        given = {name: getattr(args, name) for name in flags if su.flag_given(name.replace("_", "-"), "")}
        there = Args(**{**checkpoint["args"], **given})
        vector = make_envs(there, there.eval_episodes)
        q = make_network(there, int(vector.single_action_space.n)).to(device)
        q.load_state_dict(checkpoint["q"])
    except (KeyError, TypeError, ValueError, RuntimeError):
        su.fail(f"{args.evaluate} is no checkpoint of this version of dqn_atari_rigl.py")
    if args.observation_noise:
        play = (evaluate(q, vector, there, [args.seed], x, args.noise_wrap)[None] for x in args.observation_noise)
        file = Path(args.evaluate).with_name("noise_wrap.csv" if args.noise_wrap else "noise.csv")
        envs.noise.report(zip(args.observation_noise, play, strict=True), [there.seed], args.seed, file)
    else:
        returns = evaluate(q, vector, there, [args.seed])
        print(f"{there.env_id}, --seed {args.seed}, {su.describe_returns(returns)}")
    if args.capture_video:
        record_video(q, there, Path(args.evaluate).with_suffix(".gif"), args.seed)


if __name__ == "__main__":
    args = parse_args()
    if args.evaluate:
        evaluate_checkpoint(args)
        raise SystemExit(0)
    if args.seeds and not args.dry_run:
        su.run_each_seed(args)
    device = su.set_up_torch(args)

    # ---- Games and network
    train_envs = make_envs(args, args.num_envs)
    n_actions = int(train_envs.single_action_space.n)
    q = make_network(args, n_actions).to(device)
    weights = su.prunable(q=q)

    # ---- Sparsity: the final density of each layer (section 5). A layer without a mask is dense.
    densities = {}
    if args.method not in ("dense", "small"):
        distribute = {"erk": su.erk_densities, "uniform": su.uniform_densities}[args.sparsity_distribution]
        shapes = su.layer_shapes(weights)
        if args.dense_output_layer:
            del shapes["q.fc2.weight"]
        densities = distribute(shapes, args.sparsity)
    if args.method == "prune":
        final_masks = su.magnitude_masks(weights, densities)
    else:
        final_masks = su.random_masks(weights, densities, torch.Generator().manual_seed(su.seeds(args.seed, 0)[0]))
    example = torch.zeros(1, 4, 84, 84, dtype=torch.uint8, device=device)
    print(su.describe(weights, final_masks, su.layer_flops(q, example, final_masks, "q")))
    size = describe_sparsity(q, final_masks, device)
    print(f"{size['parameters']:,} parameters with biases; {size['acting_flops']:,} FLOPs for an action")
    if args.dry_run:
        raise SystemExit(0)
    # Pruning starts dense; static, SET and RigL start with random masks (section 2.1).
    masks = {n: torch.ones_like(m) for n, m in final_masks.items()} if args.method == "prune" else final_masks
    initialise(q, masks, args, su.seeds(args.seed, 1)[0])
    q_target = copy.deepcopy(q).requires_grad_(False)
    if args.separate_target:
        initialise(q_target, masks, args, su.seeds(args.seed, 6)[0])
    target_weights = su.prunable(q=q_target)

    # ---- Optimizer. Weight decay is an L2 loss, wd / 2 * sum(w^2), on the weights alone, through Adam (not AdamW).
    biases = [p for name, p in q.named_parameters() if "bias" in name]
    groups = [{"params": weights.values(), "weight_decay": args.weight_decay}, {"params": biases}]
    optimizer = torch.optim.Adam(groups, lr=args.learning_rate, eps=args.adam_eps, fused=True)

    # ---- Run folder; go on from the checkpoint in it, if there is one
    N = args.num_envs
    rows = max(8, min(args.buffer_size, args.total_timesteps) // N)
    n_bytes = rows * N * (84 * 84 + 5)
    replay_device = device
    if device.type == "cuda" and n_bytes > 0.8 * torch.cuda.mem_get_info(device)[0]:
        replay_device = torch.device("cpu")
    print(f"replay memory: {n_bytes / 1e9:.2f} GB on {replay_device}")
    su.check_memory(n_bytes, "the replay memory", "--buffer-size", replay_device)
    variant = args.method if args.method == "dense" else f"{args.method}-{args.sparsity:g}"
    run_dir, checkpoint = su.start_run(args, "dqn_atari_rigl", variant)
    replay = Replay(rows, N, replay_device)
    stream = np.random.default_rng(su.seeds(args.seed, 2)[0])
    step, turnover, snr = 0, 0.0, math.nan
    parts = {"q": q, "q_target": q_target, "optimizer": optimizer, "streams": [stream], "replay": replay}
    if checkpoint is not None:
        su.set_states(parts, checkpoint)
        step, turnover, snr = checkpoint["step"], checkpoint["turnover"], checkpoint["snr"]
        for name, mask in masks.items():
            mask.copy_(checkpoint["masks"][name])
    kernels = su.SparseKernels(masks, [optimizer], {"q": q}, {"q": q_target}, args.kernel == "sparse")
    stop, start = su.StopSignal(), step
    parts_of_loop = ("act", "env", "sample", "update", "sparsify", "snr", "log", "evaluate", "checkpoint")
    log = su.RunLog(args, run_dir, args.total_timesteps, checkpoint, parts_of_loop)
    watch = log.watch
    del checkpoint

    def check_weights() -> None:
        if not all(p.isfinite().all() for p in q.parameters()):
            log.end_diverged("weights are not finite", step)

    def save(finished: bool) -> None:
        check_weights()
        state = {
            "args": asdict(args),
            "finished": finished,
            "step": step,
            **log.get_state(),
            "turnover": turnover,
            "snr": snr,
            "masks": masks,
        }
        kept = {name: part for name, part in parts.items() if not (finished and name == "replay")}
        su.save_checkpoint(run_dir / "checkpoint.pt", {**state, **su.get_states(kept)})

    if args.compile:
        batch_loss = torch.compile(batch_loss, mode="reduce-overhead" if device.type == "cuda" else "default")
    total_updates = (args.total_timesteps - args.learning_starts) // args.train_frequency
    prune_begin, sparsify_end = int(0.2 * total_updates), int(0.8 * total_updates)  # appendix A.3
    eval_envs = make_envs(args, args.eval_episodes)
    obs = envs.vector.reset(train_envs, su.seeds(args.seed, 3, start))
    replay.start(obs)
    ended, episodic_return = np.zeros(N, bool), np.zeros(N)
    while True:
        # ---- Evaluate what ``step`` steps have taught
        due = (step > 0 and step % args.eval_interval == 0) or step == args.total_timesteps
        if due and not log.has_evaluated(step):
            kernels.unpack()
            check_weights()
            returns = stop.interruptible(evaluate, q, eval_envs, args, [args.seed, 4, step])
            if returns is not None:
                places = replay.draw(1024, np.random.default_rng(su.seeds(args.seed, 5, step)))
                row = {
                    "step": step,
                    "return_mean": float(returns.mean()),
                    "return_std": float(returns.std()),
                    "return_n": len(returns),
                    **describe_sparsity(q, masks, device),
                    "snr": snr,
                    **describe_units(q, replay.batch(*places, device)[0]),
                    "turnover": turnover,
                }
                log.evaluated(step, [row], su.layer_sparsity(weights, masks))

        # ---- Checkpoint
        if stop.signal or (step > start and step % args.checkpoint_interval == 0 and step < args.total_timesteps):
            kernels.unpack()
            save(finished=False)
            watch.lap("checkpoint")
        if stop.signal or step == args.total_timesteps:
            break
        step += N
        log.progress.update(N)
        kernels.pack()

        # ---- Collect: random actions at first, then epsilon-greedy ones with an epsilon that falls linearly (table 6)
        explored = min(1.0, max(0, step - args.learning_starts) / args.exploration_steps)
        epsilon = args.start_e + explored * (args.end_e - args.start_e) if step > args.learning_starts else 1.0
        action = policy(q, epsilon, stream)(obs)
        watch.lap("act")
        obs, reward, terminated, truncated, _ = train_envs.step(action)
        no_future = terminated | truncated if args.cap_is_terminal else terminated
        replay.add(action, np.sign(reward), no_future, ended, obs)
        ended = terminated | truncated
        episodic_return += reward
        if ended.any():
            log.writer.add_scalar("charts/episodic_return", episodic_return[ended].mean(), step)
            episodic_return[ended] = 0
        watch.lap("env")

        # ---- Learn: one update for every --train-frequency steps
        learned = max(0, step - N - args.learning_starts) // args.train_frequency
        for update in range(learned, max(0, step - args.learning_starts) // args.train_frequency):
            rewiring = args.method in ("set", "rigl") and su.due(update, 0, sparsify_end, args.update_interval)
            pruning = args.method == "prune" and (
                su.due(update, prune_begin, sparsify_end, args.update_interval) or update == sparsify_end
            )
            batch = replay.batch(*replay.draw(args.batch_size, stream), device)
            watch.lap("sample")
            # With --kernel sparse this update is a dense one if the masks change or the SNR is measured
            at = args.learning_starts + (update + 1) * args.train_frequency  # this update's step
            measuring = args.snr_interval and -at % args.snr_interval < args.train_frequency
            if rewiring or pruning or measuring:
                kernels.unpack()
            # Signal-to-noise ratio of the gradients on this batch (section 7)
            if measuring:
                snr = gradient_snr(q, q_target, batch, args.gamma)
                watch.lap("snr")
            loss, values = batch_loss(q, q_target, batch, args.gamma)
            optimizer.zero_grad()
            loss.backward()
            scores = su.mask_gradients(weights, masks, dense=rewiring)  # then Adam leaves an inactive weight at zero
            if not (rewiring and args.method == "rigl" and args.rewire_replaces_step):
                optimizer.step()
            watch.lap("update")

            # ---- Sparsify
            if pruning or update % args.update_interval == 0:
                check_weights()
            if rewiring:  # SET and RigL: drop the smallest weights, grow as many (section 2.1; Evci 2020, algorithm 1)
                fraction = su.cosine_fraction(update, sparsify_end, args.drop_fraction)
                growth = scores if args.method == "rigl" else None  # RigL grows by dense gradients, SET at random
                generator = torch.Generator().manual_seed(su.seeds(args.seed, 7, update)[0])
                turnover = su.rewire(weights, masks, fraction, [optimizer], target_weights, growth, generator).item()
            if pruning:  # Gradual magnitude pruning: each layer to its own final density (Zhu & Gupta 2018, equation 1)
                now = {n: 1 - su.cubic_sparsity(update, prune_begin, sparsify_end, 1 - d) for n, d in densities.items()}
                su.set_masks(weights, masks, su.magnitude_masks(weights, now, masks), [optimizer], target_weights)
            watch.lap("sparsify")
            if update % 1000 == 0:
                log.writer.add_scalar("losses/td_loss", loss.item(), step)
                log.writer.add_scalar("losses/q_values", values.mean().item(), step)
                watch.lap("log")
        if step > args.learning_starts and step % args.target_interval < N:
            q_target.load_state_dict(q.state_dict())

    finished = step == args.total_timesteps and log.has_evaluated(step)  # a signal may have ended the last evaluation
    if finished:
        save(finished=True)
    log.finish(stop, finished)
    if args.capture_video:
        print("drawing one episode")
        stop.interruptible(record_video, q, args, run_dir / "videos" / f"step-{step}.gif", args.seed)
