"""algos/sac_rigl.py as its users meet it: real runs of the command, small networks, few steps."""

import csv
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import sac_rigl
import torch
from helpers import run_here
from sac_rigl import Actor, Args, Critics

import sparse_utils as su

SCRIPT = Path(sac_rigl.__file__)
EXPERT = SCRIPT.parent / "experts/CartPole-v1.pt"
METHODS = ["dense", "small", "prune", "static", "set", "rigl"]
REWIRING = ("set", "rigl")
# 600 gradient steps on Pendulum, whose episodes are 200 steps
SMALL = "--env-id Pendulum-v1 --total-timesteps 800 --learning-starts 200 --eval-interval 200 --eval-episodes 3"
SMALL += " --snr-interval 400 --batch-size 64 --threads 1 --no-cuda --update-interval 50"


def command(flags: str) -> list[str]:
    return [sys.executable, str(SCRIPT), *flags.split()]


def run(flags: str, status: int = 0, cwd: Path | None = None) -> subprocess.CompletedProcess:
    done = subprocess.run(command(flags), capture_output=True, text=True, cwd=cwd)
    assert done.returncode == status, done.stdout + done.stderr
    return done


def read_csv(folder: Path, name: str = "results.csv") -> list[dict[str, float]]:
    with (folder / name).open() as stream:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(stream)]


