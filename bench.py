"""How fast are our loops, where does the time go, and how do peers compare on the same machine in the same minutes?

    python bench.py sac                                   # ours, and Stable-Baselines3 and SBX if they are installed
    python bench.py sac --cleanrl PATH_TO_A_CHECKOUT      # also CleanRL's sac_continuous_action.py
    python bench.py ppo --peer-python ENVIRONMENT/bin/python --purejaxrl PATH_TO_A_CHECKOUT
    python bench.py sac --threads 1 --methods dense rigl static --rounds 5
    python bench.py ppo --cleanrl PATH_TO_A_CHECKOUT      # ppo_imp.py: many runs, one run, and its peers
    python bench.py dqn --cleanrl PATH_TO_A_CHECKOUT      # dqn_imp.py: with learning, without, and CleanRL's dqn.py
    python bench.py earlybird --cleanrl PATH_TO_A_CHECKOUT    # dqn_earlybird.py: hundreds of runs, and CleanRL's dqn.py
    python bench.py dqn_rigl --cleanrl PATH_TO_A_CHECKOUT     # one run, ten runs together, and CleanRL's dqn.py
    python bench.py dqn_atari_rigl --cleanrl PATH_TO_A_CHECKOUT    # Pong, and CleanRL's dqn_atari.py
    python bench.py ppo_rigl --cleanrl PATH_TO_A_CHECKOUT     # the same with its ppo_continuous_action.py, and SB3
    python bench.py kernels                               # --kernel sparse against dense networks of the same script

Every program runs in a process of its own, in turn, for several rounds; the table has the median over rounds, and ours
against a peer round by round. Ours are the real scripts, whose timing.csv books the seconds of each part of the loop.

Stable-Baselines3, SBX (its SAC in JAX) and purejaxrl may have an environment of their own: --peer-python is its
interpreter, made with ``pip install sbx-rl==0.28.0 gymnax==0.0.8 distrax tyro "gymnasium[mujoco]" mujoco==3.3.7``. JAX
takes as many threads as ours by the cores that it may use. purejaxrl runs without navix and brax, which its wrappers
import and Cart-Pole does not need; with and without the time to compile, which a user waits for at each start.

SAC: steps/s are training alone (act, env, sample, update, sparsify, log) after a warm-up, with an update at every step,
since the peers do not evaluate. The shares are those of a whole run: evaluation (30 episodes) and SNR as they fall on a
step at their default interval of 10,000 steps.

PPO: training steps/s of all runs together (act, env, learn) on one thread. Cart-Pole has CleanRL's rollouts (4 x 128
steps), 4 minibatches, 4 epochs and 64-64 networks for all programs, and purejaxrl as many runs and steps as ours. The
Bullet task is compared with its own speed: 10 environments in one process that do nothing but step with random actions.

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
MazeGrid-v0 with 1024-512 units, dense and in a first round that leaves 5% of the weights.

Early birds: steps/s of 531 runs together on one thread, with the networks, batches and updates per step of
dqn_earlybird.py's defaults, against one run of CleanRL with the same (a copy, as above).
"""

import csv
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

ROOT = Path(__file__).resolve().parent
TRAINING = ("act", "env", "sample", "update", "sparsify", "log")
PER_EVALUATION = ("evaluate", "snr")
DEFAULT_INTERVAL = 10_000  # of evaluation and SNR in sac_rigl.py
LOOPS = ("sac", "ppo", "dqn", "earlybird", "dqn_rigl", "dqn_atari_rigl", "ppo_rigl", "kernels")
Measured = tuple[float, dict[str, float]]  # steps per second, and what each part of the loop took of the time


@dataclass
class Args:
    loop: Annotated[Literal[tuple(LOOPS)], tyro.conf.Positional]
    """what is timed, as said above"""
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
    bullet: str = "HopperBulletEnv-v0"
    """the Bullet task of PPO"""
    cleanrl: str = ""
    """a checkout of CleanRL"""
    purejaxrl: str = ""
    """a checkout of purejaxrl"""
    peer_python: str = sys.executable
    """the interpreter of Stable-Baselines3, SBX and purejaxrl"""


