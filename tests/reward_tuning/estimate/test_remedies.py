"""Changes that make a run fit, in their order and on top of one another."""

from __future__ import annotations

import pytest

from benchmarks.small_shape import SMALL, SMALL_CLIP
from reward_tuning.estimate import remedies
from reward_tuning.estimate.estimate import Estimate, estimate
from reward_tuning.estimate.phase_memory import Followed, Memory
from reward_tuning.estimate.remedies import changes, steps_to_fit
from reward_tuning.estimate.stored import blocks_of
from reward_tuning.evidence.any_recipe import load_any_recipe
from reward_tuning.schema.loading import load_recipe
from reward_tuning.schema.recipe import Recipe


def small(*overrides: str) -> Recipe:
    return load_recipe("easyanimate-v5.1-7b-hps", [*SMALL_CLIP, *overrides], check_files=False)


def estimated(recipe: Recipe, sizes: Memory) -> Estimate:
    seen = Followed(sizes, {})
    return Estimate(recipe, SMALL, sizes, seen, None, (), 1).stored_as(recipe, gpus=1)


def test_what_keeps_the_numbers_comes_first() -> None:
    found = [one.overrides for one in changes(small("train.keep_graphs=2"), gpus=1)]
    assert found[:4] == [
        "generator.memory=offload",
        "train.decoder_checkpointing=segments",
        "generator.memory=block-offload",
        "train.keep_graphs=0",
    ]
    assert found.index("generator.quantise=fp8") > found.index("generator.memory=block-offload")
    assert found[-1].startswith(("lora.rank=", "rewards.0.frames="))


def test_what_a_recipe_has_already_is_not_proposed() -> None:
    recipe = small(
        "train.keep_graphs=0", "generator.memory=block-offload", "generator.quantise=nf4"
    )
    found = " ".join(one.overrides for one in changes(recipe, gpus=1))
    assert "memory" not in found
    assert "quantise" not in found
    assert "keep_graphs" not in found


def test_checkpoints_of_the_decoder_come_one_after_the_other() -> None:
    def offered(*overrides: str) -> list[str]:
        found = [one.overrides for one in changes(small(*overrides), gpus=1)]
        return [one for one in found if one.startswith("train.decoder_checkpointing=")]

    assert offered("train.decoder_checkpointing=false") == ["train.decoder_checkpointing=true"]
    assert offered() == ["train.decoder_checkpointing=segments"]
    assert offered("train.decoder_checkpointing=segments") == []
    assert offered("train.decoder=small") == []


def test_on_the_cpu_nothing_rests_elsewhere() -> None:
    assert not any("memory=" in one.overrides for one in changes(small(), gpus=0))


def test_steps_until_it_fits() -> None:
    """Judges and decoder of 60 bytes of 100 rest; only then the rollout is below 50."""
    sizes = {
        "rollout": {"transformer": 20e6, "judges": 40e6, "decoder": 20e6, "activations": 20e6},
        "reward": {"transformer": 20e6, "judges": 5e6, "activations": 5e6},
    }
    recipe = small("train.keep_graphs=0")
    steps = steps_to_fit(estimated(recipe, sizes), 50e6)
    assert [one.change.overrides for one in steps] == ["generator.memory=offload"]
    assert (steps[0].phase, steps[0].bytes) == ("rollout", 40e6)
    assert not steps_to_fit(estimated(recipe, sizes), 200e6)


def test_what_a_later_change_makes_unnecessary_is_left_out() -> None:
    """Blocks that rest leave room enough: decoder and judges can stay."""
    blocks = sum(block.bytes(2, None) for block in blocks_of(SMALL))
    sizes = {
        "rollout": {"transformer": 2 * blocks, "judges": blocks / 5, "activations": blocks},
        "reward": {"transformer": 2 * blocks, "judges": blocks / 20, "activations": blocks},
    }
    recipe = small("train.keep_graphs=0", "train.decoder_checkpointing=segments")
    before = estimated(recipe, sizes)
    steps = steps_to_fit(before, 3.19 * blocks)
    assert [one.change.overrides for one in steps] == ["generator.memory=offload"]
    both = steps_to_fit(before, 2.99 * blocks)
    assert [one.change.overrides for one in both] == ["generator.memory=block-offload"]
    assert both[0].bytes <= 2.99 * blocks