class ThreeSteps(gym.Env):
    """Episodes of three steps that end by termination (odd episodes) or by the time limit (even ones); obs = [t]."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (1,), np.float32)
    action_space = gym.spaces.Box(-2, 2, (1,), np.float32)
    episode = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t, self.episode = 0, self.episode + 1
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.t += 1
        end = self.t == 3
        return np.full(1, self.t, np.float32), 1.0, end and self.episode % 2 == 1, end and self.episode % 2 == 0, {}


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, Path]:
    """Finished small runs."""
    root = tmp_path_factory.mktemp("runs")
    for method in ("static", "rigl"):
        run_here(SCRIPT, f"{SMALL} --width-scale 0.25 --method {method} --run-dir {root / method}")
    return {method: root / method for method in ("static", "rigl")}


# ---- What a run leaves behind ----------------------------------------------------------------------------------------


def test_evaluate_prints_and_writes_nothing(runs, tmp_path):
    before = sorted(runs["rigl"].iterdir())
    out = run(f"--evaluate {runs['rigl']}/checkpoint.pt --eval-episodes 4", cwd=tmp_path).stdout
    assert out.startswith("Pendulum-v1, --seed 1, 4 episodes: mean -") and "IQM" in out and "95% interval" in out
    assert len(out.splitlines()) == 1
    assert sorted(runs["rigl"].iterdir()) == before and not list(tmp_path.iterdir())
    other = run(f"--evaluate {runs['rigl']}/checkpoint.pt --eval-episodes 4 --seed 9", cwd=tmp_path).stdout
    assert other.startswith("Pendulum-v1, --seed 9, 4 episodes") and other != out


# ---- Same results again, interrupted or not --------------------------------------------------------------------------


def test_threads_and_device_do_not_matter_to_identity():
    identity = su.identity(vars(Args()))
    assert identity == su.identity(vars(Args(threads=7, cuda=False, run_dir="y")))
    assert identity != su.identity(vars(Args(tau=0.01)))


def test_a_signal_ends_an_evaluation_which_is_then_made_up_for(runs, tmp_path):
    """The episodes of Pendulum take long enough for a signal within the evaluation after step 400."""
    flags = f"{SMALL} --width-scale 0.25 --method rigl --run-dir {tmp_path / 'run'}"
    code = (
        "import os, runpy, signal, sys; import numpy as np\n"
        "from gymnasium.vector import SyncVectorEnv\n"
        "step, count = SyncVectorEnv.step, [0]\n"
        "def one(self, action):\n"
        "    count[0] += 1\n"
        "    if count[0] == 300: os.kill(os.getpid(), signal.SIGTERM)\n"
        "    return step(self, action)\n"
        "SyncVectorEnv.step = one\n"
        f"sys.argv = {[str(SCRIPT), *flags.split()]!r}\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 128 + signal.SIGTERM and "stopped at step 400" in done.stdout, done.stderr
    assert [row["step"] for row in read_csv(tmp_path / "run")] == [200]
    run(flags)
    assert (tmp_path / "run/results.csv").read_bytes() == (runs["rigl"] / "results.csv").read_bytes()


def test_an_endless_evaluation_ends_with_a_signal(tmp_path):
    """Within a second or two."""
    flags = f"{SMALL} --max-episode-steps 100000000 --width-scale 0.1 --run-dir {tmp_path / 'run'}"
    process = subprocess.Popen(command(flags), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not list((tmp_path / "run").glob("events.*")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    time.sleep(3)  # 200 random steps take less than that
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=10)
    assert process.returncode == 128 + signal.SIGINT and "stopped at step 200" in out


# ---- Runs that diverge -----------------------------------------------------------------------------------------------


class Poisoned(gym.Env):
    """Rewards become nan after so many steps of the process."""

    observation_space = gym.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gym.spaces.Box(-1, 1, (1,), np.float32)
    steps = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action):
        Poisoned.steps += 1
        reward = np.array([math.nan if Poisoned.steps > 250 else 1.0])  # an array of one, as some tasks give
        return np.zeros(2, np.float32), reward, False, False, {"episode": "the task's own"}


TINY = "--total-timesteps 400 --learning-starts 50 --eval-interval 400 --eval-episodes 1 --batch-size 8 --threads 1"
TINY += " --width-scale 0.1 --checkpoint-interval 100 --snr-interval 0"


@pytest.mark.parametrize("method", METHODS)
def test_nan_rewards_end_the_run_with_one_line(tmp_path, method):
    gym.register("Poisoned-v0", entry_point=Poisoned, max_episode_steps=10)
    Poisoned.steps = 0
    flags = f"--env-id Poisoned-v0 {TINY} --method {method} --run-dir {tmp_path / 'run'}"
    err = run_here(SCRIPT, flags.replace("--width-scale 0.1", "") if method == "small" else flags, status=1).stderr
    assert "error: an observation, action or reward is not finite at step 251" in err and "is kept" in err
    checkpoint = torch.load(tmp_path / "run/checkpoint.pt", weights_only=True)
    assert checkpoint["step"] == 200 and checkpoint["replay"].isfinite().all()


# ---- Bad input: status 2, nothing written ----------------------------------------------------------------------------


class Odd(ThreeSteps):
    def __init__(self, space: gym.Space):
        self.action_space = space


def box(low: float, high: float, *shape: int, dtype=np.float32) -> gym.spaces.Box:
    return gym.spaces.Box(np.full(shape, low, dtype), np.full(shape, high, dtype), dtype=dtype)


SPACES = {
    "Rows-v0": box(-1, 1, 1, 3),
    "Columns-v0": box(-1, 1, 3, 1),
    "Scalar-v0": box(-1, 1),
    "Infinite-v0": box(-np.inf, np.inf, 2),
    "Equal-v0": box(1, 1, 2),
    "Integers-v0": box(-1, 1, 2, dtype=np.int64),
}
for name, space in SPACES.items():
    gym.register(name, entry_point=Odd, kwargs={"space": space}, max_episode_steps=9)
gym.register("Unlimited-v0", entry_point=ThreeSteps)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        *((f"--env-id {name}", f"within finite bounds; {name} has Box") for name in SPACES),
        ("--env-id CartPole-v1", "CartPole-v1 has Discrete(2)"),
        ("--env-id Unlimited-v0", "Unlimited-v0 has no time limit"),
        ("--env-id HalfCheeta-v5", "Did you mean: `HalfCheetah`?"),
        ("--sparsity 0.1 --actor-share 0.9", "it can be from 0.2637 to 0.3747"),
        ("--actor-share 0.5 --method dense", "--actor-share does not go with --method dense"),
        ("--total-timesteps 500", "--total-timesteps 500 ends before --learning-starts 10000"),
        ("--buffer-size 10000000000 --total-timesteps 10000000000", "a smaller --buffer-size takes less"),
        (f"--evaluate {__file__}", f"cannot read {__file__} as a checkpoint: it is damaged, or another program's"),
        (f"--evaluate {EXPERT}", "is no checkpoint of this version of sac_rigl.py"),
    ],
)
def test_bad_input_is_said_before_anything_is_written(flags, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    err = " ".join(run_here(SCRIPT, flags, status=2).stderr.replace("│", " ").split())
    assert message in err and "Traceback" not in err
    assert not list(tmp_path.iterdir())


def test_a_task_in_the_current_folder(tmp_path):
    """--env-id my_envs:Line-v0, also with --evaluate, and a time limit where it has none."""
    (tmp_path / "my_envs.py").write_text(
        "import gymnasium as gym\nfrom gymnasium.envs.classic_control import PendulumEnv\n"
        "gym.register('Line-v0', entry_point=PendulumEnv)\n"
    )
    flags = f"--env-id my_envs:Line-v0 --max-episode-steps 7 {TINY} --run-dir run"
    assert "final score" in run(flags, cwd=tmp_path).stdout
    out = run("--evaluate run/checkpoint.pt --eval-episodes 2", cwd=tmp_path).stdout
    assert out.startswith("my_envs:Line-v0, --seed 1, 2 episodes")


def test_damaged_checkpoint_and_missing_package(runs, tmp_path):
    """Each gets one line; what is there stays."""
    folder = tmp_path / "run"
    shutil.copytree(runs["static"], folder)
    half = (folder / "checkpoint.pt").read_bytes()[:1000]
    (folder / "checkpoint.pt").write_bytes(half)
    flags = f"{SMALL} --width-scale 0.25 --method static --run-dir {folder}"
    err = run(flags, status=2).stderr
    assert "checkpoint.pt as a checkpoint: it is damaged" in err and len(err.splitlines()) == 1
    assert (folder / "checkpoint.pt").read_bytes() == half
    if find_spec("wandb") is None:
        err = run(f"{flags} --track", status=2).stderr
        assert "pip install wandb" in err and len(err.splitlines()) == 1


def test_bullet_without_pybullet_says_what_to_do(tmp_path):
    """A stand-in package that cannot be imported is found before the real one."""
    (tmp_path / "pybullet.py").write_text("raise ImportError('no pybullet')")
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        command("--env-id HopperBulletEnv-v0"), capture_output=True, text=True, env=environment, cwd=tmp_path
    )
    assert done.returncode == 2 and "pip install pybullet" in done.stderr and len(done.stderr.splitlines()) == 1


# ---- The flags of section 5 and 6 ------------------------------------------------------------------------------------


def dry_run(flags: str) -> dict[str, float]:
    """Density of each layer, as --dry-run prints it."""
    lines = run(f"--dry-run {flags}").stdout.splitlines()
    return {line.split()[0]: float(line.split("density")[1].split()[0]) for line in lines if "density" in line}


def test_dry_run_shows_erk():
    densities = dry_run("--sparsity 0.9")
    assert densities["actor.fc2.weight"] == pytest.approx(0.054146, abs=1e-4)  # reference table for 17-256-256-12
    assert densities["qf.fc2.weight"] == pytest.approx(0.06828, abs=1e-4)
    assert densities["qf.fc3.weight"] == 1
    assert "23,190 parameters with biases; 15,124 FLOPs" in run("--dry-run --sparsity 0.9").stdout


def test_uniform_dense_output_layer_and_own_sparsities():
    densities = dry_run(
        "--sparsity-distribution uniform --dense-output-layer --actor-sparsity 0.8 --critic-sparsity 0.5"
    )
    assert densities["actor.fc1.weight"] == pytest.approx(0.2, abs=1e-3)
    assert densities["qf.fc2.weight"] == pytest.approx(0.5, abs=1e-3)
    assert densities["actor.fc3.weight"] == densities["qf.fc3.weight"] == 1


def test_actor_share_divides_the_budget():
    """Difference 7 of the docstring, at 10% of the parameters of a HalfCheetah agent."""
    n_actor, n_critics = 72_960, 143_360
    actor, critics = su.network_sparsities(Args(actor_share=0.7), n_actor, n_critics)
    budget = 0.1 * (n_actor + n_critics)
    assert (1 - actor) * n_actor == pytest.approx(0.7 * budget)
    assert (1 - critics) * n_critics == pytest.approx(0.3 * budget)
    # A dense agent can take any share, by its widths.
    widths = sac_rigl.network_widths(Args(method="small", sparsity=0.0, actor_share=0.8), 17, 6)
    assert widths[0] > 256 > widths[1]


def test_defaults_of_table_2_and_flags_that_win(monkeypatch):
    def parse(flags: str) -> Args:
        monkeypatch.setattr(sys, "argv", ["sac_rigl.py", *flags.split()])
        return sac_rigl.parse_args()

    rigl, set_, static, prune = (parse(f"--method {m}") for m in ("rigl", "set", "static", "prune"))
    assert (rigl.weight_decay, rigl.update_interval, rigl.drop_fraction, rigl.sparse_init) == (1e-6, 1000, 0.5, True)
    assert (set_.weight_decay, set_.update_interval, set_.drop_fraction, set_.sparse_init) == (1e-4, 250, 0.3, True)
    assert (static.weight_decay, static.sparse_init) == (1e-4, False)
    assert (prune.weight_decay, prune.update_interval) == (1e-4, 1000)
    assert parse("--method static --sparse-init").sparse_init
    assert parse("--method set --update-interval 1000").update_interval == 1000
    assert not parse("--no-sparse-init").sparse_init
    assert (parse("").learning_starts, parse("--env-id Hopper-v5").learning_starts) == (10_000, 1_000)
    assert parse("--env-id Ant-v5 --learning-starts 7").learning_starts == 7


# ---- The algorithm ---------------------------------------------------------------------------------------------------


def test_log_prob_is_that_of_a_squashed_gaussian():
    from torch.distributions import Normal, TransformedDistribution
    from torch.distributions.transforms import TanhTransform

    torch.manual_seed(0)
    mean, log_std, noise = (0.5 * torch.randn(3, 50, 4, dtype=torch.float64)).unbind()
    action, log_prob = sac_rigl.sample_action(mean, log_std, noise)
    reference = TransformedDistribution(Normal(mean, log_std.exp()), TanhTransform(cache_size=1))
    assert torch.allclose(log_prob, reference.log_prob(action).sum(-1), atol=1e-6)
    extreme = sac_rigl.sample_action(torch.full((1, 1), 50.0), torch.zeros(1, 1), torch.zeros(1, 1))[1]
    assert extreme.isfinite().all()


def test_target_bootstraps_at_a_time_limit_and_not_at_an_end():
    torch.manual_seed(0)
    actor, target = Actor(3, 1, 8), Critics(3, 1, 8)
    next_obs, reward = torch.randn(2, 3), torch.ones(2, 1)
    terminated = torch.tensor([[1.0], [0.0]])
    y = sac_rigl.td_target(actor, target, torch.tensor(0.0), next_obs, reward, terminated, 0.9)
    torch.manual_seed(0)
    assert y[0] == 1
    assert y[1] != 1


def test_what_lands_in_the_replay_memory(tmp_path):
    """Each stored next_obs is the episode's own, the last one too, and terminated marks true ends only."""
    gym.register("ThreeSteps-v0", entry_point=ThreeSteps, max_episode_steps=9)
    flags = "--env-id ThreeSteps-v0 --total-timesteps 36 --learning-starts 30 --eval-interval 36 --eval-episodes 2"
    flags += f" --batch-size 4 --threads 1 --reward-scale 0.5 --no-cuda --run-dir {tmp_path / 'run'}"
    obs, action, next_obs, reward, terminated = run_here(SCRIPT, flags).variables["replay"].T
    t = torch.arange(36)
    assert torch.equal(obs, t % 3.0) and torch.equal(next_obs, t % 3 + 1.0)
    assert (reward == 0.5).all() and (action.abs() <= 1).all()
    assert torch.equal(terminated, ((t % 3 == 2) & (t // 3 % 2 == 0)).float())


def test_a_full_replay_memory_overwrites_the_oldest(tmp_path):
    gym.register("ThreeSteps-v1", entry_point=ThreeSteps, max_episode_steps=9)
    flags = "--env-id ThreeSteps-v1 --total-timesteps 36 --learning-starts 30 --eval-interval 36 --eval-episodes 2"
    flags += f" --batch-size 4 --threads 1 --buffer-size 5 --no-cuda --run-dir {tmp_path / 'run'}"
    replay = run_here(SCRIPT, flags).variables["replay"]
    assert replay[:, 0].tolist() == [t % 3 for t in (35, 31, 32, 33, 34)]


def test_targets_stay_out_of_autograd(tmp_path):
    """A Polyak step that autograd records would hold on to every step before it."""
    flags = "--env-id Pendulum-v1 --total-timesteps 60 --learning-starts 50 --eval-interval 60 --eval-episodes 2"
    flags += f" --batch-size 4 --threads 1 --width-scale 0.1 --no-cuda --run-dir {tmp_path / 'run'}"
    variables = run_here(SCRIPT, flags).variables
    assert all(p.is_leaf and not p.requires_grad for p in variables["qf_target"].parameters())
    assert variables["log_alpha"].is_leaf and not variables["log_alpha"].requires_grad


def test_evaluation_counts_the_first_episode_of_each_environment():
    """Environments whose episodes differ in length: the shorter ones play on and their later rewards do not count."""

    class Short(ThreeSteps):
        def __init__(self, length: int):
            self.length = length

        def step(self, action):
            self.t += 1
            return np.full(1, self.t, np.float32), 1.0, self.t == self.length, False, {}

    mode = gym.vector.AutoresetMode.DISABLED
    envs = gym.vector.SyncVectorEnv([lambda n=n: Short(n) for n in (2, 7, 3)], autoreset_mode=mode)
    returns = sac_rigl.evaluate(Actor(1, 1, 8), envs, [1, 2, 3], torch.device("cpu"))
    assert returns.tolist() == [2, 7, 3]


def test_snr_of_the_agent_is_the_brute_force_one():
    torch.manual_seed(0)
    actor, qf, alpha = Actor(3, 1, 8), Critics(3, 1, 8), torch.tensor(0.3)
    obs, noise, target = torch.randn(10, 3), torch.randn(10, 1), torch.randn(10)
    obs_action = torch.cat([obs, torch.rand(10, 1)], 1)
    snr = sac_rigl.gradient_snr(actor, qf, alpha, obs, obs_action, target, noise)

    def brute_force(parameters, losses) -> float:
        gradients = [torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)]) for loss in losses]
        g = torch.stack(gradients)
        return float((g.mean(0).abs() / (g.std(0, correction=0) + 1e-10)).mean())

    actor_losses = [
        sac_rigl.actor_loss(*actor(obs[i : i + 1]), noise[i : i + 1], qf, alpha, obs[i : i + 1])[0].sum()
        for i in range(10)
    ]
    critic_losses = [sac_rigl.critic_loss(qf(obs_action[i : i + 1]), target[i]).sum() for i in range(10)]
    assert snr[0] == pytest.approx(brute_force(list(actor.parameters()), actor_losses), rel=1e-3)
    assert snr[1] == pytest.approx(brute_force(list(qf.parameters()), critic_losses), rel=1e-3)