def timing(script: str, *flags: object) -> list[dict[str, str]]:
    """The rows of timing.csv of one of our scripts, run to its end with these flags in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, ROOT / f"algos/{script}.py", "--run-dir", folder, "--no-cuda", *flags]
        subprocess.run([str(word) for word in command], check=True, capture_output=True)
        with (Path(folder) / "timing.csv").open() as stream:
            return list(csv.DictReader(stream))


# ---- Peers, in processes of their own --------------------------------------------------------------------------------


def peer(command: list[str], threads: int, cwd: str | None = None) -> list[float]:
    """The steps per second that a program prints."""
    environment = {"OMP_NUM_THREADS": str(threads), "PATH": "", "PYTHONPATH": cwd or ""}
    # No check: CleanRL's script stops at the first time limit under gymnasium 1.x, after what is measured here.
    output = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tempfile.gettempdir())
    speeds = re.findall(r"SPS: ([\d.]+)", output.stdout)
    if not speeds:
        raise SystemExit(f"{' '.join(command)} printed no speed:\n{output.stderr[-2000:]}")
    return [float(speed) for speed in speeds]


def installed(python: str, module: str) -> bool:
    """Does this interpreter have it?"""
    code = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({module!r}) is None)"
    return subprocess.run([python, "-c", code]).returncode == 0


def peer_here(args: Args, name: str, *words: object, threads: int = 1) -> list[float]:
    """Steps per second of one of ``PEERS``, the next three functions."""
    return peer([args.peer_python, __file__, name, *map(str, words)], threads)


def use_cores(n: int) -> None:
    """JAX has as many threads as the process has cores."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:n])


def time_sac(library: str, env_id: str, threads: str, steps: str) -> None:
    """SB3's or SBX's SAC with our network and batch and an update at every step."""
    use_cores(int(threads))
    module = __import__(library)
    model = module.SAC("MlpPolicy", env_id, learning_starts=100, device="cpu", policy_kwargs={"net_arch": [256, 256]})
    model.learn(1000)
    start = time.perf_counter()
    model.learn(int(steps), reset_num_timesteps=False)
    print(f"SPS: {int(steps) / (time.perf_counter() - start)}")


def time_ppo(env_id: str, steps: str) -> None:
    """SB3's PPO at the others' rollouts and networks."""
    from stable_baselines3 import PPO
    from stable_baselines3.common.env_util import make_vec_env

    sizes = {"n_steps": 2048, "batch_size": 64, "n_epochs": 10}
    if env_id == "CartPole-v1":
        sizes = {"n_steps": 128, "batch_size": 128, "n_epochs": 4}
    envs = make_vec_env(env_id, 4 if env_id == "CartPole-v1" else 1)
    model = PPO("MlpPolicy", envs, device="cpu", policy_kwargs={"net_arch": [64, 64]}, **sizes)
    model.learn(2048)
    start = time.perf_counter()
    model.learn(int(steps), reset_num_timesteps=False)
    print(f"SPS: {int(steps) / (time.perf_counter() - start)}")


def time_purejaxrl(checkout: str, runs: str, steps: str) -> None:
    """purejaxrl's ppo.py on Cart-Pole, with the numbers of its own main program: first with the time to compile."""
    from unittest.mock import MagicMock

    use_cores(1)
    sys.path.insert(0, f"{checkout}/purejaxrl")
    for unused in ("navix", "brax", "brax.envs", "brax.envs.wrappers", "brax.envs.wrappers.training"):
        sys.modules[unused] = MagicMock()
    import jax

    jax.tree_map = jax.tree_util.tree_map  # which gymnax 0.0.8 knows by its old name
    from ppo import make_train

    config = {"LR": 2.5e-4, "NUM_ENVS": 4, "NUM_STEPS": 128, "UPDATE_EPOCHS": 4, "NUM_MINIBATCHES": 4, "GAMMA": 0.99}
    config |= {"GAE_LAMBDA": 0.95, "CLIP_EPS": 0.2, "ENT_COEF": 0.01, "VF_COEF": 0.5, "MAX_GRAD_NORM": 0.5}
    config |= {"ACTIVATION": "tanh", "ENV_NAME": "CartPole-v1", "ANNEAL_LR": True, "TOTAL_TIMESTEPS": int(steps)}
    keys = jax.random.split(jax.random.PRNGKey(0), int(runs))
    start = time.perf_counter()
    train = jax.jit(jax.vmap(make_train(config))).lower(keys).compile()
    compiled = time.perf_counter()
    jax.block_until_ready(train(keys))
    end = time.perf_counter()
    print(f"SPS: {int(runs) * int(steps) / (end - start)}")
    print(f"SPS: {int(runs) * int(steps) / (end - compiled)}")


