"""How fast are our loops, where does the time go, and how do peers compare on the same machine in the same minutes?

    python bench.py sac                                   # ours, and Stable-Baselines3 if it is installed
    python bench.py sac --cleanrl PATH_TO_A_CHECKOUT      # also CleanRL's sac_continuous_action.py
    python bench.py sac --threads 1 --methods dense rigl static --rounds 5
    python bench.py ppo --cleanrl PATH_TO_A_CHECKOUT      # ppo_imp.py: many runs, one run, and its peers
    python bench.py dqn --cleanrl PATH_TO_A_CHECKOUT      # dqn_imp.py: with learning, without, and CleanRL's dqn.py
    python bench.py earlybird --cleanrl PATH_TO_A_CHECKOUT    # dqn_earlybird.py: hundreds of runs, and CleanRL's dqn.py
    python bench.py dqn_rigl --cleanrl PATH_TO_A_CHECKOUT     # one run, ten runs together, and CleanRL's dqn.py
    python bench.py dqn_atari_rigl --cleanrl PATH_TO_A_CHECKOUT    # Pong, and CleanRL's dqn_atari.py
    python bench.py ppo_rigl --cleanrl PATH_TO_A_CHECKOUT     # the same with its ppo_continuous_action.py, and SB3
    python bench.py kernels                               # --kernel sparse against dense networks of the same script

Every program runs in a process of its own, in turn, for several rounds; the table has the median over rounds. Ours are
the real scripts, whose timing.csv books the seconds of each part of the loop.

SAC: steps/s are training alone (act, env, sample, update, sparsify, log) after a warm-up, with an update at every step,
since the peers do not evaluate. The shares are those of a whole run: evaluation (30 episodes) and SNR as they fall on a
step at their default interval of 10,000 steps.

PPO: training steps/s of all runs together (act, env, learn) on one thread. Cart-Pole has CleanRL's rollouts (4 x 128
steps), 4 minibatches, 4 epochs and 64-64 networks for all programs. The Bullet task is compared with its own speed: 10
environments in one process that do nothing but step with random actions.

DQN: steps/s of all runs together (act, env, sample, learn) on one thread, on MazeGrid-v0 with 256-128 networks and an
update with 256 transitions for every 64 steps. CleanRL's script runs as a copy with this network, which takes bytes,
and without its line that fails at the first time limit under gymnasium 1.x; it samples uniformly and has no double
Q-learning.

dqn_rigl.py, ppo_rigl.py: steps/s of all runs together on one thread without evaluation, with the networks, batches and
updates of the scripts' defaults for all programs (Cart-Pole, 512-512 units, an update with 128 transitions at every
step, and the same with 128-128; HalfCheetah, 64-64, rollouts of 2,048 steps, 10 epochs of 32 minibatches). CleanRL's
scripts run as copies: dqn.py as above, ppo_continuous_action.py with the argument that a wrapper of gymnasium 1.x
wants.

dqn_atari_rigl.py: steps/s on Pong on one thread without evaluation, with the CNN of Mnih et al. 2015 (no padding) and
an update with 32 transitions for every four steps for all programs. CleanRL's dqn_atari.py runs as a copy with the
names that gymnasium 1.x has for its wrappers; it needs OpenCV. With 8 environments there are as many updates.

Kernels: steps/s as above, of sac_rigl.py on HalfCheetah-v5 and dqn_rigl.py on Cart-Pole, and of dqn_imp.py on
MazeGrid-v0 with 1024-512 units, whose dense network is that of round 0 and whose ticket that of round 1.

Early birds: steps/s of 531 runs together on one thread, with the networks, batches and updates per step of
dqn_earlybird.py's defaults, against one run of CleanRL with the same (a copy, as above).
"""

import csv
import importlib.util
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

ROOT = Path(__file__).resolve().parent
TRAINING = ("act", "env", "sample", "update", "sparsify", "log")
PER_EVALUATION = ("evaluate", "snr")
DEFAULT_INTERVAL = 10_000  # of evaluation and SNR in sac_rigl.py