# ---- Real tasks ------------------------------------------------------------------------------------------------------

TASKS = ["HalfCheetah-v5", "Hopper-v5", "Walker2d-v5", "Ant-v5", "Humanoid-v5"]
BULLET = ["HalfCheetahBulletEnv-v0", "HopperBulletEnv-v0", "Walker2DBulletEnv-v0", "AntBulletEnv-v0"]


def steps_of(env_id: str) -> None:
    env = sac_rigl.make_env(Args(env_id=env_id))
    assert env.action_space.low.min() == -1 and env.action_space.high.max() == 1
    obs, _ = env.reset(seed=1)
    for _ in range(5):
        obs, reward, *_ = env.step(env.action_space.sample())
        assert env.observation_space.shape == obs.shape and np.isfinite(reward)
    env.close()


@pytest.mark.parametrize("env_id", TASKS)
def test_mujoco_tasks(env_id):
    steps_of(env_id)


@pytest.mark.parametrize("env_id", BULLET)
def test_bullet_tasks_without_their_noise(env_id, capfd):
    pytest.importorskip("pybullet", reason="pybullet has no wheels for this Python")
    steps_of(env_id)
    assert capfd.readouterr().out == ""


def test_other_environment_families_of_the_requirements():
    """ALE and MinAtar are for later scripts, but requirements.txt promises that they run."""
    import ale_py
    from minatar import Environment

    gym.register_envs(ale_py)
    env = gym.make("ALE/Pong-v5")
    env.reset(seed=1)
    assert env.step(env.action_space.sample())[0].shape == (210, 160, 3)
    env.close()
    game = Environment("breakout")
    game.reset()
    assert game.state().shape == (10, 10, 4) and len(game.act(0)) == 2