PEERS = {"sac": time_sac, "ppo": time_ppo, "purejaxrl": time_purejaxrl}


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
        return peer([sys.executable, copy.name, *flags.split()], 1, f"{checkout}:{ROOT}")[-1]


# ---- The table -------------------------------------------------------------------------------------------------------


def processor() -> str:
    """What the measurements are of."""
    name = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = dict(line.split(":", 1) for line in Path("/proc/cpuinfo").read_text().splitlines() if ":" in line)
        lines = {key.strip(): value.split() for key, value in lines.items()}
        flags = {"avx512f": "AVX-512", "avx2": "AVX2"}
        best = next((flags[flag] for flag in flags if flag in lines.get("flags", ())), "no AVX2")
        name = f"{' '.join(lines.get('model name', [name]))}, {best}"
    return f"{name}, {os.cpu_count()} cores"


def share(steps: int, seconds: dict[str, float]) -> Measured:
    return steps / sum(seconds.values()), seconds


def measure(
    args: Args,
    title: str,
    parts: Iterable[str],
    programs: dict[str, Callable[[], Measured | float]],
    against: dict[str, dict[str, str]],
) -> None:
    """Run all programs in turn and print one table. ``against``: for each column a peer's name for each of ours."""
    import sparse_utils as su  # not at the top: this file also runs in the peers' environment

    speeds, shares = defaultdict(list), defaultdict(list)
    if not su.bfloat16("medium", cuda=False):
        programs = {name: program for name, program in programs.items() if "bfloat16" not in name}
    for _ in range(args.rounds):
        for name, program in programs.items():
            result = program()
            speed, seconds = result if isinstance(result, tuple) else (result, {})
            speeds[name].append(speed)
            shares[name].append([value / sum(seconds.values()) for value in seconds.values()])
    against = {column: pairs for column, pairs in against.items() if any(other in speeds for other in pairs.values())}
    print(f"{title}; median (least to most) of {args.rounds} rounds on {processor()}.\n")
    print("| " + " | ".join(["program", "steps/s", f"share of {', '.join(parts)}, %", *against]) + " |")
    print("|---" * (3 + len(against)) + "|")
    for name, values in speeds.items():
        cells = [name, f"{statistics.median(values):,.0f} ({min(values):,.0f} to {max(values):,.0f})"]
        cells.append(", ".join(f"{100 * statistics.median(part):.1f}" for part in zip(*shares[name], strict=True)))
        for pairs in against.values():
            others = speeds.get(pairs.get(name, ""), [])
            ratios = [ours / other for ours, other in zip(values, others, strict=False)]
            cells.append(f"{statistics.median(ratios):.2f}×" if ratios else "")
        print("| " + " | ".join(cells) + " |")


# ---- The loops -------------------------------------------------------------------------------------------------------


def ours_sac(args: Args, method: str, threads: int, precision: str) -> Measured:
    """Speed of training alone, and the seconds per step of each part, evaluations at their default interval."""
    flags = ["--method", method, "--env-id", args.env_id, "--threads", threads, "--learning-starts", 1]
    flags += ["--matmul-precision", precision]
    flags += ["--total-timesteps", 1000 + args.steps, "--eval-interval", 1000, "--snr-interval", 1000]
    rows = timing("sac_rigl", *flags)[1:]
    seconds = {part: sum(float(row[part]) for row in rows) for part in TRAINING + PER_EVALUATION}
    speed = args.steps / sum(seconds[part] for part in TRAINING)
    per_step = {part: seconds[part] / args.steps for part in TRAINING}
    return speed, per_step | {part: seconds[part] / len(rows) / DEFAULT_INTERVAL for part in PER_EVALUATION}


