"""PPO with sparse networks: dense, small-dense, pruning, static, SET and RigL (Graesser, Evci, Elsen, Castro 2022).

    python algos/ppo_rigl.py --sparsity 0.9                               # RigL on HalfCheetah-v5, 1M steps
    python algos/ppo_rigl.py --env-id Walker2d-v5 --method static --seeds 1 2 3 4 5 6 7 8 9
    python algos/ppo_rigl.py --env-id CartPole-v1 --total-timesteps 100000 --method prune
    python algos/ppo_rigl.py --method rigl --sparsity 0.95 --dry-run      # show the sparse networks and stop
    python algos/ppo_rigl.py --evaluate runs/NAME/checkpoint.pt

All ``--seeds`` train together as one batched program: every parameter has a leading run axis R and every batch is
[R, B, ...]. It reads as one agent with one more axis. Each run has its own masks and environment, and its random
numbers follow from its own seed, so it learns the same whatever runs train beside it, to float rounding.

Writes the folder ``runs/{env}__ppo_rigl__{method}-{sparsity}__{n}seeds__{hash}``, or ``--run-dir``.
What all scripts of sparse training share is in README.md, "A run folder" and "Sparse-training runs": the files, the
columns of results.csv, how a stopped run goes on, more on some differences.

Evaluations play the mean or most likely action. The same command started again resumes at the last checkpoint, to the
same results (where a simulator cannot be restored within an episode, as in MuJoCo, new episodes start there). Ctrl-C
and SIGTERM take effect after the current rollout and its update. A run whose weights are no longer finite has returns
of nan from then on; the others go on.

Hyper-parameters: table 8, and for those that were tuned for each method (``TUNED``) table 3.

Differences from the paper and its public code (google-research/rigl with tf-agents), where they part or are silent. In
brackets: the flags that give what the code does.
 1. The value of the last observation is the future's at a time limit [--time-limits terminal: none].
 2. Actions are clipped to their bounds [--no-clip-actions]. The mean is the last layer's output [--mean tanh: squashed
    to the bounds]. The standard deviation starts at 0.35 as in the code, and is exp(log-std), in the code a softplus.
 3. Every frame of a rollout is a step. In the code the reset between two episodes is a frame, too [--boundary-frames
    masked: it has weight 0 in the losses, whose mean is still over all 64 frames, but counts when advantages are
    normalised; scored: and RigL's scores come from losses without these weights]. With these flags a rollout is 2,048
    frames; the code collects 2,048 steps and as many frames as come with them, and leaves out each rollout's last one.
 4. Observations are normalised by the mean and variance of all before this rollout, from 0 and 1 [--initial-variance 0:
    in the first rollout they are multiplied by 31.6 and clipped to 5] [--statistics before: those of the rollout are in
    when it is learned from, so that its first probability ratios are not 1]. The clipping to 5 and the 0.001 that is
    added to the variance are the code's. The paper names no normalisation.
 5. Rewards are divided by the running standard deviation of their discounted sum, as is usual [--normalize-rewards
    reward: by that of the rewards themselves], and clipped to 10. "none" leaves them as they are.
 6. Each epoch passes over the rollout once [--epochs together: minibatches come from a shuffle buffer through which all
    ten repetitions flow].
 7. Initial weights are Glorot-uniform, or by active fans with --sparse-init, biases zero, and the actor's last layer is
    multiplied by 0.1 in either case [--dense-init orthogonal --actor-output-scale 1: orthogonal hidden layers, and last
    ones from N(0, 0.1 / fan-in), cut off, and U(-0.03, 0.03); not in layers that --sparse-init has scaled].
 8. Hidden units are tanh in the actor and ReLU in the critic, as in the code; the paper does not say.
 9. SET's best drop fraction in table 3 is 0: it rewires nothing, so it is static, with another weight decay.
10. Learning rate falling to zero by rollout, Adam's epsilon 1e-5, advantages normalised in each minibatch, no clipping
    of values: the code's; the paper is silent. The value loss is 0.5 * error^2, with no further half. The gradient of
    the L2 loss is clipped with the rest, as there.
11. RigL's scores are the gradients that the Adam step of the same update uses, before they are masked and clipped. The
    code computes them once more on the same minibatch, without the factor 0.5, which changes no ranking, and rewires
    before that step, which new connections thus take; here they begin with the next one.
12. Inactive weights take no Adam step; in the code they take one that is zeroed later (README). Here they have no
    part in the norm that is clipped; in the code they have, which makes it some 1.5 times as large at the start, at 90%
    sparsity.
13. The SNR is that of per-example gradients of a rollout's first minibatch; the code averages the losses first, so that
    nothing is left to compare. The paper shows no SNR of PPO.
14. --total-timesteps is rounded up to whole rollouts, as in the code: 489. Evaluations are 14,336 steps apart, as
    there; appendix A.1 says 2,000. Pruning goes from 20% to 80% of the gradient steps, rewiring to 80% (appendix A.3);
    the code's files say from 32,000 to 120,000 of 156,480.
15. Discrete actions, pruned by ERK, too, have no table: they have MuJoCo's. MuJoCo tasks are gymnasium's v5 (v2).
16. With --dense-output-layer the sparsity is that of the other layers, as in the code. --actor-share divides the
    weights that remain, biases not counted; the paper prints no formula (README).
17. The sparse initialisation goes by active fan-in and fan-out, as in the code, not by fan-in alone (README).
The paper's aggregates are normalised by the scores of the dense SAC agent of each game, for PPO, too.
"""

import math
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import gymnasium as gym
import numpy as np
import torch
import tyro
from torch import Tensor, nn
from torch.func import functional_call

