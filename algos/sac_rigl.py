"""SAC with sparse networks: dense, small-dense, pruning, static, SET and RigL (Graesser, Evci, Elsen, Castro 2022).

    python algos/sac_rigl.py --sparsity 0.9                              # RigL on HalfCheetah-v5, 1M steps
    python algos/sac_rigl.py --method static --env-id Walker2d-v5 --seeds 1 2 3    # a process for each
    python algos/sac_rigl.py --method prune --sparsity 0.95 --dry-run    # show the sparse networks and stop
    python algos/sac_rigl.py --evaluate runs/NAME/checkpoint.pt

Copy this file beside ``sparse_utils.py`` and it works there too (Bullet tasks need ``envs/`` as well).

Writes the folder ``runs/{env}__sac_rigl__{method}-{sparsity}__{seed}__{hash}``, or ``--run-dir``.
What all scripts of sparse training share is in README.md, "A run folder" and "Sparse-training runs": the files, the
columns of results.csv, how a stopped run goes on, more on some differences.

The same command started again resumes at the last checkpoint. On a CPU the results are those of an uninterrupted run if
that fell on the end of an episode (HalfCheetah's are all 1,000 steps); the physics cannot be restored within an
episode, so elsewhere a resumed run starts a fresh one. A run whose weights, rewards or observations are no longer
finite ends with one line and exit status 1; the last checkpoint before that is kept.

Hyper-parameters: table 8, and for those that were tuned for each method (``TUNED``) table 2.

Differences from the paper and its public code (google-research/rigl, rigl/rl), where they part or are silent:
 1. Reward scale 1 and target entropy -|A|: the paper names neither. Its code used ``--reward-scale 0.1`` and
    ``--target-entropy-scale 0.5``.
 2. --total-timesteps counts the initial random steps; the code's count starts after them. Schedules count gradient
    steps: pruning runs from 20% to 80% of them, SET and RigL rewire from the first one to 80%.
 3. RigL's scores are the gradients of the critic and actor losses that the Adam steps of the same update use, before
    they are masked; the code computes fresh ones on the same batch after the steps. Rewiring replaces no Adam step.
 4. Inactive weights take no Adam step; in the code they take one that is zeroed later (README).
 5. Actions are rescaled to [-1, 1] and log-probabilities are in that space. log_std is clipped to [-20, 2] as in
    Haarnoja et al. 2018; the code does not clip. Adam's epsilon is PyTorch's 1e-8 (Keras: 1e-7).
 6. MuJoCo tasks are gymnasium's v5; the paper used v2.
 7. --actor-share divides the weights that remain, biases not counted; the paper prints no formula (README).
 8. With --dense-output-layer the sparsity is that of the other layers, as in the code.
 9. The SNR of SAC is in the paper's figure 5 but not in its code. Here: per-example gradients of one training batch,
    of 0.5 * TD error^2 for each critic and of alpha * log pi - min(Q1, Q2) for the actor, before its Adam steps.
10. The sparse initialisation goes by active fan-in and fan-out, as in the code, not by fan-in alone (README).
"""

import copy
import math
import os
import sys
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
import sparse_utils as su  # noqa: E402

# Table 2: what the paper's search found for each method, on Walker2d. Any flag given on the command line wins.
TUNED = {
    "dense": {"weight_decay": 1e-4},
    "small": {"weight_decay": 1e-4},
    "prune": {"weight_decay": 1e-4, "update_interval": 1000},
    "static": {"weight_decay": 1e-4, "sparse_init": False},
    "set": {"weight_decay": 1e-4, "update_interval": 250, "drop_fraction": 0.3},
    "rigl": {"weight_decay": 1e-6, "update_interval": 1000, "drop_fraction": 0.5},
}