def ours_together(script: str, flags: str, runs: int, steps: int) -> Measured:
    """Speed of ``runs`` runs of a ticket script together, ``steps`` steps of each, in its last round."""
    words = ["--rounds", 0, *flags.split(), "--seeds", *range(1, runs + 1), "--total-timesteps", steps]
    row = timing(script, *words, "--eval-interval", 10**9, "--eval-episodes", 100)[-1]
    seconds = {part: float(row[part]) for part in ("act", "env", "sample", "learn") if part in row}
    return share(runs * steps, seconds)


def ours_by_evaluation(script: str, flags: str, runs: int, steps: int, interval: int) -> Measured:
    """Speed of ``runs`` runs of a sparse-training script together, ``steps`` steps after the first ``interval``."""
    seeds = ["--seed", 1] if script in ("sac_rigl", "dqn_atari_rigl") else ["--seeds", *range(1, runs + 1)]
    words = [*flags.split(), "--threads", 1, *seeds, "--total-timesteps", interval + steps]
    words += ["--eval-interval", interval, "--eval-episodes", 1, "--snr-interval", 0]
    rows = [row for row in timing(script, *words) if int(row["step"]) > interval]
    parts = [part for part in ("act", "env", "sample", "update", "sparsify", "log") if part in rows[0]]
    return share(runs * steps, {part: sum(float(row[part]) for row in rows) for part in parts})


def ours_earlybird(env_id: str) -> Measured:
    episodes = {"CartPole-v0": 30, "Acrobot-v1": 2}[env_id]
    words = ["--env-id", env_id, "--repetitions", 59, "--prune-episodes", episodes]
    words += ["--max-episodes", episodes, "--test-episodes", 1, "--learning-starts", 64]
    rows = timing("dqn_earlybird", *words)
    parts = ("act", "env", "sample", "learn", "episodes")
    return share(sum(int(row["env_steps"]) for row in rows), {p: sum(float(row[p]) for row in rows) for p in parts})


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


def bench_sac(args: Args) -> None:
    programs, against = {}, {name: {} for name in ("CleanRL", "Stable-Baselines3", "SBX")}
    for n in args.threads:
        ours = {method: (method, n, "highest") for method in args.methods} | {"dense, bfloat16": ("dense", n, "medium")}
        for name, words in ours.items():
            programs[f"ours, {name}, {n} thread(s)"] = lambda words=words: ours_sac(args, *words)
        for name, library in (("Stable-Baselines3", "stable_baselines3"), ("SBX", "sbx")):
            if installed(args.peer_python, library):
                words = library, args.env_id, n, args.steps
                programs[f"{name}, {n} thread(s)"] = lambda w=words, n=n: peer_here(args, "sac", *w, threads=n)[-1]
        if args.cleanrl:  # up to the first time limit, with learning from the start
            command = [sys.executable, f"{args.cleanrl}/cleanrl/sac_continuous_action.py", "--env-id", args.env_id]
            command += ["--total-timesteps", "990", "--learning-starts", "2", "--no-cuda"]
            programs[f"CleanRL, {n} thread(s)"] = lambda c=command, n=n: peer(c, n, args.cleanrl)[-1]
        for name, pairs in against.items():
            pairs |= {f"ours, {kind}, {n} thread(s)": f"{name}, {n} thread(s)" for kind in ours}
    title = f"Training steps/s of SAC on {args.env_id}, shares of a whole run's time"
    measure(args, title, TRAINING + PER_EVALUATION, programs, {f"against {k}": v for k, v in against.items()})


