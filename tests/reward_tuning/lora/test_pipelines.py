"""`load_lora` on the stock pipeline and transformer of diffusers."""

from __future__ import annotations

import gc
import logging
import math
import weakref
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from diffusers import EasyAnimatePipeline, EasyAnimateTransformer3DModel
from torch import Tensor

import reward_tuning
from base_model.files.shipped import resolve_checkpoint
from base_model.generator import Generator, load_generator
from base_model.networks.corrections import correct
from base_model.sampling.guidance import Guidance
from base_model.sampling.sample import euler_sample
from base_model.sampling.sigmas import sigma_table
from reward_tuning import load_lora
from reward_tuning.errors import TuningError
from reward_tuning.lora.adapter import LoraSpec, attach, attach_weights, lora_weights, scaled
from reward_tuning.lora.export import FORMATS, export_adapter, export_every_format
from reward_tuning.lora.names import tensors_by_name
from reward_tuning.schema.sections import LoraSection
from tests.base_model.sampling.test_stock_diffusers import PROMPT, opened, theirs
from tests.goldens import relative
from tests.reward_tuning.lora.test_adapter import filled
from tests.reward_tuning.lora.test_export import NAMES, tuned
from tests.reward_tuning.tiny_transformer import inputs, tiny_transformer, velocity

STEPS = 6


@pytest.fixture(scope="module")
def generator() -> Generator:
    return load_generator("tiny")