@dataclass
class Args:
    # Run
    env_id: str = "HalfCheetah-v5"  # any gymnasium task with Box observations and actions: MuJoCo, Bullet, Pendulum-v1
    seed: int = 1  # seed of everything; with --evaluate, of its episodes
    seeds: tuple[int, ...] = ()  # instead of --seed: a process, and a run folder, for each, as many at once as cores
    total_timesteps: int = 1_000_000  # environment steps, the initial random ones included
    max_episode_steps: int | None = None  # time limit of an episode, in steps; default the task's own
    run_dir: str = ""  # folder to write to; default runs/{env}__sac_rigl__{method}-{sparsity}__{seed}__{hash}
    fresh: bool = False  # delete what is in the run folder and start over
    eval_interval: int = 10_000  # environment steps between evaluations
    eval_episodes: int = 30  # episodes per evaluation
    snr_interval: int = 10_000  # environment steps between measurements of the gradients' SNR; 0 = never
    checkpoint_interval: int = 50_000  # environment steps between checkpoints: the most that a kill can cost
    threads: int = 1  # CPU threads of PyTorch; 0 = PyTorch's own choice
    matmul_precision: Literal["highest", "medium"] = "highest"  # medium: hidden layers in bfloat16, where it is fast
    kernel: Literal["masked", "sparse"] = "masked"  # sparse: products of active weights alone, faster at 90% and more
    cuda: bool = True  # use a GPU if there is one
    track: bool = False  # also log to Weights & Biases (pip install wandb)
    wandb_project_name: str = "sparse-rl"  # with --track: the project
    wandb_entity: str | None = None  # with --track: the team
    evaluate: str = ""  # a checkpoint.pt: evaluate its agent, on its own task, for --eval-episodes, and stop
    observation_noise: tuple[float, ...] = ()  # with --evaluate: std of the noise, as a fraction of each input's
    capture_video: bool = False  # at the end write one episode to videos/ as a gif; with --evaluate, beside the file
    dry_run: bool = False  # print each layer's density (with prune: the final one) and the size of the whole, and stop

    # Algorithm (table 8)
    learning_rate: float = 3e-4  # Adam's, for actor, critics and alpha
    buffer_size: int = 1_000_000  # transitions
    batch_size: int = 256  # transitions per update
    gamma: float = 0.99  # discount
    tau: float = 0.005  # target smoothing coefficient
    learning_starts: int = 10_000  # random steps before learning; 1,000 for all but HalfCheetah and Ant
    reward_scale: float = 1.0  # factor on the rewards that are learned from
    target_entropy_scale: float = 1.0  # target entropy = -scale * dim(A)

    # Sparsity
    method: su.Method = "rigl"  # small is a dense network narrowed to the parameter count that --sparsity leaves
    sparsity: float = 0.9  # fraction of weights that are zero, in [0, 1), of the actor and of each critic
    actor_sparsity: float | None = None  # the actor's own sparsity
    critic_sparsity: float | None = None  # the critics' own sparsity
    actor_share: float | None = None  # the actor's part of all remaining weights (figure 3); dense HalfCheetah: 0.337
    sparsity_distribution: Literal["erk", "uniform"] = "erk"  # how a network's sparsity is spread over its layers
    dense_output_layer: bool = False  # leave the last layer of each network dense (figure 14)
    width_scale: float | None = None  # hidden units = int(256 * scale); default 1, or what method small needs
    sparse_init: bool = True  # scale initial weights by each unit's active fans (section 6); off for static
    weight_decay: float = 1e-6  # L2 on the weights, through Adam; 1e-4 for all methods but rigl
    update_interval: int = 1000  # gradient steps between two changes of the masks; 250 for set
    drop_fraction: float = 0.5  # of connections that the first rewiring drops, falling by a cosine; 0.3 for set

    def __post_init__(self) -> None:
        su.check_flags(self, "in [0, 1)", "sparsity", "actor_sparsity", "critic_sparsity")
        su.check_flags(self, "in [0, 1]", "drop_fraction", "gamma", "tau")
        su.check_flags(self, "above 0", "eval_interval", "eval_episodes", "checkpoint_interval", "update_interval")
        su.check_flags(self, "above 0", "buffer_size", "batch_size", "learning_starts", "width_scale")
        su.check_flags(self, "above 0", "max_episode_steps")
        if self.seeds:
            su.check_seeds(self)
        su.check_noise_flags(self)
        su.check_flags(self, "0 or more", "seed", "threads", "snr_interval", "weight_decay", "learning_rate")
        if self.total_timesteps <= self.learning_starts:
            raise ValueError(
                f"--total-timesteps {self.total_timesteps} ends before --learning-starts {self.learning_starts}"
            )
        su.check_small_flags(self)
        su.check_split_flags(self)


def parse_args() -> Args:
    """The command line, over table 2's defaults for its method and table 8's for its task."""
    tuned = TUNED.get(su.flag_given("method", Args.method), {})
    starts = 10_000 if su.flag_given("env-id", Args.env_id).startswith(("HalfCheetah", "Ant")) else 1_000
    return tyro.cli(Args, description=__doc__, default=Args(learning_starts=starts, **tuned))


# ---- Environment and networks ----------------------------------------------------------------------------------------