def bench_ppo(args: Args) -> None:
    rollouts = "--num-steps 128 --num-minibatches 4"
    ours = {  # name: flags, runs, steps of each
        "Cart-Pole, ours, 60 runs": (f"--env-id CartPole-v1 {rollouts}", 60, 25_600),
        "Cart-Pole, ours, 16 runs": (f"--env-id CartPole-v1 {rollouts}", 16, 51_200),
        "Cart-Pole, ours, 1 run": (f"--env-id CartPole-v1 {rollouts}", 1, 102_400),
        "Acrobot, ours, 40 runs": ("--env-id Acrobot-v1", 40, 25_600),
    }
    if installed(sys.executable, "pybullet"):
        for size, n in ((64, 20), (256, 5)):
            ours[f"{args.bullet}, minibatches of {size}"] = (f"--env-id {args.bullet} --num-minibatches {n}", 1, 12_800)
    programs, pure = {name: lambda w=words: ours_together("ppo_imp", *w) for name, words in ours.items()}, {}
    cartpole = list(ours)[:3]
    against = {
        f"against {peer}": dict.fromkeys(cartpole, f"Cart-Pole, {peer}") for peer in ("CleanRL", "Stable-Baselines3")
    }
    if args.purejaxrl:
        for name in cartpole:
            _, runs, steps = ours[name]
            whole, alone = (name.replace("ours", f"purejaxrl {how} compiling") for how in ("with", "without"))

            def both(whole=whole, words=(args.purejaxrl, runs, steps)) -> float:
                pure[whole], alone = peer_here(args, "purejaxrl", *words)
                return alone

            programs |= {alone: both, whole: lambda whole=whole: pure[whole]}
            against.setdefault("against purejaxrl", {})[name] = alone
            against.setdefault("with its compiling", {})[name] = whole
    if any(args.bullet in name for name in ours):
        programs[f"{args.bullet}, random actions"] = lambda: random_actions(args.bullet, 5_000)
        ours_here = [name for name in ours if args.bullet in name]
        against["against random actions"] = dict.fromkeys(ours_here, f"{args.bullet}, random actions")
    if installed(args.peer_python, "stable_baselines3"):
        programs["Cart-Pole, Stable-Baselines3"] = lambda: peer_here(args, "ppo", "CartPole-v1", 20_480)[-1]
    if args.cleanrl:
        command = [sys.executable, f"{args.cleanrl}/cleanrl/ppo.py", "--total-timesteps", "40960", "--no-cuda"]
        programs["Cart-Pole, CleanRL"] = lambda: peer(command, 1, args.cleanrl)[-1]
    measure(args, "Training steps/s of PPO on one thread", ("act", "env", "learn"), programs, against)


def bench_dqn(args: Args) -> None:
    learns = "--env-id MazeGrid-v0 --learning-starts 128"
    acts = "--env-id MazeGrid-v0 --learning-starts 191999 --start-e 0.01"
    programs = {
        "ours, 1 run": lambda: ours_together("dqn_imp", learns, 1, 64_000),
        "ours, 1 run, bfloat16": lambda: ours_together("dqn_imp", f"{learns} --matmul-precision medium", 1, 64_000),
        "ours, 8 runs": lambda: ours_together("dqn_imp", learns, 8, 12_800),
        "ours, 1 run, no learning": lambda: ours_together("dqn_imp", acts, 1, 192_000),
    }
    if args.cleanrl:
        flags = "--env-id envs.mazegrid:MazeGrid-v0 --batch-size 256 --train-frequency 64 --learning-starts 128"
        flags += " --total-timesteps 20000 --target-network-frequency 20000"
        programs["CleanRL"] = lambda: cleanrl_dqn(args.cleanrl, (256, 128), flags)
    against = {"against CleanRL": dict.fromkeys(("ours, 1 run", "ours, 1 run, bfloat16", "ours, 8 runs"), "CleanRL")}
    measure(args, "Training steps/s of DQN on one thread", ("act", "env", "sample", "learn"), programs, against)


def bench_earlybird(args: Args) -> None:
    tasks = {  # CleanRL's flags for what dqn_earlybird.py has by default
        "CartPole-v0": "--batch-size 32 --train-frequency 4 --buffer-size 1000 --target-network-frequency 200",
        "Acrobot-v1": "--batch-size 64 --train-frequency 1 --buffer-size 2000 --target-network-frequency 500",
    }
    programs, pairs = {}, {}
    for env_id, flags in tasks.items():
        programs[f"{env_id}, ours, 531 runs"] = lambda env_id=env_id: ours_earlybird(env_id)
        pairs[f"{env_id}, ours, 531 runs"] = f"{env_id}, CleanRL"
        if args.cleanrl:
            flags = f"--env-id {env_id} {flags} --learning-starts 64 --total-timesteps 10000"
            sizes = (128, 128) if env_id == "CartPole-v0" else (128,)
            programs[f"{env_id}, CleanRL"] = lambda words=(args.cleanrl, sizes, flags): cleanrl_dqn(*words)
    parts = ("act", "env", "sample", "learn", "episodes")
    measure(args, "Training steps/s of DQN on one thread", parts, programs, {"against CleanRL": pairs})


