"""Any task as one vector environment for many runs that train as one program, and agents that play in it.

    vector = make("CartPole-v1", runs=60, envs_per_run=4)    # rows 4 * r to 4 * r + 3 are those of run r
    obs = reset(vector, run_seeds)                           # 60 seeds
    obs, reward, terminated, truncated, info = vector.step(to_rows(actions, vector.single_action_space))
    reached = last_observations(obs, terminated | truncated, info)

A step that ends an episode starts the next one (gymnasium's SAME_STEP), so no step is lost or fake. What happens in a
run's rows follows from its seed, whichever runs are stepped beside it.
"""

import atexit
import difflib
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv

from envs import classic
from envs.base import RunsVectorEnv


class NextStep(gym.vector.VectorWrapper):
    """gymnasium's NEXT_STEP for environments that freeze a row whose episode has ended (DISABLED): the step after the
    last one of an episode ignores its action, gives reward 0 and the first observation of the next episode."""

    def __init__(self, env: VectorEnv):
        super().__init__(env)
        self.metadata = {**env.metadata, "autoreset_mode": AutoresetMode.NEXT_STEP}

    def reset(self, **kwargs):
        self.ended = np.zeros(self.num_envs, dtype=bool)
        return self.env.reset(**kwargs)

    def step(self, actions):
        obs, reward, terminated, truncated, info = self.env.step(actions)
        if self.ended.any():
            obs, _ = self.env.reset(options={"reset_mask": self.ended})
            terminated, truncated = terminated & ~self.ended, truncated & ~self.ended
        self.ended = terminated | truncated
        return obs, reward, terminated, truncated, info

    def get_state(self) -> dict[str, Any]:
        """All that ``set_state`` needs to go on, if the environments have the same methods."""
        return {"envs": self.env.get_state(), "ended": self.ended.tolist()}

    def set_state(self, state: dict[str, Any]) -> None:
        self.env.set_state(state["envs"])
        self.ended = np.array(state["ended"])


class FirstEpisode(gym.Wrapper):
    """After its episode has ended an environment rests until it is reset with a seed: the reset without one that a
    vector environment makes is passed over, and further steps return the last observation and reward 0."""

    resting = False

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        self.resting = self.resting and seed is None
        return (self.last_obs, {}) if self.resting else super().reset(seed=seed, options=options)

    def step(self, action):
        if self.resting:
            return self.last_obs, 0.0, False, False, {}
        self.last_obs, reward, terminated, truncated, info = super().step(action)
        self.resting = terminated or truncated
        return self.last_obs, reward, terminated, truncated, info


class ScalarReward(gym.RewardWrapper):
    """Rewards as numbers, also where a task gives an array of one."""

    def reward(self, reward) -> float:
        return float(np.asarray(reward).item())


