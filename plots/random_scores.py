"""The mean return of an agent that acts at random, for kind iqm: where 0 is on an axis on which the dense agent is 1.

    python plots/random_scores.py Pendulum-v1 Hopper-v5     # 100 episodes each, actions uniform in their bounds

prints lines for the table below, which is from gymnasium 1.4.0, mujoco 3.3.7 and pybullet 3.2.7. Episodes have the
task's own time limit. PyBullet's tasks need Python 3.11.
"""

import sys
from pathlib import Path

import gymnasium as gym
import numpy as np

sys.path.append(str(Path(__file__).resolve().parent.parent))  # for envs

RANDOM_SCORES = {
    "Acrobot-v1": -497.08,
    "Ant-v5": -60.46,
    "AntBulletEnv-v0": 362.63,
    "CartPole-v1": 23.68,
    "HalfCheetah-v5": -285.92,
    "HalfCheetahBulletEnv-v0": -1268.92,
    "Hopper-v5": 18.89,
    "HopperBulletEnv-v0": 19.88,
    "Humanoid-v5": 112.50,
    "HumanoidStandup-v5": 32975.10,
    "InvertedDoublePendulum-v5": 49.09,
    "InvertedPendulum-v5": 5.23,
    "MountainCar-v0": -200.00,
    "MountainCarContinuous-v0": -33.25,
    "Pendulum-v1": -1207.56,
    "Pusher-v5": -149.23,
    "Reacher-v5": -43.29,
    "Swimmer-v5": 0.80,
    "Walker2DBulletEnv-v0": 16.74,
    "Walker2d-v5": 1.77,
}


def random_returns(env_id: str, episodes: int = 100) -> list[float]:
    """Undiscounted returns of the first episodes from seed 0 on."""
    if "Bullet" in env_id:
        import envs.bullet  # noqa: F401
    env = gym.make(env_id)
    env.action_space.seed(0)
    returns = []
    for episode in range(episodes):
        env.reset(seed=episode)
        returns.append(0.0)
        ended = False
        while not ended:
            _, reward, terminated, truncated, _ = env.step(env.action_space.sample())
            returns[-1] += float(reward)
            ended = terminated or truncated
    return returns


if __name__ == "__main__":
    for env_id in sys.argv[1:]:
        print(f'    "{env_id}": {np.mean(random_returns(env_id)):.2f},', flush=True)