# sparse_utils.py and envs/ are one folder up; --env-id my_envs:Reach-v0 means my_envs.py where you stand
sys.path += [str(Path(__file__).resolve().parent.parent), os.getcwd()]
import envs.noise  # noqa: E402
import envs.vector  # noqa: E402
import sparse_utils as su  # noqa: E402
from envs.view import add_to_moments  # noqa: E402

# Table 3: what the paper's search found for each method, on Walker2d. Any flag given on the command line wins.
TUNED = {
    "dense": {"weight_decay": 1e-6},
    "small": {"weight_decay": 1e-6},
    "prune": {"weight_decay": 1e-6, "update_interval": 500, "sparse_init": False},
    "static": {"weight_decay": 0.0},
    "set": {"weight_decay": 1e-6, "update_interval": 100, "drop_fraction": 0.0},
    "rigl": {"weight_decay": 1e-4, "update_interval": 250, "drop_fraction": 0.3},
}


@dataclass
class Args:
    # Run
    env_id: str = "HalfCheetah-v5"  # any task with vectors as observations and Discrete or Box actions
    seeds: tuple[int, ...] = (1,)  # a run for each; all train together
    total_timesteps: int = 1_000_000  # environment steps of each run, rounded up to whole rollouts
    max_episode_steps: int | None = None  # time limit of an episode, in steps; default the task's own
    run_dir: str = ""  # folder to write to; default one of its own in runs/
    fresh: bool = False  # delete what is in the run folder and start over
    eval_interval: int = 14_336  # environment steps between evaluations (7 rollouts); the first is before any step
    eval_episodes: int = 20  # episodes per evaluation
    snr_interval: int = 14_336  # environment steps between measurements of the gradients' SNR; 0 = never
    checkpoint_interval: int = 50_000  # environment steps between checkpoints: the most that a kill can cost
    threads: int = 1  # CPU threads of PyTorch; small networks are fastest with one
    cuda: bool = False  # use a GPU if there is one
    track: bool = False  # also log to Weights & Biases (pip install wandb)
    wandb_project_name: str = "sparse-rl"  # with --track: the project
    wandb_entity: str | None = None  # with --track: the team
    evaluate: str = ""  # a checkpoint.pt: evaluate its agents, on their own task, for --eval-episodes, and stop
    seed: int = 1  # with --evaluate: of its episodes
    observation_noise: tuple[float, ...] = ()  # with --evaluate: std of the noise, as a fraction of each input's
    capture_video: bool = False  # at the end write an episode of the first run as a gif; with --evaluate, by the file
    dry_run: bool = False  # print each layer's density (with prune: the final one) and the size of the whole, and stop

    # Algorithm (table 8)
    num_envs: int = 1  # environments of each run
    num_steps: int = 2048  # steps of each environment per rollout
    update_epochs: int = 10  # passes over each rollout
    num_minibatches: int = 32  # minibatches per pass: of 64 transitions
    learning_rate: float = 3e-4  # Adam's
    anneal_lr: bool = True  # learning rate falls linearly to zero
    gamma: float = 0.99  # discount
    gae_lambda: float = 0.95  # lambda of generalised advantage estimation
    clip_coef: float = 0.2  # clipping of the probability ratio
    vf_coef: float = 0.5  # coefficient of the value loss
    max_grad_norm: float = 0.5  # largest norm of a run's gradient
    initial_std: float = 0.35  # standard deviation of actions at first, in their own units
    actor_activation: Literal["tanh", "relu"] = "tanh"  # of the actor's hidden units
    critic_activation: Literal["tanh", "relu"] = "relu"  # of the critic's hidden units

    # What the released code does in another way (see the numbered differences)
    time_limits: Literal["bootstrap", "terminal"] = "bootstrap"  # is there a future beyond a time limit?
    clip_actions: bool = True  # clip sampled actions to their bounds before the environment gets them
    mean: Literal["plain", "tanh"] = "plain"  # tanh: the mean of actions is squashed to their bounds
    boundary_frames: Literal["none", "masked", "scored"] = "none"  # resets as frames; scored: RigL's scores count them
    initial_variance: float = 1.0  # of observations, in the first rollout
    statistics: Literal["after", "before"] = "after"  # a rollout's observations join them after or before its update
    normalize_rewards: Literal["return", "reward", "none"] = "return"  # whose running std divides rewards
    epochs: Literal["apart", "together"] = "apart"  # together: minibatches from a shuffle buffer across epochs

    # Sparsity
    method: su.Method = "rigl"  # small is a dense network narrowed to the parameter count that --sparsity leaves
    sparsity: float = 0.9  # fraction of weights that are zero, in [0, 1), of the actor and of the critic
    actor_sparsity: float | None = None  # the actor's own sparsity
    critic_sparsity: float | None = None  # the critic's own sparsity
    actor_share: float | None = None  # the actor's part of all remaining weights (figure 3)
    sparsity_distribution: Literal["erk", "uniform"] = "erk"  # how a network's sparsity is spread over its layers
    dense_output_layer: bool = False  # leave the last layer of each network dense (figure 14)
    width_scale: float | None = None  # hidden units = int(64 * scale); default 1, or what method small needs
    sparse_init: bool = True  # scale initial weights by each unit's active fans (section 6); off for prune
    dense_init: Literal["glorot", "orthogonal"] = "glorot"  # initial weights without that; orthogonal is the code's
    actor_output_scale: float = 0.1  # factor on the Glorot or sparse initial weights of the actor's last layer
    weight_decay: float = 1e-4  # L2 on the weights, in the loss; 0 for static, 1e-6 for the others but rigl
    update_interval: int = 250  # gradient steps between two changes of the masks; 500 for prune, 100 for set
    drop_fraction: float = 0.3  # of connections that the first rewiring drops, falling by a cosine; 0 for set

    def __post_init__(self) -> None:
        su.check_flags(self, "in [0, 1)", "sparsity", "actor_sparsity", "critic_sparsity")
        su.check_flags(self, "in [0, 1]", "drop_fraction", "gamma", "gae_lambda")
        su.check_flags(self, "above 0", "total_timesteps", "eval_interval", "eval_episodes", "checkpoint_interval")
        su.check_flags(self, "above 0", "update_interval", "width_scale", "max_episode_steps", "num_envs", "num_steps")
        su.check_flags(self, "above 0", "update_epochs", "num_minibatches", "clip_coef", "max_grad_norm", "initial_std")
        su.check_flags(self, "0 or more", "threads", "snr_interval", "weight_decay", "learning_rate")
        su.check_noise_flags(self)
        su.check_flags(self, "0 or more", "vf_coef", "initial_variance", "actor_output_scale")
        su.check_seeds(self)
        rollout = self.num_envs * self.num_steps
        if rollout % self.num_minibatches or rollout == self.num_minibatches:
            raise ValueError(
                f"--num-minibatches {self.num_minibatches} does not divide a rollout of {rollout} steps into "
                "minibatches of two or more"
            )
        su.check_small_flags(self)
        su.check_split_flags(self)