def bench_dqn_rigl(args: Args) -> None:
    flags, narrow = "--learning-starts 128 --start-e 0.01 --end-e 0.01", "--width-scale 0.25"  # as CleanRL's here
    programs, pairs, masks = {}, {}, {}
    for units, width, steps in ((512, "", (2000, 400)), (128, narrow, (4000, 2000))):
        ours = {  # name: method, runs
            "dense": ("dense", 1),
            "RigL": ("rigl", 1),
            "dense, bfloat16": ("dense --matmul-precision medium", 1),
            "10 dense runs": ("dense", 10),
            "10 dense runs, bfloat16": ("dense --matmul-precision medium", 10),
        }
        for name, (method, runs) in ours.items():
            words = ("dqn_rigl", f"{flags} {width} --method {method}", runs, steps[runs > 1], 400)
            programs[f"{units}-{units}, ours, {name}"] = lambda words=words: ours_by_evaluation(*words)
            pairs[f"{units}-{units}, ours, {name}"] = f"{units}-{units}, CleanRL"
        masks[f"{units}-{units}, ours, RigL"] = f"{units}-{units}, ours, dense"
        if args.cleanrl:
            theirs = "--env-id CartPole-v1 --batch-size 128 --train-frequency 1 --target-network-frequency 100"
            theirs += " --learning-starts 128 --buffer-size 100000 --learning-rate 1e-3 --total-timesteps 3000"
            words = args.cleanrl, (units, units), theirs
            programs[f"{units}-{units}, CleanRL"] = lambda words=words: cleanrl_dqn(*words)
    against = {"against CleanRL": pairs, "against dense": masks}
    parts = ("act", "env", "sample", "update", "sparsify", "log")
    measure(args, "Training steps/s of DQN on one thread", parts, programs, against)


def bench_ppo_rigl(args: Args) -> None:
    ours = {  # name: method, runs, rollouts of each
        "ours, dense": ("dense", 1, 6),
        "ours, RigL": ("rigl", 1, 6),
        "ours, 10 dense runs": ("dense", 10, 2),
        "ours, 10 RigL runs": ("rigl", 10, 2),
    }
    programs = {}
    for name, (method, runs, rollouts) in ours.items():
        words = ("ppo_rigl", f"--env-id {args.env_id} --method {method}", runs, 2048 * rollouts, 2048)
        programs[name] = lambda words=words: ours_by_evaluation(*words)
    if installed(args.peer_python, "stable_baselines3"):
        programs["Stable-Baselines3"] = lambda: peer_here(args, "ppo", args.env_id, 12_288)[-1]
    if args.cleanrl:
        changes = {"np.clip(obs, -10, 10))": "np.clip(obs, -10, 10), None)"}  # what gymnasium 1.x wants
        flags = f"--env-id {args.env_id} --total-timesteps 14336 --no-cuda"
        programs["CleanRL"] = lambda: cleanrl(args.cleanrl, "ppo_continuous_action", changes, flags)
    against = {f"against {peer}": dict.fromkeys(ours, peer) for peer in ("CleanRL", "Stable-Baselines3")}
    against["against dense"] = {"ours, RigL": "ours, dense", "ours, 10 RigL runs": "ours, 10 dense runs"}
    title = f"Training steps/s of PPO on {args.env_id}, one thread"
    measure(args, title, ("act", "env", "update", "sparsify", "log"), programs, against)


