"""What the scripts in algos/ say or do in the same words does not drift apart."""

import ast
from pathlib import Path

import pytest

ALGOS = Path(__file__).resolve().parent.parent / "algos"
SCRIPTS = sorted(file.stem for file in ALGOS.glob("*.py"))


def documented_flags(name: str) -> dict[str, tuple[str, str]]:
    """Type and docstring of each field of the script's Args."""
    body = ast.parse((ALGOS / f"{name}.py").read_text()).body
    (args,) = (node for node in body if getattr(node, "name", None) == "Args")
    fields = {}
    for field, doc in zip(args.body[:-1], args.body[1:], strict=True):
        if isinstance(field, ast.AnnAssign):
            assert isinstance(doc, ast.Expr), f"{name}.py: {field.target.id} has no docstring"
            fields[field.target.id] = ast.unparse(field.annotation), doc.value.value
    assert isinstance(args.body[-1], ast.Expr)
    return fields


# What is said in other words, as it is about another thing
OWN_WORDS = {
    ("bc_distill", "ppo_imp"): {"env_id", "eval_interval", "eval_episodes", "num_envs", "learning_rate", "dry_run"}
    | {"hidden_sizes", "init", "input_init_scale", "rewind_steps"},
    ("dqn_earlybird", "ppo_imp"): {"env_id", "threads", "dry_run", "hidden_sizes", "learning_rate"},
    ("dqn_imp", "ppo_imp"): {"env_id", "eval_episodes", "num_envs", "threads", "dry_run", "capture_video"}
    | {"hidden_sizes", "init", "input_init_scale", "input_mask"},
    ("sac_rigl", "ppo_imp"): {"env_id", "total_timesteps", "run_dir", "eval_interval", "eval_episodes", "threads"}
    | {"capture_video", "evaluate", "dry_run", "learning_rate", "weight_decay"},
}


@pytest.mark.parametrize(("one", "other"), OWN_WORDS)
def test_flags_of_the_same_name_say_the_same(one, other):
    """And a flag of the same name has the same type."""
    ours, theirs = documented_flags(one), documented_flags(other)
    both = ours.keys() & theirs.keys()
    assert both >= {"fresh", "cuda", "track", "wandb_project_name", "wandb_entity"}
    for name in both:
        assert ours[name][0] == theirs[name][0], name
    assert {name for name in both if ours[name][1] != theirs[name][1]} == OWN_WORDS[one, other]


def test_no_script_is_left_out():
    assert {name for pair in OWN_WORDS for name in pair} == set(SCRIPTS)


def block(name: str, start: str, end: str) -> str:
    text = (ALGOS / f"{name}.py").read_text()
    assert text.count(start) == 1
    return text.split(start)[1].split(end)[0]


@pytest.mark.parametrize("script", ["bc_distill", "dqn_imp"])
@pytest.mark.parametrize(
    ("start", "end"),
    [
        ("    # A chain is what one seed and condition hand on", "    writer = SummaryWriter"),
        ("            if round_ == 0:\n                masks", "        nets ="),
    ],
    ids=["resume", "prune and rewind"],
)
def test_blocks_that_the_scripts_of_tickets_share_are_the_same(script, start, end):
    assert block(script, start, end) == block("ppo_imp", start, end)