def make_env(args: Args, **kwargs) -> gym.Env:
    """The task with actions in [-1, 1]. Ends the program with one line if there is no such task or SAC cannot do it."""
    try:
        if "Bullet" in args.env_id:
            import envs.bullet  # noqa: F401
        env = gym.make(args.env_id, max_episode_steps=args.max_episode_steps, **kwargs)
    except (gym.error.Error, ImportError) as error:
        su.fail(f"{args.env_id}: {error}".replace("\n", " "))
    space = env.action_space
    vector = isinstance(space, gym.spaces.Box) and space.dtype.kind == "f" and len(space.shape) == 1
    if not vector or not (np.isfinite(space.low) & np.isfinite(space.high) & (space.low < space.high)).all():
        su.fail(f"SAC needs actions that are a vector of floats within finite bounds; {args.env_id} has {space}")
    if not isinstance(env.observation_space, gym.spaces.Box):
        su.fail(f"SAC needs Box observations; {args.env_id} has {env.observation_space}")
    if args.max_episode_steps is None and env.spec.max_episode_steps is None:
        su.fail(f"{args.env_id} has no time limit, so an episode might never end: give --max-episode-steps")
    env = gym.wrappers.TransformReward(env, lambda reward: np.asarray(reward).item())  # some give arrays of one
    return gym.wrappers.RescaleAction(gym.wrappers.FlattenObservation(env), np.float32(-1), np.float32(1))


def make_eval_envs(args: Args) -> gym.vector.VectorEnv:
    """Environments for --eval-episodes that wait for a reset after the end of an episode."""
    makers = [lambda: make_env(args)] * args.eval_episodes
    return gym.vector.SyncVectorEnv(makers, autoreset_mode=gym.vector.AutoresetMode.DISABLED)


