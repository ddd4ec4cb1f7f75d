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
# What a script says in its own words, as it is about another thing there
OWN_WORDS = {
    "bc_distill": {"env_id", "eval_interval", "num_envs", "learning_rate", "hidden_sizes", "rewind_steps"},
    "dqn_earlybird": {"env_id", "batch_size", "buffer_size", "checkpoint_interval", "dry_run", "end_e", "hidden_sizes"}
    | {"learning_rate", "learning_starts", "seed", "start_e", "threads"},
    "dqn_imp": {"env_id", "buffer_size", "capture_video", "input_init_scale", "input_mask", "threads"},
    "ppo_imp": {"env_id", "hidden_sizes", "init", "input_init_scale"},
    "sac_rigl": {"env_id", "buffer_size", "capture_video", "dry_run", "eval_episodes", "eval_interval", "evaluate"}
    | {"learning_rate", "learning_starts", "run_dir", "seed", "threads", "total_timesteps", "weight_decay"},
}


@pytest.mark.parametrize("flag", sorted({flag for flags in FLAGS.values() for flag in flags}))
def test_flags_of_the_same_name_say_the_same(flag):
    """And have the same type; what is said in other words is in the table, and what is in the table is other words."""
    there = {name: flags[flag] for name, flags in FLAGS.items() if flag in flags}
    assert len({kind for kind, _ in there.values()}) == 1
    assert all(len(text) > 3 for _, text in there.values()), f"{flag} has no text"
    own = {name for name in there if flag in OWN_WORDS.get(name, ())}
    common = {text for name, (_, text) in there.items() if name not in own}
    assert len(common) <= 1
    assert all(there[name][1] not in common for name in own)


def test_the_table_is_about_flags_that_are_there():
    assert OWN_WORDS.keys() <= FLAGS.keys()
    for name, flags in OWN_WORDS.items():
        assert all(sum(flag in other for other in FLAGS.values()) > 1 for flag in flags) and flags <= FLAGS[name].keys()