def make(
    env_id: str,
    runs: int,
    envs_per_run: int,
    next_step: bool = False,
    first_episode: bool = False,
    processes: bool = False,
    render: bool = False,
    matrix_seeds: Sequence[int] | None = None,
    max_episode_steps: int | None = None,
) -> VectorEnv:
    """runs * envs_per_run environments, each in a process of its own with ``processes``.

    Autoreset is SAME_STEP, or with ``next_step`` NEXT_STEP. With ``first_episode``, for ``play``, gymnasium's own
    environments rest when their episode has ended, until ``reset``: simulators are slow. Cart-Pole, Acrobot and
    Mountain Car are those of ``envs.classic``, MazeGrid* those of ``envs.mazegrid`` (the entangled one with a matrix
    for each run, by ``matrix_seeds``), MinAtar/* those of ``envs.minatar`` with at most 10,000 steps, as good Breakout
    has no end. ALE/* ids are ALE's vector environment with four stacked grey frames of 84 x 84 bytes and sticky
    actions, but without random no-ops, fire resets, ends of episodes at the loss of a life and clipped rewards; all
    others are gymnasium's.

    Episodes end after ``max_episode_steps``; without it the task's own limit holds, and there must be one.
    Raises ValueError, in one line, if there is no such task or limit, if its observations are neither vectors nor
    pictures, or if its actions are neither Discrete nor a vector of floats within bounds.
    """
    n, mode = runs * envs_per_run, AutoresetMode.NEXT_STEP if next_step else AutoresetMode.SAME_STEP
    drawn = {"render_mode": "rgb_array"} if render else {}
    try:
        if env_id in classic.ENV_IDS and not render:
            vector = classic.make_vec(env_id, runs, envs_per_run, autoreset=not next_step)
        elif env_id.startswith("MazeGrid"):
            from envs import mazegrid

            vector = mazegrid.make_vec(env_id, runs, envs_per_run, not next_step, matrix_seeds, **drawn)
        elif env_id.startswith("MinAtar/"):
            from envs import minatar

            vector = minatar.make_vec(env_id, runs, envs_per_run, not next_step, **drawn)
            vector.max_episode_steps = 10_000
        elif env_id.startswith("ALE/"):
            from ale_py.vector_env import AtariVectorEnv  # its import also registers the ids

            game = {"game": gym.spec(env_id).kwargs["game"], "repeat_action_probability": 0.25, "noop_max": 0}
            game |= {"use_fire_reset": False, "episodic_life": False, "reward_clipping": False}
            if max_episode_steps:
                game["max_num_frames_per_episode"] = 4 * max_episode_steps
            vector = AtariVectorEnv(num_envs=n, autoreset_mode=mode, **game)
        else:
            if "Bullet" in env_id:
                from envs import bullet  # noqa: F401 (registers the ids)

                if n > 1000 and not processes:
                    raise ValueError(f"{env_id}: a process cannot have {n} of them, but at most 1000")
            if (
                ":" not in env_id and env_id not in gym.registry
            ):  # gymnasium would take "CartPole" for its newest version
                raise gym.error.NameNotFound("there is no such task.")
            workers = "async" if processes else "sync"
            wrappers = [FirstEpisode, ScalarReward] if first_episode else [ScalarReward]
            drawn |= {"max_episode_steps": max_episode_steps}
            vector = gym.make_vec(env_id, n, workers, {"autoreset_mode": mode}, wrappers=wrappers, **drawn)
            if processes:  # the program may end within a step
                atexit.register(vector.close, terminate=True)
            if max_episode_steps is None and vector.spec.max_episode_steps is None:
                raise ValueError(f"{env_id} has no time limit, so an episode might never end: give --max-episode-steps")
    except (gym.error.Error, ImportError) as error:
        text = str(error).replace("\n", " ")
        if not isinstance(error, gym.error.DependencyNotInstalled | ImportError) and "Did you mean" not in text:
            with suppress(ImportError):
                from envs import mazegrid, minatar  # noqa: F401 (registers the ids)
            near = difflib.get_close_matches(env_id, {*classic.ENV_IDS, *gym.registry} - {env_id}, n=4)
            text += f" Did you mean {' or '.join(near)}?" if near else ""
        raise ValueError(f"{env_id}: {text}") from error
    if vector.metadata["autoreset_mode"] == AutoresetMode.DISABLED:
        vector = NextStep(vector)
    assert vector.metadata["autoreset_mode"] == mode
    if isinstance(vector.unwrapped, RunsVectorEnv) and max_episode_steps:
        vector.unwrapped.max_episode_steps = max_episode_steps
    obs_space, action_space = vector.single_observation_space, vector.single_action_space
    if not isinstance(obs_space, gym.spaces.Box) or len(obs_space.shape) not in (1, 3):
        raise ValueError(f"{env_id}: the observations must be vectors or pictures, not {_line(obs_space)}")
    floats = isinstance(action_space, gym.spaces.Box) and action_space.dtype.kind == "f"
    vectors = floats and len(action_space.shape) == 1 and bool((action_space.low < action_space.high).all())
    if not isinstance(action_space, gym.spaces.Discrete) and not vectors:
        what = _line(action_space)
        raise ValueError(f"{env_id}: the actions must be Discrete or a vector of floats (Box), not {what}")
    return vector


def _line(space: gym.Space) -> str:
    return " ".join(str(space).split())  # numpy writes large bounds in several lines


def reset(vector: VectorEnv, seeds: list[int]) -> np.ndarray:
    """First observations [n, ...] from a seed of each run. The environments here take a seed for each run; those of
    others have seeds of their own, which follow from the run's."""
    if not isinstance(vector.unwrapped, RunsVectorEnv):
        per_run = vector.num_envs // len(seeds)
        seeds = [int(s) for seed in seeds for s in np.random.SeedSequence(seed).generate_state(per_run) >> 1]
    atari = type(vector).__name__ == "AtariVectorEnv"  # takes an array
    return vector.reset(seed=np.array(seeds, np.int32) if atari else seeds)[0]