@dataclass
class Args:
    loop: Annotated[
        Literal["sac", "ppo", "dqn", "earlybird", "dqn_rigl", "dqn_atari_rigl", "ppo_rigl", "kernels"],
        tyro.conf.Positional,
    ]
    """sac_rigl.py, ppo_imp.py, dqn_imp.py, dqn_earlybird.py, dqn_rigl.py, dqn_atari_rigl.py,
    ppo_rigl.py; or sparse kernels"""
    env_id: str = "HalfCheetah-v5"
    """the task of SAC"""
    methods: list[str] = field(default_factory=lambda: ["dense", "rigl"])
    """methods of sac_rigl.py"""
    threads: list[int] = field(default_factory=lambda: [1, 2])
    """CPU threads of PyTorch for SAC"""
    rounds: int = 3
    """times that each program runs"""
    steps: int = 2000
    """measured steps of SAC, after 1,000 of warm-up"""
    matmul_precision: str = "highest"
    """of our SAC and DQN"""
    bullet: str = "HopperBulletEnv-v0"
    """the Bullet task of PPO"""
    cleanrl: str = ""
    """a checkout of CleanRL"""


def timing(script: str, *flags: object) -> list[dict[str, str]]:
    """The rows of timing.csv of one of our scripts, run to its end with these flags in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, ROOT / f"algos/{script}.py", "--run-dir", folder, "--no-cuda", *flags]
        subprocess.run([str(word) for word in command], check=True, capture_output=True)
        with (Path(folder) / "timing.csv").open() as stream:
            return list(csv.DictReader(stream))


def ours(args: Args, method: str, threads: int) -> tuple[float, dict[str, float]]:
    """Training steps per second, and the seconds per step of each part."""
    flags = ["--method", method, "--env-id", args.env_id, "--threads", threads, "--learning-starts", 1]
    flags += ["--matmul-precision", args.matmul_precision]
    flags += ["--total-timesteps", 1000 + args.steps, "--eval-interval", 1000, "--snr-interval", 1000]
    rows = timing("sac_rigl", *flags)[1:]
    seconds = {part: sum(float(row[part]) for row in rows) for part in TRAINING + PER_EVALUATION}
    speed = args.steps / sum(seconds[part] for part in TRAINING)
    per_step = {part: seconds[part] / args.steps for part in TRAINING}
    return speed, per_step | {part: seconds[part] / len(rows) / DEFAULT_INTERVAL for part in PER_EVALUATION}


def stable_baselines3(env_id: str, threads: int, steps: int) -> None:
    """Print SB3's steps per second with our network and batch and an update at every step; in a process of its own."""
    import torch
    from stable_baselines3 import SAC

    torch.set_num_threads(threads)
    model = SAC("MlpPolicy", env_id, learning_starts=100, device="cpu", policy_kwargs={"net_arch": [256, 256]})
    model.learn(1000)
    start = time.perf_counter()
    model.learn(steps, reset_num_timesteps=False)
    print(f"SPS: {steps / (time.perf_counter() - start)}")


def peer(command: list[str], threads: int, cwd: str | None = None) -> float:
    """The last steps per second that a program prints."""
    environment = {"OMP_NUM_THREADS": str(threads), "PATH": "", "PYTHONPATH": cwd or ""}
    # No check: CleanRL's script stops at the first time limit under gymnasium 1.x, after what is measured here.
    output = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tempfile.gettempdir())
    speeds = re.findall(r"SPS: ([\d.]+)", output.stdout)
    if not speeds:
        raise SystemExit(f"{' '.join(command)} printed no speed:\n{output.stderr[-2000:]}")
    return float(speeds[-1])


