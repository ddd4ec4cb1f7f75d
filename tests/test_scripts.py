"""What the scripts in algos/ say or do in the same words does not drift apart."""

import ast
import io
import tokenize
from pathlib import Path

import pytest

ALGOS = Path(__file__).resolve().parent.parent / "algos"
SCRIPTS = sorted(file.stem for file in ALGOS.glob("*.py"))


def flags_of(name: str) -> dict[str, tuple[str, str]]:
    """Type and text of each field of the script's Args, ``x: int = 1  # text``."""
    text = (ALGOS / f"{name}.py").read_text()
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    comments = {token.start[0]: token.string.removeprefix("# ") for token in tokens if token.type == tokenize.COMMENT}
    (args,) = (node for node in ast.parse(text).body if getattr(node, "name", None) == "Args")
    fields = [node for node in args.body if isinstance(node, ast.AnnAssign)]
    return {node.target.id: (ast.unparse(node.annotation), comments.get(node.lineno, "")) for node in fields}


FLAGS = {name: flags_of(name) for name in SCRIPTS}
FAMILIES = [["bc_distill", "dqn_imp", "ppo_imp"], ["dqn_atari_rigl", "dqn_rigl", "ppo_rigl", "sac_rigl"]]
# What a script says in its own words, as it is about another thing there
OWN_WORDS = {
    "bc_distill": {"env_id", "eval_interval", "num_envs", "learning_rate", "hidden_sizes", "rewind_steps"},
    "dqn_imp": {"env_id", "buffer_size", "capture_video", "input_init_scale", "input_mask", "threads"},
    "ppo_imp": {"env_id", "hidden_sizes", "init", "input_init_scale"},
    "sac_rigl": {
        "buffer_size",
        "total_timesteps",
        "capture_video",
        "learning_rate",
        "env_id",
        "evaluate",
        "seed",
        "seeds",
        "critic_sparsity",
    },
    "ppo_rigl": {"env_id", "capture_video", "threads", "weight_decay"},
    "dqn_rigl": {"env_id"},
    "dqn_atari_rigl": {
        "buffer_size",
        "learning_rate",
        "seed",
        "seeds",
        "start_e",
        "target_interval",
        "total_timesteps",
        "width_scale",
    },
}


@pytest.mark.parametrize("flag", sorted({flag for flags in FLAGS.values() for flag in flags}))
def test_flags_of_the_same_name_are_the_same(flag):
    """They have the same type, up to the choices of a Literal, and a text."""
    there = [flags[flag] for flags in FLAGS.values() if flag in flags]
    assert len({kind.partition("[")[0] for kind, _ in there}) == 1
    assert all(len(text) > 3 for _, text in there), f"{flag} has no text"


@pytest.mark.parametrize(
    ("family", "words"), list(zip(FAMILIES, (None, 3), strict=True)), ids=["tickets", "sparse training"]
)
def test_flags_of_a_family_say_the_same(family, words):
    """The sparse-training scripts in the first three words: then comes what a method or a network has of its own."""
    for flag in {flag for name in family for flag in FLAGS[name]}:
        there = {name: " ".join(FLAGS[name][flag][1].split()[:words]) for name in family if flag in FLAGS[name]}
        others = {text for name, text in there.items() if flag not in OWN_WORDS[name]}
        assert len(others) <= 1, (flag, there)
    for name in family:
        assert OWN_WORDS[name] <= FLAGS[name].keys()
