"""The parts of an evaluation: loaded when needed, and the facts that name a clip."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from base_model.errors import GeneratorError
from base_model.sampling.sigmas import sigma_table
from reward_tuning.evidence.loaded import Loaded
from reward_tuning.evidence.named_adapters import named_adapters, read_named_adapters
from reward_tuning.evidence.request import EvaluationRequest
from reward_tuning.evidence.setup import resolve
from reward_tuning.evidence.sides_plan import PlannedSide, planned_sides
from reward_tuning.lora.attached import attached
from reward_tuning.lora.export import import_adapter
from reward_tuning.progress import silent
from reward_tuning.tuning.evaluation import evaluation_seed
from rewards.errors import RewardError


@pytest.fixture(scope="module")
def loaded(finished: Path) -> Loaded:
    return Loaded(resolve(EvaluationRequest([finished])), torch.device("cpu"), silent)


def test_facts_of_a_clip(loaded: Loaded, finished: Path) -> None:
    loaded.check()
    (adapter,) = read_named_adapters(named_adapters([finished]), loaded.shapes)
    base, half = planned_sides(loaded.setup, [adapter], [0.5])
    facts = loaded.facts(half, 1, 1)
    assert facts.adapter == adapter.sha256
    assert (facts.strength, facts.prompt, facts.steps) == (0.5, "a cat", 4)
    assert facts.noise_seed == evaluation_seed(3, 1, 1)
    assert (facts.conditions, facts.kept_pixels) == (None, None)
    assert facts.generator != facts.text_encoder
    # the base is the same clip whatever the adapter
    nothing = PlannedSide("off", 4, 3.0, adapter, 0.0, 0)
    assert loaded.facts(nothing, 1, 1).key == loaded.facts(base, 1, 1).key != facts.key
    assert "sampler" not in vars(loaded)  # nothing heavy was loaded for this


def test_guidance_changes_and_the_rest_stays(loaded: Loaded) -> None:
    other = loaded.guided(7.0)
    assert (other.guidance.scale, loaded.sampler.guidance.scale) == (7.0, 3.0)
    assert other.generator is loaded.sampler.generator
    assert [judge.label for judge in loaded.judges] == ["clip", "clip_held_out"]


def test_a_missing_judge_is_found_before_anything_is_loaded(loaded: Loaded) -> None:
    (judge, _) = loaded.setup.judges
    gone = judge.model_copy(update={"checkpoint": "/nowhere/judge.safetensors"})
    with pytest.raises(RewardError, match="nowhere"):
        Loaded(replace(loaded.setup, judges=[gone]), loaded.device, silent).check()


def test_steps_that_leave_nothing_to_run_are_refused_at_once(loaded: Loaded) -> None:
    sampling = loaded.setup.sampling.model_copy(update={"strength": 0.3})
    few = replace(loaded.setup, sampling=sampling, steps=[8, 2])
    with pytest.raises(GeneratorError, match="step"):
        Loaded(few, loaded.device, silent).check()


def test_the_frozen_adapter_of_the_base_is_on_the_generator_and_in_the_facts(
    loaded: Loaded, finished: Path
) -> None:
    section = loaded.setup.generator.model_copy(update={"adapter": str(finished / "lora")})
    under = Loaded(replace(loaded.setup, generator=section), torch.device("cpu"), silent)
    base = PlannedSide("base", 4, 3.0)
    assert under.facts(base, 0, 0).key != loaded.facts(base, 0, 0).key
    prompt = [loaded.setup.prompts[0]]
    sigmas = sigma_table(4)
    clips = [one.sampler.latents(prompt, [1], sigmas) for one in (under, loaded)]
    assert not torch.equal(*clips)
    weights = import_adapter(finished / "lora", loaded.shapes)
    with attached(loaded.sampler.generator.transformer, weights):
        wanted = loaded.sampler.latents(prompt, [1], sigmas)
    torch.testing.assert_close(clips[0], wanted, rtol=1e-3, atol=1e-4)
