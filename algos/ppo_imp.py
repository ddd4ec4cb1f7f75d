"""Lottery tickets in PPO agents by iterative magnitude pruning (Vischer, Lange, Sprekeler 2022).

    python algos/ppo_imp.py                                    # Cart-Pole, 5 seeds, 4 conditions: 15 minutes
    python algos/ppo_imp.py --env-id Acrobot-v1 --seeds 1 2 3 --conditions ticket random_reinit
    python algos/ppo_imp.py --env-id HopperBulletEnv-v0 --seeds 1 --conditions ticket --total-timesteps 300000
    python algos/ppo_imp.py --init kaiming --input-init-scale 0.1            # section 4.2: which inputs survive?
    python algos/ppo_imp.py --rounds 0 --input-mask runs/NAME/tickets/round09_ticket_seed1.pt    # are they enough?
    python algos/ppo_imp.py --evaluate runs/NAME/tickets/round09_ticket_seed1.pt --capture-video
    python plot.py tickets runs/NAME

Each round trains the full budget from the initial weights under the round's masks, takes its best checkpoint, removes
20% of the weights that remain and rewinds (section 2), for lottery tickets and the three baselines of figure 1. What
all ticket scripts share is in README.md, "Ticket runs": the conditions, the columns of results.csv and curves.csv, how
a stopped run goes on.

All runs (seeds x conditions) of a round are one batched program: every parameter has a leading run axis R and every
batch is [R, ...]. It reads as one agent with one more axis.

Writes the folder ``runs/{env}__ppo_imp__{actor or both}__{n}seeds__{hash}``, or ``--run-dir``.

Hyper-parameters: tables 3, 5, 7 and 9 (``TASKS``). What the paper leaves silent, and what differs:
 1. Rollouts of 64 steps of each environment for Cart-Pole and 128 for others; minibatches of 32 (Cart-Pole), 128
    (Acrobot) and 64 transitions; tanh; learning rate falling to zero; Adam's epsilon 1e-5; gradient norm 0.5;
    advantages normalised per rollout; rewards as they are. With these all dense agents of ten seeds solve Cart-Pole and
    Acrobot in the budget, and stay there.
 2. Evaluation every tenth of the budget, 20 episodes (10 for Bullet, MuJoCo and Atari), mean or most likely
    action. Of equal evaluations the later counts as the best, as it has trained longer.
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
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import gymnasium as gym
import numpy as np
import torch
import tyro
from torch import Tensor, nn

# sparse_utils.py and envs/ are one folder up; --env-id my_envs:Reach-v0 means my_envs.py where you stand
sys.path += [str(Path(__file__).resolve().parent.parent), os.getcwd()]
import envs.vector  # noqa: E402
import sparse_utils as su  # noqa: E402
from envs.view import View, inputs_of_ticket  # noqa: E402

# Tables 3, 5, 7 and 9, with sizes of the networks from tables 2, 4 and 6. Flags given on the command line win.
CARTPOLE = {}  # the defaults of Args are those of Cart-Pole
ACROBOT = {
    "total_timesteps": 500_000,
    "num_steps": 128,
    "num_minibatches": 4,
    "gae_lambda": 0.95,
    "ent_coef": 0.01,
    "hidden_sizes": (128, 64),
}
BULLET = {
    "total_timesteps": 1_500_000,
    "num_envs": 10,
    "num_steps": 128,
    "num_minibatches": 20,
    "update_epochs": 10,
    "gae_lambda": 0.98,
    "eval_episodes": 10,
    "prune": "both",
}
MUJOCO = {**BULLET, "normalize_obs": True}  # not in the paper
ATARI = {**BULLET, "total_timesteps": 2_500_000, "hidden_sizes": (512,), "prune": "actor"}
MAZEGRID = {**ATARI, "total_timesteps": 5_000_000, "hidden_sizes": (256, 128)}
TASKS = {
    "CartPole-v0": CARTPOLE,
    "CartPole-v1": CARTPOLE,
    "Acrobot-v1": ACROBOT,
    "MountainCar-v0": ACROBOT,
}
FAMILIES = {"ALE/": ATARI, "MazeGrid": MAZEGRID, "Bullet": BULLET}


@dataclass
class Args:
    # Run
    env_id: str = "CartPole-v1"  # any task with Box observations and Discrete or Box actions: Bullet, ALE/*-v5 ...
    seeds: tuple[int, ...] = (1, 2, 3, 4, 5)  # a chain of rounds for each seed and condition
    total_timesteps: int = 80_000  # environment steps of a run in each round; default by task
    rounds: int = 20  # pruning rounds after the dense round 0; raise it, and a finished run goes on
    max_episode_steps: int | None = None  # time limit of an episode, in steps; default the task's own
    run_dir: str = ""  # folder to write to; default one of its own in runs/
    fresh: bool = False  # delete what is in the run folder and start over
    eval_interval: int = 0  # environment steps of a run between evaluations; 0 = a tenth of --total-timesteps
    eval_episodes: int = 20  # episodes per evaluation; default by task
    retest_episodes: int = 100  # new episodes for the best checkpoint of each round
    threads: int = 1  # CPU threads of PyTorch; small networks are fastest with one
    async_envs: bool = False  # a process for each environment of every run: where the simulator is slow
    cuda: bool = False  # use a GPU if there is one
    track: bool = False  # also log to Weights & Biases (pip install wandb)
    wandb_project_name: str = "sparse-rl"  # with --track: the project
    wandb_entity: str | None = None  # with --track: the team
    evaluate: str = ""  # a file in tickets/: evaluate its best weights, in its own task, for --eval-episodes and stop
    seed: int = 1  # with --evaluate: of its episodes
    capture_video: bool = False  # with --evaluate: write one episode beside the ticket, as a gif
    dry_run: bool = False  # print the networks and how many weights each round keeps, and stop

    # Algorithm (tables 3, 5, 7 and 9)
    num_envs: int = 4  # environments of each run; default by task
    num_steps: int = 64  # steps of each environment per rollout; default by task
    update_epochs: int = 4  # passes over each rollout; default by task
    num_minibatches: int = 8  # minibatches per pass; default by task
    learning_rate: float = 5e-4  # Adam's
    anneal_lr: bool = True  # learning rate falls linearly to zero over a round
    gamma: float = 0.99  # discount
    gae_lambda: float = 0.8  # lambda of generalised advantage estimation; default by task
    clip_coef: float = 0.2  # clipping of the probability ratio
    ent_coef: float = 0.001  # coefficient of the entropy; default by task
    vf_coef: float = 0.5  # coefficient of the value loss
    max_grad_norm: float = 0.5  # largest norm of a run's gradient
    normalize_obs: bool = False  # normalise observations by their running mean and std; default on for MuJoCo

    # Networks
    hidden_sizes: tuple[int, ...] = (64, 64)  # units of hidden layers (after a Nature CNN's convolutions)
    init: su.Init = "kaiming"  # kaiming is PyTorch's default (a = sqrt 5), he has ReLU's gain; no output is scaled down
    input_init_scale: float = 1.0  # factor on the initial weights of first layers; section 4.2: 0.1
    weight_decay: float = 0.0  # L2 on the weights, through Adam (figure 14)
    dropout: float = 0.0  # probability with which an update leaves out a hidden unit (figure 14)

    # Tickets
    conditions: tuple[su.Condition, ...] = su.CONDITIONS  # what to compare
    prune: Literal["actor", "both"] = "actor"  # prune the actor alone, or actor and critic together (figure 15)
    prune_fraction: float = 0.2  # fraction of the remaining weights that each round removes
    baseline_mask: Literal["own", "ticket"] = "own"  # whose trained networks a baseline's masks come from
    rewind_steps: int = 0  # rewind to the weights that round 0 had after so many steps, not to the initial ones
    input_mask: str = ""  # a file in tickets/: see only the inputs that its first layer still reads (figures 7 and 8)

    def __post_init__(self) -> None:
        su.check_ticket_flags(self)
        su.check_flags(self, "above 0", "total_timesteps", "num_steps", "update_epochs", "num_minibatches")
        su.check_flags(self, "above 0", "clip_coef", "max_grad_norm")
        su.check_flags(self, "0 or more", "weight_decay", "learning_rate", "ent_coef", "vf_coef")
        su.check_flags(self, "in [0, 1]", "gamma", "gae_lambda")
        su.check_flags(self, "in [0, 1)", "dropout")
        rollout = self.num_envs * self.num_steps
        if rollout % self.num_minibatches:
            raise ValueError(f"--num-minibatches {self.num_minibatches} does not divide a rollout of {rollout} steps")
        if self.total_timesteps < rollout:
            raise ValueError(f"--total-timesteps {self.total_timesteps} is less than a rollout of {rollout} steps")
        last = self.total_timesteps - self.total_timesteps % rollout
        if self.rewind_steps > last:
            raise ValueError(f"--rewind-steps {self.rewind_steps} is beyond the last update, after {last} steps")


def parse_args() -> Args:
    """The command line, over the defaults of its task."""
    env_id = su.flag_given("env-id", Args.env_id)
    family = next((flags for name, flags in FAMILIES.items() if name in env_id), MUJOCO)
    args = tyro.cli(Args, description=__doc__, default=Args(**TASKS.get(env_id, family)))
    args.eval_interval = args.eval_interval or max(1, args.total_timesteps // 10)
    return args


# ---- Networks --------------------------------------------------------------------------------------------------------


class Network(nn.Module):
    """R independent networks: x [R, B, ...] -> [R, B, out]. Vectors go through tanh layers, pictures [C, 84, 84]
    through the Nature CNN (Mnih et al. 2015) with ReLU. With ``gaussian``, ``log_std`` is that of the actions."""

    def __init__(self, runs: int, obs_shape: Sequence[int], hidden_sizes: Sequence[int], n_out: int, gaussian: bool):
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
        self.activation = torch.relu if len(obs_shape) == 3 else su.tanh
        self.gaussian, self.tanh_layers = gaussian, su.TanhLayers(self.layers)
        if gaussian:
            self.log_std = nn.Parameter(torch.zeros(runs, 1, n_out))

    def forward(self, x: Tensor, kept: Sequence[Tensor] = ()) -> Tensor:
        """``kept``: with dropout, a factor [R, B, units] for each hidden layer, of 0 or 1 / (1 - p).

        tanh layers with 16 rows or more and no dropout go through ``su.TanhLayers``, whose output has no autograd
        graph. ``backward`` works in both cases."""
        if x.dim() == 3 and not kept and x.shape[1] >= 16:  # below, row after row is faster
            return self.tanh_layers(x)
        kept = iter(kept)
        *hidden, last = self.layers
        for layer in hidden:
            if x.dim() == 5 and isinstance(layer, su.BatchedLinear):
                x = x.flatten(2)
            x = self.activation(layer(x))
            factor = next(kept, None) if x.dim() == 3 else None
            x = x if factor is None else x * factor
        return last(x)

    def backward(self, out: Tensor, grad: Tensor) -> None:
        """Add the gradients of the parameters to theirs, from that of ``out``, which the last call returned."""
        if out.requires_grad:
            out.backward(grad)
        else:
            self.tanh_layers.backward(grad)


def make_networks(
    runs: int, args: Args, obs_space: gym.Space, action_space: gym.Space, inputs: Sequence[int] | None
) -> nn.ModuleDict:
    """Actors (logits, or the means of Gaussian actions), critics, and what they see of observations, of R runs."""
    gaussian = isinstance(action_space, gym.spaces.Box)
    n_actions = action_space.shape[0] if gaussian else int(action_space.n)
    view = View(runs, obs_space, inputs, picture=len(obs_space.shape) == 3, normalize=args.normalize_obs)
    return nn.ModuleDict(
        {
            "actor": Network(runs, view.shape, args.hidden_sizes, n_actions, gaussian),
            "critic": Network(runs, view.shape, args.hidden_sizes, 1, gaussian=False),
            "view": view,
        }
    )


def add_noise(actor: Network, out: Tensor, noise: Tensor) -> Tensor:
    """Sampled actions from the actor's output [R, N, A]: Gaussian ones from normal noise, one of A by the Gumbel trick,
    which makes the sampling an argmax."""
    return out + actor.log_std.exp() * noise if actor.gaussian else (out + noise).argmax(-1)


def log_prob_and_entropy(actor: Network, out: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
    """Of actions [R, B] or [R, B, A] under the actor's output [R, B, A]: both [R, B]."""
    if actor.gaussian:
        z = (action - out) / actor.log_std.exp()
        log_prob = (-0.5 * z.square() - actor.log_std - 0.5 * math.log(2 * math.pi)).sum(-1)
        return log_prob, (actor.log_std + 0.5 * math.log(2 * math.pi * math.e)).sum(-1).expand_as(log_prob)
    log_probs = torch.log_softmax(out.transpose(1, 2), 1)  # [R, A, B], which is faster than [R, B, A] with few actions
    return log_probs.gather(1, action.long()[:, None]).squeeze(1), -(log_probs.exp() * log_probs).sum(1)


