"""The mean return of an agent that acts at random, for kind iqm: where 0 is on an axis on which the dense agent is 1,
with Atari's games a human player.

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

# Of Atari's games, random agents and professional players: Mnih et al. 2015, extended data table 2, with one digit more
# as in van Hasselt et al. 2016, table 4. Episodes there are at most five minutes long and begin with up to 30 no-ops.
RANDOM_AND_HUMAN_SCORES = {
    "ALE/Assault-v5": (222.4, 1496.4),
    "ALE/Asterix-v5": (210.0, 8503.3),
    "ALE/BeamRider-v5": (363.9, 5774.7),
    "ALE/Boxing-v5": (0.1, 4.3),
    "ALE/Breakout-v5": (1.7, 31.8),
    "ALE/CrazyClimber-v5": (10780.5, 35410.5),
    "ALE/DemonAttack-v5": (152.1, 3401.3),
    "ALE/Enduro-v5": (0.0, 309.6),
    "ALE/FishingDerby-v5": (-91.7, 5.5),
    "ALE/MsPacman-v5": (307.3, 15693.4),
    "ALE/Pong-v5": (-20.7, 9.3),
    "ALE/Qbert-v5": (163.9, 13455.0),
    "ALE/SpaceInvaders-v5": (148.0, 1652.3),
    "ALE/Tutankham-v5": (11.4, 167.6),
    "ALE/VideoPinball-v5": (16256.9, 17297.6),
}
RANDOM_SCORES |= {env_id: random for env_id, (random, _) in RANDOM_AND_HUMAN_SCORES.items()}
HUMAN_SCORES = {env_id: human for env_id, (_, human) in RANDOM_AND_HUMAN_SCORES.items()}


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
