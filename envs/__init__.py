"""Environments that exist nowhere else or need glue. Each module is imported only when one of its ids is asked for."""

_POSE = ("height", "sin(angle to target)", "cos(angle to target)", "x velocity", "y velocity", "z velocity")
_POSE += ("roll", "pitch")


def _bullet_names(joints: str, feet: str) -> tuple[str, ...]:
    """A Bullet walker sees its pose, then position and velocity of each joint, then which feet touch the ground."""
    of_joints = [f"{joint} {what}" for joint in joints.split(", ") for what in ("position", "velocity")]
    return (*_POSE, *of_joints, *(f"{foot} contact" for foot in feet.split(", ")))


# What each dimension of an observation is, for tasks where that is known.
_CARTPOLE = ("cart position", "cart velocity", "pole angle", "pole velocity")
_CHEETAH_FEET = "front foot, front shin, front thigh, back foot, back shin, back thigh"
INPUT_NAMES = {
    "CartPole-v0": _CARTPOLE,
    "CartPole-v1": _CARTPOLE,
    "Acrobot-v1": ("cos(angle 1)", "sin(angle 1)", "cos(angle 2)", "sin(angle 2)", "velocity 1", "velocity 2"),
    "MountainCar-v0": ("position", "velocity"),
    "HalfCheetahBulletEnv-v0": _bullet_names(
        "back thigh, back shin, back foot, front thigh, front shin, front foot", _CHEETAH_FEET
    ),
    "HopperBulletEnv-v0": _bullet_names("thigh, leg, foot", "foot"),
    "Walker2DBulletEnv-v0": _bullet_names(
        "right thigh, right leg, right foot, left thigh, left leg, left foot", "right foot, left foot"
    ),
    "AntBulletEnv-v0": _bullet_names(
        ", ".join(f"{joint} {leg}" for leg in (1, 2, 3, 4) for joint in ("hip", "ankle")),
        "foot 1, foot 2, foot 3, foot 4",
    ),
}