def test_video_is_a_gif_or_a_clear_word(tmp_path):
    """Where the machine cannot render, the run is still finished and says why there is no video."""
    flags = "--env-id Hopper-v5 --total-timesteps 60 --learning-starts 50 --eval-interval 60 --eval-episodes 1"
    done = run(f"{flags} --width-scale 0.1 --batch-size 4 --threads 1 --capture-video --run-dir {tmp_path / 'run'}")
    assert list((tmp_path / "run").glob("videos/*.gif")) or "no video: " in done.stderr
    file = tmp_path / "run/checkpoint.pt"
    assert torch.load(file, weights_only=True)["finished"]
    done = run(f"--evaluate {file} --eval-episodes 1 --capture-video")
    assert file.with_suffix(".gif").exists() or "no video: " in done.stderr


def test_a_copy_beside_sparse_utils_works(tmp_path):
    """The first of the three uses: copy one script beside the helper into a project of one's own."""
    for file in (SCRIPT, Path(su.__file__)):
        (tmp_path / file.name).write_text(file.read_text())
    done = subprocess.run(
        [sys.executable, "sac_rigl.py", "--dry-run", "--env-id", "Pendulum-v1"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0 and "actor.fc1.weight" in done.stdout


@pytest.mark.slow
def test_learns_pendulum_at_90_percent_sparsity(tmp_path):
    """A random policy is near -1200; one that swings up and balances is above -250."""
    flags = "--env-id Pendulum-v1 --total-timesteps 6000 --eval-interval 1000 --eval-episodes 20 --kernel sparse"
    run(f"{flags} --snr-interval 0 --threads 1 --run-dir {tmp_path / 'run'}")
    assert max(row["return_mean"] for row in read_csv(tmp_path / "run")) > -250
