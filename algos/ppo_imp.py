"""Lottery tickets in PPO agents by iterative magnitude pruning (Vischer, Lange, Sprekeler 2022).

    python algos/ppo_imp.py                                                  # Cart-Pole, 5 seeds, 4 conditions
    python algos/ppo_imp.py --env-id Acrobot-v1 --seeds 1 2 3 --conditions ticket random_reinit
    python algos/ppo_imp.py --init kaiming --input-init-scale 0.1            # section 4.2: which inputs survive?

Each round trains the full budget from the initial weights under the round's masks, takes the best checkpoint of the
round, removes 20% of the weights that remain and rewinds (section 2). Round 0 is dense and shared by the conditions;
after it every condition goes on with its own networks (section 3, table 1):
    ticket              masks from its own trained networks, initial weights              (mask/weights)
    mask_permuted       the same, initial weights shuffled within each layer              (mask/permuted)
    permuted_permuted   each layer's mask shuffled, too                                   (permuted/permuted)
    random_reinit       a new random mask over all layers, new initial weights            (random/re-init)

All runs (seeds x conditions) of a round are one batched program: every parameter has a leading run axis R and every
batch is [R, ...]. It reads as one agent with one more axis. A run learns the same, bit for bit on one CPU thread,
whatever runs train beside it: its randomness is keyed by (seed, round) and shared by the conditions of a seed.

Writes the folder ``runs/{env}__ppo_imp__{actor or both}__{n}seeds__{hash}``, or ``--run-dir``:
    results.csv     a row per round and run: round, seed, condition; remaining (weights), remaining_fraction;
                    best_return (the best evaluation of the round, as in the paper), best_retest (that checkpoint over
                    100 new episodes: a maximum over noisy evaluations flatters), final_return, steps_to_best;
                    inputs_alive and alive_inputs (inputs with a weight left in the actor's first layer, and which);
                    density_* of each layer
    curves.csv      a row per evaluation: round, seed, condition, step, return_mean, return_std
    tickets/        a file per round and run: masks, initial weights, best weights; su.load_ticket reads it
    config.json, timing.csv, checkpoint.pt, events.*
The same command started again goes on after the last finished round, to the same results.

Hyper-parameters: tables 3 and 5 (``DEFAULTS``). What the paper leaves silent, and what differs:
 1. Rollouts of 128 steps, 4 minibatches, tanh, no learning-rate decay, gradient norm 0.5, advantages normalised
    per rollout, no normalisation of observations or rewards: with these the best checkpoint of a dense agent solves
    Cart-Pole, though not always the last one.
 2. Evaluation every tenth of the budget, 20 episodes, most likely action; best_retest is ours.
 3. Biases and the log-std are never pruned. Actor and critic share nothing. The optimizer is new in each round.
 4. Every condition re-prunes its own trained networks, as in the authors' later code; --baseline-mask ticket takes
    the masks of the same seed's and round's ticket instead. Masks are shuffled entry by entry.
 5. At the time limit the value of the last observation is the future's, in training.
"""

import math
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import tyro
from gymnasium.vector import VectorEnv
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

sys.path.append(str(Path(__file__).resolve().parent.parent))  # sparse_utils.py and envs/ are one folder up
import envs.classic  # noqa: E402
import sparse_utils as su  # noqa: E402

# Tables 3 and 5, with sizes of the networks from tables 2 and 4. Any flag given on the command line wins.
CARTPOLE = {"total_timesteps": 80_000, "gae_lambda": 0.8, "ent_coef": 0.001, "hidden_sizes": (64, 64)}
ACROBOT = {"total_timesteps": 500_000, "gae_lambda": 0.95, "ent_coef": 0.01, "hidden_sizes": (128, 64)}
DEFAULTS = {"CartPole-v0": CARTPOLE, "CartPole-v1": CARTPOLE, "Acrobot-v1": ACROBOT, "MountainCar-v0": ACROBOT}
CONDITIONS = ("ticket", "mask_permuted", "permuted_permuted", "random_reinit")