def test_a_change_that_is_followed_is_left_out_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    """Segments of the decoder free too little; resting blocks, which come next, free enough."""
    blocks = sum(block.bytes(2, None) for block in blocks_of(SMALL))
    asked: list[tuple[bool | str, str]] = []

    def followed(recipe: Recipe, **options: object) -> Estimate:
        asked.append((recipe.train.decoder_checkpointing, recipe.generator.memory))
        held = 0.9 if recipe.train.decoder_checkpointing == "segments" else 1.0
        return estimated(
            recipe, {"reward": {"transformer": 2 * blocks, "activations": held * blocks}}
        )

    monkeypatch.setattr(remedies, "estimate", followed)
    recipe = small("train.keep_graphs=0")
    steps = steps_to_fit(followed(recipe), 2.5 * blocks)
    assert [one.change.overrides for one in steps] == ["generator.memory=block-offload"]
    assert asked == [(True, "resident"), ("segments", "resident")]  # followed once for each kind


def test_no_change_is_left_out_without_which_the_recipe_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Shared blocks cannot be packed, so packing needs the blocks that rest in their stead."""
    blocks = sum(block.bytes(2, None) for block in blocks_of(SMALL))
    sizes = {
        "rollout": {"transformer": blocks, "activations": 3 * blocks},
        "evaluation": {"transformer": blocks, "activations": 2.9 * blocks},
    }
    monkeypatch.setattr(remedies, "estimate", lambda recipe, **options: estimated(recipe, sizes))
    recipe = small("train.keep_graphs=0", "train.decoder_checkpointing=segments")
    recipe = recipe.model_copy(
        update={"generator": recipe.generator.model_copy(update={"memory": "sharded"})}
    )
    before = estimated(recipe, sizes)
    steps = steps_to_fit(before, 3.5 * blocks, gpus=64)
    assert [one.change.overrides for one in steps] == [
        "generator.memory=block-offload",
        "generator.quantise=nf4",
    ]


def test_shared_blocks_that_an_evaluation_gathers_may_rest_instead() -> None:
    blocks = sum(block.bytes(2, None) for block in blocks_of(SMALL))
    sizes = {
        "rollout": {"transformer": 2 * blocks, "activations": blocks},
        "evaluation": {"transformer": 2 * blocks, "activations": blocks},
    }
    recipe = small("train.keep_graphs=0", "train.decoder_checkpointing=segments")
    before = estimated(recipe, sizes)
    enough = steps_to_fit(before, 2.99 * blocks, gpus=8)
    assert [one.change.overrides for one in enough] == ["generator.memory=block-offload"]


@pytest.mark.slow
def test_a_change_that_needs_a_run_of_its_own_is_followed() -> None:
    recipe = load_recipe("tiny-drtune-hps", ["train.keep_graphs=3", "train.steps=1"])
    before = estimate(recipe, time=False)
    (first, *_) = steps_to_fit(before, 0.97 * before.peak[1])
    assert first.change.overrides == "train.gradient_checkpointing=true"
    assert first.bytes < 0.97 * before.peak[1]


def overrides_of(name: str, *overrides: str, gpus: int = 1) -> list[str]:
    recipe = load_any_recipe(name, overrides, check_files=False)
    return [one.overrides for one in changes(recipe, gpus=gpus)]


def test_a_fine_tuning_of_an_adapter() -> None:
    found = overrides_of(
        "finetune/easyanimate-v5.1-7b-lora", "train.batch_size=2", "data.sides=[256,512]"
    )
    assert found == [
        "generator.memory=offload",
        "generator.memory=block-offload",
        "train.batch_size=1 train.gradient_accumulation=8",
        "generator.quantise=fp8",
        "lora.rank=32",
        "data.sides=[256]",
    ]


def test_trained_weights_stay_on_the_gpu_as_they_are() -> None:
    found = overrides_of("finetune/stage-4-13312-i2v", "data.sides=[512]", gpus=2)
    assert found == ["generator.memory=offload", "data.sides=[384]"]


def test_a_distillation() -> None:
    found = overrides_of("distil/easyanimate-v5.1-7b-4-steps", gpus=2)
    assert found[:2] == ["generator.memory=offload", "generator.memory=sharded"]
    assert found[-1] == "student.height=192 student.width=192"


def test_every_change_is_accepted_by_its_recipe() -> None:
    for name in (
        "easyanimate-v5.1-12b-hps",
        "finetune/easyanimate-v5.1-7b-lora",
        "finetune/stage-4-13312-i2v",
        "distil/easyanimate-v5.1-7b-4-steps",
    ):
        for change in overrides_of(name, "train.batch_size=2"):
            plain = ["train.batch_size=2", *change.split()]
            load_any_recipe(name, plain, check_files=False)
