"""Changes that make a run fit, in their order and on top of one another."""

from __future__ import annotations

from benchmarks.small_shape import SMALL, SMALL_CLIP
from reward_tuning.estimate.estimate import Estimate, memory_of
from reward_tuning.estimate.phase_memory import Followed, Memory
from reward_tuning.estimate.remedies import changes, steps_to_fit
from reward_tuning.schema.loading import load_recipe
from reward_tuning.schema.recipe import Recipe


def small(*overrides: str) -> Recipe:
    return load_recipe("easyanimate-v5.1-7b-hps", [*SMALL_CLIP, *overrides], check_files=False)


def estimated(recipe: Recipe, sizes: Memory) -> Estimate:
    seen = Followed(sizes, 1.0, 1.0)
    return Estimate(recipe, SMALL, memory_of(recipe, SMALL, seen, gpus=1), seen, None, ())


def test_what_keeps_the_numbers_comes_first() -> None:
    found = [one.overrides for one in changes(small("train.keep_graphs=2"), gpus=1)]
    assert found[:2] == ["train.keep_graphs=0", "generator.memory=offload"]
    assert found.index("generator.quantise=fp8") < found.index("generator.memory=block-offload")
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


def test_a_change_that_needs_a_run_of_its_own_is_followed() -> None:
    from reward_tuning.estimate.counted_recipe import counted_recipe
    from reward_tuning.estimate.phase_memory import followed

    recipe = load_recipe("tiny-drtune-hps", ["train.keep_graphs=3", "train.steps=1"])
    from reward_tuning.estimate.shapes import shape_of

    shape = shape_of(recipe.generator)
    seen = followed(counted_recipe(recipe, shape).recipe, shape, 0)
    memory = memory_of(recipe, shape, seen, gpus=1)
    before = Estimate(recipe, shape, memory, seen, None, ())
    (first, *_) = steps_to_fit(before, 0.97 * before.peak[1])
    assert first.change.overrides == "train.keep_graphs=0"
    assert first.bytes < 0.97 * before.peak[1]