@dataclass
class Args:
    # Run
    env_id: str = "CartPole-v1"
    """CartPole-v0, CartPole-v1, Acrobot-v1 or MountainCar-v0"""
    seeds: tuple[int, ...] = (1, 2, 3, 4, 5)
    """a chain of rounds for each seed and condition"""
    total_timesteps: int = 80_000
    """environment steps of a run in each round; default by task"""
    rounds: int = 20
    """pruning rounds, after the dense round 0"""
    run_dir: str = ""
    """folder to write to"""
    fresh: bool = False
    """delete what is in the run folder and start over"""
    evaluations: int = 10
    """evaluations per round"""
    eval_episodes: int = 20
    """episodes per evaluation"""
    threads: int = 1
    """CPU threads of PyTorch; small networks are fastest with one"""
    cuda: bool = False
    """use a GPU if there is one"""
    track: bool = False
    """also log to Weights & Biases (pip install wandb)"""
    wandb_project_name: str = "sparse-rl"
    """with --track: the project"""
    wandb_entity: str | None = None
    """with --track: the team"""

    # Algorithm (tables 3 and 5)
    num_envs: int = 4
    """environments of each run"""
    num_steps: int = 128
    """steps of each environment per rollout"""
    update_epochs: int = 4
    """passes over each rollout"""
    num_minibatches: int = 4
    """minibatches per pass"""
    learning_rate: float = 5e-4
    """Adam's"""
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

    # Networks
    hidden_sizes: tuple[int, ...] = (64, 64)
    """units of the hidden layers of actor and critic; default by task"""
    init: Literal["kaiming", "he", "xavier", "orthogonal"] = "kaiming"
    """kaiming is PyTorch's default (a = sqrt 5), he has the gain of ReLU; no output layer is scaled down"""
    input_init_scale: float = 1.0
    """factor on the initial weights of the first layers; 0.1 is the paper's rescaling (section 4.2)"""

    # Tickets
    conditions: tuple[Literal["ticket", "mask_permuted", "permuted_permuted", "random_reinit"], ...] = CONDITIONS
    """what to compare"""
    prune: Literal["actor", "both"] = "actor"
    """prune the actor alone, or actor and critic together (figure 15)"""
    prune_fraction: float = 0.2
    """fraction of the remaining weights that each round removes"""
    baseline_mask: Literal["own", "ticket"] = "own"
    """whose trained networks a baseline's masks come from"""
    rewind_steps: int = 0
    """rewind to the weights that round 0 had after so many steps, not to the initial ones (figure 14)"""


def parse_args() -> Args:
    """The command line over the task's defaults. Ends the program with one line if it makes no sense."""
    given = tyro.cli(Args, description=__doc__)
    if given.env_id not in DEFAULTS:
        su.fail(f"--env-id {given.env_id} is not one of {', '.join(DEFAULTS)}")
    args = tyro.cli(Args, description=__doc__, default=replace(Args(), **DEFAULTS[given.env_id]))
    if not 0 < args.prune_fraction < 1:
        su.fail(f"--prune-fraction must be in (0, 1), not {args.prune_fraction}")
    if len(set(args.seeds)) < len(args.seeds) or not args.seeds:
        su.fail(f"--seeds must be different numbers, not {args.seeds}")
    if args.baseline_mask == "ticket" and "ticket" not in args.conditions:
        su.fail("--baseline-mask ticket needs ticket among --conditions")
    if args.num_envs * args.num_steps % args.num_minibatches:
        su.fail(f"--num-minibatches {args.num_minibatches} does not divide {args.num_envs} * {args.num_steps} steps")
    return args


# ---- Networks --------------------------------------------------------------------------------------------------------


class MLP(nn.Module):
    """R independent networks: x [R, B, in] -> [R, B, out]."""

    def __init__(self, runs: int, sizes: Sequence[int]):
        super().__init__()
        layers = [su.BatchedLinear(runs, *ends) for ends in zip(sizes[:-1], sizes[1:], strict=True)]
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = torch.tanh(layer(x))
        last = self.layers[-1]
        if last.weight.shape[2] > 1:
            return last(x)
        # One output: a product with one column takes another path, with other rounding, when R is 1
        return (x * last.weight.transpose(1, 2)).sum(-1, keepdim=True) + last.bias


def make_networks(runs: int, args: Args, obs_dim: int, action_dim: int) -> nn.ModuleDict:
    """Actors (logits) and critics of R runs."""
    sizes = {"actor": (obs_dim, *args.hidden_sizes, action_dim), "critic": (obs_dim, *args.hidden_sizes, 1)}
    return nn.ModuleDict({name: MLP(runs, s) for name, s in sizes.items()})


