"""DQN with sparse networks: dense, small-dense, pruning, static, SET and RigL (Graesser, Evci, Elsen, Castro 2022).

    python algos/dqn_rigl.py --sparsity 0.9                                # RigL on CartPole-v1, 100,000 steps
    python algos/dqn_rigl.py --env-id Acrobot-v1 --method static --seeds 1 2 3 4 5 6 7 8 9 10
    python algos/dqn_rigl.py --method prune --sparsity 0.95 --dry-run      # show the sparse network and stop
    python algos/dqn_rigl.py --evaluate runs/NAME/checkpoint.pt

All ``--seeds`` train together as one batched program: every parameter has a leading run axis R and every batch is
[R, B, ...]. It reads as one agent with one more axis. Each run has its own masks and its random numbers follow from its
own seed, so it learns the same whatever runs train beside it, to float rounding.

Writes the folder ``runs/{env}__dqn_rigl__{method}-{sparsity}__{n}seeds__{hash}``, or ``--run-dir``.
What all scripts of sparse training share is in README.md, "A run folder" and "Sparse-training runs": the files, the
columns of results.csv, how a stopped run goes on, more on some differences.

The same command started again resumes at the last checkpoint, to the same results (tasks that are not in envs/ start
new episodes there). A run whose weights are no longer finite has returns of nan from then on; the others go on.

Hyper-parameters: table 6, and table 1, which has the same for all methods.

Differences from the paper and its public code (google-research/rigl, rigl/rl), where they part or are silent:
 1. Epsilon falls from 1 to 0.1 over 25,000 steps and is 0.1 in evaluations, as in table 6. The code has a constant 0.01
    and a greedy evaluation: --start-e 0.01 --end-e 0.01 --eval-epsilon 0.
 2. --total-timesteps counts the initial random steps; the code's count starts after them. Schedules count gradient
    steps: pruning runs from 20% to 80% of them, SET and RigL rewire from the first one to 80% (75% in the code).
 3. RigL's scores are the gradients that the Adam step of the same update uses, before they are masked. The code
    computes them once more on the same batch and rewires before that step, which new connections thus take; here they
    begin with the next one. Rewiring replaces no Adam step.
 4. Inactive weights take no Adam step; in the code they take one that is zeroed later (README). A weight that is
    dropped is dropped from the target network at once; one that is grown has weight zero there until the next copy.
 5. Initial weights are Glorot-uniform, or by active fans with --sparse-init, and biases zero, as in sac_rigl.py. The
    code has --dense-init he: He-normal, cut off at two standard deviations, in hidden layers, U(-0.03, 0.03) in the
    output layer, where these are not by active fans, and in all methods output biases of -0.2.
 6. Weight decay leaves out the output layer, as in the code. Adam's epsilon is PyTorch's 1e-8 (Keras: 1e-7).
 7. The last observation of an episode that a time limit ends is followed by its value, in the code, too. Cart-Pole is
    v1, of 500 steps; with --env-id CartPole-v0 it is the code's, of 200.
 8. With --dense-output-layer the sparsity is that of the other layers, as in the code.
 9. The sparse initialisation goes by active fan-in and fan-out, as in the code, not by fan-in alone (README).
"""

import copy
import math
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import gymnasium as gym
import numpy as np
import torch
import torch.nn.functional as F
import tyro
from torch import Tensor, nn
from torch.func import functional_call

# sparse_utils.py and envs/ are one folder up; --env-id my_envs:Reach-v0 means my_envs.py where you stand
sys.path += [str(Path(__file__).resolve().parent.parent), os.getcwd()]
import envs.vector  # noqa: E402
import sparse_utils as su  # noqa: E402


