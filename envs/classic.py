"""CartPole, Acrobot and MountainCar as numpy-vectorised environments, for many runs that train as one program.

    envs = make_vec("CartPole-v1", runs=60, envs_per_run=4)    # 240 rows; those of run r are 4 * r to 4 * r + 3
    obs, _ = envs.reset(seed=run_seeds)                        # 60 seeds
    obs, rewards, terminated, truncated, infos = envs.step(actions)

Run r draws the starts of its episodes from one random stream of its own, in the order of its rows, and all else is done
to each row alone: a run's trajectories have the same bits whichever runs are stepped beside it.

The tasks are those of ``gymnasium.envs.classic_control`` (1.4.0, MIT licence), with its formulas and constants in
float64. A run with one environment goes through the same episodes as ``gymnasium.make(env_id)`` after
``reset(seed=seed)``, with ``reset()`` at each end: bit for bit in CartPole and MountainCar, if numpy's sin and cos are
the same for arrays as for numbers. Acrobot differs by rounding: by about 1e-15 in a step, as the products below have
another order, which a chaotic episode of 500 steps turns into 1e-7 or so; and in the last bit of some first
observations, which gymnasium computes in float32.
"""

from collections.abc import Sequence
from math import pi
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Discrete
from gymnasium.utils import seeding
from numpy import cos, ndarray, sin

from envs.base import RunsVectorEnv


