"""Sizes that the doctor calculates from headers, against the networks and files themselves."""

from pathlib import Path
from typing import get_args

import pytest
import torch

from base_model.files.published_generators import SIZES
from base_model.memory.quantise import Quantise
from reward_tuning.doctor import sizes
from reward_tuning.evidence.any_recipe import load_any_recipe
from reward_tuning.lora.adapter import linear_modules, select_targets
from reward_tuning.lora.module_shapes import transformer_shapes
from reward_tuning.runs.checkpoints import RunCheckpoint, save_checkpoint
from reward_tuning.runs.optimiser import OPTIMISERS
from reward_tuning.schema.loop_section import LoopSection
from reward_tuning.schema.sections import GeneratorSection, LoraSection
from reward_tuning.schema.values import Dtype

TINY = GeneratorSection(checkpoint="tiny")
HUB_ID = "alibaba-pai/EasyAnimateV5.1-7b-zh-InP"


@pytest.fixture
def empty_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.mark.parametrize("targets", ["attention", "attention+mlp", "all-linear", ("to_q",)])
def test_an_adapters_numbers_are_those_of_the_network(targets: str | tuple[str, ...]) -> None:
    network = transformer_shapes("tiny")
    layers = linear_modules(network)
    chosen = select_targets(network, targets)
    expected = sum(4 * (layers[p].in_features + layers[p].out_features) for p in chosen)
    lora = LoraSection(rank=4, targets=targets)
    assert sizes.trained_numbers(TINY, lora) == expected > 0
    # stored as a difference from tiny, with the same linear layers
    assert sizes.trained_numbers(GeneratorSection(checkpoint="tiny-camera"), lora) == expected


def test_all_weights_are_those_of_the_network() -> None:
    expected = sum(p.numel() for p in transformer_shapes("tiny").parameters())
    assert sizes.trained_numbers(TINY, None) == expected
    assert sizes.resident_bytes(TINY) == 4 * expected
    half = GeneratorSection(checkpoint="tiny", dtype="bfloat16")
    assert sizes.resident_bytes(half) == 2 * expected
    packed = GeneratorSection(checkpoint="tiny", quantise="nf4")
    assert sizes.resident_bytes(packed) == int(expected * 4.5 / 8)


def test_original_names_and_wrappers_prefixes_count_as_well(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    part = tmp_path / "transformer"
    part.mkdir()
    names = ("attn1.to_q", "attn2.to_q", "ff.net.2")
    weights = {f"module.transformer_blocks.0.{name}.weight": torch.zeros(6, 5) for name in names}
    save_file(weights, part / "diffusion_pytorch_model.safetensors")
    generator = GeneratorSection(checkpoint=str(tmp_path))
    attention = LoraSection(rank=2, targets="attention")
    assert sizes.trained_numbers(generator, attention) == 2 * 2 * 11
    replaced = GeneratorSection(
        checkpoint="tiny", transformer=str(part / "diffusion_pytorch_model.safetensors")
    )
    assert sizes.trained_numbers(replaced, attention) == 2 * 2 * 11


@pytest.mark.usefixtures("empty_hub")
def test_a_published_generator_is_known_without_its_files() -> None:
    generator = GeneratorSection(checkpoint=HUB_ID)
    lora = LoraSection(rank=64, targets="attention")
    assert sizes.trained_numbers(generator, lora) == 64 * SIZES[0].adapter["attention"]
    assert sizes.trained_numbers(generator, None) == SIZES[0].transformer
    assert sizes.trained_numbers(generator, LoraSection(targets=("to_q",))) is None
    assert sizes.trained_numbers(GeneratorSection(checkpoint="some/thing"), lora) is None
    assert sizes.resident_bytes(GeneratorSection(checkpoint="some/thing")) is None


@pytest.mark.parametrize(
    ("steps", "every", "keep", "count"), [(10, 50, 3, 1), (100, 50, 3, 2), (1000, 50, 3, 4)]
)
def test_checkpoints_at_once(steps: int, every: int, keep: int, count: int) -> None:
    train = LoopSection(steps=steps, batch_size=1, checkpoint_every=every, keep_checkpoints=keep)
    assert sizes.kept_checkpoints(train) == count


@pytest.mark.parametrize("ema", [None, 0.99])
def test_a_checkpoint_is_as_large_as_calculated(tmp_path: Path, ema: float | None) -> None:
    train = LoopSection(steps=1, batch_size=1, ema_decay=ema)
    weight = torch.nn.Parameter(torch.ones(500, 400))
    optimiser = torch.optim.AdamW([weight])
    weight.grad = torch.ones_like(weight)
    optimiser.step()
    state = {"a.lora_A.weight": weight.detach()}
    checkpoint = RunCheckpoint(
        step=1,
        position=1,
        bad_steps=0,
        bad_in_a_row=0,
        adapter=state,
        optimiser=optimiser.state_dict(),
        rng={},
        recipe={},
        fingerprints={},
        ema=None if ema is None else state,
    )
    folder = save_checkpoint(tmp_path, checkpoint, keep=1)
    measured = sum(file.stat().st_size for file in folder.iterdir())
    assert measured == pytest.approx(weight.numel() * sizes.checkpoint_bytes(train), rel=0.02)


def test_recipes_of_all_verbs() -> None:
    for name in ("tiny-demo", "distil/tiny-4-steps"):
        size = sizes.written_bytes(load_any_recipe(name))
        assert size is not None
        assert 1e5 < size < 1e9


def test_every_kind_of_weight_and_optimiser_has_its_bytes() -> None:
    assert set(sizes.PACKED_BYTES) == set(get_args(Quantise))
    assert set(sizes.WEIGHT_BYTES) == set(get_args(Dtype))
    assert set(sizes.MOMENTS) == set(OPTIMISERS)