def greedy(nets: nn.ModuleDict) -> Callable[[np.ndarray], np.ndarray]:
    """The function from observations [R * N, ...] to the agents' mean or most likely actions [R, N, ...]."""
    actor = nets["actor"]
    runs, device = len(actor.layers[0].weight), actor.layers[0].weight.device

    @torch.no_grad()
    def act(obs: np.ndarray) -> np.ndarray:
        out = actor(nets["view"](torch.from_numpy(obs).to(device).unflatten(0, (runs, -1))))
        return (out if actor.gaussian else out.argmax(-1)).cpu().numpy()

    return act


# ---- PPO -------------------------------------------------------------------------------------------------------------


def gae(rewards: Tensor, values: Tensor, next_values: Tensor, terminated: Tensor, ended: Tensor, args: Args) -> Tensor:
    """Generalised advantages [T, ...]. next_values are those of the true next observations, the last one of an episode
    too; only a true end (terminated) has no future, and no advantage flows back across an end of either kind."""
    deltas = rewards + args.gamma * (1 - terminated) * next_values - values
    carry = args.gamma * args.gae_lambda * (1 - ended)
    advantages = [torch.zeros_like(deltas[0])]
    for delta, carried in zip(reversed(deltas.unbind()), reversed(carry.unbind()), strict=True):
        advantages.append(torch.addcmul(delta, carried, advantages[-1]))
    return torch.stack(advantages[:0:-1])