@dataclass
class Args:
    # Run
    env_id: str = "CartPole-v1"  # CartPole-v1, Acrobot-v1, MountainCar-v0, or any task of vectors and Discrete actions
    seeds: tuple[int, ...] = (1,)  # a run for each; all train together
    total_timesteps: int = 100_000  # environment steps of each run, the initial random ones included
    max_episode_steps: int | None = None  # time limit of an episode, in steps; default the task's own
    run_dir: str = ""  # folder to write to; default one of its own in runs/
    fresh: bool = False  # delete what is in the run folder and start over
    eval_interval: int = 2_000  # environment steps between evaluations; the first is before any step
    eval_episodes: int = 20  # episodes per evaluation
    eval_epsilon: float = 0.1  # probability of a random action in evaluations
    snr_interval: int = 5_000  # environment steps between measurements of the gradients' SNR; 0 = never
    checkpoint_interval: int = 20_000  # environment steps between checkpoints: the most that a kill can cost
    threads: int = 1  # CPU threads of PyTorch; 0 = PyTorch's own choice
    matmul_precision: Literal["highest", "medium"] = "highest"  # medium: hidden layers in bfloat16, where it is fast
    kernel: Literal["masked", "sparse"] = "masked"  # sparse: products of active weights alone, faster at 90% and more
    cuda: bool = False  # use a GPU if there is one
    track: bool = False  # also log to Weights & Biases (pip install wandb)
    wandb_project_name: str = "sparse-rl"  # with --track: the project
    wandb_entity: str | None = None  # with --track: the team
    evaluate: str = ""  # a checkpoint.pt: evaluate its agents, on their own task, for --eval-episodes, and stop
    seed: int = 1  # with --evaluate: of its episodes
    capture_video: bool = False  # at the end write an episode of the first run as a gif; with --evaluate, by the file
    dry_run: bool = False  # print each layer's density (with prune: the final one) and the size of the whole, and stop

    # Algorithm (table 6)
    learning_rate: float = 1e-3  # Adam's
    buffer_size: int = 100_000  # transitions of each run
    batch_size: int = 128  # transitions per update
    gamma: float = 0.99  # discount
    target_interval: int = 100  # updates between copies to the target network
    learning_starts: int = 1_000  # random steps before learning
    train_frequency: int = 1  # environment steps per update
    start_e: float = 1.0  # epsilon at step 0
    end_e: float = 0.1  # epsilon after --exploration-steps
    exploration_steps: int = 25_000  # environment steps that epsilon takes from start to end
    double: bool = False  # Double DQN (van Hasselt et al. 2016)
    loss: Literal["mse", "huber"] = "mse"  # of the TD error

    # Sparsity
    method: su.Method = "rigl"  # small is a dense network narrowed to the parameter count that --sparsity leaves
    sparsity: float = 0.9  # fraction of weights that are zero, in [0, 1)
    sparsity_distribution: Literal["erk", "uniform"] = "erk"  # how a network's sparsity is spread over its layers
    dense_output_layer: bool = False  # leave the last layer dense (figure 14)
    width_scale: float | None = None  # hidden units = int(512 * scale); default 1, or what method small needs
    sparse_init: bool = True  # scale initial weights by each unit's active fans (section 6)
    dense_init: Literal["glorot", "he"] = "glorot"  # initial weights without that; he is the code's
    weight_decay: float = 1e-6  # L2 on the weights of the hidden layers, through Adam
    update_interval: int = 1000  # gradient steps between two changes of the masks
    drop_fraction: float = 0.5  # of connections that the first rewiring drops, falling by a cosine

    def __post_init__(self) -> None:
        su.check_flags(self, "in [0, 1)", "sparsity")
        su.check_flags(self, "in [0, 1]", "drop_fraction", "gamma", "start_e", "end_e", "eval_epsilon")
        su.check_flags(self, "above 0", "eval_interval", "eval_episodes", "checkpoint_interval", "update_interval")
        su.check_flags(self, "above 0", "buffer_size", "batch_size", "learning_starts", "width_scale")
        su.check_flags(self, "above 0", "max_episode_steps", "target_interval", "train_frequency", "exploration_steps")
        su.check_flags(self, "0 or more", "threads", "snr_interval", "weight_decay", "learning_rate")
        su.check_seeds(self)
        su.check_small_flags(self)
        if self.total_timesteps < self.learning_starts + self.train_frequency:
            raise ValueError(
                f"--total-timesteps {self.total_timesteps} ends before the first update, which comes after "
                f"--learning-starts {self.learning_starts} and --train-frequency {self.train_frequency}"
            )


def parse_args() -> Args:
    """The command line. Table 1 has the same for all methods."""
    return tyro.cli(Args, description=__doc__)


# ---- Network ---------------------------------------------------------------------------------------------------------