def bench_sac(args: Args) -> None:
    speeds, parts = defaultdict(list), defaultdict(lambda: defaultdict(list))
    for _ in range(args.rounds):
        for threads in args.threads:
            for method in args.methods:
                speed, per_step = ours(args, method, threads)
                speeds[f"ours, {method}", threads].append(speed)
                for part, seconds in per_step.items():
                    parts[method, threads][part].append(seconds)
            if importlib.util.find_spec("stable_baselines3"):
                command = [sys.executable, __file__, "stable-baselines3", args.env_id, str(threads), str(args.steps)]
                speeds["Stable-Baselines3", threads].append(peer(command, threads))
            if args.cleanrl:  # up to the first time limit, with learning from the start
                command = [sys.executable, f"{args.cleanrl}/cleanrl/sac_continuous_action.py", "--env-id", args.env_id]
                command += ["--total-timesteps", "990", "--learning-starts", "2", "--no-cuda"]
                speeds["CleanRL", threads].append(peer(command, threads, args.cleanrl))

    print(f"Training steps/s on {args.env_id}, median (least to most) of {args.rounds} rounds\n")
    print("| program | threads | steps/s | ours, " + args.methods[0] + " is |\n|---|---|---|---|")
    for (program, threads), values in sorted(speeds.items(), key=lambda item: (item[0][1], item[0][0])):
        reference = speeds[f"ours, {args.methods[0]}", threads]
        ratio = statistics.median(a / b for a, b in zip(reference, values, strict=True))
        spread = f"{min(values):.0f} to {max(values):.0f}"
        print(f"| {program} | {threads} | {statistics.median(values):.0f} ({spread}) | {ratio:.2f}× |")
    print("\nShare of a whole run's time, %\n")
    print("| program | threads | " + " | ".join(TRAINING + PER_EVALUATION) + " |\n|---" * 1 + "|---" * 9 + "|")
    for (method, threads), per_part in parts.items():
        medians = {part: statistics.median(values) for part, values in per_part.items()}
        shares = [f"{100 * seconds / sum(medians.values()):.1f}" for seconds in medians.values()]
        print(f"| ours, {method} | {threads} | " + " | ".join(shares) + " |")


# ---- PPO -------------------------------------------------------------------------------------------------------------


def ours_together(script: str, flags: str, runs: int, steps: int) -> dict[str, float]:
    """Seconds that ``runs`` runs of a script take together for ``steps`` steps of each, by parts of its loop."""
    words = ["--rounds", 0, *flags.split(), "--seeds", *range(1, runs + 1), "--total-timesteps", steps]
    row = timing(script, *words, "--eval-interval", 10**9, "--eval-episodes", 100)[0]
    return {part: float(row[part]) for part in ("act", "env", "sample", "learn") if part in row}


def stable_baselines3_ppo(env_id: str, steps: int) -> None:
    """Print SB3's steps per second at the others' rollouts and networks; in a process of its own."""
    import torch
    from stable_baselines3 import PPO
    from stable_baselines3.common.env_util import make_vec_env

    torch.set_num_threads(1)
    sizes = {"n_steps": 2048, "batch_size": 64, "n_epochs": 10}
    if env_id == "CartPole-v1":
        sizes = {"n_steps": 128, "batch_size": 128, "n_epochs": 4}
    envs = make_vec_env(env_id, 4 if env_id == "CartPole-v1" else 1)
    model = PPO("MlpPolicy", envs, device="cpu", policy_kwargs={"net_arch": [64, 64]}, **sizes)
    model.learn(2048)
    start = time.perf_counter()
    model.learn(steps, reset_num_timesteps=False)
    print(f"SPS: {steps / (time.perf_counter() - start)}")