def ppo_loss(
    nets: nn.ModuleDict, batch: dict[str, Tensor], kept: dict[str, list[Tensor]], args: Args
) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss of each run [R]: clipped surrogate, value error and entropy bonus, each the mean over the run's batch. And
    what it is made of, to be looked at. Adds the gradients of the loss to those of the networks."""
    results = {name: nets[name](batch["obs"], kept.get(name, ())) for name in ("actor", "critic")}
    out, value = (result.detach().requires_grad_() for result in results.values())
    log_prob, entropy = log_prob_and_entropy(nets["actor"], out, batch["action"])
    ratio = (log_prob - batch["log_prob"]).exp()
    clipped = ratio.clamp(1 - args.clip_coef, 1 + args.clip_coef)
    surrogate = torch.minimum(ratio * batch["advantage"], clipped * batch["advantage"])
    value_error = 0.5 * (value.squeeze(-1) - batch["return"]).square()
    loss = (args.vf_coef * value_error - surrogate - args.ent_coef * entropy).mean(1)
    loss.sum().backward()  # to the networks' outputs; from there they go on themselves
    nets["actor"].backward(results["actor"], out.grad)
    nets["critic"].backward(results["critic"], value.grad)
    parts = {"ratio": ratio, "value": value.squeeze(-1), "value_error": value_error, "surrogate": surrogate}
    return loss.detach(), {**parts, "entropy": entropy}


@torch.no_grad()
def diagnostics(parts: dict[str, Tensor], batch: dict[str, Tensor], args: Args) -> dict[str, Tensor]:
    """What TensorBoard shows of an update, [R] each, from the parts of its loss. The divergence is Schulman's
    estimator, the mean of ratio - 1 - log ratio."""
    ratio, unexplained = parts["ratio"], (batch["return"] - parts["value"]).var(1)
    return {
        "losses/policy_loss": -parts["surrogate"].mean(1),
        "losses/value_loss": parts["value_error"].mean(1),
        "losses/entropy": parts["entropy"].mean(1),
        "losses/approx_kl": (ratio - 1 - ratio.log()).mean(1),
        "losses/clipfrac": ((ratio - 1).abs() > args.clip_coef).float().mean(1),
        "losses/explained_variance": 1 - unexplained / batch["return"].var(1),
    }


def by_run(x: Tensor) -> Tensor:
    """[T, R, N, ...] -> [R, T * N, ...]"""
    return x.transpose(0, 1).flatten(1, 2)


def train(args: Args, rounds: su.Rounds, nets: nn.ModuleDict, masks: su.Masks, task: dict[str, Any]) -> np.ndarray:
    """One round of PPO: train ``nets`` under ``masks`` from what they hold, one run for each of ``rounds.tickets``.

    Returns the best weights' returns in new episodes [R, --retest-episodes]; in round 0 a ticket's "rewind" becomes the
    weights after --rewind-steps. Goes on from round.pt, and leaves the program after a signal."""
    R, device = len(rounds.tickets), nets["actor"].layers[0].weight.device
    actor, critic, view = nets["actor"], nets["critic"], nets["view"]
    parameters = dict(nets.named_parameters())
    optimizer = su.FlatAdam(parameters, args.learning_rate, args.weight_decay, 1e-5, args.max_grad_norm)
    best = su.Best(nets.state_dict(), optimizer)
    streams, stream_of = rounds.streams()  # one for each seed, shared by its conditions
    train_envs = envs.vector.make(args.env_id, R, args.num_envs, **task)
    eval_envs = envs.vector.make(args.env_id, R, args.eval_episodes, first_episode=True, **task)
    obs_space, action_space = train_envs.single_observation_space, train_envs.single_action_space
    batch_size = args.num_envs * args.num_steps
    minibatch_size = batch_size // args.num_minibatches
    last_step = args.total_timesteps - args.total_timesteps % batch_size
    shape, n_out = (args.num_steps, R * args.num_envs), actor.layers[-1].weight.shape[2]
    dtype = np.uint8 if obs_space.dtype == np.uint8 else np.float32
    store = {
        "obs": np.zeros((*shape, *obs_space.shape), dtype),
        "next_obs": np.zeros((*shape, *obs_space.shape), dtype),
        "action": np.zeros((*shape, *action_space.shape), np.float32),
        "reward": np.zeros(shape, np.float32),
        "terminated": np.zeros(shape, np.float32),
        "ended": np.zeros(shape, np.float32),
        "actor_out": np.zeros((*shape, n_out), np.float32),
    }
    stored = {name: torch.from_numpy(array).unflatten(1, (R, -1)) for name, array in store.items()}  # the same memory
    noise_shape = (args.num_steps, args.num_envs, n_out)
    all_runs = torch.arange(R, device=device)[:, None]

    done, saved = rounds.go_on(nets=nets, optimizer=optimizer, best=best, streams=streams, envs=train_envs)
    if saved and saved["envs"] is not None:
        obs = saved["obs"].numpy()
    else:
        obs = envs.vector.reset(train_envs, rounds.seeds(2, done) if done else rounds.seeds(2))
    losses = {}
    rounds.watch.lap("prune")
    for step in range(done, last_step + 1, batch_size):
        # ---- Evaluate what these steps have taught; keep the best checkpoint of each run
        due = (step > 0 and step % args.eval_interval < batch_size) or step == last_step
        if due and not rounds.has_evaluated(step):
            returns = rounds.stop.interruptible(envs.vector.play, eval_envs, greedy(nets), rounds.seeds(3, step))
            if returns is not None:
                rounds.evaluated(step, returns, losses)
            rounds.watch.lap("evaluate")
            rounds.save(rounds.state(step, obs=torch.from_numpy(obs)))
        if rounds.stop.signal:
            rounds.leave()
        if step == last_step:
            break
        # Where a signal within the iteration goes back to
        before = rounds.state(step, obs=torch.tensor(obs))

        # ---- Collect a rollout
        draws = [s.standard_normal(noise_shape) if actor.gaussian else s.gumbel(size=noise_shape) for s in streams]
        noise = torch.from_numpy(np.stack(draws, 1).astype(np.float32)[:, stream_of]).to(device)  # [T, R, N, A]
        for t in range(args.num_steps):
            store["obs"][t] = obs
            with torch.no_grad():
                out = actor(view(stored["obs"][t].to(device)))
                action = add_noise(actor, out, noise[t]).cpu().numpy()
            stored["actor_out"][t] = out
            rounds.watch.lap("act")
            obs, reward, terminated, truncated, info = train_envs.step(envs.vector.to_rows(action, action_space))
            ended = terminated | truncated
            store["next_obs"][t] = envs.vector.last_observations(obs, ended, info)
            store["action"][t] = action.reshape(store["action"][t].shape)
            store["reward"][t] = np.sign(reward) if args.env_id.startswith("ALE/") else reward
            store["terminated"][t], store["ended"][t] = terminated, ended
            rounds.watch.lap("env")
            if rounds.stop.signal:
                rounds.leave(before)

        # ---- Learn
        rollout = {name: by_run(tensor.to(device)) for name, tensor in stored.items()}
        with torch.no_grad():
            seen, next_seen = view(rollout["obs"]), view(rollout["next_obs"])
            values, next_values = critic(seen).squeeze(-1), critic(next_seen).squeeze(-1)
            in_time = [
                x.view(R, args.num_steps, args.num_envs).transpose(0, 1)
                for x in (rollout["reward"], values, next_values, rollout["terminated"], rollout["ended"])
            ]
            advantage = by_run(gae(*in_time, args))
            log_prob, _ = log_prob_and_entropy(actor, rollout["actor_out"], rollout["action"])
        mean, std = advantage.mean(1, keepdim=True), advantage.std(1, keepdim=True)
        batch = {
            "obs": seen,
            "action": rollout["action"] if actor.gaussian else rollout["action"].long(),
            "log_prob": log_prob,
            "return": advantage + values,
            "advantage": (advantage - mean) / (std + 1e-8),
        }
        for group in optimizer.param_groups:
            group["lr"] = args.learning_rate * (1 - step / last_step if args.anneal_lr else 1)
        for _ in range(args.update_epochs):
            order = torch.from_numpy(np.stack([s.permutation(batch_size) for s in streams])[stream_of]).to(device)
            shuffled = {name: x[all_runs, order] for name, x in batch.items()}
            for start in range(0, batch_size, minibatch_size):
                minibatch = {name: x[:, start : start + minibatch_size] for name, x in shuffled.items()}
                kept = {
                    net: su.dropout_factors(streams, stream_of, minibatch_size, args.hidden_sizes, args.dropout, device)
                    for net in ("actor", "critic")
                }
                optimizer.zero_grad()
                _, loss_parts = ppo_loss(nets, minibatch, kept, args)
                su.mask_gradients(parameters, masks)  # so that pruned weights stay zero
                optimizer.step()  # clips the gradients of each run, too
                if rounds.stop.signal:
                    rounds.leave(before)
        losses = diagnostics(loss_parts, minibatch, args)
        view.update(rollout["obs"])
        rounds.watch.lap("learn")
        if rounds.round == 0 and step < args.rewind_steps <= step + batch_size:
            rounds.rewind_to(nets.state_dict())
        rounds.progress.update(batch_size)

    # ---- Retest the best checkpoints in new episodes: a maximum over noisy evaluations flatters
    nets.load_state_dict(best.weights)
    retest = rounds.stop.interruptible(
        envs.vector.retest, eval_envs, greedy(nets), rounds.seeds(4), args.retest_episodes, args.env_id, task
    )
    if retest is None:
        rounds.leave()
    train_envs.close()
    eval_envs.close()
    rounds.watch.lap("evaluate")
    return retest


def evaluate_ticket(args: Args) -> None:
    """Play with the best weights of a ticket, in its own task."""
    su.exit_on_signal()
    ticket, there = su.load_ticket_of("ppo_imp", args.evaluate, Args)
    task = {"max_episode_steps": args.max_episode_steps or there.max_episode_steps}
    vector = envs.vector.make(there.env_id, 1, args.eval_episodes, first_episode=True, **task)
    spaces = vector.single_observation_space, vector.single_action_space
    nets = make_networks(1, there, *spaces, ticket["inputs"])
    nets.load_state_dict({name: tensor[None] for name, tensor in ticket["best"].items()})
    returns = envs.vector.play(vector, greedy(nets), [args.seed])[0]
    print(f"{there.env_id}, --seed {args.seed}, {su.describe_returns(returns)}")
    if args.capture_video:
        envs.vector.record(there.env_id, greedy(nets), Path(args.evaluate).with_suffix(".gif"), args.seed, **task)


if __name__ == "__main__":
    args = parse_args()
    device = su.set_up_torch(args)
    task = {"processes": args.async_envs, "max_episode_steps": args.max_episode_steps}
    inputs = None  # the networks see all of them
    try:
        if args.evaluate:
            evaluate_ticket(args)
            raise SystemExit(0)
        probe = envs.vector.make(args.env_id, 1, 1, max_episode_steps=args.max_episode_steps)
        obs_space, action_space = probe.single_observation_space, probe.single_action_space
        if len(obs_space.shape) == 3 and (obs_space.shape[1:] != (84, 84) or obs_space.dtype != np.uint8):
            raise ValueError(f"pictures must be bytes [channels, 84, 84]; {args.env_id} has {obs_space}")
        if args.normalize_obs and len(obs_space.shape) == 3:
            raise ValueError(f"--normalize-obs is for vectors; {args.env_id} has pictures")
        if args.input_mask:
            inputs = inputs_of_ticket(su.load_ticket(args.input_mask), args.env_id, obs_space, args.seeds)
            names = envs.INPUT_NAMES.get(args.env_id, range(obs_space.shape[0]))
            named = ", ".join(str(names[i]) for i in inputs)
            print(f"the networks see {len(inputs)} of {obs_space.shape[0]} inputs: {named}")
    except ValueError as error:
        su.fail(str(error))
    template = make_networks(1, args, obs_space, action_space, inputs)
    pruned_nets = ("actor", "critic") if args.prune == "both" else ("actor",)
    pruned_layers = su.prunable(**{name: template[name] for name in pruned_nets})
    if args.dry_run:
        print(su.describe(su.prunable(actor=template["actor"], critic=template["critic"]), {}))
        keep = su.remaining_by_round(su.count(pruned_layers), args.prune_fraction, args.rounds)
        print(f"weights of the {' and '.join(pruned_nets)} in rounds 0 to {args.rounds}: {' '.join(map(str, keep))}")
        raise SystemExit(0)
    contents = {
        "activation": "relu" if len(obs_space.shape) == 3 else "tanh",
        "obs_shape": list(obs_space.shape),
        "inputs": inputs,
    }
    batch_size = args.num_envs * args.num_steps
    per_round = args.total_timesteps - args.total_timesteps % batch_size
    reads = [Path(args.input_mask)] if args.input_mask else []
    parts = ("prune", "act", "env", "learn", "evaluate", "save")

    rounds = su.Rounds(args, "ppo_imp", args.prune, per_round, "step", parts, reads)
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
        nets = make_networks(len(rounds.tickets), args, obs_space, action_space, inputs).to(device)
        nets.load_state_dict(su.stack([ticket["initial"] for ticket in rounds.tickets]))
        masks = su.stack([ticket["masks"] for ticket in rounds.tickets], device)
        rounds.finish(train(args, rounds, nets, masks, task), contents)
    print(f"draw: python plot.py tickets {rounds.folder}")