def initial_parameters(args: Args, obs_dim: int, action_dim: int, generator: torch.Generator) -> dict[str, Tensor]:
    """The initial parameters of one run, without the run axis."""
    parameters = {}
    for name, shape in ((n, p.shape[1:]) for n, p in make_networks(1, args, obs_dim, action_dim).named_parameters()):
        if name.endswith("weight"):
            n_in, n_out = shape
            uniform = 2 * torch.rand(shape, generator=generator) - 1
            if args.init == "kaiming":
                w = uniform / math.sqrt(n_in)
            elif args.init == "he":
                w = uniform * math.sqrt(6 / n_in)
            elif args.init == "xavier":
                w = uniform * math.sqrt(6 / (n_in + n_out))
            else:
                w = nn.init.orthogonal_(torch.empty(shape), math.sqrt(2), generator=generator)
            parameters[name] = w * args.input_init_scale if ".layers.0." in name else w
            bias_limit = 1 / math.sqrt(n_in) if args.init == "kaiming" else 0.0
        else:
            parameters[name] = bias_limit * (2 * torch.rand(shape, generator=generator) - 1)
    return parameters


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


def ppo_loss(nets: nn.ModuleDict, batch: dict[str, Tensor], args: Args) -> Tensor:
    """Loss of each run [R]: clipped surrogate, value error and entropy bonus, each the mean over the run's batch."""
    log_probs = torch.log_softmax(nets["actor"](batch["obs"]), -1)
    log_prob = log_probs.gather(-1, batch["action"].long()[..., None]).squeeze(-1)
    entropy = -(log_probs.exp() * log_probs).sum(-1)
    ratio = (log_prob - batch["log_prob"]).exp()
    clipped = ratio.clamp(1 - args.clip_coef, 1 + args.clip_coef)
    surrogate = torch.minimum(ratio * batch["advantage"], clipped * batch["advantage"])
    value_error = 0.5 * (nets["critic"](batch["obs"]).squeeze(-1) - batch["return"]).square()
    return (args.vf_coef * value_error - surrogate - args.ent_coef * entropy).mean(1)


def make_optimizer(parameters: list[Tensor], learning_rate: float) -> torch.optim.Adam:
    """Adam. Its fused kernel rounds the last numbers of a tensor, those beyond a multiple of 16, in another way than
    the rest, so that a run would notice its neighbours: tensors of other sizes take the slower kernel."""
    fused = [p for p in parameters if p[0].numel() % 16 == 0]
    others = [p for p in parameters if p[0].numel() % 16]
    groups = [{"params": fused, "fused": True}, {"params": others, "foreach": True}]
    return torch.optim.Adam(groups, lr=learning_rate, eps=1e-5)


@torch.no_grad()
def clip_gradients(parameters: list[Tensor], max_norm: float) -> None:
    """Scale each run's gradient, over all its parameters, to a norm of at most max_norm."""
    squares = sum(p.grad.flatten(1).square().sum(1) for p in parameters)  # [R]; torch's sum would round by R
    scale = (max_norm / (squares.sqrt() + 1e-6)).clamp(max=1)
    for p in parameters:
        p.grad.mul_(scale.view(-1, *[1] * (p.dim() - 1)))


@torch.no_grad()
def evaluate(actor: nn.Module, eval_envs: VectorEnv, seeds: list[int], device: torch.device) -> np.ndarray:
    """Returns [R, episodes] of the first episode of each environment, taking the most likely action."""
    runs = len(seeds)
    obs, _ = eval_envs.reset(seed=seeds)
    returns, running = np.zeros(len(obs)), np.ones(len(obs), dtype=bool)
    while running.any():
        logits = actor(torch.from_numpy(obs).to(device).view(runs, -1, obs.shape[-1]))
        obs, reward, terminated, truncated, _ = eval_envs.step(logits.argmax(-1).flatten().cpu().numpy())
        returns += reward * running
        running &= ~(terminated | truncated)
    return returns.reshape(runs, -1)


# ---- Tickets ---------------------------------------------------------------------------------------------------------


