"""What a request leaves open comes from the first run; what is unknown is asked for."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import save_file

from reward_tuning.errors import TuningError
from reward_tuning.evidence.request import EvaluationRequest, Setup
from reward_tuning.evidence.setup import resolve
from reward_tuning.schema.cache_kinds import Taylor
from tests.reward_tuning.tiny_run import HELD_OUT, TRAIN

Make = Callable[..., Setup]


@pytest.fixture
def made(finished: Path) -> Make:
    def make(*sources: Path, **options: Any) -> Setup:
        return resolve(EvaluationRequest(sources or (finished,), **options))

    return make


def test_a_run_gives_everything(made: Make, world: Path) -> None:
    setup = made()
    assert setup.generator.checkpoint == str(world / "generator")
    assert [prompt.text for prompt in setup.prompts] == HELD_OUT
    assert (list(setup.steps), list(setup.guidance)) == ([4], [3.0])
    assert (setup.sampling.steps, setup.sampling.guidance_scale) == (4, 3.0)
    assert (setup.seed, setup.seeds, setup.batch_size, setup.size) == (3, 2, 4, (5, 32, 32))
    assert [judge.label for judge in setup.judges] == ["clip", "clip_held_out"]
    assert (setup.trained_on, setup.never_trained_on) == (["clip"], ["clip_held_out"])
    assert setup.primary == "clip_held_out"
    assert list(setup.notes) == []


def test_options_replace_it(made: Make, finished: Path) -> None:
    setup = made(
        steps=[8, 2],
        guidance=[5.0, 3.0, 5.0],
        seeds=1,
        seed=9,
        count=2,
        primary="motion",
        batch_size=7,
        dtype="bfloat16",
    )
    assert list(setup.steps) == [8, 2]  # the run's 4 is not wanted
    assert list(setup.guidance) == [3.0, 5.0]  # the run's own is the main one
    assert (setup.sampling.steps, setup.sampling.guidance_scale) == (8, 3.0)
    assert (setup.seeds, setup.seed, len(setup.prompts), setup.batch_size) == (1, 9, 2, 7)
    assert (setup.primary, setup.generator.dtype) == ("motion", "bfloat16")
    inside = made(finished / "lora")  # a LoRA in a run folder has its generator, and no more
    assert inside.generator.checkpoint == setup.generator.checkpoint
    assert list(inside.judges) == []


def test_the_interval_of_guidance_is_the_evaluations(
    made: Make, finished: Path, tmp_path: Path
) -> None:
    assert made().sampling.guidance_steps is None
    assert made(guidance_steps=(0.2, 0.9)).sampling.guidance_steps == (0.2, 0.9)
    with pytest.raises(TuningError, match=r"--guidance-steps: got 0\.9 0\.2; allowed: two noise"):
        made(guidance_steps=(0.9, 0.2))
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    recipe = yaml.safe_load((run / "recipe.yaml").read_text())
    recipe["sampling"]["guidance_steps"] = [0.0, 0.8]
    recipe["evaluation"]["guidance_steps"] = [0.3, 1.0]
    (run / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    assert made(run).sampling.guidance_steps == (0.3, 1.0)


def test_the_cache_of_steps_is_the_evaluations(made: Make, finished: Path, tmp_path: Path) -> None:
    assert made().cache is None
    assert made(cache="taylor:3").cache == Taylor(interval=3)
    with pytest.raises(TuningError, match="--cache: got 'tailor'; allowed: auto, none, first-b"):
        made(cache="tailor")
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    recipe = yaml.safe_load((run / "recipe.yaml").read_text())
    recipe["evaluation"]["cache"] = {"kind": "taylor", "interval": 2, "warm_up": 3}
    recipe["rollout"]["cache"] = "teacache"
    (run / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    assert made(run).cache == Taylor(warm_up=3)
    assert made(run, cache="none").cache is None


def test_a_lora_alone(made: Make, finished: Path, tmp_path: Path) -> None:
    lora = tmp_path / "mine.safetensors"
    shutil.copy(finished / "lora/pytorch_lora_weights.safetensors", lora)
    with pytest.raises(TuningError, match="generator is unknown; name it with --checkpoint"):
        made(lora)
    setup = made(lora, checkpoint="tiny")
    assert len(setup.prompts) == 32
    assert setup.size == (9, 64, 64)
    assert (list(setup.steps), list(setup.guidance)) == ([25], [6.0])
    assert setup.primary is None
    assert "tiny/held_out.jsonl" in setup.notes[0]
    assert "--judges adds some" in setup.notes[1]


def test_prompts_that_were_trained_on(made: Make, tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text(f"{TRAIN[0]}\na new one\n", encoding="utf-8")
    (note,) = made(prompts=str(file)).notes
    assert "1 of 2 prompts of the evaluation is trained on" in note
    file.write_text("\n".join(TRAIN[:2]), encoding="utf-8")
    with pytest.raises(TuningError, match="nothing is held out"):
        made(prompts=str(file))


def test_runs_of_different_generators(made: Make, finished: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(finished, other)
    recipe = (other / "recipe.yaml").read_text()
    name = made().generator.checkpoint
    shutil.copytree(name, tmp_path / "same")
    (other / "recipe.yaml").write_text(recipe.replace(name, str(tmp_path / "same")))
    assert made(finished, other).generator.checkpoint == name  # equal content is one base
    weights = next((tmp_path / "same" / "transformer").glob("*.safetensors"))
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(TuningError, match="no base is common to them"):
        made(finished, other)
    assert made(finished, other, checkpoint=name).generator.checkpoint == name


def test_a_run_of_another_version(made: Make, finished: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(finished, other)
    recipe = (other / "recipe.yaml").read_text()
    (other / "recipe.yaml").write_text(recipe + "of_tomorrow: 3\n")
    with pytest.raises(TuningError, match=r"(?s)another version of reward-tuning .*of_tomorrow"):
        made(other)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"strengths": [1.0, 11.0]}, "--strengths: got 11; allowed: numbers from -10 to 10"),
        ({"strengths": [float("nan")]}, "--strengths: got nan"),
        ({"guidance": [3.0, float("inf")]}, "--guidance: got inf; allowed: numbers from 1 to 1000"),
        ({"steps": [8, 0], "seeds": 0}, "--steps: got 0; --seeds: got 0; allowed: 1 or more"),
        ({"guidance": [float("nan"), 0.5]}, "--guidance: got nan, 0.5"),
        ({"count": 4}, "--count: got 4, but .* has 3 prompts; allowed: 2 to 3"),
        ({"primary": "hps"}, "--primary: got 'hps'"),
        ({"primary": "diversity", "seeds": 1}, "--primary: got 'diversity'"),
        ({"prompts": "nowhere.jsonl"}, "no such prompt file"),
        ({"checkpoint": "nowhere"}, "nowhere"),
    ],
)
def test_errors(made: Make, options: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=f"(?s){text}"):
        made(**options)
    assert replace(EvaluationRequest([Path("x")]), **options)


def test_one_prompt_is_too_few(made: Make, tmp_path: Path) -> None:
    path = tmp_path / "one.txt"
    path.write_text("a red ball\n")
    with pytest.raises(TuningError, match=r"^--prompts: .*one.txt has 1 prompt; give 2 or more"):
        made(prompts=str(path))


def test_a_lora_outside_a_run_is_put_on_the_generator_that_its_header_names(
    tmp_path: Path,
) -> None:
    one, other = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    save_file({"x": torch.zeros(1)}, one, {"reward_tuning.base": '{"checkpoint": "tiny"}'})
    setup = resolve(EvaluationRequest(sources=[one]))
    assert setup.generator.checkpoint == "tiny"
    assert "generator tiny, which the LoRA's own header names" in setup.notes
    save_file({"x": torch.zeros(1)}, other, {"reward_tuning.base": '{"checkpoint": "a/b"}'})
    with pytest.raises(TuningError, match="name it with --checkpoint"):
        resolve(EvaluationRequest(sources=[one, other]))


def with_keys(
    run: Path, target: Path, generator: dict[str, Any], evaluation: dict[str, Any]
) -> Path:
    """A copy of a run with other values in its recipe."""
    shutil.copytree(run, target)
    recipe = yaml.safe_load((target / "recipe.yaml").read_text())
    recipe["generator"] |= generator
    recipe["evaluation"] |= evaluation
    (target / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return target


def test_the_base_has_the_frozen_adapter_where_the_run_was_measured_with_it(
    made: Make, finished: Path, tmp_path: Path
) -> None:
    under = {"adapter": str(finished / "lora")}
    on = with_keys(finished, tmp_path / "on", under, {"adapter": True})
    off = with_keys(finished, tmp_path / "off", under, {"adapter": False})
    assert made(on).generator.adapter == under["adapter"]
    assert made(off).generator.adapter is None
    assert made(on, checkpoint=made(on).generator.checkpoint).generator.adapter is None
    made(finished, off)  # measured on the same base
    with pytest.raises(TuningError, match=r"different generators.* with .*lora"):
        made(finished, on)