def bench_dqn_atari_rigl(args: Args) -> None:
    flags = "--padding valid --learning-starts 400 --start-e 0.01 --buffer-size 10000 --eval-steps 0 "
    flags += "--max-episode-steps 50 --method"
    ours = {
        "ours, dense": "dense",
        "ours, RigL": "rigl",
        "ours, dense, bfloat16": "dense --matmul-precision medium",
        "ours, RigL, bfloat16": "rigl --matmul-precision medium",
        "ours, RigL, sparse kernel": "rigl --kernel sparse",
        "ours, dense, bfloat16, 8 environments": "dense --matmul-precision medium --num-envs 8",
    }
    programs = {}
    for name, method in ours.items():
        words = ("dqn_atari_rigl", f"{flags} {method}", 1, 2000, 400)
        programs[name] = lambda words=words: ours_by_evaluation(*words)
    if args.cleanrl:
        changes = {"GrayScaleObservation": "GrayscaleObservation", "FrameStack(": "FrameStackObservation("}
        changes["import gymnasium as gym"] = "import ale_py\nimport gymnasium as gym\ngym.register_envs(ale_py)"
        theirs = "--env-id PongNoFrameskip-v4 --learning-starts 100 --total-timesteps 2400 --buffer-size 10000"
        theirs += " --start-e 0.01 --end-e 0.01 --target-network-frequency 8000 --no-cuda"
        programs["CleanRL"] = lambda: cleanrl(args.cleanrl, "dqn_atari", changes, theirs)
    masks = {name: name.replace("RigL", "dense").replace(", sparse kernel", "") for name in ours if "RigL" in name}
    against = {"against CleanRL": dict.fromkeys(ours, "CleanRL"), "against dense": masks}
    parts = ("act", "env", "sample", "update", "sparsify", "log")
    measure(args, "Training steps/s of DQN on Pong, one thread", parts, programs, against)


def bench_kernels(args: Args) -> None:
    sac, dqn = "--env-id HalfCheetah-v5 --learning-starts 1", "--learning-starts 128 --start-e 0.01 --end-e 0.01"
    loops = {  # name: script, flags, runs, steps of each, and those before
        "SAC, 256-256": ("sac_rigl", sac, 1, 600, 200),
        "SAC, 1024-1024": ("sac_rigl", f"{sac} --width-scale 4", 1, 60, 20),
        "DQN, 512-512": ("dqn_rigl", dqn, 1, 1200, 200),
        "DQN, 512-512, 10 runs": ("dqn_rigl", dqn, 10, 120, 130),
    }
    kinds = {"dense": "--method dense", "RigL 90%, masked": "--method rigl --sparsity 0.9"}
    kinds["dense, bfloat16"] = "--method dense --matmul-precision medium"
    for level in (0.8, 0.9, 0.95, 0.99):
        kinds[f"RigL {100 * level:g}%, sparse"] = f"--method rigl --sparsity {level} --kernel sparse"
    programs, pairs = {}, {}
    for loop, (script, flags, *sizes) in loops.items():
        for kind, more in kinds.items():
            words = (script, f"{flags} {more}", *sizes)
            programs[f"{loop}, {kind}"] = lambda words=words: ours_by_evaluation(*words)
            pairs[f"{loop}, {kind}"] = f"{loop}, dense"
    maze = "--env-id MazeGrid-v0 --hidden-sizes 1024 512 --prune-fraction 0.95 --conditions ticket --start-e 0.01"
    maze += " --learning-starts 512 --retest-episodes 1 --rounds"
    kinds = {"dense": "0", "5% ticket, masked": "1", "5% ticket, sparse": "1 --kernel sparse"}
    for kind, rounds in kinds.items():
        words = ("dqn_imp", f"{maze} {rounds}", 1, 6400)
        programs[f"DQN on MazeGrid, 1024-512, {kind}"] = lambda words=words: ours_together(*words)
        pairs[f"DQN on MazeGrid, 1024-512, {kind}"] = "DQN on MazeGrid, 1024-512, dense"
    parts = ("act", "env", "sample", "update (MazeGrid: learn)", "sparsify", "log")
    measure(args, "Training steps/s, one thread", parts, programs, {"against dense": pairs})


if __name__ == "__main__":
    if sys.argv[1:2] and len(sys.argv) > 2 and not sys.argv[2].startswith("-"):
        PEERS[sys.argv[1]](*sys.argv[2:])
    else:
        args = tyro.cli(Args, description=__doc__)
        globals()[f"bench_{args.loop}"](args)