def next_ticket(
    condition: str, pruned: su.Masks, start: dict[str, Tensor], fresh: dict[str, Tensor], generator: torch.Generator
) -> tuple[su.Masks, dict[str, Tensor]]:
    """Masks and starting parameters of a run's next round (section 3, table 1): always from the initial weights
    ``start`` (``fresh`` ones for random_reinit), never from a permuted set. What has no mask is rewound as it is."""
    if condition == "ticket":
        return pruned, start
    if condition == "mask_permuted":
        return pruned, start | su.permute_weights(start, pruned, pruned, generator)
    if condition == "permuted_permuted":
        shuffled = su.permute_masks(pruned, generator)
        return shuffled, start | su.permute_weights(start, pruned, shuffled, generator)
    n_keep = sum(int(mask.sum()) for mask in pruned.values())
    return su.random_ticket(pruned, n_keep, generator), fresh


def describe_ticket(masks: su.Masks) -> dict[str, float | int | str]:
    """The columns of results.csv that only the masks decide."""
    total, remaining = (sum(int(f(m)) for m in masks.values()) for f in (Tensor.numel, Tensor.sum))
    first = masks["actor.layers.0.weight"]  # [in, out]
    alive = (first.sum(1) > 0).nonzero().flatten().tolist()
    row = {"remaining": remaining, "remaining_fraction": remaining / total, "inputs_alive": len(alive)}
    row["alive_inputs"] = " ".join(map(str, alive))
    return row | {f"density_{name.removesuffix('.weight')}": float(mask.mean()) for name, mask in masks.items()}