def to_rows(action: np.ndarray, space: gym.Space) -> np.ndarray:
    """Actions of runs [R, N], numbers from 0, or [R, N, dim] as the vector environment takes them: a row each, within
    the bounds. NaN, of a run that has diverged, becomes the lower bound: no simulator should get it."""
    action = action.reshape(-1, *space.shape)
    if isinstance(space, gym.spaces.Discrete):
        return action + space.start
    return np.fmin(np.fmax(action, space.low), space.high)


def last_observations(obs: np.ndarray, ended: np.ndarray, info: dict) -> np.ndarray:
    """What each step really led to: an episode's last observation where it ended, elsewhere ``obs`` [n, ...]."""
    if not ended.any():
        return obs
    obs = obs.copy()
    obs[ended] = np.stack(list(info["final_obs"][ended]))
    return obs


def play(
    vector: VectorEnv,
    act: Callable[[np.ndarray], np.ndarray],
    seeds: list[int],
    frames: list[np.ndarray] | None = None,
    alive: np.ndarray | None = None,
) -> np.ndarray:
    """Returns [R, episodes per run] of the first episode of each environment, where ``act`` gives the actions for
    observations. An environment whose episode has ended rests, or plays on beside the others and no longer counts.

    ``seeds`` are those of ``reset``. With ``frames``, pictures of the first environment are appended to it, the last
    one of how its episode ended if ``vector`` was made with ``next_step``; with ``alive``, bool [inputs], each beside
    the same with what a network does not see through these inputs alone dark.
    """
    obs = reset(vector, seeds)
    returns, running = np.zeros(vector.num_envs), np.ones(vector.num_envs, dtype=bool)

    def draw(obs: np.ndarray) -> None:
        # ALE's vector environment draws nothing but the frames that the agent sees
        picture = vector.render()[0] if vector.render_mode else obs[0, -1]
        if alive is not None:
            gap = np.full_like(picture[:, :8], 255)
            picture = np.concatenate([picture, gap, vector.unwrapped.render_seen(alive)[0]], axis=1)
        frames.append(picture)

    while running.any():
        if frames is not None:
            draw(obs)
        obs, reward, terminated, truncated, _ = vector.step(to_rows(act(obs), vector.single_action_space))
        returns += np.where(running, reward, 0)  # a NaN that comes later does not count either
        running &= ~(terminated | truncated)
    if frames is not None:
        draw(obs)
    return returns.reshape(len(seeds), -1)


def retest(
    eval_envs: VectorEnv,
    act: Callable[[np.ndarray], np.ndarray],
    seeds: list[int],
    episodes: int,
    env_id: str,
    task: dict,
) -> np.ndarray:
    """Returns [R, episodes] of new episodes, by ``play``. Where a step of many environments costs little more than that
    of one, as in those of this folder, up to 100 of each run play at once, made with ``task``, further arguments of
    ``make``; simulators are slow and large, and so the ``eval_envs`` play as often as it takes."""
    vector = eval_envs
    if isinstance(eval_envs.unwrapped, RunsVectorEnv):
        vector = make(env_id, len(seeds), min(episodes, 100), **task)
    parts = -(-episodes * len(seeds) // vector.num_envs)
    keys = [np.random.SeedSequence(seed).generate_state(parts) for seed in seeds]
    returns = [play(vector, act, [int(key[part]) for key in keys]) for part in range(parts)]
    return np.concatenate(returns, 1)[:, :episodes]


def record(
    env_id: str,
    act: Callable[[np.ndarray], np.ndarray],
    file: Path,
    seed: int = 1,
    alive: np.ndarray | None = None,
    **task,
) -> None:
    """One episode to its end as a gif: every second frame, or all of a task with 10 or fewer in a second. Where
    drawing is not possible, says so. ``alive`` is that of ``play``, ``task`` further arguments of ``make``."""
    import imageio.v3 as imageio

    if sys.platform == "linux" and not os.environ.get("DISPLAY"):
        os.environ.setdefault("MUJOCO_GL", "egl")
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    try:
        vector, frames = make(env_id, 1, 1, next_step=True, render=True, **task), []
        play(vector, act, [seed], frames, alive)
        rate = vector.metadata.get("render_fps", 50)
        every = 2 if rate > 10 else 1
        file.parent.mkdir(exist_ok=True)
        imageio.imwrite(file, np.stack(frames[::-every][::-1]), duration=every * 1000 / rate, loop=0)
        print(f"video: {file}")
    except Exception as error:  # whatever the graphics driver raises
        print(f"no video: {error}", file=sys.stderr)