def random_actions(env_id: str, steps: int) -> float:
    """Steps per second of 10 environments in one process that do nothing else."""
    sys.path.insert(0, str(ROOT))
    import envs.vector

    vector = envs.vector.make(env_id, 1, 10)
    envs.vector.reset(vector, [1])
    actions = [vector.action_space.sample() for _ in range(steps // 10)]
    start = time.perf_counter()
    for action in actions:
        vector.step(action)
    return steps / (time.perf_counter() - start)


def bench_ppo(args: Args) -> None:
    rollouts = "--num-steps 128 --num-minibatches 4"
    programs = {  # name: flags, runs, steps of each
        "Cart-Pole, ours, 60 runs": (f"--env-id CartPole-v1 {rollouts}", 60, 25_600),
        "Cart-Pole, ours, 1 run": (f"--env-id CartPole-v1 {rollouts}", 1, 51_200),
        "Acrobot, ours, 40 runs": ("--env-id Acrobot-v1", 40, 25_600),
        f"{args.bullet}, minibatches of 64": (f"--env-id {args.bullet} --num-minibatches 20", 1, 12_800),
        f"{args.bullet}, minibatches of 256": (f"--env-id {args.bullet} --num-minibatches 5", 1, 12_800),
    }
    speeds, shares = defaultdict(list), defaultdict(list)
    for _ in range(args.rounds):
        for name, (flags, runs, steps) in programs.items():
            book(speeds, shares, name, runs * steps, ours_together("ppo_imp", flags, runs, steps))
        speeds[f"{args.bullet}, random actions"].append(random_actions(args.bullet, 5_000))
        if importlib.util.find_spec("stable_baselines3"):
            command = [sys.executable, __file__, "stable-baselines3-ppo", "CartPole-v1", "20480"]
            speeds["Cart-Pole, Stable-Baselines3"].append(peer(command, 1))
        if args.cleanrl:
            command = [sys.executable, f"{args.cleanrl}/cleanrl/ppo.py", "--total-timesteps", "40960", "--no-cuda"]
            speeds["Cart-Pole, CleanRL"].append(peer(command, 1, args.cleanrl))
    print(f"Training steps/s of PPO on one thread, median (least to most) of {args.rounds} rounds\n")
    pairs = (
        ("Cart-Pole, ours, 60 runs", "Cart-Pole, CleanRL"),
        ("Cart-Pole, ours, 60 runs", "Cart-Pole, Stable-Baselines3"),
        ("Cart-Pole, ours, 1 run", "Cart-Pole, CleanRL"),
        (f"{args.bullet}, minibatches of 64", f"{args.bullet}, random actions"),
        (f"{args.bullet}, minibatches of 256", f"{args.bullet}, random actions"),
    )
    print_table(speeds, shares, "act, env, learn", pairs)


def book(
    speeds: dict[str, list[float]],
    shares: dict[str, list[list[float]]],
    name: str,
    steps: int,
    seconds: dict[str, float],
) -> None:
    """Add a round of a program: steps per second, and the share of each part in the seconds."""
    total = sum(seconds.values())
    speeds[name].append(steps / total)
    shares[name].append([value / total for value in seconds.values()])


def print_table(
    speeds: dict[str, list[float]], shares: dict[str, list[list[float]]], parts: str, pairs: Iterable[tuple[str, str]]
) -> None:
    """Speeds of each program in all rounds, shares of its time, and the ratios of pairs of programs round by round."""
    print(f"| program | steps/s | share of {parts}, % |\n|---|---|---|")
    for name, values in speeds.items():
        of_parts = [f"{100 * statistics.median(part):.0f}" for part in zip(*shares[name], strict=True)]
        spread = f"{statistics.median(values):,.0f} ({min(values):,.0f} to {max(values):,.0f})"
        print(f"| {name} | {spread} | {', '.join(of_parts)} |")
    print()
    for ours, other in pairs:
        if speeds[ours] and speeds[other]:
            ratio = statistics.median(a / b for a, b in zip(speeds[ours], speeds[other], strict=True))
            print(f"{ours}, against {other}: {ratio:.2f}x")


# ---- DQN -------------------------------------------------------------------------------------------------------------


def cleanrl_dqn(checkout: str, hidden_sizes: tuple[int, ...], flags: str) -> float:
    """Steps per second of a copy of CleanRL's dqn.py that is changed as the docstring above says."""
    changes = {"120": str(hidden_sizes[0]), "84": str(hidden_sizes[-1])}
    changes |= {'infos["final_observation"][idx]': "next_obs[idx]", "self.network(x)": "self.network(x.float())"}
    if len(hidden_sizes) == 1:
        layer = "            nn.Linear(120, 84),\n            nn.ReLU(),\n"
        changes = {layer: "", **changes}
    return cleanrl(checkout, "dqn", changes, f"{flags} --start-e 0.01 --end-e 0.01 --no-cuda")


def cleanrl(checkout: str, name: str, changes: dict[str, str], flags: str) -> float:
    """Steps per second of a copy of one of CleanRL's scripts in which some words are others."""
    script = Path(f"{checkout}/cleanrl/{name}.py").read_text()
    for theirs, ours in changes.items():
        script = script.replace(theirs, ours)
    with tempfile.NamedTemporaryFile("w", suffix=".py") as copy:
        copy.write(script)
        copy.flush()
        return peer([sys.executable, copy.name, *flags.split()], 1, f"{checkout}:{ROOT}")


def bench_dqn(args: Args) -> None:
    learns = f"--env-id MazeGrid-v0 --learning-starts 128 --matmul-precision {args.matmul_precision}"
    programs = {  # name: flags, runs, steps of each
        "ours, 1 run": (learns, 1, 64_000),
        "ours, 8 runs": (learns, 8, 12_800),
        "ours, 1 run, no learning": ("--env-id MazeGrid-v0 --learning-starts 191999 --start-e 0.01", 1, 192_000),
    }
    speeds, shares = defaultdict(list), defaultdict(list)
    for _ in range(args.rounds):
        for name, (flags, runs, steps) in programs.items():
            book(speeds, shares, name, runs * steps, ours_together("dqn_imp", flags, runs, steps))
        if args.cleanrl:
            flags = "--env-id envs.mazegrid:MazeGrid-v0 --batch-size 256 --train-frequency 64 --learning-starts 128"
            flags += " --total-timesteps 20000 --target-network-frequency 20000"
            speeds["CleanRL"].append(cleanrl_dqn(args.cleanrl, (256, 128), flags))
    print(f"Training steps/s of DQN on one thread, median (least to most) of {args.rounds} rounds\n")
    print_table(speeds, shares, "act, env, sample, learn", [("ours, 1 run", "CleanRL")])


def bench_earlybird(args: Args) -> None:
    tasks = {  # CleanRL's flags for what dqn_earlybird.py has by default
        "CartPole-v0": "--batch-size 32 --train-frequency 4 --buffer-size 1000 --target-network-frequency 200",
        "Acrobot-v1": "--batch-size 64 --train-frequency 1 --buffer-size 2000 --target-network-frequency 500",
    }
    episodes = {"CartPole-v0": 30, "Acrobot-v1": 2}
    parts = ("act", "env", "sample", "learn", "episodes")
    speeds, shares = defaultdict(list), defaultdict(list)
    for _ in range(args.rounds):
        for env_id, flags in tasks.items():
            words = ["--env-id", env_id, "--repetitions", 59, "--prune-episodes", episodes[env_id]]
            words += ["--max-episodes", episodes[env_id], "--test-episodes", 1, "--learning-starts", 64]
            rows = timing("dqn_earlybird", *words)
            seconds = {part: sum(float(row[part]) for row in rows) for part in parts}
            steps = sum(int(row["env_steps"]) for row in rows)
            book(speeds, shares, f"{env_id}, ours, 531 runs", steps, seconds)
            if args.cleanrl:
                flags = f"--env-id {env_id} {flags} --learning-starts 64 --total-timesteps 10000"
                sizes = (128, 128) if env_id == "CartPole-v0" else (128,)
                speeds[f"{env_id}, CleanRL"].append(cleanrl_dqn(args.cleanrl, sizes, flags))
    print(f"Training steps/s of DQN on one thread, median (least to most) of {args.rounds} rounds\n")
    pairs = [(f"{env_id}, ours, 531 runs", f"{env_id}, CleanRL") for env_id in tasks]
    print_table(speeds, shares, ", ".join(parts), pairs)


# ---- DQN and PPO with sparse networks --------------------------------------------------------------------------------


def ours_by_evaluation(script: str, flags: str, runs: int, steps: int, interval: int) -> dict[str, float]:
    """Seconds of each part of the loop for ``steps`` steps of ``runs`` runs together, after the first ``interval``."""
    seeds = ["--seed", 1] if script == "sac_rigl" else ["--seeds", *range(1, runs + 1)]
    words = [*flags.split(), "--threads", 1, *seeds, "--total-timesteps", interval + steps]
    words += ["--eval-interval", interval, "--eval-episodes", 1, "--snr-interval", 0]
    rows = [row for row in timing(script, *words) if int(row["step"]) > interval]
    parts = [part for part in ("act", "env", "sample", "update", "sparsify") if part in rows[0]]
    return {part: sum(float(row[part]) for row in rows) for part in parts}


def bench_dqn_rigl(args: Args) -> None:
    flags, narrow = f"--learning-starts 128 --matmul-precision {args.matmul_precision}", "--width-scale 0.25"
    programs = {  # name: flags, runs, steps of each
        "512-512, ours, dense": (f"{flags} --method dense", 1, 2000),
        "512-512, ours, RigL": (f"{flags} --method rigl", 1, 2000),
        "512-512, ours, 10 dense runs": (f"{flags} --method dense", 10, 400),
        "128-128, ours, dense": (f"{flags} {narrow} --method dense", 1, 4000),
        "128-128, ours, RigL": (f"{flags} {narrow} --method rigl", 1, 4000),
        "128-128, ours, 10 dense runs": (f"{flags} {narrow} --method dense", 10, 2000),
    }
    speeds, shares = defaultdict(list), defaultdict(list)
    for _ in range(args.rounds):
        for name, (flags, runs, steps) in programs.items():
            seconds = ours_by_evaluation("dqn_rigl", flags, runs, steps, 400)
            book(speeds, shares, name, runs * steps, seconds)
        for units in (512, 128) if args.cleanrl else ():
            flags = "--env-id CartPole-v1 --batch-size 128 --train-frequency 1 --target-network-frequency 100"
            flags += " --learning-starts 128 --buffer-size 100000 --learning-rate 1e-3 --total-timesteps 3000"
            speeds[f"{units}-{units}, CleanRL"].append(cleanrl_dqn(args.cleanrl, (units, units), flags))
    print(f"Training steps/s of DQN on one thread, median (least to most) of {args.rounds} rounds\n")
    pairs = [(name, f"{name[:7]}, CleanRL") for name in programs]
    pairs += [(f"{units}, ours, RigL", f"{units}, ours, dense") for units in ("512-512", "128-128")]
    print_table(speeds, shares, "act, env, sample, update, sparsify", pairs)


def bench_dqn_atari_rigl(args: Args) -> None:
    common = "--padding valid --learning-starts 400 --start-e 0.01 --buffer-size 10000 --eval-interval 400 --threads 1 "
    common += "--eval-episodes 1 --eval-steps 0 --max-episode-steps 50 --snr-interval 0 --total-timesteps 2400"
    programs = {
        "ours, dense": "--method dense",
        "ours, RigL": "--method rigl",
        "ours, dense, bfloat16": "--method dense --matmul-precision medium",
        "ours, RigL, bfloat16": "--method rigl --matmul-precision medium",
        "ours, dense, bfloat16, 8 environments": "--method dense --matmul-precision medium --num-envs 8",
    }
    parts = ("act", "env", "sample", "update", "sparsify")
    speeds, shares = defaultdict(list), defaultdict(list)
    for _ in range(args.rounds):
        for name, flags in programs.items():
            rows = timing("dqn_atari_rigl", *common.split(), *flags.split())[1:]
            seconds = {part: sum(float(row[part]) for row in rows) for part in parts}
            book(speeds, shares, name, 2000, seconds)
        if args.cleanrl:
            changes = {"GrayScaleObservation": "GrayscaleObservation", "FrameStack(": "FrameStackObservation("}
            changes["import gymnasium as gym"] = "import ale_py\nimport gymnasium as gym\ngym.register_envs(ale_py)"
            flags = "--env-id PongNoFrameskip-v4 --learning-starts 100 --total-timesteps 2400 --buffer-size 10000"
            flags += " --start-e 0.01 --end-e 0.01 --target-network-frequency 8000 --no-cuda"
            speeds["CleanRL"].append(cleanrl(args.cleanrl, "dqn_atari", changes, flags))
    print(f"Training steps/s of DQN on Pong, one thread, median (least to most) of {args.rounds} rounds\n")
    pairs = [(name, "CleanRL") for name in programs] + [("ours, RigL", "ours, dense")]
    print_table(speeds, shares, ", ".join(parts), [*pairs, ("ours, RigL, bfloat16", "ours, dense, bfloat16")])


def bench_ppo_rigl(args: Args) -> None:
    programs = {  # name: flags, runs, rollouts of each
        "ours, dense": ("--method dense", 1, 6),
        "ours, RigL": ("--method rigl", 1, 6),
        "ours, 10 dense runs": ("--method dense", 10, 2),
        "ours, 10 RigL runs": ("--method rigl", 10, 2),
    }
    speeds, shares = defaultdict(list), defaultdict(list)
    for _ in range(args.rounds):
        for name, (flags, runs, rollouts) in programs.items():
            seconds = ours_by_evaluation("ppo_rigl", f"--env-id {args.env_id} {flags}", runs, 2048 * rollouts, 2048)
            book(speeds, shares, name, runs * 2048 * rollouts, seconds)
        if importlib.util.find_spec("stable_baselines3"):
            command = [sys.executable, __file__, "stable-baselines3-ppo", args.env_id, "12288"]
            speeds["Stable-Baselines3"].append(peer(command, 1))
        if args.cleanrl:
            changes = {"np.clip(obs, -10, 10))": "np.clip(obs, -10, 10), None)"}  # what gymnasium 1.x wants
            flags = f"--env-id {args.env_id} --total-timesteps 14336 --no-cuda"
            speeds["CleanRL"].append(cleanrl(args.cleanrl, "ppo_continuous_action", changes, flags))
    print(f"Training steps/s of PPO on {args.env_id}, one thread, median (least to most) of {args.rounds} rounds\n")
    pairs = [(name, other) for other in ("CleanRL", "Stable-Baselines3") for name in programs]
    pairs += [("ours, RigL", "ours, dense"), ("ours, 10 RigL runs", "ours, 10 dense runs")]
    print_table(speeds, shares, "act, env, update, sparsify", pairs)


# ---- Sparse kernels --------------------------------------------------------------------------------------------------


def bench_kernels(args: Args) -> None:
    sac = "--env-id HalfCheetah-v5 --learning-starts 1"
    loops = {  # name: script, flags, runs, steps of each
        "SAC, 256-256": ("sac_rigl", sac, 1, 600),
        "SAC, 1024-1024": ("sac_rigl", f"{sac} --width-scale 4", 1, 60),
        "DQN, 512-512": ("dqn_rigl", "--learning-starts 128", 1, 1200),
        "DQN, 512-512, 10 runs": ("dqn_rigl", "--learning-starts 128", 10, 120),
    }
    kinds = {"dense": "--method dense", "RigL 90%, masked": "--method rigl --sparsity 0.9"}
    for level in (0.8, 0.9, 0.95, 0.99):
        kinds[f"RigL {100 * level:g}%, sparse"] = f"--method rigl --sparsity {level} --kernel sparse"
    tickets = {"masked": ("dense", "5% ticket, masked"), "sparse": (None, "5% ticket, sparse")}
    maze = "--env-id MazeGrid-v0 --hidden-sizes 1024 512 --rounds 1 --prune-fraction 0.95 --conditions ticket --seeds 1"
    maze += " --learning-starts 512 --eval-episodes 1 --retest-episodes 1 --total-timesteps 6400 --start-e 0.01"
    speeds, shares = defaultdict(list), defaultdict(list)
    for _ in range(args.rounds):
        for loop, (script, flags, runs, steps) in loops.items():
            for kind, more in kinds.items():
                seconds = ours_by_evaluation(script, f"{flags} {more}", runs, steps, 200 if runs == 1 else 130)
                book(speeds, shares, f"{loop}, {kind}", runs * steps, seconds)
        for kernel, rounds in tickets.items():
            for row, name in zip(timing("dqn_imp", *maze.split(), "--kernel", kernel), rounds, strict=True):
                seconds = {part: float(row[part]) for part in ("act", "env", "sample", "learn")}
                if name:
                    book(speeds, shares, f"DQN on MazeGrid, 1024-512, {name}", 6400, seconds)
    print(f"Training steps/s on one thread, median (least to most) of {args.rounds} rounds\n")
    pairs = [(f"{loop}, {kind}", f"{loop}, dense") for loop in loops for kind in kinds if kind != "dense"]
    maze = "DQN on MazeGrid, 1024-512"
    pairs += [(f"{maze}, 5% ticket, {kernel}", f"{maze}, dense") for kernel in tickets]
    print_table(speeds, shares, "each part of the loop", pairs)


if __name__ == "__main__":
    if sys.argv[1:2] == ["stable-baselines3"]:
        stable_baselines3(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    elif sys.argv[1:2] == ["stable-baselines3-ppo"]:
        stable_baselines3_ppo(sys.argv[2], int(sys.argv[3]))
    else:
        args = tyro.cli(Args, description=__doc__)
        globals()[f"bench_{args.loop}"](args)