if __name__ == "__main__":
    args = parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.set_flush_denormal(True)  # Adam's moments of dead units decay to numbers that are very slow to compute with
    device = torch.device("cuda" if args.cuda and torch.cuda.is_available() else "cpu")
    probe = envs.classic.make_vec(args.env_id, 1, 1)
    obs_dim, action_dim = probe.single_observation_space.shape[0], int(probe.single_action_space.n)
    n_seeds, batch_size = len(args.seeds), args.num_envs * args.num_steps
    pruned_nets = ("actor", "critic") if args.prune == "both" else ("actor",)
    template = make_networks(1, args, obs_dim, action_dim)
    pruned_layers = list(su.prunable(**{name: template[name] for name in pruned_nets}))

    # ---- Run folder; go on after the last finished round in it
    run_dir = Path(args.run_dir or f"runs/{su.run_name(args, 'ppo_imp', args.prune)}")
    checkpoint = su.start_run(args, run_dir)
    # A chain is what one seed and condition hand on from round to round: masks, and the best weights of the round.
    first_round, results, curves, timings = 0, [], [], []
    chains: dict[str, dict[str, dict[str, Tensor]]] = {}
    starts: dict[str, dict[str, Tensor]] = {}  # of each seed: the weights to rewind to
    if checkpoint is not None:
        first_round, results, curves = checkpoint["round"] + 1, checkpoint["results"], checkpoint["curves"]
        chains, starts, timings = checkpoint["chains"], checkpoint["starts"], checkpoint["timings"]
        print(f"resuming {run_dir} at round {first_round}")
    signals = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _frame: signals.append(number))
    if args.track:
        import wandb

        project = {"project": args.wandb_project_name, "entity": args.wandb_entity}
        wandb.init(**project, name=run_dir.name, config=asdict(args), sync_tensorboard=True)
    writer = SummaryWriter(str(run_dir), purge_step=first_round)

    iterations = max(1, args.total_timesteps // batch_size)
    evaluate_at = {round(iterations * (i + 1) / args.evaluations) for i in range(args.evaluations)}
    progress = tqdm(total=(args.rounds + 1) * iterations, initial=first_round * iterations, unit="rollout")
    progress.mininterval = 1 if sys.stderr.isatty() else 60
    for round_ in range(first_round, args.rounds + 1):
        watch = su.Stopwatch("prune", "act", "env", "learn", "evaluate", "save")
        # ---- Prune and rewind: the masks and starting parameters of each run of this round
        runs = [(seed, c) for c in (args.conditions if round_ else ("dense",)) for seed in args.seeds]
        R = len(runs)
        masks_of, start_of = [], []
        for seed, condition in runs:
            generator = torch.Generator().manual_seed(su.seeds(seed, round_, 0)[0])
            fresh = initial_parameters(args, obs_dim, action_dim, generator)
            if round_ == 0:
                masks_of.append({name: torch.ones_like(fresh[name]) for name in pruned_layers})
                start_of.append(fresh)
                starts[str(seed)] = fresh
                continue
            parent = condition if args.baseline_mask == "own" else "ticket"
            chain = chains[f"{seed} {parent if round_ > 1 else 'dense'}"]
            pruned = su.prune_ticket(chain["best"], chain["masks"], args.prune_fraction)
            masks, start = next_ticket(condition, pruned, starts[str(seed)], fresh, generator)
            masks_of.append(masks)
            start_of.append(start)
        nets = make_networks(R, args, obs_dim, action_dim)
        nets.load_state_dict({name: torch.stack([start[name] for start in start_of]) for name in start_of[0]})
        nets.to(device)
        parameters = dict(nets.named_parameters())
        masks = {name: torch.stack([m[name] for m in masks_of]).to(device) for name in masks_of[0]}
        su.apply_masks(parameters, masks)
        optimizer = make_optimizer(list(parameters.values()), args.learning_rate)
        best = {name: p.detach().clone() for name, p in parameters.items()}
        best_return, final_return, steps_to_best = np.full(R, -np.inf), np.full(R, np.nan), np.zeros(R, dtype=int)

        # ---- Train. One random stream per seed, shared by its conditions.
        streams = [np.random.default_rng(su.seeds(seed, round_, 1)[0]) for seed in args.seeds]
        stream_of = [args.seeds.index(seed) for seed, _ in runs]
        train_envs = envs.classic.make_vec(args.env_id, R, args.num_envs)
        eval_envs = envs.classic.make_vec(args.env_id, R, args.eval_episodes, autoreset=False)
        obs, _ = train_envs.reset(seed=[su.seeds(seed, round_, 2)[0] for seed, _ in runs])
        shape = (args.num_steps, R, args.num_envs)
        store = {name: np.zeros(shape, np.float32) for name in ("action", "reward", "terminated", "ended")}
        store |= {name: np.zeros((*shape, obs_dim), np.float32) for name in ("obs", "next_obs")}
        all_runs = torch.arange(R, device=device)[:, None]
        watch.lap("prune")
        for iteration in range(1, iterations + 1):
            # ---- Collect a rollout; the Gumbel trick makes the sampling one argmax
            gumbel = np.stack([s.gumbel(size=(args.num_steps, args.num_envs, action_dim)) for s in streams], 1)
            noise = torch.from_numpy(gumbel.astype(np.float32)[:, stream_of]).to(device)  # [T, R, N, A]
            for t in range(args.num_steps):
                store["obs"][t] = obs.reshape(R, args.num_envs, obs_dim)
                with torch.no_grad():
                    logits = nets["actor"](torch.from_numpy(store["obs"][t]).to(device))
                action = (logits + noise[t]).argmax(-1).cpu().numpy()
                watch.lap("act")
                obs, reward, terminated, truncated, info = train_envs.step(action.ravel())
                ended = terminated | truncated
                next_obs = np.where(ended[:, None], info["final_obs"], obs) if ended.any() else obs
                for name, value in zip(store, (action, reward, terminated, ended), strict=False):
                    store[name][t] = value.reshape(R, args.num_envs)
                store["next_obs"][t] = next_obs.reshape(R, args.num_envs, obs_dim)
                watch.lap("env")

            # ---- Learn
            def by_run(x: Tensor) -> Tensor:
                """[T, R, N, ...] -> [R, T * N, ...]"""
                return x.transpose(0, 1).flatten(1, 2)

            rollout = {name: torch.from_numpy(array).to(device) for name, array in store.items()}
            batch = {"obs": by_run(rollout["obs"]), "action": by_run(rollout["action"])}
            with torch.no_grad():
                values, next_values = (
                    nets["critic"](by_run(rollout[name])).view(R, args.num_steps, args.num_envs).transpose(0, 1)
                    for name in ("obs", "next_obs")
                )
                advantages = gae(rollout["reward"], values, next_values, rollout["terminated"], rollout["ended"], args)
                log_probs = torch.log_softmax(nets["actor"](batch["obs"]), -1)
                batch["log_prob"] = log_probs.gather(-1, batch["action"].long()[..., None]).squeeze(-1)
            batch["return"] = by_run(advantages + values)
            advantage = by_run(advantages)
            mean, std = advantage.mean(1, keepdim=True), advantage.std(1, keepdim=True)
            batch["advantage"] = (advantage - mean) / (std + 1e-8)
            for _ in range(args.update_epochs):
                order = np.stack([s.permutation(batch_size) for s in streams])[stream_of]
                order = torch.from_numpy(order).to(device)
                shuffled = {name: x[all_runs, order] for name, x in batch.items()}
                for part in range(args.num_minibatches):
                    size = batch_size // args.num_minibatches
                    minibatch = {name: x[:, part * size : (part + 1) * size] for name, x in shuffled.items()}
                    loss = ppo_loss(nets, minibatch, args)
                    optimizer.zero_grad()
                    loss.sum().backward()
                    su.mask_gradients(parameters, masks)
                    clip_gradients(list(parameters.values()), args.max_grad_norm)
                    optimizer.step()
            watch.lap("learn")
            step = iteration * batch_size
            if round_ == 0 and 0 < args.rewind_steps <= step < args.rewind_steps + batch_size:
                for r, (seed, _) in enumerate(runs):
                    starts[str(seed)] = {name: p.detach()[r].cpu().clone() for name, p in parameters.items()}

            # ---- Evaluate; keep the best checkpoint of each run
            if iteration in evaluate_at:
                seeds = [su.seeds(seed, round_, 3, step)[0] for seed, _ in runs]
                returns = evaluate(nets["actor"], eval_envs, seeds, device)
                final_return = returns.mean(1)
                better = final_return > best_return
                best_return[better], steps_to_best[better] = final_return[better], step
                for name, p in parameters.items():
                    best[name][better] = p.detach()[better]
                for (seed, condition), values_of_run in zip(runs, returns, strict=True):
                    curves.append({"round": round_, "seed": seed, "condition": condition, "step": step})
                    curves[-1] |= {"return_mean": float(values_of_run.mean()), "return_std": float(values_of_run.std())}
                progress.set_postfix_str(f"round {round_}, return {final_return.mean():.0f}")
                watch.lap("evaluate")
            progress.update()
            if signals:
                progress.close()
                print(f"stopped in round {round_}; the same command starts this round again ({run_dir})")
                raise SystemExit(128 + signals[0])

        # ---- Record: retest the best checkpoints, save the tickets, results and what the next round needs
        nets.load_state_dict(best)
        retest_envs = envs.classic.make_vec(args.env_id, R, 100, autoreset=False)
        seeds = [su.seeds(seed, round_, 4)[0] for seed, _ in runs]
        retest = evaluate(nets["actor"], retest_envs, seeds, device).mean(1)
        watch.lap("evaluate")
        for r, (seed, condition) in enumerate(runs):
            chains[f"{seed} {condition}"] = {
                "masks": {name: m.cpu() for name, m in masks_of[r].items()},
                "best": {name: p[r].cpu().clone() for name, p in best.items()},
            }
            row = {"round": round_, "seed": seed, "condition": condition, **describe_ticket(masks_of[r])}
            row |= {"best_return": float(best_return[r]), "best_retest": float(retest[r])}
            row |= {"final_return": float(final_return[r]), "steps_to_best": int(steps_to_best[r])}
            results.append(row)
            file = run_dir / "tickets" / f"round{round_:02}_{condition}_seed{seed}.pt"
            file.parent.mkdir(exist_ok=True)
            ticket = {"initial": start_of[r], "best": chains[f"{seed} {condition}"]["best"], "result": row}
            su.save_ticket(file, masks_of[r], args=asdict(args), **ticket)
            writer.add_scalar(f"{condition}/best_retest/seed{seed}", row["best_retest"], round_)
            writer.add_scalar(f"{condition}/remaining_fraction/seed{seed}", row["remaining_fraction"], round_)
        su.write_csv(run_dir / "results.csv", results)
        su.write_csv(run_dir / "curves.csv", curves)
        watch.lap("save")
        seconds = watch.take()
        speed = R * iterations * batch_size / sum(seconds.values())
        timings.append({"round": round_, "runs": R, "steps_per_second": speed, **seconds})
        su.write_csv(run_dir / "timing.csv", timings)
        writer.add_scalar("charts/SPS", speed, round_)
        state = {"args": asdict(args), "finished": round_ == args.rounds, "round": round_, "chains": chains}
        state |= {"results": results, "curves": curves, "timings": timings, "starts": starts}
        su.save_checkpoint(run_dir / "checkpoint.pt", state)

    progress.close()
    writer.close()
    for condition in ("dense", *args.conditions):
        last = [row["best_retest"] for row in results if row["condition"] == condition][-n_seeds:]
        if last:
            print(f"{condition:18} best_retest in its last round: {np.mean(last):.1f} over {len(last)} seeds")
    print(run_dir)