class ClassicVectorEnv(RunsVectorEnv):
    """Environments of one task. Observations are float32 [num_envs, obs_dim].

    Each has a physical state [dim], float64, and has made a number of steps of its episode. These two alone say
    whether the episode has ended.

    A subclass is a task: the attributes and static methods from here to ``__init__``, where n is any number of rows.
    """

    dim: int  # numbers in a physical state
    effects: ndarray  # [n_actions]: what ``advance`` is given for each action
    rewards: ndarray  # [2]: of a step, and of one that ends in a terminal state
    low: tuple[float, ...]  # bounds of an observation
    high: tuple[float, ...]

    @staticmethod
    def draw(generator: np.random.Generator, n: int) -> ndarray:
        """The first states of n episodes, [n, dim]."""
        raise NotImplementedError

    @staticmethod
    def advance(state: ndarray, effect: ndarray) -> ndarray:
        """The states [dim, n] one step after ``state`` [dim, n], under the actions' effects [n]."""
        raise NotImplementedError

    @staticmethod
    def terminal(state: ndarray) -> ndarray:
        """Bool [n]: is the task over in state [dim, n]?"""
        raise NotImplementedError

    @staticmethod
    def observe(state: ndarray) -> ndarray:
        """Observations, float32 [n, obs_dim], of state [dim, n]; unless a task says otherwise, the state itself."""
        return state.T.astype(np.float32, order="C")

    def __init__(self, env_id: str, runs: int, envs_per_run: int, autoreset: bool = True):
        space = Box(np.array(self.low, np.float32), np.array(self.high, np.float32))
        super().__init__(gym.spec(env_id), runs, envs_per_run, autoreset, space, Discrete(len(self.effects)))
        self._state = np.zeros((self.dim, self.num_envs))  # one column for each row of the other arrays

    def _seed(self, seeds: list[int | None]) -> None:
        self._generators = [seeding.np_random(seed)[0] for seed in seeds]

    def _restart(self, rows: ndarray) -> None:
        counts = rows.reshape(self.runs, -1).sum(1).tolist()  # how many starts each run draws
        starts = [self.draw(g, n) for g, n in zip(self._generators, counts, strict=True) if n]
        self._state[:, rows] = np.concatenate(starts).T

    def _step(self, actions: ndarray, live: ndarray) -> tuple[ndarray, ndarray]:
        self._state = np.where(live, self.advance(self._state, self.effects.take(actions)), self._state)
        terminated = self.terminal(self._state)
        return np.where(live, self.rewards.take(terminated), 0.0), terminated

    def _observations(self) -> ndarray:
        return self.observe(self._state)

    def get_state(self) -> dict[str, Any]:
        """All that ``set_state`` needs to go on bit for bit: lists, numbers and strings, which
        ``torch.load(weights_only=True)`` reads. The state of a stream is two ints of 128 bits."""
        self._check_reset()
        return {
            "env_id": self.spec.id,
            "physics": self._state.tolist(),
            "elapsed": self._elapsed.tolist(),
            "streams": [generator.bit_generator.state for generator in self._generators],
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on where ``get_state`` was called, in an environment made like that one; no reset is needed before."""
        there = state["env_id"], len(state["streams"]), len(state["elapsed"])
        if there != (self.spec.id, self.runs, self.num_envs):
            raise ValueError(f"a state of {there} is not one of {self.spec.id, self.runs, self.num_envs}")
        self._generators = [np.random.Generator(np.random.PCG64()) for _ in range(self.runs)]
        for generator, stream in zip(self._generators, state["streams"], strict=True):
            generator.bit_generator.state = stream
        self._state = np.array(state["physics"], np.float64)
        self._go_on(state["elapsed"], self.terminal(self._state))

    def keep(self, runs: Sequence[int]) -> "ClassicVectorEnv":
        """Some of the runs, at least one, in an environment of their own. They go on where they are, and those of this
        one must not be stepped again."""
        rest = type(self)(self.spec.id, len(runs), self.envs_per_run, self.autoreset)
        rest.max_episode_steps = self.max_episode_steps
        rows = np.arange(self.num_envs).reshape(self.runs, -1)[runs].ravel()
        rest._generators = [self._generators[r] for r in runs]
        rest._state = self._state[:, rows]
        rest._go_on(self._elapsed[rows], rest.terminal(rest._state))
        return rest


class CartPole(ClassicVectorEnv):
    """A pole stands on a cart, which is pushed left or right at every step (Barto, Sutton & Anderson 1983).

    State and observation: position x [m] and velocity of the cart, angle theta [rad] from upright and angular velocity
    of the pole. Over when |x| > 2.4 m or |theta| > 12 degrees. Reward 1 at every step, the last one included.
    """

    GRAVITY, MASS, POLE_MASS, HALF_LENGTH = 9.8, 0.1 + 1.0, 0.1, 0.5  # MASS is that of pole and cart
    TIME_STEP = 0.02  # [s]
    MAX_X, MAX_THETA = 2.4, 12 * 2 * pi / 360

    dim = 4
    effects = np.array([-10.0, 10.0])  # force [N]
    rewards = np.array([1.0, 1.0])
    high = (2 * MAX_X, np.inf, 2 * MAX_THETA, np.inf)
    low = tuple(-bound for bound in high)

    @staticmethod
    def draw(generator: np.random.Generator, n: int) -> ndarray:
        return generator.uniform(-0.05, 0.05, (n, 4))

    @staticmethod
    def derivative(state: ndarray, force: ndarray) -> ndarray:
        """d state / dt [4, n]: the frictionless equations of R. V. Florian, "Correct equations for the dynamics of the
        cart-pole system" (2007), as gymnasium has them."""
        gravity, mass, pole_mass, length = CartPole.GRAVITY, CartPole.MASS, CartPole.POLE_MASS, CartPole.HALF_LENGTH
        _, v, theta, omega = state
        c, s = cos(theta), sin(theta)
        push = (force + pole_mass * length * np.square(omega) * s) / mass
        domega = (gravity * s - c * push) / (length * (4.0 / 3.0 - pole_mass * np.square(c) / mass))
        dv = push - pole_mass * length * domega * c / mass
        return np.array((v, dv, omega, domega))

    @staticmethod
    def advance(state: ndarray, effect: ndarray) -> ndarray:
        """An Euler step."""
        return state + CartPole.TIME_STEP * CartPole.derivative(state, effect)

    @staticmethod
    def terminal(state: ndarray) -> ndarray:
        return (np.abs(state[0]) > CartPole.MAX_X) | (np.abs(state[2]) > CartPole.MAX_THETA)


class Acrobot(ClassicVectorEnv):
    """Two links hang from a joint; a torque on the joint between them is to swing the tip up (Sutton 1996).

    State: angle theta1 [rad] of the first link from hanging down, theta2 of the second one relative to the first, both
    in [-pi, pi], and their angular velocities. Observation: cos theta1, sin theta1, cos theta2, sin theta2 and the
    velocities. Over when the tip is more than a link's length above the fixed joint. Reward -1 for each step, 0 for the
    last one of an episode that reaches this.
    """

    GRAVITY, MASS, LENGTH, CENTRE, INERTIA = 9.8, 1.0, 1.0, 0.5, 1.0  # of both links; CENTRE of mass from the joint
    TIME_STEP = 0.2  # [s]
    MAX_VELOCITY = np.array([[4 * pi], [9 * pi]])  # [rad/s]
    # What is constant in the equations of Sutton & Barto's book (1998, section 11.3)
    D1 = MASS * (CENTRE**2 + LENGTH**2 + CENTRE**2) + 2 * INERTIA
    D2 = MASS * CENTRE**2 + INERTIA
    COUPLING = MASS * LENGTH * CENTRE
    WEIGHT1, WEIGHT2 = MASS * (CENTRE + LENGTH) * GRAVITY, MASS * CENTRE * GRAVITY

    dim = 4
    effects = np.array([-1.0, 0.0, 1.0])  # torque [N m]
    rewards = np.array([-1.0, 0.0])
    high = (1.0, 1.0, 1.0, 1.0, 4 * pi, 9 * pi)
    low = tuple(-bound for bound in high)

    @staticmethod
    def draw(generator: np.random.Generator, n: int) -> ndarray:
        return generator.uniform(-0.1, 0.1, (n, 4)).astype(np.float32)

    @staticmethod
    def derivative(state: ndarray, torque: ndarray) -> ndarray:
        """d state / dt [4, n]: the book's equations, where cos(a - pi / 2) is written sin(a)."""
        theta1, theta2, omega1, omega2 = state
        coupling_c, coupling_s = Acrobot.COUPLING * cos(theta2), Acrobot.COUPLING * sin(theta2)
        d1 = Acrobot.D1 + 2 * coupling_c
        d2 = Acrobot.D2 + coupling_c
        phi2 = Acrobot.WEIGHT2 * sin(theta1 + theta2)
        phi1 = Acrobot.WEIGHT1 * sin(theta1) + phi2 - coupling_s * omega2 * (omega2 + 2 * omega1)
        ratio = d2 / d1
        domega2 = (torque + ratio * phi1 - coupling_s * np.square(omega1) - phi2) / (Acrobot.D2 - ratio * d2)
        domega1 = -(d2 * domega2 + phi1) / d1
        return np.array((omega1, omega2, domega1, domega2))

    @staticmethod
    def advance(state: ndarray, effect: ndarray) -> ndarray:
        """A step of the classical Runge-Kutta method; then angles are wrapped and velocities cut off."""
        f, h = Acrobot.derivative, Acrobot.TIME_STEP
        k1 = f(state, effect)
        k2 = f(state + h / 2 * k1, effect)
        k3 = f(state + h / 2 * k2, effect)
        k4 = f(state + h * k3, effect)
        new = state + h / 6 * (k1 + 2 * (k2 + k3) + k4)
        angles, velocities = new[:2], new[2:]
        angles -= 2 * pi * np.rint(angles / (2 * pi))
        np.minimum(np.maximum(velocities, -Acrobot.MAX_VELOCITY), Acrobot.MAX_VELOCITY, out=velocities)
        return new

    @staticmethod
    def terminal(state: ndarray) -> ndarray:
        return -cos(state[0]) - cos(state[0] + state[1]) > Acrobot.LENGTH

    @staticmethod
    def observe(state: ndarray) -> ndarray:
        obs = np.empty((state.shape[1], 6), np.float32)
        obs[:, 0:4:2], obs[:, 1:4:2], obs[:, 4:] = cos(state[:2]).T, sin(state[:2]).T, state[2:].T
        return obs


class MountainCar(ClassicVectorEnv):
    """A car in a valley is too weak to drive straight up to the goal on the right (Moore 1990; Sutton & Barto 1998).

    State and observation: position x and velocity, per step. Over when x >= 0.5 while it does not roll back. Reward -1
    at every step, the last one included.
    """

    GRAVITY, GOAL = 0.0025, 0.5
    MIN_X, MAX_X, MAX_VELOCITY = -1.2, 0.6, 0.07

    dim = 2
    effects = np.array([-0.001, 0.0, 0.001])  # acceleration
    rewards = np.array([-1.0, -1.0])
    low, high = (MIN_X, -MAX_VELOCITY), (MAX_X, MAX_VELOCITY)

    @staticmethod
    def draw(generator: np.random.Generator, n: int) -> ndarray:
        return np.stack((generator.uniform(-0.6, -0.4, n), np.zeros(n)), axis=1)

    @staticmethod
    def advance(state: ndarray, effect: ndarray) -> ndarray:
        """One step; the left end of the road stops the car."""
        task = MountainCar
        x, v = state
        v = v + (effect - task.GRAVITY * cos(3 * x))
        v = np.minimum(np.maximum(v, -task.MAX_VELOCITY), task.MAX_VELOCITY)
        x = np.minimum(np.maximum(x + v, task.MIN_X), task.MAX_X)
        v[(x == task.MIN_X) & (v < 0)] = 0
        return np.array((x, v))

    @staticmethod
    def terminal(state: ndarray) -> ndarray:
        return (state[0] >= MountainCar.GOAL) & (state[1] >= 0)


_TASKS = {"CartPole-v0": CartPole, "CartPole-v1": CartPole, "Acrobot-v1": Acrobot, "MountainCar-v0": MountainCar}
ENV_IDS = tuple(_TASKS)


def make_vec(env_id: str, runs: int, envs_per_run: int, autoreset: bool = True) -> ClassicVectorEnv:
    """``runs`` runs with ``envs_per_run`` environments each of a task in ``ENV_IDS``.

    The autoreset mode is SAME_STEP, or with ``autoreset=False`` DISABLED. Raises ValueError for another id.
    """
    if env_id not in _TASKS:
        raise ValueError(f"{env_id} is not one of {', '.join(ENV_IDS)}")
    return _TASKS[env_id](env_id, runs, envs_per_run, autoreset)
