"""How fast is our SAC loop, where does the time go, and how do peers compare on the same machine in the same minutes?

    python bench.py                                   # ours, and Stable-Baselines3 if it is installed
    python bench.py --cleanrl PATH_TO_A_CHECKOUT      # also CleanRL's sac_continuous_action.py
    python bench.py --threads 1 --methods dense rigl static --rounds 5

Every program runs in a process of its own, in turn, for several rounds; the table has the median over rounds. Ours is
the real script, whose timing.csv books the seconds of each part of the loop. Steps/s are training alone (act, env,
sample, update, sparsify, log) after a warm-up, with an update at every step, since the peers do not evaluate. The
shares are those of a whole run: evaluation (30 episodes) and SNR as they fall on a step at their default interval of
10,000 steps.
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
from dataclasses import dataclass, field
from pathlib import Path

import tyro

ROOT = Path(__file__).resolve().parent
TRAINING = ("act", "env", "sample", "update", "sparsify", "log")
PER_EVALUATION = ("evaluate", "snr")
DEFAULT_INTERVAL = 10_000  # of evaluation and SNR in sac_rigl.py


@dataclass
class Args:
    env_id: str = "HalfCheetah-v5"
    """the task"""
    methods: list[str] = field(default_factory=lambda: ["dense", "rigl"])
    """methods of algos/sac_rigl.py"""
    threads: list[int] = field(default_factory=lambda: [1, 2])
    """CPU threads of PyTorch"""
    rounds: int = 3
    """times that each program runs"""
    steps: int = 2000
    """measured steps, after 1,000 of warm-up"""
    matmul_precision: str = "highest"
    """of ours"""
    cleanrl: str = ""
    """a checkout of CleanRL"""


def ours(args: Args, method: str, threads: int) -> tuple[float, dict[str, float]]:
    """Training steps per second, and the seconds per step of each part."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, ROOT / "algos/sac_rigl.py", "--method", method, "--env-id", args.env_id]
        command += ["--threads", threads, "--run-dir", folder, "--no-cuda", "--learning-starts", 1]
        command += ["--matmul-precision", args.matmul_precision]
        command += ["--total-timesteps", 1000 + args.steps, "--eval-interval", 1000, "--snr-interval", 1000]
        subprocess.run([str(word) for word in command], check=True, capture_output=True)
        with (Path(folder) / "timing.csv").open() as stream:
            rows = list(csv.DictReader(stream))[1:]
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


if __name__ == "__main__":
    if sys.argv[1:2] == ["stable-baselines3"]:
        stable_baselines3(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
        raise SystemExit(0)
    args = tyro.cli(Args, description=__doc__)

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