class QNetwork(nn.Module):
    """Action values of R runs."""

    bfloat16 = False  # compute hidden layers with 8 bits of precision

    def __init__(self, runs: int, obs_dim: int, n_actions: int, width: int):
        super().__init__()
        self.fc1 = su.BatchedLinear(runs, obs_dim, width)
        self.fc2 = su.BatchedLinear(runs, width, width)
        self.fc3 = su.BatchedLinear(runs, width, n_actions)

    def hidden(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """obs [R, B, O] -> activations of the hidden layers, [R, B, width] each."""
        x = torch.relu(self.fc1(obs))
        return x, torch.relu(self.fc2(x))

    def forward(self, obs: Tensor) -> Tensor:
        """obs [R, B, O] -> [R, B, A]."""
        with torch.autocast(obs.device.type, torch.bfloat16, enabled=self.bfloat16):
            features = self.hidden(obs)[-1]
        return self.fc3(features.float())


def network_width(args: Args, obs_dim: int, n_actions: int) -> int:
    """Hidden units. Method small: those whose parameter count comes nearest to the sparse network's."""
    width = max(1, int(512 * (args.width_scale or 1)))
    if args.method != "small" or args.width_scale is not None:
        return width
    n_weights, n_biases = su.mlp_size(obs_dim, width, width, n_actions)
    return su.small_width(obs_dim, n_actions, (1 - args.sparsity) * n_weights + n_biases)


@torch.no_grad()
def initialise(q: QNetwork, weights: su.Weights, masks: su.Masks, args: Args) -> None:
    """New parameters, each run's by its own seed; inactive weights are zero."""
    generators = su.generators(args.seeds, 1)
    by_fans = masks if args.sparse_init and args.method != "prune" else {}  # pruning starts as the dense networks do
    su.sparse_init_(weights, by_fans, generators)  # without a mask: the usual Glorot
    for name, parameter in q.named_parameters():
        if "bias" in name:
            nn.init.zeros_(parameter)
    if args.dense_init == "he":
        nn.init.constant_(q.fc3.bias, -0.2)
    dense_inits = [name for name in weights if name not in by_fans] if args.dense_init == "he" else []
    for name in dense_inits:
        for run, generator in zip(weights[name], generators, strict=True):
            values = torch.empty(run.shape)  # random numbers are the CPU's
            if ".fc3." in name:
                nn.init.uniform_(values, -0.03, 0.03, generator=generator)
            else:
                std = math.sqrt(2 / len(run)) / 0.87962566  # the std of a normal cut off at 2 is 0.87962566
                nn.init.trunc_normal_(values, std=std, a=-2 * std, b=2 * std, generator=generator)
            run.copy_(values)
    su.apply_masks(weights, masks)


# ---- DQN -------------------------------------------------------------------------------------------------------------


@torch.no_grad()
def td_target(
    q: QNetwork, q_target: QNetwork, next_obs: Tensor, reward: Tensor, terminated: Tensor, args: Args
) -> Tensor:
    """r + gamma * max Q'(s', a') [R, B]; with --double Q' of the action that Q finds best. reward and terminated are
    [R, B]. Only a true end of the episode has no future: at a time limit terminated is 0."""
    next_values = q_target(next_obs)
    if args.double:
        next_value = next_values.gather(-1, q(next_obs).argmax(-1, keepdim=True)).squeeze(-1)
    else:
        next_value = next_values.amax(-1)
    return reward + args.gamma * (1 - terminated) * next_value


def td_loss(values: Tensor, action: Tensor, target: Tensor, args: Args) -> Tensor:
    """Loss of each transition [R, B] from action values [R, B, A]."""
    value = values.gather(-1, action.unsqueeze(-1)).squeeze(-1)
    loss = F.mse_loss if args.loss == "mse" else F.smooth_l1_loss
    return loss(value, target, reduction="none")


def gradient_snr(q: QNetwork, obs: Tensor, action: Tensor, target: Tensor, args: Args) -> list[float]:
    """Signal-to-noise ratio of each run's gradients on its batch (section 7)."""

    def example(parameters: dict[str, Tensor], obs: Tensor, action: Tensor, target: Tensor) -> Tensor:
        values = functional_call(q, parameters, obs[None, None])
        return td_loss(values, action[None, None], target[None, None], args).sum()

    ratios = []
    for r in range(len(obs)):
        parameters = {name: p[r : r + 1] for name, p in q.named_parameters()}
        ratios.append(su.signal_to_noise(example, parameters, obs[r], action[r], target[r]))
    return ratios


@torch.no_grad()
def describe_units(q: QNetwork, obs: Tensor) -> dict[str, list[float]]:
    """Columns of results.csv, [R] each: dead and dormant units and effective rank on obs [R, B, O]."""
    return {name: of_runs.tolist() for name, of_runs in su.describe_units(q.hidden(obs)).items()}


# ---- Evaluation ------------------------------------------------------------------------------------------------------


def policy(q: QNetwork, epsilon: float, seeds: Sequence[int]) -> Callable[[np.ndarray], np.ndarray]:
    """The function from observations [R * N, O] to actions [R, N]: those of the largest value, or with probability
    epsilon random ones, by a stream for each run from ``seeds``."""
    device, streams = q.fc1.weight.device, [np.random.default_rng(seed) for seed in seeds]

    @torch.no_grad()
    def act(obs: np.ndarray) -> np.ndarray:
        values = q(torch.from_numpy(obs).float().to(device).unflatten(0, (len(seeds), -1)))
        action = values.argmax(-1).cpu().numpy()
        noise = np.stack([s.random((2, action.shape[1])) for s in streams], 1)  # [2, R, N]
        return np.where(noise[0] < epsilon, (noise[1] * values.shape[-1]).astype(int), action)

    return act


def make_envs(args: Args, runs: int, n: int, **how: bool) -> gym.vector.VectorEnv:
    """n environments for each run. Ends the program with one line if there is no such task or DQN cannot do it."""
    try:
        vector = envs.vector.make(args.env_id, runs, n, max_episode_steps=args.max_episode_steps, **how)
    except ValueError as error:
        su.fail(str(error))
    if not isinstance(vector.single_action_space, gym.spaces.Discrete):
        su.fail(f"DQN needs Discrete actions; {args.env_id} has {vector.single_action_space}")
    if len(vector.single_observation_space.shape) != 1:
        su.fail(f"dqn_rigl.py needs observations that are vectors; {args.env_id} has pictures")
    return vector


def describe_sparsity(q: QNetwork, masks: su.Masks) -> dict[str, float | int]:
    """Columns of results.csv: how sparse a network is, and its size. All runs have as many active weights."""
    runs, obs_dim, _ = q.fc1.weight.shape
    example = torch.zeros(runs, 1, obs_dim, device=q.fc1.weight.device)
    return {
        "sparsity": su.sparsity(su.prunable(q=q), masks),
        "parameters": su.count_parameters(masks, q=q) // runs,
        "acting_flops": sum(su.flops(q, example, masks, "q")) // runs,
    }


def evaluate_checkpoint(args: Args) -> None:
    """Play with the agents of a checkpoint, on their own task."""
    device = su.set_up_torch(args)
    su.exit_on_signal()
    try:
        checkpoint = su.load_checkpoint(Path(args.evaluate), device)
        there = Args(**{**checkpoint["args"], "eval_episodes": args.eval_episodes, "seed": args.seed})
        there.max_episode_steps = args.max_episode_steps or there.max_episode_steps
        if su.flag_given("eval-epsilon", ""):
            there.eval_epsilon = args.eval_epsilon
        vector = make_envs(there, len(there.seeds), there.eval_episodes, first_episode=True)
        shape = vector.single_observation_space.shape[0], int(vector.single_action_space.n)
        q = QNetwork(len(there.seeds), *shape, network_width(there, *shape)).to(device)
        q.load_state_dict(checkpoint["q"])
        q.bfloat16 = su.bfloat16(there.matmul_precision, args.cuda)
        diverged = [seed in checkpoint["diverged"] for seed in there.seeds]
    except (KeyError, TypeError, ValueError, RuntimeError):
        su.fail(f"{args.evaluate} is no checkpoint of this version of dqn_rigl.py")
    episodes = [su.seeds(args.seed, seed)[0] for seed in there.seeds]
    returns = envs.vector.play(vector, policy(q, there.eval_epsilon, episodes), episodes)
    returns[diverged] = np.nan
    for seed, of_run in zip(there.seeds, returns, strict=True):
        print(f"{there.env_id}, agent of seed {seed}, --seed {args.seed}, {su.describe_returns(of_run)}")
    if args.capture_video:
        record_video(q, there, Path(args.evaluate).with_suffix(".gif"))


def record_video(q: QNetwork, args: Args, file: Path) -> None:
    """An episode of the first run as a gif."""
    first = QNetwork(1, q.fc1.weight.shape[1], q.fc3.weight.shape[2], q.fc1.weight.shape[2]).to(q.fc1.weight.device)
    first.load_state_dict({name: tensor[:1] for name, tensor in q.state_dict().items()})
    first.bfloat16 = q.bfloat16
    task = {"max_episode_steps": args.max_episode_steps}
    envs.vector.record(args.env_id, policy(first, args.eval_epsilon, [0]), file, su.seeds(args.seed)[0], **task)


if __name__ == "__main__":
    args = parse_args()
    if args.evaluate:
        evaluate_checkpoint(args)
        raise SystemExit(0)
    device, R = su.set_up_torch(args), len(args.seeds)

    # ---- Environments and network
    train_envs = make_envs(args, R, 1)
    obs_dim = train_envs.single_observation_space.shape[0]
    n_actions = int(train_envs.single_action_space.n)
    q = QNetwork(R, obs_dim, n_actions, network_width(args, obs_dim, n_actions)).to(device)
    q.bfloat16 = su.bfloat16(args.matmul_precision, args.cuda)
    weights = su.prunable(q=q)
    parameters = dict(q.named_parameters())

    # ---- Sparsity: the final density of each layer (section 5). A layer without a mask is dense.
    densities = {}
    if args.method not in ("dense", "small"):
        distribute = {"erk": su.erk_densities, "uniform": su.uniform_densities}[args.sparsity_distribution]
        shapes = su.layer_shapes(weights)
        if args.dense_output_layer:
            del shapes["q.fc3.weight"]
        densities = distribute(shapes, args.sparsity)
    if args.dry_run:
        final_masks = (su.magnitude_masks if args.method == "prune" else su.random_masks)(weights, densities)
        size = describe_sparsity(q, final_masks)
        n_parameters, acting_flops = size["parameters"], size["acting_flops"]
        print(su.describe(weights, final_masks))
        print(f"{n_parameters:,} parameters with biases and {acting_flops:,} FLOPs for an action, in each run")
        raise SystemExit(0)
    # Pruning starts dense; static, SET and RigL start with random masks (section 2.1).
    initial_densities = dict.fromkeys(densities, 1.0) if args.method == "prune" else densities
    masks = su.random_masks(weights, initial_densities, su.generators(args.seeds, 0))
    initialise(q, weights, masks, args)
    q_target = copy.deepcopy(q).requires_grad_(False)
    target_weights = su.prunable(q=q_target)

    # ---- Optimizer. Weight decay is an L2 loss, wd * sum(w^2), through Adam (not AdamW): its gradient is 2 * wd * w.
    decayed = ("fc1.weight", "fc2.weight")
    groups = [
        {"params": [parameters[name] for name in decayed], "weight_decay": 2 * args.weight_decay},
        {"params": [p for name, p in parameters.items() if name not in decayed]},
    ]
    optimizer = torch.optim.Adam(groups, lr=args.learning_rate, fused=True)

    # ---- Run folder; go on from the checkpoint in it, if there is one
    # A row of the replay memory is [obs, next_obs, action, reward, terminated] of a run, so that a batch is one gather.
    row_parts = [obs_dim, obs_dim, 1, 1, 1]
    replay_shape = (min(args.buffer_size, args.total_timesteps), R, sum(row_parts))
    su.check_memory(4 * math.prod(replay_shape), f"the replay memory of {R} runs", "--buffer-size", device)
    variant = args.method if args.method == "dense" else f"{args.method}-{args.sparsity:g}"
    run_dir, checkpoint = su.start_run(args, "dqn_rigl", variant)
    replay = torch.empty(replay_shape, device=device)
    run_of_batch = torch.arange(R, device=device)[:, None]
    streams = [np.random.default_rng(su.seeds(seed, 2)[0]) for seed in args.seeds]
    step = 0
    turnover, snr = torch.zeros(R), [math.nan] * R
    obs = envs.vector.reset(train_envs, [su.seeds(seed, 3)[0] for seed in args.seeds])
    parts = {"q": q, "q_target": q_target, "optimizer": optimizer, "streams": streams, "envs": train_envs}
    if checkpoint is not None:
        su.set_states(parts, checkpoint)
        step = checkpoint["step"]
        turnover, snr = checkpoint["turnover"], checkpoint["snr"]
        for name, mask in masks.items():
            mask.copy_(checkpoint["masks"][name])
        replay[: len(checkpoint["replay"])] = checkpoint["replay"].to(device)
        if checkpoint["envs"] is None:  # a simulator without a state to restore: new episodes start
            obs = envs.vector.reset(train_envs, [su.seeds(seed, 3, step)[0] for seed in args.seeds])
        else:
            obs = checkpoint["obs"].numpy()
    kernels = su.SparseKernels(masks, [optimizer], {"q": q}, {"q": q_target}, args.kernel == "sparse")
    stop, start = su.StopSignal(), step
    parts_of_loop = ("act", "env", "sample", "update", "sparsify", "snr", "log", "evaluate", "checkpoint")
    log = su.RunLog(args, run_dir, args.total_timesteps, checkpoint, parts_of_loop)
    watch = log.watch
    del checkpoint  # it holds the replay memory once more

    def save(finished: bool) -> None:
        state = {
            "args": asdict(args),
            "finished": finished,
            "step": step,
            **log.get_state(),
            "turnover": turnover,
            "snr": snr,
            "diverged": log.diverged,
            "masks": masks,
            "obs": torch.from_numpy(obs),
            "replay": replay[: 0 if finished else min(step, len(replay))].clone(),
        }
        su.save_checkpoint(run_dir / "checkpoint.pt", {**state, **su.get_states(parts)})

    def check_runs(scores: su.Weights) -> None:
        target = dict(q_target.named_parameters())
        log.drop_diverged(f"before step {step:,}", args.seeds, parameters, optimizer, target, scores)

    total_updates = (args.total_timesteps - args.learning_starts) // args.train_frequency
    prune_begin, sparsify_end = int(0.2 * total_updates), int(0.8 * total_updates)  # appendix A.3
    eval_envs = make_envs(args, R, args.eval_episodes, first_episode=True)
    while True:
        # ---- Evaluate what ``step`` steps have taught
        due = step % args.eval_interval == 0 or step == args.total_timesteps
        if due and not log.has_evaluated(step):
            kernels.unpack()
            check_runs({})
            episodes = [su.seeds(seed, 4, step)[0] for seed in args.seeds]
            act = policy(q, args.eval_epsilon, episodes)
            returns = stop.interruptible(envs.vector.play, eval_envs, act, episodes)
            if returns is not None:
                units = dict.fromkeys(("dead", "dormant", "rank"), [math.nan] * R)
                if step > 0:
                    places = [np.random.default_rng(s).integers(min(step, len(replay)), size=1024) for s in episodes]
                    places = torch.from_numpy(np.stack(places)).to(device)
                    units = describe_units(q, replay[places, run_of_batch, :obs_dim])
                size = describe_sparsity(q, masks)
                returns[[seed in log.diverged for seed in args.seeds]] = np.nan
                rows = [
                    {
                        "step": step,
                        "seed": seed,
                        "return_mean": float(returns[r].mean()),
                        "return_std": float(returns[r].std()),
                        "return_n": args.eval_episodes,
                        **size,
                        "snr": snr[r],
                        **{name: values[r] for name, values in units.items()},
                        "turnover": float(turnover[r]),
                    }
                    for r, seed in enumerate(args.seeds)
                ]
                log.evaluated(step, rows, su.layer_sparsity(weights, masks))

        # ---- Checkpoint
        if stop.signal or (step > start and step % args.checkpoint_interval == 0 and step < args.total_timesteps):
            kernels.unpack()
            save(finished=False)
            watch.lap("checkpoint")
        if stop.signal or step == args.total_timesteps:
            break
        step += 1
        log.progress.update()
        kernels.pack()

        # ---- Collect: random actions at first, then epsilon-greedy ones with an epsilon that falls linearly (table 6)
        explored = min(1.0, step / args.exploration_steps)
        epsilon = args.start_e + explored * (args.end_e - args.start_e) if step > args.learning_starts else 1.0
        noise = np.stack([s.random(2) for s in streams], 1)  # [2, R]
        action = (noise[1] * n_actions).astype(np.int64)
        if (noise[0] >= epsilon).any():
            with torch.no_grad():
                best = q(torch.from_numpy(obs).float().to(device)[:, None])[:, 0].argmax(-1).cpu().numpy()
            action = np.where(noise[0] < epsilon, action, best)
        watch.lap("act")
        action_rows = envs.vector.to_rows(action, train_envs.single_action_space)
        next_obs, reward, terminated, truncated, info = train_envs.step(action_rows)
        reached = envs.vector.last_observations(next_obs, terminated | truncated, info)
        row = np.concatenate([obs, reached, np.stack([action, reward, terminated], 1)], 1)
        replay[(step - 1) % len(replay)] = torch.from_numpy(row)
        obs = next_obs
        watch.lap("env")
        if step <= args.learning_starts or (step - args.learning_starts) % args.train_frequency:
            continue

        # ---- Learn
        update = (step - args.learning_starts) // args.train_frequency - 1  # gradient steps before this one
        rewiring = args.method in ("set", "rigl") and su.due(update, 0, sparsify_end, args.update_interval)
        pruning = args.method == "prune" and (
            su.due(update, prune_begin, sparsify_end, args.update_interval) or update == sparsify_end
        )
        places = np.stack([s.integers(min(step, len(replay)), size=args.batch_size) for s in streams])  # [R, B]
        batch = replay[torch.from_numpy(places).to(device), run_of_batch]
        b_obs, b_next_obs, b_action, b_reward, b_terminated = batch.split(row_parts, dim=-1)
        b_action, b_reward, b_terminated = b_action.squeeze(-1).long(), b_reward.squeeze(-1), b_terminated.squeeze(-1)
        watch.lap("sample")

        # With --kernel sparse this update is a dense one if the masks change or the SNR is measured
        measuring = args.snr_interval and -step % args.snr_interval < args.train_frequency  # the last one before it
        if update % args.update_interval == 0 or pruning or measuring:
            kernels.unpack()
        target = td_target(q, q_target, b_next_obs, b_reward, b_terminated, args)
        # Signal-to-noise ratio of the gradients on this batch (section 7)
        if measuring:
            snr = gradient_snr(q, b_obs, b_action, target, args)
            watch.lap("snr")
        values = q(b_obs)
        losses = td_loss(values, b_action, target, args).mean(1)  # [R]
        optimizer.zero_grad()
        losses.sum().backward()
        scores = su.mask_gradients(weights, masks, dense=rewiring)  # then Adam leaves an inactive weight at zero
        optimizer.step()
        if (update + 1) % args.target_interval == 0:
            q_target.load_state_dict(q.state_dict())
        watch.lap("update")

        # ---- Sparsify
        if pruning or update % args.update_interval == 0:
            check_runs(scores)
        if rewiring:  # SET and RigL: drop the smallest weights, grow as many (section 2.1; Evci 2020, algorithm 1)
            fraction = su.cosine_fraction(update, sparsify_end, args.drop_fraction)
            growth = scores if args.method == "rigl" else None  # RigL grows by dense gradients, SET at random
            generators = su.generators(args.seeds, 5, update)
            turnover = su.rewire(weights, masks, fraction, [optimizer], target_weights, growth, generators, R)
        if pruning:  # Gradual magnitude pruning: each layer to its own final density (Zhu & Gupta 2018, equation 1)
            now = {n: 1 - su.cubic_sparsity(update, prune_begin, sparsify_end, 1 - d) for n, d in densities.items()}
            new_masks = su.magnitude_masks(weights, now, masks)
            su.set_masks(weights, masks, new_masks, [optimizer], target_weights)
        watch.lap("sparsify")

        # ---- Log
        if step % 1000 == 0:
            for r, seed in enumerate(args.seeds):
                log.writer.add_scalar(f"losses/td_loss/seed{seed}", losses[r].item(), step)
                log.writer.add_scalar(f"losses/q_values/seed{seed}", values[r].mean().item(), step)
            watch.lap("log")

    finished = step == args.total_timesteps and log.has_evaluated(step)  # a signal may have ended the last evaluation
    if finished:
        save(finished=True)
    log.finish(stop, finished)
    if args.capture_video:
        print("drawing one episode")
        stop.interruptible(record_video, q, args, run_dir / "videos" / f"step-{step}.gif")
