"""Mistakes of a recipe: each with its place, its value and the next step."""

from pathlib import Path

import pytest

from reward_tuning.gradient.methods import METHODS
from reward_tuning.schema.judge_kinds import KINDS
from reward_tuning.schema.mistakes import shown
from tests.reward_tuning.recipes_for_tests import told, told_once, write_recipe


def test_all_mistakes_at_once(tmp_path: Path) -> None:
    path = write_recipe(
        tmp_path,
        sampling__frames=10,
        sampling__hight=64,
        train__steps="many",
        prompts__train="nowhere.txt",
        generator__checkpoint="nothing",
        rewards=[{"kind": "hbs", "checkpoint": "hps-v2.1", "wieght": 2}],
    )
    lines = told(path, "method.active_steps=0", "nonsense", "lora=3")
    starts = [line.split(":")[0] for line in lines]
    assert sorted(starts) == sorted(
        [
            "sampling.frames",
            "sampling.hight",
            "train.steps",
            "prompts.train",
            "generator.checkpoint",
            "rewards.0.kind",
            "rewards.0.wieght",
            "method.active_steps",
            "command line",
            "lora",
        ]
    )


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("train.stepz=6", "train.stepz: unknown key (got 6); did you mean train.steps?"),
        (
            "learning_rate=1e-3",
            "learning_rate: unknown key (got 0.001); did you mean train.learning_rate?",
        ),
        ("lora_rank=4", "lora_rank: unknown key (got 4); did you mean lora.rank?"),
        (
            "train.guidance_scale=2",
            "train.guidance_scale: unknown key (got 2); did you mean sampling.guidance_scale?",
        ),
        (
            "prompts.zzz=1",
            "prompts.zzz: unknown key (got 1); allowed in prompts: held_out, train",
        ),
        ("train.steps=yes", "train.steps: got 'yes'; expected a whole number"),
        ("train.steps=true", "train.steps: got true; expected a whole number"),
        ("train.steps=2.5", "train.steps: got 2.5; expected a whole number"),
        (
            "train.keep_graphs=all",
            "train.keep_graphs: got 'all'; allowed: auto, or a number of steps from 0 up",
        ),
        (
            "train.keep_graphs=-1",
            "train.keep_graphs: got -1; allowed: auto, or a number of steps from 0 up",
        ),
        (
            "train.keep_graphs=true",
            "train.keep_graphs: got true; allowed: auto, or a number of steps from 0 up",
        ),
        ("train.steps=0", "train.steps: got 0; must be greater than or equal to 1"),
        ("train.learning_rate=null", "train.learning_rate: got null; expected a number"),
        ("train.anchor=.nan", "train.anchor: got nan; expected a finite number"),
        (
            "generator.dtype=bf16",
            "generator.dtype: got 'bf16'; allowed: float32, bfloat16, float16; "
            "did you mean bfloat16?",
        ),
        (
            "method.kind=draftk",
            f"method.kind: got 'draftk'; allowed: {', '.join(METHODS)}; did you mean draft_k?",
        ),
        (
            "method={active_steps: 3}",
            f"method.kind: is missing; allowed: {', '.join(METHODS)}",
        ),
        (
            "method={kind: draft_k, active_steps: 3, early_stop: true}",
            "method.early_stop: unknown key (got true); it is a key of kind drtune; allowed in "
            "method: active_steps, kind, nested, rescale, smallest_step",
        ),
        (
            "rewards.0.tower=clip-vit-l-14",
            "rewards.0.tower: unknown key (got 'clip-vit-l-14'); it is a key of kind aesthetic, "
            "aesthetic_v2_5; "
            "allowed in rewards.0: architecture, augmentation, checkpoint, chunk, device, dtype, "
            "frames, gradient, gradient_checkpointing, grayscale, kind, mean, name, over_frames, "
            "preprocess, prompt, relative, robust_radius, sha256, std, target, weight",
        ),
        (
            "rewards.0.over_frames={kind: softmin, sharpness: 9.0}",
            "rewards.0.over_frames.kind: got 'softmin'; allowed: mean, soft_min, best, random; did "
            "you mean soft_min?",
        ),
        (
            "evaluation.held_out_rewards.0.weight=2",
            "evaluation.held_out_rewards.0.weight: unknown key (got 2); did you mean "
            "rewards.0.weight or train.replay.weight?",
        ),
        (
            "rewards.0.chunks=2",
            "rewards.0.chunks: unknown key (got 2); did you mean rewards.0.chunk?",
        ),
        (
            "rewards.0={kind: hps}",
            "rewards.0.checkpoint: is missing; expected: A shipped name "
            "(tiny/hps.safetensors), a file, a published name (hps-v2.1) or a hub id with its file "
            "(owner/name/file, owner/name/file@revision)",
        ),
        (
            "method={kind: drtune}",
            "method.active_steps: is missing; expected: K, evenly spaced steps that receive "
            "gradient",
        ),
        ("train=5", "train: got 5; expected a section with keys"),
        ("rewards=[]", "rewards: got []; must not be empty"),
        ('output=""', "output: got ''; must not be empty"),
        (
            "rewards.2.weight=1",
            "rewards.2.weight: rewards has 1 entry, counted from 0, so there is no 2",
        ),
        ("rewards.x=1", "rewards.x: rewards is a list; give a position from 0 to 0, not x"),
        ("seed.x=1", "seed.x: seed is 3, which has no keys"),
        (
            "method.active_steps=17",
            "method.active_steps: got 17; at most sampling.steps = 16",
        ),
    ],
)
def test_mistakes(tmp_path: Path, override: str, line: str) -> None:
    assert told_once(write_recipe(tmp_path), override) == line


def test_sections_are_compared_although_another_is_wrong(tmp_path: Path) -> None:
    lines = told(write_recipe(tmp_path), "method.active_steps=17", "lora.rank=0")
    assert lines == [
        "lora.rank: got 0; must be greater than or equal to 1",
        "method.active_steps: got 17; at most sampling.steps = 16",
    ]


def test_a_wrong_kind_hides_no_other_mistake(tmp_path: Path) -> None:
    lines = told(write_recipe(tmp_path), "rewards.0={kind: hsp, checkpoint: hps-v2.1, chunk: 0}")
    assert lines == [
        f"rewards.0.kind: got 'hsp'; allowed: {', '.join(KINDS)}; did you mean hps?",
        "rewards.0.chunk: got 0; must be greater than or equal to 1",
    ]
    lines = told(write_recipe(tmp_path), "rewards.0={checkpoint: hps-v2.1, tower: 3}")
    assert lines == [  # no kind is like it: an aesthetic judge is the one that has a tower
        f"rewards.0.kind: is missing; allowed: {', '.join(KINDS)}",
        "rewards.0.tower: got 3; expected a text",
    ]
    like = "{kind: aesthetik, checkpoint: laion-aesthetic-v2, relative: {positive: a, negative: b}}"
    kind, relative = told(write_recipe(tmp_path), f"rewards.0={like}")
    assert kind.endswith("did you mean aesthetic?")  # and not one of those that know `relative`
    assert relative.startswith("rewards.0.relative: unknown key")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("http://user:hunter2@host/x", "'http://***@host/x'"),
        ("http://host/x?api_key=abc&n=2", "'http://host/x?api_key=***&n=2'"),
        ("a@b and c//d", "'a@b and c//d'"),
        (3, "3"),
    ],
)
def test_a_value_is_shown_without_the_secrets_of_an_address(value: object, text: str) -> None:
    assert shown(value) == text