class Actor(nn.Module):
    """Gaussian policy before its tanh. One output layer for mean and log-std, so both are sparse."""

    bfloat16 = False  # compute hidden layers with 8 bits of precision

    def __init__(self, obs_dim: int, action_dim: int, width: int):
        super().__init__()
        self.fc1 = su.Linear(obs_dim, width)
        self.fc2 = su.Linear(width, width)
        self.fc3 = su.Linear(width, 2 * action_dim)

    def hidden(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """obs [..., O] -> activations of the hidden layers, [..., width] each."""
        x = torch.relu(self.fc1(obs))
        return x, torch.relu(self.fc2(x))

    def forward(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """obs [..., O] -> mean and log-std [..., A]."""
        with torch.autocast(obs.device.type, torch.bfloat16, enabled=self.bfloat16):
            features = self.hidden(obs)[-1]
        mean, log_std = self.fc3(features.float()).chunk(2, dim=-1)
        return mean, log_std.clamp(-20, 2)


class Critics(nn.Module):
    """Both critics as one batched network: slice i of every parameter is critic i."""

    bfloat16 = False  # compute hidden layers with 8 bits of precision

    def __init__(self, obs_dim: int, action_dim: int, width: int):
        super().__init__()
        self.fc1 = su.BatchedLinear(2, obs_dim + action_dim, width)
        self.fc2 = su.BatchedLinear(2, width, width)
        self.fc3 = su.BatchedLinear(2, width, 1)

    def hidden(self, obs_action: Tensor) -> tuple[Tensor, Tensor]:
        """obs_action [B, O + A] -> activations of the hidden layers, [2, B, width] each."""
        x = torch.relu(self.fc1(obs_action.expand(2, -1, -1)))
        return x, torch.relu(self.fc2(x))

    def forward(self, obs_action: Tensor) -> Tensor:
        """obs_action [B, O + A] -> Q values [2, B]."""
        with torch.autocast(obs_action.device.type, torch.bfloat16, enabled=self.bfloat16):
            features = self.hidden(obs_action)[-1]
        return self.fc3(features.float()).squeeze(-1)


def network_widths(args: Args, obs_dim: int, action_dim: int) -> tuple[int, int]:
    """Hidden units of actor and critics. Method small: those whose parameter counts come nearest to the sparse ones."""
    width = max(1, int(256 * (args.width_scale or 1)))
    if args.method != "small" or args.width_scale is not None:
        return width, width
    ends = (obs_dim, 2 * action_dim), (obs_dim + action_dim, 1)
    full = [su.mlp_size(inputs, width, width, outputs) for inputs, outputs in ends]  # weights and biases
    sparsities = su.network_sparsities(args, full[0][0], 2 * full[1][0])
    wanted = [(1 - sparsity) * n + biases for sparsity, (n, biases) in zip(sparsities, full, strict=True)]
    return su.small_width(*ends[0], wanted[0]), su.small_width(*ends[1], wanted[1])


# ---- Losses ----------------------------------------------------------------------------------------------------------


def sample_action(mean: Tensor, log_std: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Action tanh(u) [B, A] with u = mean + std * noise, and its log-probability [B] in closed form."""
    u = mean + log_std.exp() * noise
    # log N(u) - log(1 - tanh(u)^2), the last term as 2 * (log 2 - u - softplus(-2u)), which cannot overflow
    constant = 0.5 * math.log(2 * math.pi) + 2 * math.log(2)
    log_prob = 2 * (u + F.softplus(-2 * u)) - 0.5 * noise.square() - log_std - constant
    return torch.tanh(u), log_prob.sum(-1)


@torch.no_grad()
def td_target(
    actor: Actor, qf_target: Critics, alpha: Tensor, next_obs: Tensor, reward: Tensor, terminated: Tensor, gamma: float
) -> Tensor:
    """r + gamma * (min Q'(s', a') - alpha * log pi(a'|s')) [B]; reward and terminated are [B, 1]. Only a true end of
    the episode has no future: at a time limit terminated is 0 and next_obs the last observation."""
    mean, log_std = actor(next_obs)
    next_action, next_log_prob = sample_action(mean, log_std, torch.randn_like(mean))
    next_value = torch.minimum(*qf_target(torch.cat([next_obs, next_action], 1))) - alpha * next_log_prob
    return reward.squeeze(1) + gamma * (1 - terminated.squeeze(1)) * next_value


def critic_loss(q: Tensor, target: Tensor) -> Tensor:
    """Half the squared TD error of each critic and example; q [2, B]."""
    return 0.5 * (q - target).square()


def actor_loss(
    mean: Tensor, log_std: Tensor, noise: Tensor, qf: Critics, alpha: Tensor, obs: Tensor
) -> tuple[Tensor, Tensor]:
    """alpha * log pi - min(Q1, Q2) of each example, and log pi; both [B]."""
    action, log_prob = sample_action(mean, log_std, noise)
    return alpha * log_prob - torch.minimum(*qf(torch.cat([obs, action], 1))), log_prob


def gradient_snr(
    actor: Actor, qf: Critics, alpha: Tensor, obs: Tensor, obs_action: Tensor, target: Tensor, noise: Tensor
) -> tuple[float, float]:
    """Signal-to-noise ratio of the actor's and of the critics' gradients on one batch (section 7)."""

    def actor_example(parameters: dict[str, Tensor], o: Tensor, eps: Tensor) -> Tensor:
        mean, log_std = functional_call(actor, parameters, o[None])
        return actor_loss(mean, log_std, eps[None], qf, alpha, o[None])[0].sum()

    def critic_example(parameters: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return critic_loss(functional_call(qf, parameters, x[None]), y).sum()

    return (
        su.signal_to_noise(actor_example, dict(actor.named_parameters()), obs, noise),
        su.signal_to_noise(critic_example, dict(qf.named_parameters()), obs_action, target),
    )


# ---- Evaluation ------------------------------------------------------------------------------------------------------


@torch.no_grad()
def evaluate(actor: Actor, envs: gym.vector.VectorEnv, seeds: list[int], device: torch.device) -> np.ndarray:
    """Returns [n] of the first episode of each of the n environments under the deterministic policy tanh(mean)."""
    assert envs.metadata["autoreset_mode"] == gym.vector.AutoresetMode.DISABLED
    obs, _ = envs.reset(seed=seeds)
    returns, running = np.zeros(envs.num_envs), np.ones(envs.num_envs, dtype=bool)
    while running.any():
        mean, _ = actor(torch.as_tensor(obs, dtype=torch.float32, device=device))
        obs, reward, terminated, truncated, _ = envs.step(torch.tanh(mean).cpu().numpy())
        returns += np.where(running, reward, 0)
        ended = terminated | truncated
        running &= ~ended
        if ended.any() and running.any():
            obs, _ = envs.reset(options={"reset_mask": ended})  # these play on beside the others and no longer count
    return returns


def describe_sparsity(actor: Actor, qf: Critics, masks: su.Masks) -> dict[str, float | int]:
    """Columns of results.csv: how sparse the networks are, and their size."""
    actor_weights, qf_weights = su.prunable(actor=actor), su.prunable(qf=qf)
    critics = [{name: tensor[i] for name, tensor in qf_weights.items()} for i in (0, 1)]
    critic_masks = [{name: masks[name][i] for name in qf_weights if name in masks} for i in (0, 1)]
    example = torch.zeros(1, actor.fc1.in_features, device=actor.fc1.weight.device)
    return {
        "sparsity": su.sparsity({**actor_weights, **qf_weights}, masks),
        "sparsity_actor": su.sparsity(actor_weights, masks),
        "sparsity_qf1": su.sparsity(critics[0], critic_masks[0]),
        "sparsity_qf2": su.sparsity(critics[1], critic_masks[1]),
        "parameters": su.count_parameters(masks, actor=actor, qf=qf),
        "acting_flops": sum(su.flops(actor, example, masks, "actor")),
    }


@torch.no_grad()
def describe_units(actor: Actor, qf: Critics, obs_action: Tensor) -> dict[str, float]:
    """Columns of results.csv: how many hidden units do something on obs_action [B, O + A], and how much of it is
    linearly independent."""
    obs = obs_action[:, : actor.fc1.in_features]
    units = {"actor": su.describe_units(actor.hidden(obs)), "critic": su.describe_units(qf.hidden(obs_action))}
    return {f"{name}_{net}": float(units[net][name].float().mean()) for name in units["actor"] for net in units}


def record_video(actor: Actor, args: Args, device: torch.device, file: Path) -> None:
    """One episode of the deterministic policy as a gif. Where rendering is not possible, say so: the run is saved."""
    import imageio.v3 as imageio

    if sys.platform == "linux" and not os.environ.get("DISPLAY"):
        os.environ.setdefault("MUJOCO_GL", "egl")
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    try:
        env = make_env(args, render_mode="rgb_array")
        obs, _ = env.reset(seed=su.seeds(args.seed)[0])
        frames, steps, ended = [env.render()], 0, False
        while not ended:
            with torch.no_grad():
                mean, _ = actor(torch.as_tensor(obs, dtype=torch.float32, device=device))
            obs, _, terminated, truncated, _ = env.step(torch.tanh(mean).cpu().numpy())
            steps, ended = steps + 1, terminated or truncated
            if steps % 4 == 0:  # drawing is slow without a screen
                frames.append(env.render())
        milliseconds = 4000 / env.metadata.get("render_fps", 50)
        env.close()
        file.parent.mkdir(exist_ok=True)
        imageio.imwrite(file, np.stack(frames), duration=milliseconds, loop=0)
        print(f"video: {file}")
    except Exception as error:  # whatever the graphics driver raises
        print(f"no video: {error}", file=sys.stderr)


def evaluate_checkpoint(args: Args) -> None:
    """Play with the agent of a checkpoint, on its own task."""
    device = su.set_up_torch(args)
    su.exit_on_signal()
    try:
        checkpoint = su.load_checkpoint(Path(args.evaluate), device)
        there = Args(**{**checkpoint["args"], "seed": args.seed, "eval_episodes": args.eval_episodes})
        there.max_episode_steps = args.max_episode_steps or there.max_episode_steps
        env = make_env(there)
        obs_dim, action_dim = env.observation_space.shape[0], env.action_space.shape[0]
        actor = Actor(obs_dim, action_dim, network_widths(there, obs_dim, action_dim)[0]).to(device)
        actor.load_state_dict(checkpoint["actor"])
        actor.bfloat16 = su.bfloat16(there.matmul_precision, args.cuda)
    except (KeyError, TypeError, ValueError, RuntimeError):
        su.fail(f"{args.evaluate} is no checkpoint of this version of sac_rigl.py")
    vector, seeds = make_eval_envs(there), su.seeds(args.seed, n=args.eval_episodes)
    if args.observation_noise:
        from envs import noise

        play = (vector, lambda noisy: evaluate(actor, noisy, seeds, device)[None])
        played = noise.play_with_noise(*play, args.observation_noise, 1, args.seed)
        noise.report(played, [checkpoint["args"]["seed"]], args.seed, Path(args.evaluate).with_name("noise.csv"))
        return
    returns = evaluate(actor, vector, seeds, device)
    print(f"{there.env_id}, --seed {args.seed}, {su.describe_returns(returns)}")
    if args.capture_video:
        record_video(actor, there, device, Path(args.evaluate).with_suffix(".gif"))


if __name__ == "__main__":
    args = parse_args()
    if args.evaluate:
        evaluate_checkpoint(args)
        raise SystemExit(0)
    if args.seeds and not args.dry_run:
        su.run_each_seed(args)
    device = su.set_up_torch(args)

    # ---- Environment and networks
    torch.manual_seed(args.seed)
    env = make_env(args)
    obs_dim, action_dim = env.observation_space.shape[0], env.action_space.shape[0]
    actor_width, critic_width = network_widths(args, obs_dim, action_dim)
    actor = Actor(obs_dim, action_dim, actor_width).to(device)
    qf = Critics(obs_dim, action_dim, critic_width).to(device)
    actor.bfloat16 = qf.bfloat16 = su.bfloat16(args.matmul_precision, args.cuda)
    actor_weights, qf_weights = su.prunable(actor=actor), su.prunable(qf=qf)
    weights = {**actor_weights, **qf_weights}

    # ---- Sparsity: the final density of each layer, per network (section 5). A layer without a mask is dense.
    densities = {}
    if args.method not in ("dense", "small"):
        distribute = {"erk": su.erk_densities, "uniform": su.uniform_densities}[args.sparsity_distribution]
        sparsities = su.network_sparsities(args, su.count(actor_weights), su.count(qf_weights))
        for net, sparsity in zip((actor_weights, qf_weights), sparsities, strict=True):
            shapes = su.layer_shapes(net)
            if args.dense_output_layer:
                shapes = {name: shape for name, shape in shapes.items() if ".fc3." not in name}
            densities.update(distribute(shapes, sparsity))
    if args.dry_run:
        final_masks = (su.magnitude_masks if args.method == "prune" else su.random_masks)(weights, densities)
        size = describe_sparsity(actor, qf, final_masks)
        print(su.describe(weights, final_masks))
        print(f"{size['parameters']:,} parameters with biases; {size['acting_flops']:,} FLOPs for an action")
        raise SystemExit(0)
    # Pruning starts dense; static, SET and RigL start with random masks (section 2.1).
    masks = su.random_masks(weights, dict.fromkeys(densities, 1.0) if args.method == "prune" else densities)
    actor_masks, qf_masks = ({n: masks[n] for n in net if n in masks} for net in (actor_weights, qf_weights))
    su.sparse_init_(weights, masks if args.sparse_init else {})  # without masks: the usual Glorot
    su.apply_masks(weights, masks)
    actor_biases, qf_biases = ([p for n, p in net.named_parameters() if "bias" in n] for net in (actor, qf))
    for bias in actor_biases + qf_biases:
        nn.init.zeros_(bias)
    qf_target = copy.deepcopy(qf).requires_grad_(False)
    target_weights = su.prunable(qf=qf_target)

    # ---- Optimizers. Weight decay is an L2 loss through Adam (not AdamW) on the weights alone. The losses contain
    # wd * sum(w^2), the critics' inside their factor 0.5: so the gradient is 2 * wd * w for the actor, wd * w for them.
    actor_groups = [{"params": actor_weights.values(), "weight_decay": 2 * args.weight_decay}, {"params": actor_biases}]
    qf_groups = [{"params": qf_weights.values(), "weight_decay": args.weight_decay}, {"params": qf_biases}]
    log_alpha = torch.zeros((), device=device)
    actor_optimizer = torch.optim.Adam([*actor_groups, {"params": [log_alpha]}], lr=args.learning_rate, fused=True)
    qf_optimizer = torch.optim.Adam(qf_groups, lr=args.learning_rate, fused=True)
    optimizers = (actor_optimizer, qf_optimizer)

    # ---- Run folder; go on from the checkpoint in it, if there is one
    # A row of the replay memory is [obs, action, next_obs, reward, terminated], so that a batch is one gather.
    row_parts = [obs_dim, action_dim, obs_dim, 1, 1]
    replay_shape = (min(args.buffer_size, args.total_timesteps), sum(row_parts))
    su.check_memory(4 * math.prod(replay_shape), "the replay memory", "--buffer-size", device)
    variant = args.method if args.method == "dense" else f"{args.method}-{args.sparsity:g}"
    run_dir, checkpoint = su.start_run(args, "sac_rigl", variant)
    replay = torch.empty(replay_shape, device=device)
    step, turnover, snr = 0, 0.0, (math.nan, math.nan)
    networks = {"actor": actor, "qf": qf, "qf_target": qf_target}
    parts = {**networks, "actor_optimizer": actor_optimizer, "qf_optimizer": qf_optimizer}
    if checkpoint is not None:
        su.set_states(parts, checkpoint)
        step, turnover, snr = checkpoint["step"], checkpoint["turnover"], checkpoint["snr"]
        for name, mask in masks.items():
            mask.copy_(checkpoint["masks"][name])
        log_alpha.copy_(checkpoint["log_alpha"])
        replay[: len(checkpoint["replay"])] = checkpoint["replay"].to(device)
        torch.set_rng_state(checkpoint["rng"])
        if device.type == "cuda" and checkpoint["cuda_rng"] is not None:
            torch.cuda.set_rng_state(checkpoint["cuda_rng"])
    online, target_nets = {"actor": actor, "qf": qf}, {"qf": qf_target}
    kernels = su.SparseKernels(masks, optimizers, online, target_nets, args.kernel == "sparse")
    stop, start = su.StopSignal(), step
    parts_of_loop = ("act", "env", "sample", "update", "sparsify", "snr", "log", "evaluate", "checkpoint")
    log = su.RunLog(args, run_dir, args.total_timesteps, checkpoint, parts_of_loop)
    watch = log.watch
    del checkpoint  # it holds the replay memory once more

    def check_weights() -> None:
        if not all(p.isfinite().all() for net in (actor, qf) for p in net.parameters()):
            log.end_diverged("weights are not finite", step)

    def save(finished: bool) -> None:
        check_weights()
        filled = replay[: 0 if finished else min(step, len(replay))]
        state = {
            "args": asdict(args),
            "finished": finished,
            "step": step,
            **log.get_state(),
            "turnover": turnover,
            "snr": snr,
            "masks": masks,
            "log_alpha": log_alpha,
            # clone: torch.save would write all of the memory that a slice belongs to
            "replay": filled if len(filled) == len(replay) else filled.clone(),
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state() if device.type == "cuda" else None,
        }
        su.save_checkpoint(run_dir / "checkpoint.pt", {**state, **su.get_states(parts)})

    actor_parameters, qf_parameters, target_parameters = (list(net.parameters()) for net in networks.values())
    target_entropy = -args.target_entropy_scale * action_dim
    total_updates = args.total_timesteps - args.learning_starts
    prune_begin, sparsify_end = int(0.2 * total_updates), int(0.8 * total_updates)  # appendix A.3
    eval_envs = make_eval_envs(args)
    obs, _ = env.reset(seed=su.seeds(args.seed, start)[0])  # every episode by its first step, so resuming is exact
    episodic_return = episodic_length = 0
    while True:
        # ---- Evaluate what ``step`` steps have taught
        due = (step > 0 and step % args.eval_interval == 0) or step == args.total_timesteps
        if due and not log.has_evaluated(step):
            kernels.unpack()
            check_weights()
            seeds = su.seeds(args.seed, step, 1, n=args.eval_episodes)
            returns = stop.interruptible(evaluate, actor, eval_envs, seeds, device)
            if returns is not None:
                if not np.isfinite(returns).all():
                    log.end_diverged("a return of the evaluation is not finite", step)
                places = np.random.default_rng(su.seeds(args.seed, step, 2)).integers(min(step, len(replay)), size=1024)
                units = describe_units(actor, qf, replay[torch.from_numpy(places).to(device), : obs_dim + action_dim])
                row = {
                    "step": step,
                    "return_mean": float(returns.mean()),
                    "return_std": float(returns.std()),
                    "return_n": len(returns),
                    **describe_sparsity(actor, qf, masks),
                    "snr_actor": snr[0],
                    "snr_critic": snr[1],
                    **units,
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
        step += 1
        log.progress.update()
        kernels.pack()

        # ---- Collect
        if step <= args.learning_starts:
            action = (2 * torch.rand(action_dim) - 1).numpy()
        else:
            with torch.no_grad():
                mean, log_std = actor(torch.as_tensor(obs, dtype=torch.float32, device=device))
                action = torch.tanh(mean + log_std.exp() * torch.randn_like(mean)).cpu().numpy()
        watch.lap("act")
        next_obs, reward, terminated, truncated, _ = env.step(action)
        row = np.concatenate([obs, action, next_obs, [args.reward_scale * reward, terminated]])
        if not np.isfinite(row).all():
            log.end_diverged("an observation, action or reward is not finite", step)
        replay[(step - 1) % len(replay)] = torch.from_numpy(row)
        obs = next_obs
        episodic_return, episodic_length = episodic_return + reward, episodic_length + 1
        if terminated or truncated:
            log.writer.add_scalar("charts/episodic_return", episodic_return, step)
            log.writer.add_scalar("charts/episodic_length", episodic_length, step)
            episodic_return = episodic_length = 0
            obs, _ = env.reset(seed=su.seeds(args.seed, step)[0])
        watch.lap("env")
        if step <= args.learning_starts:
            continue

        # ---- Learn
        update = step - args.learning_starts - 1  # gradient steps before this one
        rewiring = args.method in ("set", "rigl") and su.due(update, 0, sparsify_end, args.update_interval)
        pruning = args.method == "prune" and (
            su.due(update, prune_begin, sparsify_end, args.update_interval) or update == sparsify_end
        )
        batch = replay.index_select(0, torch.randint(min(step, len(replay)), (args.batch_size,), device=device))
        b_obs, b_action, b_next_obs, b_reward, b_terminated = batch.split(row_parts, dim=1)
        b_obs_action = batch[:, : obs_dim + action_dim]
        watch.lap("sample")

        # With --kernel sparse this update is a dense one if the masks change or the SNR is measured
        measuring = args.snr_interval and step % args.snr_interval == 0
        if rewiring or pruning or measuring:
            kernels.unpack()
        alpha = log_alpha.exp()
        target = td_target(actor, qf_target, alpha, b_next_obs, b_reward, b_terminated, args.gamma)
        noise = torch.randn_like(b_action)
        # Signal-to-noise ratio of the gradients on this batch (section 7)
        if measuring:
            snr = gradient_snr(actor, qf, alpha, b_obs, b_obs_action, target, noise)
            watch.lap("snr")

        # Critics
        q = qf(b_obs_action)
        qf_losses = critic_loss(q, target).mean(1)
        qf_optimizer.zero_grad()
        qf_losses.sum().backward()
        scores = su.mask_gradients(qf_weights, qf_masks, dense=rewiring)  # then Adam leaves an inactive weight at zero
        qf_optimizer.step()

        # Actor; backward to its own parameters only, not to the critics'
        actor_losses, log_prob = actor_loss(*actor(b_obs), noise, qf, alpha, b_obs)
        actor_optimizer.zero_grad()
        actor_losses.mean().backward(inputs=actor_parameters)
        scores.update(su.mask_gradients(actor_weights, actor_masks, dense=rewiring))
        # Entropy coefficient, in the same optimizer: the gradient of -log_alpha * (log pi + target entropy)
        log_alpha.grad = -(log_prob.detach().mean() + target_entropy)
        actor_optimizer.step()

        with torch.no_grad():
            torch._foreach_lerp_(target_parameters, qf_parameters, args.tau)
        watch.lap("update")

        # ---- Sparsify
        if pruning or update % args.update_interval == 0:
            check_weights()
        if rewiring:  # SET and RigL: drop the smallest weights, grow as many (section 2.1; Evci 2020, algorithm 1)
            fraction = su.cosine_fraction(update, sparsify_end, args.drop_fraction)
            growth = scores if args.method == "rigl" else None  # RigL grows by dense gradients, SET at random
            turnover = su.rewire(weights, masks, fraction, optimizers, target_weights, growth).item()
        if pruning:  # Gradual magnitude pruning: each layer to its own final density (Zhu & Gupta 2018, equation 1)
            now = {n: 1 - su.cubic_sparsity(update, prune_begin, sparsify_end, 1 - d) for n, d in densities.items()}
            new_masks = su.magnitude_masks(weights, now, masks)
            su.set_masks(weights, masks, new_masks, optimizers, target_weights)
        watch.lap("sparsify")

        # ---- Log
        if step % 100 == 0:
            losses = {
                "qf1_values": q[0].mean().item(),
                "qf2_values": q[1].mean().item(),
                "qf1_loss": qf_losses[0].item(),
                "qf2_loss": qf_losses[1].item(),
                "qf_loss": qf_losses.mean().item(),
                "actor_loss": actor_losses.mean().item(),
                "alpha": alpha.item(),
                "alpha_loss": (alpha.log() * log_alpha.grad).item(),
            }
            if not all(map(math.isfinite, losses.values())):
                log.end_diverged("a loss is not finite", step)
            for name, value in losses.items():
                log.writer.add_scalar(f"losses/{name}", value, step)
            watch.lap("log")

    finished = step == args.total_timesteps and log.has_evaluated(step)  # a signal may have ended the last evaluation
    if finished:
        save(finished=True)
    log.finish(stop, finished)
    if args.capture_video:
        print("drawing one episode")
        stop.interruptible(record_video, actor, args, device, run_dir / "videos" / f"step-{step}.gif")