@pytest.fixture(scope="module")
def run_folder(generator: Generator, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with a LoRA of the shipped generator in every format."""
    folder = tmp_path_factory.mktemp("run")
    transformer = load_generator("tiny", text_encoder=False).transformer
    attach(transformer, LoraSpec(4, 2.0, "attention"), seed=0)
    filled(transformer)
    weights = lora_weights(transformer)
    weak = {path: (down, 0.3 * up) for path, (down, up) in weights.state.items()}
    section = LoraSection(rank=4, alpha=2.0, targets="attention")
    export_every_format(section, folder / "lora", tensors_by_name(weak))
    (folder / "recipe.yaml").write_text("output: .")
    return folder


def stock() -> EasyAnimatePipeline:
    return opened(cast("Path", resolve_checkpoint("tiny")))


def noise_of(generator: Generator) -> Tensor:
    return generator.initial_noise(generator.latent_shape(1, 9, 64, 64), [0])


def ours(run: Path, factors: list[float]) -> Tensor:
    """Our own chain with the LoRA at a strength for each step."""
    from reward_tuning.lora.export import import_adapter

    generator = load_generator("tiny")
    attach_weights(generator.transformer, import_adapter(run, generator.transformer))
    condition = generator.condition(generator.encode_prompts([PROMPT], [""]))
    x, sigmas = noise_of(generator), sigma_table(STEPS)
    for i, factor in enumerate(factors):
        with scaled(generator.transformer, factor):
            x = euler_sample(generator, condition, x, sigmas[i : i + 2], Guidance(5.0))
    return x


def test_two_lines_on_the_stock_pipeline(
    generator: Generator, run_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pipe, noise = stock(), noise_of(generator)
    assert type(pipe) is EasyAnimatePipeline
    before = theirs(pipe, noise, STEPS)
    names = list(pipe.transformer.state_dict())
    with caplog.at_level(logging.WARNING, "reward_tuning"):
        loaded = load_lora(pipe, run_folder, strength=0.7)
    (record,) = (one for one in caplog.records if one.name.startswith("reward_tuning"))
    assert "differs from the published EasyAnimateV5.1 in the rotary grid" in record.getMessage()
    expected = ours(run_folder, [0.7] * STEPS)
    assert relative(theirs(pipe, noise, STEPS), expected) < 1e-4
    assert relative(before, expected) > 0.05
    assert list(pipe.transformer.state_dict()) == names
    loaded.strength = 0.2
    assert relative(theirs(pipe, noise, STEPS), ours(run_folder, [0.2] * STEPS)) < 1e-4
    loaded.unload()
    assert torch.equal(theirs(pipe, noise, STEPS), before)  # the corrections are gone, too
    loaded.unload()  # once is enough


def test_the_annealed_mix_on_the_stock_pipeline(generator: Generator, run_folder: Path) -> None:
    pipe, noise = stock(), noise_of(generator)
    levels = [float(sigma) for sigma in sigma_table(STEPS)[:-1]]
    with load_lora(pipe, run_folder, strength=0.9, schedule="annealed") as loaded:
        got = theirs(pipe, noise, STEPS)
        expected = ours(run_folder, [0.9 * (1 - sigma) ** 2 for sigma in levels])
        assert relative(got, expected) < 1e-4
        assert relative(got, ours(run_folder, [0.9] * STEPS)) > 1e-2
        between = (levels[2] + levels[3]) / 2
        loaded.schedule = lambda sigma: float(sigma <= between)
        expected = ours(run_folder, [0.0] * 3 + [0.9] * 3)
        assert relative(theirs(pipe, noise, STEPS), expected) < 1e-4


# --- the transformer alone


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_on_the_stock_transformer(tmp_path: Path, format: str) -> None:
    attached, weights = tuned()
    correct(attached)
    path = export_adapter(weights, tmp_path / NAMES[format], format)
    model = tiny_transformer()
    assert type(model) is EasyAnimateTransformer3DModel
    load_lora(model, path)
    got, expected = velocity(model, *inputs()), velocity(attached, *inputs())
    assert relative(got, expected) < 1e-6
    assert relative(velocity(correct(tiny_transformer()), *inputs()), expected) > 1e-2


@pytest.mark.parametrize(("dtype", "epsilon"), [(torch.bfloat16, 4e-3), (torch.float16, 5e-4)])
def test_half_precision_is_as_with_peft(tmp_path: Path, dtype: torch.dtype, epsilon: float) -> None:
    _, weights = tuned()
    path = export_adapter(weights, tmp_path / "lora", "peft")
    model, other = tiny_transformer().to(dtype), tiny_transformer().to(dtype)
    load_lora(model, path)
    attach_weights(correct(other), weights)
    got = velocity(model, *inputs())
    assert got.dtype == dtype
    assert relative(got, velocity(other, *inputs())) < epsilon


def test_several_add_up_and_the_last_one_undoes_the_corrections(tmp_path: Path) -> None:
    _, weights = tuned("attention")
    path = export_adapter(weights, tmp_path / "lora", "peft")
    model = tiny_transformer()
    stock_velocity = velocity(model, *inputs())
    first, second = load_lora(model, path, strength=0.3), load_lora(model, path, strength=0.4)
    once = tiny_transformer()
    load_lora(once, path, strength=0.7)
    assert relative(velocity(model, *inputs()), velocity(once, *inputs())) < 1e-6
    first.unload()
    corrected = tiny_transformer()
    load_lora(corrected, path, strength=0.4)
    assert torch.equal(velocity(model, *inputs()), velocity(corrected, *inputs()))
    second.strength = 0
    assert torch.equal(velocity(model, *inputs()), velocity(correct(tiny_transformer()), *inputs()))
    second.unload()
    assert torch.equal(velocity(model, *inputs()), stock_velocity)


def test_corrections_may_be_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    transformer, weights = tuned("attention")  # not corrected
    path = export_adapter(weights, tmp_path / "lora", "peft")
    model = tiny_transformer()
    with caplog.at_level(logging.WARNING, "reward_tuning"):
        load_lora(model, path, corrections=False)
        assert "up to 1 % of the velocity" in caplog.text
        assert "text stream of 2 blocks" in caplog.text
        assert torch.equal(velocity(model, *inputs()), velocity(transformer, *inputs()))
        caplog.clear()
        load_lora(correct(tiny_transformer()), path)
        assert "differs" not in caplog.text  # nothing to correct


def test_a_pipeline_is_freed_with_its_lora(tmp_path: Path) -> None:
    _, weights = tuned("attention")
    path = export_adapter(weights, tmp_path / "lora", "peft")
    model = tiny_transformer()
    load_lora(model, path)
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None


def test_refusals(tmp_path: Path) -> None:
    _, weights = tuned("attention")
    path = export_adapter(weights, tmp_path / "lora", "peft")
    model = tiny_transformer()
    untouched = velocity(model, *inputs())
    attempts: list[tuple[Any, Any, dict[str, Any], str]] = [
        (torch.nn.Linear(2, 2), path, {}, "EasyAnimate pipelines of diffusers.*got a Linear"),
        (model, tmp_path / "none", {}, "no such file"),
        (model, path, {"strength": math.nan}, "strength is nan"),
        (model, path, {"schedule": "early"}, "schedule is 'early'; allowed: constant, annealed"),
        (tiny_transformer(attention_head_dim=32), path, {}, "a model of another size"),
        (torch.compile(tiny_transformer()), path, {}, "compiled already"),
    ]
    for pipe, file, options, message in attempts:
        with pytest.raises(TuningError, match=message):
            load_lora(pipe, file, **options)
    assert torch.equal(velocity(model, *inputs()), untouched)
    in_place = tiny_transformer()
    in_place.transformer_blocks[0].compile()
    with pytest.raises(TuningError, match="load the LoRA first"):
        load_lora(in_place, path)


def test_a_lora_without_an_effect_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = tiny_transformer()
    attach(model, LoraSpec(4, 2.0, "attention"), seed=0)
    path = export_adapter(lora_weights(model), tmp_path / "lora", "peft")
    with caplog.at_level(logging.WARNING, "reward_tuning"):
        load_lora(tiny_transformer(), path)
    assert "changes nothing" in caplog.text


def test_the_package_offers_it() -> None:
    assert "load_lora" in reward_tuning.__all__
    assert reward_tuning.load_lora is load_lora