def parse_args() -> Args:
    """The command line, over table 3's defaults for its method."""
    tuned = TUNED.get(su.flag_given("method", Args.method), {})
    return tyro.cli(Args, description=__doc__, default=Args(**tuned))


# ---- Networks --------------------------------------------------------------------------------------------------------


class Network(nn.Module):
    """R independent networks of two hidden layers: x [R, B, inputs] -> [R, B, outputs].

    Those of Gaussian actors have ``log_std`` [R, 1, A], which does not depend on the observation; with ``bounds``, low
    and high [A] of the actions, their output is squashed to them.
    """

    def __init__(
        self,
        runs: int,
        units: tuple[int, int, int],
        activation: str,
        gaussian: bool = False,
        bounds: tuple[np.ndarray, np.ndarray] | None = None,
    ):
        super().__init__()
        inputs, width, outputs = units
        self.fc1 = su.BatchedLinear(runs, inputs, width)
        self.fc2 = su.BatchedLinear(runs, width, width)
        self.fc3 = su.BatchedLinear(runs, width, outputs)
        self.log_std = nn.Parameter(torch.zeros(runs, 1, outputs)) if gaussian else None
        self.activation, self.bounds = activation, bounds

    def hidden(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Activations of the hidden layers, [R, B, width] each."""
        activation = torch.tanh_ if self.activation == "tanh" else torch.relu_
        x = activation(self.fc1(x))
        return x, activation(self.fc2(x))

    def forward(self, x: Tensor) -> Tensor:
        out = self.fc3(self.hidden(x)[-1])
        if self.bounds is None:
            return out
        low, high = (torch.as_tensor(bound, device=out.device) for bound in self.bounds)
        return (low + high) / 2 + (high - low) / 2 * torch.tanh(out)


class RunningMoments(nn.Module):
    """Mean and variance [R, 1, D] of all that each run has seen: part of the agent, frozen in evaluation."""

    def __init__(self, runs: int, dim: int, initial_variance: float = 1.0):
        super().__init__()
        self.register_buffer("mean", torch.zeros(runs, 1, dim))
        self.register_buffer("var", torch.full((runs, 1, dim), initial_variance))
        self.register_buffer("count", torch.zeros(runs, 1, 1))

    @torch.no_grad()
    def update(self, x: Tensor) -> None:
        """Add x [R, B, D]."""
        add_to_moments(self.mean, self.var, self.count, x)

    def std(self) -> Tensor:
        return (self.var + 1e-3).sqrt()

    def normalise(self, x: Tensor) -> Tensor:
        return ((x - self.mean) / self.std()).clamp(-5, 5)


def make_networks(runs: int, args: Args, vector: gym.vector.VectorEnv) -> nn.ModuleDict:
    """Actors (logits, or the means of Gaussian actions), critics, and the moments of observations and of rewards."""
    space = vector.single_action_space
    gaussian = isinstance(space, gym.spaces.Box)
    obs_dim = vector.single_observation_space.shape[0]
    n_actions = space.shape[0] if gaussian else int(space.n)
    bounds = (space.low, space.high) if gaussian and args.mean == "tanh" else None
    actor_width, critic_width = network_widths(args, obs_dim, n_actions)
    return nn.ModuleDict(
        {
            "actor": Network(runs, (obs_dim, actor_width, n_actions), args.actor_activation, gaussian, bounds),
            "critic": Network(runs, (obs_dim, critic_width, 1), args.critic_activation),
            "obs_moments": RunningMoments(runs, obs_dim, args.initial_variance),
            "reward_moments": RunningMoments(runs, 1),
        }
    )


def network_widths(args: Args, obs_dim: int, n_actions: int) -> tuple[int, int]:
    """Hidden units of actor and critic. Method small: those whose parameter counts come nearest to the sparse ones."""
    width = max(1, int(64 * (args.width_scale or 1)))
    if args.method != "small" or args.width_scale is not None:
        return width, width
    full = [su.mlp_size(obs_dim, width, width, outputs) for outputs in (n_actions, 1)]  # weights and biases
    sparsities = su.network_sparsities(args, full[0][0], full[1][0])
    wanted = [(1 - sparsity) * n + biases for sparsity, (n, biases) in zip(sparsities, full, strict=True)]
    return su.small_width(obs_dim, n_actions, wanted[0]), su.small_width(obs_dim, 1, wanted[1])


@torch.no_grad()
def initialise(nets: nn.ModuleDict, weights: su.Weights, masks: su.Masks, args: Args) -> None:
    """New parameters, each run's by its own seed; inactive weights are zero."""
    generators = su.generators(args.seeds, 1)
    actor = nets["actor"]
    by_fans = masks if args.sparse_init and args.method != "prune" else {}  # pruning starts as the dense networks do
    su.sparse_init_(weights, by_fans, generators)  # without a mask: the usual Glorot
    actor.fc3.weight.mul_(args.actor_output_scale)
    dense_inits = [name for name in weights if name not in by_fans] if args.dense_init == "orthogonal" else []
    for name in dense_inits:
        for run, generator in zip(weights[name], generators, strict=True):
            values = torch.empty(run.shape)  # random numbers are the CPU's
            if ".fc3." not in name:
                nn.init.orthogonal_(values, generator=generator)
            elif name.startswith("actor"):
                std = math.sqrt(0.1 / len(run)) / 0.87962566  # 0.87962566: the std of a normal cut off at 2
                nn.init.trunc_normal_(values, std=std, a=-2 * std, b=2 * std, generator=generator)
            else:
                nn.init.uniform_(values, -0.03, 0.03, generator=generator)
            run.copy_(values)
    su.apply_masks(weights, masks)
    for name, parameter in nets.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
    if actor.log_std is not None:
        nn.init.constant_(actor.log_std, math.log(args.initial_std))


def policy(nets: nn.ModuleDict) -> Callable[[np.ndarray], np.ndarray]:
    """The function from observations [R * N, O] to the actors' outputs [R, N, A], with the networks as they are now. In
    numpy, as for so few numbers calls of PyTorch are all overhead."""
    actor, moments = nets["actor"], nets["obs_moments"]
    parameters = [p.numpy(force=True) for layer in (actor.fc1, actor.fc2, actor.fc3) for p in layer.parameters()]
    w1, b1, w2, b2, w3, b3 = parameters
    mean, std = moments.mean.numpy(force=True), moments.std().numpy(force=True)

    def activate(x: np.ndarray) -> np.ndarray:
        return np.tanh(x, out=x) if actor.activation == "tanh" else np.maximum(x, 0, out=x)

    def act(obs: np.ndarray) -> np.ndarray:
        x = (obs.reshape(len(w1), -1, w1.shape[1]).astype(np.float32) - mean) / std
        x = np.minimum(np.maximum(x, -5), 5)
        x = activate(x @ w1 + b1)
        x = activate(x @ w2 + b2)
        out = x @ w3 + b3
        if actor.bounds is None:
            return out
        low, high = actor.bounds
        return (low + high) / 2 + (high - low) / 2 * np.tanh(out)

    return act


def greedy(nets: nn.ModuleDict) -> Callable[[np.ndarray], np.ndarray]:
    """The function from observations [R * N, O] to the agents' mean or most likely actions [R, N, ...]."""
    act = policy(nets)
    return act if nets["actor"].log_std is not None else lambda obs: act(obs).argmax(-1)


# ---- PPO -------------------------------------------------------------------------------------------------------------


def gae(
    rewards: np.ndarray,
    values: np.ndarray,
    next_values: np.ndarray,
    terminated: np.ndarray,
    ended: np.ndarray,
    args: Args,
) -> np.ndarray:
    """Generalised advantages [T, ...]. next_values are those of the true next observations, the last one of an episode
    too; only a true end (terminated) has no future, and no advantage flows back across an end of either kind."""
    deltas = rewards + args.gamma * (1 - terminated) * next_values - values
    carry = args.gamma * args.gae_lambda * (1 - ended)
    advantages = np.empty_like(deltas)
    advantage = np.zeros_like(deltas[0])
    for t in reversed(range(len(deltas))):
        advantage = deltas[t] + carry[t] * advantage
        advantages[t] = advantage
    return advantages


def discounted_sums(
    rewards: np.ndarray, ended: np.ndarray, before: np.ndarray, gamma: float
) -> tuple[np.ndarray, np.ndarray]:
    """Discounted sums of the rewards of each episode up to each step [T, ...]. ``before`` [...] are the sums of
    unfinished episodes when this rollout starts. The second result is the same for the next rollout."""
    sums = np.empty_like(rewards)
    for t in range(len(rewards)):
        sums[t] = gamma * before + rewards[t]
        before = sums[t] * (1 - ended[t])
    return sums, before


def minibatch_order(rng: np.random.Generator, n: int, args: Args) -> np.ndarray:
    """Which of a rollout's n transitions each gradient step takes: [epochs, n], in the order of the steps."""
    if args.epochs == "apart":
        return np.stack([rng.permutation(n) for _ in range(args.update_epochs)])
    # The repetitions flow through a buffer of n: each draw takes one at random, and the next to come takes its place
    buffer, order = np.arange(n), []
    for i, place in enumerate(rng.integers(n, size=n * (args.update_epochs - 1)).tolist()):
        order.append(buffer[place])
        buffer[place] = i % n
    return np.array([*order, *rng.permutation(buffer)]).reshape(args.update_epochs, n)


def log_prob(out: Tensor, log_std: Tensor | None, action: Tensor) -> Tensor:
    """Of actions [R, B] or [R, B, A] under the actor's output [R, B, A]: [R, B]; for Gaussian ones without the constant
    -A / 2 * log(2 pi), which no ratio has."""
    if log_std is None:
        return torch.log_softmax(out, -1).gather(-1, action.long().unsqueeze(-1)).squeeze(-1)
    return ((action - out) * (-log_std).exp()).square().sum(-1) * -0.5 - log_std.sum(-1)


def policy_loss(
    out: Tensor, log_std: Tensor | None, action: Tensor, old_log_prob: Tensor, advantage: Tensor, clip_coef: float
) -> Tensor:
    """Clipped surrogate of each transition, as a loss, [R, B]."""
    ratio = (log_prob(out, log_std, action) - old_log_prob).exp()
    return -torch.minimum(ratio * advantage, ratio.clamp(1 - clip_coef, 1 + clip_coef) * advantage)


def value_loss(out: Tensor, target: Tensor) -> Tensor:
    """Squared error of the critic's output [R, B, 1] for each transition [R, B]."""
    return (out.squeeze(-1) - target).square()


def ppo_losses(nets: nn.ModuleDict, batch: dict[str, Tensor], args: Args) -> Tensor:
    """Loss of each transition [R, B]: clipped surrogate and value error."""
    actor = nets["actor"]
    old = batch["action"], batch["log_prob"], batch["advantage"]
    surrogate = policy_loss(actor(batch["obs"]), actor.log_std, *old, args.clip_coef)
    return surrogate + args.vf_coef * value_loss(nets["critic"](batch["obs"]), batch["return"])


@torch.no_grad()
def diagnostics(nets: nn.ModuleDict, batch: dict[str, Tensor], args: Args) -> dict[str, Tensor]:
    """What TensorBoard shows of an update, [R] each, on the rollout after it. The divergence is Schulman's estimator,
    the mean of ratio - 1 - log ratio."""
    actor = nets["actor"]
    change = log_prob(actor(batch["obs"]), actor.log_std, batch["action"]) - batch["log_prob"]
    error = value_loss(nets["critic"](batch["obs"]), batch["return"]).mean(1)
    return {
        "value_loss": error,
        "explained_variance": 1 - error / batch["return"].var(1),
        "approx_kl": (change.exp() - 1 - change).mean(1),
        "clipfrac": ((change.exp() - 1).abs() > args.clip_coef).float().mean(1),
    }


def normalised(advantage: Tensor) -> Tensor:
    """Advantages with mean 0 and standard deviation 1 in each minibatch, the last axis."""
    std, mean = torch.std_mean(advantage, -1, correction=0, keepdim=True)
    return (advantage - mean) / (std + 1e-8)


def gradient_snr(nets: nn.ModuleDict, batch: dict[str, Tensor], args: Args) -> tuple[list[float], list[float]]:
    """Signal-to-noise ratio of each run's gradients on its minibatch (section 7), of actor and critic."""

    def actor_example(parameters: dict[str, Tensor], obs: Tensor, *example: Tensor) -> Tensor:
        out = functional_call(nets["actor"], parameters, obs[None, None])
        example = [x[None, None] for x in example]
        return policy_loss(out, parameters.get("log_std"), *example, args.clip_coef).sum()

    def critic_example(parameters: dict[str, Tensor], obs: Tensor, target: Tensor) -> Tensor:
        return value_loss(functional_call(nets["critic"], parameters, obs[None, None]), target).sum()

    ratios = ([], [])
    for r in range(len(batch["obs"])):
        actor, critic = ({n: p[r : r + 1] for n, p in nets[net].named_parameters()} for net in ("actor", "critic"))
        b = {name: x[r] for name, x in batch.items()}
        of_policy = (b["obs"], b["action"], b["log_prob"], b["advantage"])
        ratios[0].append(su.signal_to_noise(actor_example, actor, *of_policy))
        ratios[1].append(su.signal_to_noise(critic_example, critic, b["obs"], b["return"]))
    return ratios


def by_run(x: Tensor) -> Tensor:
    """[T, R, N, ...] -> [R, T * N, ...]"""
    return x.transpose(0, 1).flatten(1, 2)


def describe_sparsity(actor: Network, critic: Network, masks: su.Masks) -> dict[str, float | int]:
    """Columns of results.csv: how sparse the networks are, and their size. All runs have as many active weights."""
    runs, obs_dim, _ = actor.fc1.weight.shape
    actor_weights, critic_weights = su.prunable(actor=actor), su.prunable(critic=critic)
    example = torch.zeros(runs, 1, obs_dim, device=actor.fc1.weight.device)
    return {
        "sparsity": su.sparsity({**actor_weights, **critic_weights}, masks),
        "sparsity_actor": su.sparsity(actor_weights, masks),
        "sparsity_critic": su.sparsity(critic_weights, masks),
        "parameters": su.count_parameters(masks, actor=actor, critic=critic) // runs,
        "acting_flops": sum(su.flops(actor, example, masks, "actor")) // runs,
    }


UNITS = ("dead_actor", "dead_critic", "dormant_actor", "dormant_critic", "rank_actor", "rank_critic")


@torch.no_grad()
def describe_units(nets: nn.ModuleDict, obs: Tensor) -> dict[str, list[float]]:
    """Columns of results.csv, [R] each: dead and dormant units (Sokar et al. 2023) and effective rank (Kumar et al.
    2021) on normalised observations [R, B, O]."""
    units = {net: su.describe_units(nets[net].hidden(obs)) for net in ("actor", "critic")}
    return {f"{name}_{net}": units[net][name].tolist() for name in units["actor"] for net in units}


# ---- Environments and evaluation -------------------------------------------------------------------------------------


def make_envs(args: Args, runs: int, n: int, **how: bool) -> gym.vector.VectorEnv:
    """n environments for each run. Ends the program with one line if there is no such task or PPO cannot do it."""
    try:
        vector = envs.vector.make(args.env_id, runs, n, max_episode_steps=args.max_episode_steps, **how)
    except ValueError as error:
        su.fail(str(error))
    space = vector.single_action_space
    if len(vector.single_observation_space.shape) != 1:
        su.fail(f"ppo_rigl.py needs observations that are vectors; {args.env_id} has pictures")
    if args.mean == "tanh" and not (isinstance(space, gym.spaces.Box) and np.isfinite([space.low, space.high]).all()):
        su.fail(f"--mean tanh needs actions within finite bounds; {args.env_id} has {space}")
    return vector


def evaluate_checkpoint(args: Args) -> None:
    """Play with the agents of a checkpoint, on their own task."""
    device = su.set_up_torch(args)
    su.exit_on_signal()
    try:
        checkpoint = su.load_checkpoint(Path(args.evaluate), device)
        there = Args(**{**checkpoint["args"], "eval_episodes": args.eval_episodes})
        there.max_episode_steps = args.max_episode_steps or there.max_episode_steps
        vector = make_envs(there, len(there.seeds), there.eval_episodes, first_episode=True)
        nets = make_networks(len(there.seeds), there, vector).to(device)
        nets.load_state_dict(checkpoint["nets"])
        diverged = [seed in checkpoint["diverged"] for seed in there.seeds]
    except (KeyError, TypeError, ValueError, RuntimeError):
        su.fail(f"{args.evaluate} is no checkpoint of this version of ppo_rigl.py")
    episodes = [su.seeds(args.seed, seed)[0] for seed in there.seeds]

    def play(vector: gym.vector.VectorEnv) -> np.ndarray:
        returns = envs.vector.play(vector, greedy(nets), episodes)
        returns[diverged] = np.nan
        return returns

    if args.observation_noise:
        played = envs.noise.play_with_noise(vector, play, args.observation_noise, len(there.seeds), args.seed)
        envs.noise.report(played, there.seeds, args.seed, Path(args.evaluate).with_name("noise.csv"))
        return
    for seed, of_run in zip(there.seeds, play(vector), strict=True):
        print(f"{there.env_id}, agent of seed {seed}, --seed {args.seed}, {su.describe_returns(of_run)}")
    if args.capture_video:
        record_video(nets, there, Path(args.evaluate).with_suffix(".gif"), args.seed)


def record_video(nets: nn.ModuleDict, args: Args, file: Path, seed: int) -> None:
    """An episode of the first run as a gif."""
    first = make_networks(1, args, make_envs(args, 1, 1))
    first.load_state_dict({name: tensor[:1] for name, tensor in nets.state_dict().items()})
    task = {"max_episode_steps": args.max_episode_steps}
    envs.vector.record(args.env_id, greedy(first), file, su.seeds(seed)[0], **task)


if __name__ == "__main__":
    args = parse_args()
    if args.evaluate:
        evaluate_checkpoint(args)
        raise SystemExit(0)
    device, R = su.set_up_torch(args), len(args.seeds)

    # ---- Environments and networks. With boundary frames a reset takes a step of its own (gymnasium's NEXT_STEP).
    train_envs = make_envs(args, R, args.num_envs, next_step=args.boundary_frames != "none")
    obs_space, action_space = train_envs.single_observation_space, train_envs.single_action_space
    nets = make_networks(R, args, train_envs).to(device)
    actor, critic, obs_moments, reward_moments = nets.values()
    actor_weights, critic_weights = su.prunable(actor=actor), su.prunable(critic=critic)
    weights = {**actor_weights, **critic_weights}
    parameters = dict(nets.named_parameters())

    # ---- Sparsity: the final density of each layer, per network (section 5). A layer without a mask is dense.
    densities = {}
    if args.method not in ("dense", "small"):
        distribute = {"erk": su.erk_densities, "uniform": su.uniform_densities}[args.sparsity_distribution]
        sparsities = su.network_sparsities(args, su.count(actor_weights) // R, su.count(critic_weights) // R)
        for net, sparsity in zip((actor_weights, critic_weights), sparsities, strict=True):
            shapes = su.layer_shapes(net)
            if args.dense_output_layer:
                shapes = {name: shape for name, shape in shapes.items() if ".fc3." not in name}
            densities.update(distribute(shapes, sparsity))
    if args.dry_run:
        final_masks = (su.magnitude_masks if args.method == "prune" else su.random_masks)(weights, densities)
        size = describe_sparsity(actor, critic, final_masks)
        print(su.describe(weights, final_masks))
        print(f"{size['parameters']:,} parameters and {size['acting_flops']:,} FLOPs for an action, in each run")
        raise SystemExit(0)
    # Pruning starts dense; static, SET and RigL start with random masks (section 2.1).
    initial_densities = dict.fromkeys(densities, 1.0) if args.method == "prune" else densities
    masks = su.random_masks(weights, initial_densities, su.generators(args.seeds, 0))
    initialise(nets, weights, masks, args)
    optimizer = torch.optim.Adam(parameters.values(), lr=args.learning_rate, eps=1e-5, fused=True)

    # ---- Run folder; go on from the checkpoint in it, if there is one
    batch_size = args.num_envs * args.num_steps
    iterations = math.ceil(args.total_timesteps / batch_size)
    last_step = iterations * batch_size
    updates_per_rollout = args.update_epochs * args.num_minibatches
    variant = args.method if args.method == "dense" else f"{args.method}-{args.sparsity:g}"
    run_dir, checkpoint = su.start_run(args, "ppo_rigl", variant)
    step, turnover = 0, torch.zeros(R)
    snr, units = ([math.nan] * R,) * 2, dict.fromkeys(UNITS, [math.nan] * R)
    obs = envs.vector.reset(train_envs, [su.seeds(seed, 3)[0] for seed in args.seeds])
    ended = np.zeros((R, args.num_envs), np.float32)  # did the last step end an episode?
    discounted = np.zeros((R, args.num_envs), np.float32)  # sum of rewards of the episodes so far
    parts = {"nets": nets, "optimizer": optimizer, "envs": train_envs}
    if checkpoint is not None:
        su.set_states(parts, checkpoint)
        step, turnover = checkpoint["step"], checkpoint["turnover"]
        snr, units = checkpoint["snr"], checkpoint["units"]
        for name, mask in masks.items():
            mask.copy_(checkpoint["masks"][name])
        if checkpoint["envs"] is None:  # a simulator without a state to restore: new episodes start
            obs = envs.vector.reset(train_envs, [su.seeds(seed, 3, step)[0] for seed in args.seeds])
        else:
            obs, ended, discounted = (checkpoint[name].numpy() for name in ("obs", "ended", "discounted"))
    stop, start = su.StopSignal(), step
    parts_of_loop = ("act", "env", "update", "sparsify", "snr", "log", "evaluate", "checkpoint")
    log = su.RunLog(args, run_dir, last_step, checkpoint, parts_of_loop)
    watch = log.watch

    def save(finished: bool) -> None:
        state = {
            "args": asdict(args),
            "finished": finished,
            "step": step,
            **log.get_state(),
            "diverged": log.diverged,
            "turnover": turnover,
            "snr": snr,
            "units": units,
            "masks": masks,
            "obs": torch.from_numpy(obs),
            "ended": torch.from_numpy(ended),
            "discounted": torch.from_numpy(discounted),
        }
        su.save_checkpoint(run_dir / "checkpoint.pt", {**state, **su.get_states(parts)})

    def check_runs(scores: su.Weights) -> None:
        log.drop_diverged(f"in the rollout after step {step:,}", args.seeds, parameters, optimizer, scores)

    def is_time(step: int, interval: int) -> bool:
        """Is this the first step between two rollouts from a multiple of the interval on?"""
        return interval > 0 and step % interval < batch_size

    total_updates = iterations * updates_per_rollout
    prune_begin, sparsify_end = int(0.2 * total_updates), int(0.8 * total_updates)  # appendix A.3
    eval_envs = make_envs(args, R, args.eval_episodes, first_episode=True)
    steps = (args.num_steps, R, args.num_envs)
    store = {
        "obs": np.zeros((*steps, *obs_space.shape), np.float32),
        "next_obs": np.zeros((*steps, *obs_space.shape), np.float32),
        "action": np.zeros((*steps, *action_space.shape), np.float32),
        **{name: np.zeros(steps, np.float32) for name in ("reward", "terminated", "ended", "weight")},
    }
    gaussian, bounds = actor.log_std is not None, action_space
    if gaussian and not args.clip_actions:
        bounds = gym.spaces.Box(-1e6, 1e6, action_space.shape)  # NaN, of a run that has diverged, becomes a number
    noise_shape = (args.num_steps, args.num_envs, actor.fc3.weight.shape[2])
    all_runs = torch.arange(R, device=device)[:, None]
    for step in range(start, last_step + 1, batch_size):
        # ---- Evaluate what ``step`` steps have taught
        if (is_time(step, args.eval_interval) or step == last_step) and not log.has_evaluated(step):
            episodes = [su.seeds(seed, 4, step)[0] for seed in args.seeds]
            returns = stop.interruptible(envs.vector.play, eval_envs, greedy(nets), episodes)
            if returns is not None:
                returns[[seed in log.diverged for seed in args.seeds]] = np.nan
                size = describe_sparsity(actor, critic, masks)
                rows = [
                    {
                        "step": step,
                        "seed": seed,
                        "return_mean": float(returns[r].mean()),
                        "return_std": float(returns[r].std()),
                        "return_n": args.eval_episodes,
                        **size,
                        "snr_actor": snr[0][r],
                        "snr_critic": snr[1][r],
                        **{name: values[r] for name, values in units.items()},
                        "turnover": float(turnover[r]),
                    }
                    for r, seed in enumerate(args.seeds)
                ]
                log.evaluated(step, rows, su.layer_sparsity(weights, masks))

        # ---- Checkpoint
        if stop.signal or (step > start and is_time(step, args.checkpoint_interval) and step < last_step):
            save(finished=False)
            watch.lap("checkpoint")
        if stop.signal or step == last_step:
            break

        # ---- Collect a rollout
        streams = [np.random.default_rng(su.seeds(seed, 2, step)[0]) for seed in args.seeds]
        act = policy(nets)
        draws = [s.standard_normal(noise_shape) if gaussian else s.gumbel(size=noise_shape) for s in streams]
        noise = np.stack(draws, 1).astype(np.float32)  # [T, R, N, A]
        if gaussian:
            noise *= actor.log_std.exp().numpy(force=True)
        for t in range(args.num_steps):
            store["obs"][t] = obs.reshape(store["obs"][t].shape)
            store["weight"][t] = 1 - ended  # with boundary frames: the one after an episode's end is no step
            action = act(obs) + noise[t]
            action = action if gaussian else action.argmax(-1)
            watch.lap("act")
            obs, reward, terminated, truncated, info = train_envs.step(envs.vector.to_rows(action, bounds))
            next_obs, any_end = obs, terminated | truncated
            if args.boundary_frames == "none":
                next_obs = envs.vector.last_observations(obs, any_end, info)
            store["next_obs"][t] = next_obs.reshape(store["obs"][t].shape)
            store["action"][t] = action
            store["reward"][t] = reward.reshape(R, -1)
            store["terminated"][t] = terminated.reshape(R, -1)
            store["ended"][t] = ended = any_end.reshape(R, -1).astype(np.float32)
            watch.lap("env")

        # ---- Advantages and returns
        rollout = {name: by_run(torch.from_numpy(array).to(device)) for name, array in store.items()}
        if args.normalize_rewards == "return":
            sums, discounted = discounted_sums(store["reward"], store["ended"], discounted, args.gamma)
            reward_moments.update(by_run(torch.from_numpy(sums).to(device)).unsqueeze(-1))
        elif args.normalize_rewards == "reward":
            reward_moments.update(rollout["reward"].unsqueeze(-1))
        reward = store["reward"]
        if args.normalize_rewards != "none":
            reward = np.clip(reward / reward_moments.std()[:, 0].numpy(force=True), -10, 10)
        with torch.no_grad():
            seen = obs_moments.normalise(rollout["obs"])
            old_log_prob = log_prob(actor(seen), actor.log_std, rollout["action"])
            values = critic(seen).squeeze(-1)
            next_values = critic(obs_moments.normalise(rollout["next_obs"])).squeeze(-1)
            if args.statistics == "before":
                obs_moments.update(rollout["obs"])
                seen = obs_moments.normalise(rollout["obs"])
        in_time = [x.view(R, args.num_steps, -1).transpose(0, 1).numpy(force=True) for x in (values, next_values)]
        terminated = store["ended" if args.time_limits == "terminal" else "terminated"]
        advantage = gae(reward, *in_time, terminated, store["ended"], args)
        advantage = by_run(torch.from_numpy(advantage).to(device))
        batch = {
            "obs": seen,
            "action": rollout["action"],
            "log_prob": old_log_prob,
            "advantage": advantage,
            "return": advantage + values,
            "weight": rollout["weight"],
        }

        # ---- Learn
        for group in optimizer.param_groups:
            group["lr"] = args.learning_rate * (1 - step / last_step if args.anneal_lr else 1)
        update = step // batch_size * updates_per_rollout  # gradient steps before the next one
        orders = np.stack([minibatch_order(stream, batch_size, args) for stream in streams], 1)  # [epochs, R, B]
        for order in torch.from_numpy(orders).to(device):
            epoch = {n: x[all_runs, order].unflatten(1, (args.num_minibatches, -1)) for n, x in batch.items()}
            epoch["advantage"] = normalised(epoch["advantage"])
            for tensors in zip(*(x.unbind(1) for x in epoch.values()), strict=True):
                b = dict(zip(epoch, tensors, strict=True))
                # Signal-to-noise ratio of the gradients on a rollout's first minibatch (section 7)
                if update % updates_per_rollout == 0 and is_time(step + batch_size, args.snr_interval):
                    watch.lap("update")
                    snr = gradient_snr(nets, b, args)
                    watch.lap("snr")
                rewiring = args.method in ("set", "rigl") and su.due(update, 0, sparsify_end, args.update_interval)
                pruning = args.method == "prune" and (
                    su.due(update, prune_begin, sparsify_end, args.update_interval) or update == sparsify_end
                )
                losses = ppo_losses(nets, b, args)
                if rewiring and args.boundary_frames == "scored":
                    released = [weights[name] for name in masks]
                    released = torch.autograd.grad(losses.mean(1).sum(), released, retain_graph=True)
                if args.boundary_frames != "none":
                    losses = losses * b["weight"]  # the mean stays that over all frames
                for p in parameters.values():
                    p.grad = None  # on small networks optimizer.zero_grad() takes 4% of an update
                losses.mean(1).sum().backward()
                # with masked gradients Adam leaves inactive weights at zero
                scores = su.mask_gradients(weights, masks, dense=rewiring)
                if rewiring and args.boundary_frames == "scored":
                    scores = dict(zip(masks, released, strict=True))
                if args.weight_decay:  # L2 in the loss, wd * sum(w^2): its gradient is clipped and goes through Adam
                    gradients = [weight.grad for weight in weights.values()]
                    torch._foreach_add_(gradients, list(weights.values()), alpha=2 * args.weight_decay)
                su.clip_run_gradients([p.grad for p in parameters.values()], args.max_grad_norm)
                optimizer.step()
                watch.lap("update")

                # ---- Sparsify
                if rewiring or pruning:
                    check_runs(scores)
                if rewiring:  # SET and RigL: drop the smallest weights, grow as many (section 2.1; Evci 2020, alg. 1)
                    fraction = su.cosine_fraction(update, sparsify_end, args.drop_fraction)
                    growth = scores if args.method == "rigl" else None  # RigL grows by dense gradients, SET at random
                    how = {"gradients": growth, "generator": su.generators(args.seeds, 5, update), "runs": R}
                    turnover = su.rewire(weights, masks, fraction, [optimizer], **how)
                if pruning:  # Gradual magnitude pruning: each layer to its own density (Zhu & Gupta 2018, equation 1)
                    when = update, prune_begin, sparsify_end
                    now = {name: 1 - su.cubic_sparsity(*when, 1 - d) for name, d in densities.items()}
                    su.set_masks(weights, masks, su.magnitude_masks(weights, now, masks), [optimizer])
                watch.lap("sparsify")
                update += 1
        if args.statistics == "after":
            obs_moments.update(rollout["obs"])
        watch.lap("update")
        check_runs({})

        # ---- Log
        if is_time(step + batch_size, args.eval_interval) or step + batch_size == last_step:
            units = describe_units(nets, seen)
        for name, of_runs in diagnostics(nets, batch, args).items():
            for seed, value in zip(args.seeds, of_runs.tolist(), strict=True):
                log.writer.add_scalar(f"losses/{name}/seed{seed}", value, step + batch_size)
        watch.lap("log")
        log.progress.update(batch_size)

    finished = step == last_step and log.has_evaluated(step)  # a signal may have ended the last evaluation
    if finished:
        save(finished=True)
    log.finish(stop, finished)
    if args.capture_video:
        print("drawing one episode")
        stop.interruptible(record_video, nets, args, run_dir / "videos" / f"step-{step}.gif", 1)
