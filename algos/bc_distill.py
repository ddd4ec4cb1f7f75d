"""Lottery tickets in behavioural cloning: students of a PPO or DQN teacher (Vischer, Lange, Sprekeler 2022).

    python algos/bc_distill.py                                     # Cart-Pole, 5 seeds, 4 conditions: 10 minutes
    python algos/bc_distill.py --env-id Acrobot-v1 --seeds 1 2 3
    python algos/bc_distill.py --env-id Walker2DBulletEnv-v0 --teacher runs/NAME/tickets/round00_dense_seed1.pt
    python algos/bc_distill.py --env-id MinAtar/Breakout-v1 --teacher runs/NAME/tickets/round00_dense_seed1.pt

The supervised counterpart of ppo_imp.py and dqn_imp.py (section 3): the same rounds and conditions, but on a fixed set
of transitions, so without exploration and with a stationary distribution of data. Each seed has its own transitions
from the teacher's stochastic policy, the same in all rounds and conditions. Students minimise the cross-entropy with
the teacher's policy, or for Gaussian policies the divergence KL(teacher || student); those of a DQN teacher the Huber
loss of their action values against the teacher's. Their returns are measured in the environment.

What all ticket scripts share is in README.md, "Ticket runs": the rounds and their conditions, the columns of
results.csv and curves.csv, how a stopped run goes on. All runs (seeds x conditions) of a round are one batched program:
every parameter has a leading run axis R and every batch is [R, B, ...].

Writes the folder ``runs/{env}__bc_distill__actor__{n}seeds__{hash}``, or ``--run-dir``; in it transitions.pt until the
run is finished.

Teachers: ``algos/experts/{env}.pt`` or any ticket of ppo_imp.py or dqn_imp.py. Hyper-parameters: tables 2, 4, 6 and
10 (``TASKS``). What the paper leaves silent, and what differs:
 1. The table's "training environment steps" are the number of transitions. Updates and their size are ours: 5,000 of
    128 transitions for Cart-Pole (where ppo_imp.py makes 9,984 of 32) and 15,000 of 128 for all others (Acrobot with
    ppo_imp.py: 15,616 of 128; Bullet: 234,200 of 64). Batches are drawn with replacement.
    The learning rate stays as it is, gradients are not clipped, and students have no critic.
 2. Students are tanh networks like the teachers of ppo_imp.py, or ReLU networks like those of dqn_imp.py, which start
    with 16 convolutions of 3 x 3 if the teacher does. They see what the teacher sees, normalised as by the teacher.
 3. Evaluation every tenth of the updates, 20 episodes, mean or most likely action, or for action values dqn_imp.py's
    epsilon of 0.001; the best of these is pruned, as in ppo_imp.py.
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

import math
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import gymnasium as gym
import numpy as np
import torch
import torch.nn.functional as F
import tyro
from gymnasium.vector import VectorEnv
from torch import Tensor, nn

# sparse_utils.py and envs/ are one folder up; --env-id my_envs:Reach-v0 means my_envs.py where you stand
ROOT = Path(__file__).resolve().parent.parent
sys.path += [str(ROOT), os.getcwd()]
import envs.vector  # noqa: E402
import sparse_utils as su  # noqa: E402
from envs.view import View, same_task  # noqa: E402

# Tables 2, 4, 6 and 10. Flags given on the command line win. Updates: see the docstring.
CARTPOLE = {}  # the defaults of Args are those of Cart-Pole
ACROBOT = {"transitions": 200_000, "learning_rate": 5e-4, "hidden_sizes": (128, 64), "updates": 15_000}
BULLET = {**ACROBOT, "transitions": 500_000, "num_envs": 10, "hidden_sizes": (64, 64), "eval_episodes": 10}
VISUAL = {**ACROBOT, "num_envs": 16, "hidden_sizes": (1024, 512)}  # MinAtar and MazeGrid
CNN = {"hidden_sizes": (128, 64)}  # of these, where the teacher has convolutions
TASKS = {
    "CartPole-v0": CARTPOLE,
    "CartPole-v1": CARTPOLE,
    "Acrobot-v1": ACROBOT,
    "MountainCar-v0": ACROBOT,
    "MazeGridEntangled-v0": {**VISUAL, "transitions": 20_000},
}
EVAL_EPSILON = 0.001  # of action values (table 11)


@dataclass
class Args:
    # Run
    env_id: str = "CartPole-v1"  # the teacher's task
    seeds: tuple[int, ...] = (1, 2, 3, 4, 5)  # a chain of rounds for each seed and condition
    teacher: str = ""  # a ticket of ppo_imp.py or dqn_imp.py; default algos/experts/ENV_ID.pt, with - for /
    rounds: int = 20  # pruning rounds after the dense round 0; raise it, and a finished run goes on
    max_episode_steps: int | None = None  # time limit of an episode, in steps; default the task's own
    run_dir: str = ""  # folder to write to; default one of its own in runs/
    fresh: bool = False  # delete what is in the run folder and start over
    eval_interval: int = 0  # updates between evaluations; 0 = a tenth of --updates
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

    # Algorithm (tables 2, 4, 6 and 10)
    transitions: int = 10_000  # of the teacher, for each seed; default by task
    num_envs: int = 4  # environments of each seed for the teacher; default by task
    updates: int = 5_000  # of a run in each round; default by task
    batch_size: int = 128  # transitions per update
    learning_rate: float = 1e-3  # Adam's; default by task

    # Networks
    hidden_sizes: tuple[int, ...] = (128, 128)  # units of the student's hidden layers; default by task
    init: su.Init = "kaiming"  # kaiming is PyTorch's default (a = sqrt 5), he has the gain of ReLU
    input_init_scale: float = 1.0  # factor on the initial weights of the first layer; section 4.2: 0.1

    # Tickets
    conditions: tuple[su.Condition, ...] = su.CONDITIONS  # what to compare
    prune_fraction: float = 0.2  # fraction of the remaining weights that each round removes
    baseline_mask: Literal["own", "ticket"] = "own"  # whose trained networks a baseline's masks come from
    rewind_steps: int = 0  # rewind to the weights that round 0 had after so many updates, not to the initial ones

    def __post_init__(self) -> None:
        su.check_ticket_flags(self)
        su.check_flags(self, "above 0", "transitions", "updates", "batch_size", "learning_rate")
        if self.transitions % self.num_envs:
            raise ValueError(f"--num-envs {self.num_envs} does not divide --transitions {self.transitions}")
        if self.rewind_steps > self.updates:
            raise ValueError(f"--rewind-steps {self.rewind_steps} is beyond --updates {self.updates}")


def visual(env_id: str) -> bool:
    """Is it one of the tasks that dqn_imp.py is for?"""
    return env_id.startswith(("MazeGrid", "MinAtar/"))


def teacher_file(teacher: str, env_id: str) -> Path:
    return Path(teacher or ROOT / f"algos/experts/{env_id.replace('/', '-')}.pt")


def parse_args() -> Args:
    """The command line, over the defaults of its task."""
    env_id = su.flag_given("env-id", Args.env_id)
    task = TASKS.get(env_id, VISUAL if visual(env_id) else BULLET)
    with suppress(ValueError):  # what is wrong with a teacher is said where it is loaded
        ticket = su.load_ticket(teacher_file(su.flag_given("teacher", ""), env_id))
        if ticket.get("args", {}).get("network") == "cnn":
            task = {**task, **CNN}
    args = tyro.cli(Args, description=__doc__, default=Args(**task))
    args.eval_interval = args.eval_interval or max(1, args.updates // 10)
    return args


# ---- Networks --------------------------------------------------------------------------------------------------------


class Network(nn.Module):
    """R independent networks: x [R, B, in] -> [R, B, out].

    Policies are tanh networks, as in ppo_imp.py; if they are ``gaussian``, ``log_std`` is that of the actions. For
    action ``values`` they have ReLU, as in dqn_imp.py. Where x are flattened pictures of shape ``picture`` [C, h, w],
    they go through 16 convolutions of 3 x 3 first, whatever sizes[0] is.
    """

    def __init__(
        self, runs: int, sizes: Sequence[int], gaussian: bool, values: bool = False, picture: Sequence[int] = ()
    ):
        super().__init__()
        self.gaussian, self.values, self.picture, layers = gaussian, values, picture, []
        if picture:
            channels, height, width = picture
            layers, sizes = [su.BatchedConv2d(runs, channels, 16, 3)], (16 * (height - 2) * (width - 2), *sizes[1:])
        layers += [su.BatchedLinear(runs, *ends) for ends in zip(sizes[:-1], sizes[1:], strict=True)]
        self.layers = nn.ModuleList(layers)
        if gaussian:
            self.log_std = nn.Parameter(torch.zeros(runs, 1, sizes[-1]))

    def forward(self, x: Tensor) -> Tensor:
        *hidden, last = self.layers
        if self.picture:
            x = torch.relu(hidden.pop(0)(x.unflatten(2, self.picture))).flatten(2)
        for layer in hidden:
            x = torch.relu(layer(x)) if self.values else torch.tanh(layer(x))
        return last(x)


@dataclass
class Agent:
    """A network as a ticket holds it: a teacher or a student."""

    parameters: dict[str, Tensor]  # of its actor
    statistics: dict[str, Tensor]  # of the observations that it was trained with; {} if they are not normalised
    inputs: list[int] | None  # what it sees of them; None = all
    picture: list[int]  # their shape, if it has convolutions
    values: bool  # does it give action values?
    gaussian: bool

    @classmethod
    def of_ticket(cls, ticket: dict[str, Any]) -> "Agent":
        tensors = {"actor": {}, "view": {}, "critic": {}}
        for name, tensor in ticket["best"].items():
            network, _, rest = name.partition(".")
            tensors[network][rest] = tensor
        return cls(
            parameters=tensors["actor"],
            statistics=tensors["view"],
            inputs=ticket["inputs"],
            picture=ticket["obs_shape"] if tensors["actor"]["layers.0.weight"].dim() == 4 else [],
            values=ticket["script"] == "dqn_imp" or ticket.get("values", False),
            gaussian="log_std" in tensors["actor"],
        )

    def sizes(self) -> list[int]:
        """Inputs, units and outputs of its fully connected layers."""
        weights = [tensor for name, tensor in self.parameters.items() if name.endswith("weight")]
        return [len(weights[0]), *(weight.shape[1] for weight in weights if weight.dim() == 2)]

    def networks(self, runs: int, obs_space: gym.spaces.Box, sizes: Sequence[int]) -> nn.ModuleDict:
        """New networks of its kind with other units, that see what it sees."""
        view = View(runs, obs_space, self.inputs, normalize=bool(self.statistics))
        view.load_state_dict({name: tensor.expand(runs, *tensor.shape) for name, tensor in self.statistics.items()})
        return nn.ModuleDict({"actor": Network(runs, sizes, self.gaussian, self.values, self.picture), "view": view})

    def copies(self, runs: int, obs_space: gym.spaces.Box) -> nn.ModuleDict:
        """Its network, so many times."""
        nets = self.networks(runs, obs_space, self.sizes()).requires_grad_(False)
        same = {name: tensor.expand(runs, *tensor.shape) for name, tensor in self.parameters.items()}
        nets["actor"].load_state_dict(same)
        return nets


def epsilon_greedy(values: Tensor, epsilon: float, streams: Sequence[np.random.Generator]) -> np.ndarray:
    """Actions [R, N] of the largest of the values [R, N, A], or with probability epsilon random ones, by a stream for
    each run."""
    noise = np.stack([s.random((2, values.shape[1])) for s in streams], 1)  # [2, R, N]
    any_action = (noise[1] * values.shape[2]).astype(int)
    return np.where(noise[0] < epsilon, any_action, values.argmax(-1).cpu().numpy())


def greedy(nets: nn.ModuleDict, seeds: Sequence[int]) -> Callable[[np.ndarray], np.ndarray]:
    """The function from observations [R * N, ...] to the networks' mean or most likely actions [R, N, ...], or to
    those of the largest values, but for EVAL_EPSILON of them, which are random by a stream for each run, from
    ``seeds``."""
    actor = nets["actor"]
    device, runs = actor.layers[0].weight.device, len(actor.layers[0].weight)
    streams = [np.random.default_rng(seed) for seed in seeds]

    @torch.no_grad()
    def act(obs: np.ndarray) -> np.ndarray:
        out = actor(nets["view"](torch.from_numpy(obs).to(device).unflatten(0, (runs, -1))))
        if actor.values:
            return epsilon_greedy(out, EVAL_EPSILON, streams)
        return (out if actor.gaussian else out.argmax(-1)).cpu().numpy()

    return act


# ---- Distillation ----------------------------------------------------------------------------------------------------


def load_teacher(file: Path, env_id: str, vector: VectorEnv) -> dict[str, Any]:
    """A ticket of ppo_imp.py or dqn_imp.py.

    Raises ValueError if it is none, or one for other observations or actions than those of ``vector``.
    """
    if not file.exists():
        script = "dqn_imp.py" if visual(env_id) else "ppo_imp.py"
        raise ValueError(f"no teacher {file}: train one with {script} --env-id {env_id} and name a file in tickets/")
    ticket = su.load_ticket(file)
    if ticket.get("script") not in ("ppo_imp", "dqn_imp"):
        raise ValueError(f"{file} is no ticket of ppo_imp.py or dqn_imp.py")
    obs_shape, space = vector.single_observation_space.shape, vector.single_action_space
    if tuple(ticket["obs_shape"]) != obs_shape or (len(obs_shape) > 1 and ticket["script"] == "ppo_imp"):
        raise ValueError(f"{file} is a teacher for observations {tuple(ticket['obs_shape'])}; {env_id} has {obs_shape}")
    agent, gaussian = Agent.of_ticket(ticket), isinstance(space, gym.spaces.Box)
    n_actions = space.shape[0] if gaussian else int(space.n)
    if agent.sizes()[-1] != n_actions or agent.gaussian != gaussian:
        raise ValueError(f"{file} is a teacher for other actions than those of {env_id}: {space}")
    there = ticket.get("args", {}).get("env_id", env_id)
    if not same_task(there, env_id):
        raise ValueError(f"{file} is a teacher for {there}, not for {env_id}")
    return ticket


def pack(obs: np.ndarray, space: gym.spaces.Box) -> Tensor:
    """Flat observations [..., n] as they are stored: those of zeros and ones as bits."""
    bits = space.dtype == np.uint8 and space.high.max() == 1
    return torch.from_numpy(np.packbits(obs, axis=-1) if bits else obs)


def unpack(stored: Tensor, space: gym.spaces.Box) -> Tensor:
    """What ``pack`` was given."""
    if space.dtype != np.uint8 or space.high.max() > 1:
        return stored
    bits = (stored[..., None] >> torch.arange(7, -1, -1, dtype=torch.uint8, device=stored.device)) & 1
    return bits.flatten(-2)[..., : math.prod(space.shape)]


@torch.no_grad()
def collect(teacher: nn.ModuleDict, vector: VectorEnv, args: Args, epsilon: float = 0.0) -> tuple[Tensor, Tensor]:
    """The teacher plays its stochastic policy: observations [S, transitions, n], packed, and its outputs there
    [S, transitions, A]: logits, means or action values. ``teacher`` holds a copy of its network for each of the S
    seeds, ``epsilon`` is the part of random actions if it has action values."""
    n_seeds, actor = len(args.seeds), teacher["actor"]
    streams = [np.random.default_rng(su.seeds(seed, 0)[0]) for seed in args.seeds]
    obs = envs.vector.reset(vector, [su.seeds(seed, 1)[0] for seed in args.seeds])
    stored, outputs = [], []
    progress = su.progress_bar(args.transitions, 0, "transition")
    for _ in range(args.transitions // args.num_envs):
        flat = obs.reshape(n_seeds, args.num_envs, -1)
        stored.append(pack(flat, vector.single_observation_space))
        out = actor(teacher["view"](torch.from_numpy(flat)))
        outputs.append(out)
        size = tuple(out.shape[1:])
        if actor.gaussian:
            noise = np.stack([s.standard_normal(size, np.float32) for s in streams])
            action = (out + actor.log_std.exp() * torch.from_numpy(noise)).numpy()
        elif actor.values:
            action = epsilon_greedy(out, epsilon, streams)
        else:  # the Gumbel trick
            action = (out + torch.from_numpy(np.stack([s.gumbel(size=size) for s in streams]))).argmax(-1).numpy()
        obs, *_ = vector.step(envs.vector.to_rows(action, vector.single_action_space))
        progress.update(args.num_envs)
    progress.close()
    return torch.cat(stored, 1), torch.cat(outputs, 1)


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


def train(
    args: Args,
    rounds: su.Rounds,
    nets: nn.ModuleDict,
    masks: su.Masks,
    task: dict[str, Any],
    teacher: Agent,
    data: dict[str, Any],
) -> tuple[np.ndarray, list[float]]:
    """One round of cloning: train ``nets`` under ``masks`` from what they hold, one run for each of ``rounds.tickets``.

    Returns the best weights' returns in new episodes [R, --retest-episodes] and the last mean losses; in round 0 a
    ticket's "rewind" becomes the weights after --rewind-steps. Goes on from round.pt, and leaves the program after a
    signal."""
    R, device = len(rounds.tickets), nets["actor"].layers[0].weight.device
    parameters = dict(nets.named_parameters())
    optimizer = su.FlatAdam(parameters, args.learning_rate)
    best = su.Best(nets.state_dict(), optimizer)
    streams, stream_of = rounds.streams()  # one for each seed, shared by its conditions
    stream_of = torch.tensor(stream_of, device=device)
    task = {**task, "first_episode": True, "matrix_seeds": [data["matrix_seed"]] * R}
    eval_envs = envs.vector.make(args.env_id, R, args.eval_episodes, **task)
    obs_space = eval_envs.single_observation_space
    stored, outputs = data["stored"].to(device), data["outputs"].to(device)
    teacher_log_std = teacher.parameters["log_std"][None].to(device) if teacher.gaussian else None

    done, saved = rounds.go_on(nets=nets, optimizer=optimizer, best=best, streams=streams)
    losses = list(saved.get("losses", []))  # [R] each, of the updates since the last evaluation
    mean_loss = saved.get("mean_loss", [])
    rounds.watch.lap("prune")
    for update in range(done, args.updates + 1):
        # ---- Evaluate what these updates have taught; keep the best checkpoint of each run
        due = (update > 0 and update % args.eval_interval == 0) or update == args.updates
        if due and not rounds.has_evaluated(update):
            act = greedy(nets, rounds.seeds(3, update))
            returns = rounds.stop.interruptible(envs.vector.play, eval_envs, act, rounds.seeds(3, update))
            if returns is not None:
                loss = torch.stack(losses, 1).mean(1)
                mean_loss, losses = loss.tolist(), []
                rounds.evaluated(update, returns, {"losses/distillation": loss}, loss=mean_loss)
            rounds.watch.lap("evaluate")
        if due and update > done or rounds.stop.signal:
            rounds.save(rounds.state(update, losses=losses, mean_loss=mean_loss))
        if rounds.stop.signal:
            rounds.leave()
        if update == args.updates:
            break

        # ---- Learn
        rows = np.stack([s.integers(args.transitions, size=args.batch_size) for s in streams])
        index = torch.from_numpy(rows).to(device)[stream_of]  # [R, B]
        x = nets["view"](unpack(stored[stream_of[:, None], index], obs_space))
        loss = distillation_loss(nets["actor"], x, outputs[stream_of[:, None], index], teacher_log_std)
        optimizer.zero_grad()
        loss.sum().backward()
        su.mask_gradients(parameters, masks)  # so that pruned weights stay zero
        optimizer.step()
        losses.append(loss.detach())
        rounds.watch.lap("learn")
        if rounds.round == 0 and update + 1 == args.rewind_steps:
            rounds.rewind_to(nets.state_dict())
        rounds.progress.update()

    # ---- Retest the best checkpoints in new episodes: a maximum over noisy evaluations flatters
    nets.load_state_dict(best.weights)
    act = greedy(nets, rounds.seeds(4))
    retest = rounds.stop.interruptible(
        envs.vector.retest, eval_envs, act, rounds.seeds(4), args.retest_episodes, args.env_id, task
    )
    if retest is None:
        rounds.leave()
    eval_envs.close()
    rounds.watch.lap("evaluate")
    return retest, mean_loss


def evaluate_ticket(args: Args) -> None:
    """Play with the best weights of a ticket, in its own task."""
    su.exit_on_signal()
    ticket, there = su.load_ticket_of("bc_distill", args.evaluate, Args)
    env_id = there.env_id
    task = {
        "max_episode_steps": args.max_episode_steps or there.max_episode_steps,
        "matrix_seeds": [ticket["matrix_seed"]],
    }
    vector = envs.vector.make(env_id, 1, args.eval_episodes, first_episode=True, **task)
    act = greedy(Agent.of_ticket(ticket).copies(1, vector.single_observation_space), [args.seed])
    returns = envs.vector.play(vector, act, [args.seed])[0]
    print(f"{env_id}, --seed {args.seed}, {su.describe_returns(returns)}")
    if args.capture_video:
        envs.vector.record(env_id, act, Path(args.evaluate).with_suffix(".gif"), args.seed, **task)


def teacher_data(
    args: Args, rounds: su.Rounds, teacher: Agent, ticket: dict[str, Any], task: dict[str, Any]
) -> dict[str, Any]:
    """One fixed set of transitions for each seed, used in all rounds and conditions: read from transitions.pt, or
    played by the teacher."""
    file, matrix_seed = rounds.folder / "transitions.pt", ticket["result"]["seed"]
    if not file.exists():
        task = {**task, "matrix_seeds": [matrix_seed] * len(args.seeds)}
        vector = envs.vector.make(args.env_id, len(args.seeds), args.num_envs, **task)
        obs_space = vector.single_observation_space
        trial = envs.vector.make(args.env_id, 1, 20, first_episode=True, **{**task, "matrix_seeds": [matrix_seed]})
        act = greedy(teacher.copies(1, obs_space), [1])
        epsilon = ticket["args"]["end_e"] if teacher.values else 0.0
        played = rounds.stop.interruptible(envs.vector.play, trial, act, [1])
        nets = teacher.copies(len(args.seeds), obs_space)
        collected = rounds.stop.interruptible(collect, nets, vector, args, epsilon)
        if collected is None:
            rounds.leave()
        stored, outputs = collected
        vector.close()
        trial.close()
        su.save_checkpoint(file, {"stored": stored, "outputs": outputs, "teacher_return": float(played.mean())})
    return {**su.load_checkpoint(file), "matrix_seed": matrix_seed}


if __name__ == "__main__":
    args = parse_args()
    device = su.set_up_torch(args)
    task = {"max_episode_steps": args.max_episode_steps}
    try:
        if args.evaluate:
            evaluate_ticket(args)
            raise SystemExit(0)
        probe = envs.vector.make(args.env_id, 1, 1, matrix_seeds=[0], **task)
        teacher_ticket = load_teacher(teacher_file(args.teacher, args.env_id), args.env_id, probe)
    except ValueError as error:
        su.fail(str(error))
    task = {**task, "processes": args.async_envs}
    teacher, obs_space = Agent.of_ticket(teacher_ticket), probe.single_observation_space
    sizes = (teacher.sizes()[0], *args.hidden_sizes, teacher.sizes()[-1])
    template = teacher.networks(1, obs_space, sizes)
    pruned_layers = su.prunable(actor=template["actor"])
    if args.dry_run:
        print(su.describe(pruned_layers, {}))
        keep = su.remaining_by_round(su.count(pruned_layers), args.prune_fraction, args.rounds)
        print(f"weights in rounds 0 to {args.rounds}: {' '.join(map(str, keep))}")
        raise SystemExit(0)
    contents = {
        "activation": "relu" if teacher.values else "tanh",
        "obs_shape": list(obs_space.shape),
        "inputs": teacher.inputs,
        "values": teacher.values,
        "matrix_seed": teacher_ticket["result"]["seed"],
    }
    timed = ("prune", "learn", "evaluate", "save")
    reads = [teacher_file(args.teacher, args.env_id)]

    rounds = su.Rounds(args, "bc_distill", "actor", args.updates, "update", timed, reads)
    data = teacher_data(args, rounds, teacher, teacher_ticket, task)
    print(f"the teacher's mean return is {data['teacher_return']:.1f}")
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
        nets = teacher.networks(len(rounds.tickets), obs_space, sizes).to(device)
        nets.load_state_dict(su.stack([ticket["initial"] for ticket in rounds.tickets]))
        masks = su.stack([ticket["masks"] for ticket in rounds.tickets], device)
        retest, loss = train(args, rounds, nets, masks, task, teacher, data)
        rounds.finish(retest, contents, loss=loss, teacher_return=[data["teacher_return"]] * len(rounds.tickets))
    (rounds.folder / "transitions.pt").unlink(missing_ok=True)
    print(f"draw: python plot.py tickets {rounds.folder}")
