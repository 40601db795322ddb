"""LoRA gradients through each memory mode and each quantisation, against the resident fp32 base."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from base_model.generator import Generator, load_generator
from base_model.memory.block_offload import stream_blocks
from base_model.memory.modes import Memory
from base_model.memory.quantise import Quantise
from base_model.sampling.guidance import Guidance, guided_velocity
from reward_tuning.errors import TuningError
from reward_tuning.lora.adapter import LoraSpec, adapted_layers, adapter_state, attach, scaled
from reward_tuning.progress import ProgressEvent
from reward_tuning.runs.out_of_memory import OutOfMemory
from reward_tuning.sampling.first_block_cache import FirstBlockCache
from reward_tuning.tuning.trainer import run
from tests.boundary import Boundary, bytes_of
from tests.reward_tuning.tiny_run import tiny_recipe, write_world

CPU = torch.device("cpu")
HAS_LIBRARY = importlib.util.find_spec("bitsandbytes") is not None
needs_library = pytest.mark.skipif(not HAS_LIBRARY, reason="needs bitsandbytes (extra: quantise)")
SPEC = LoraSpec(rank=4, alpha=4, targets="all-linear")


def lora_gradient(generator: Generator, text: Any) -> tuple[Tensor, Tensor]:
    """Guided velocity of the shipped generator, and the adapter's gradient of <g, v>."""
    parameters = attach(generator.transformer, SPEC, seed=1)
    draw = torch.Generator().manual_seed(2)
    for tensor in adapter_state(generator.transformer).values():
        tensor.copy_(torch.randn(tensor.shape, generator=draw) * 0.05)
    shape = generator.latent_shape(1, 9, 64, 64)
    latents, g = (torch.randn(shape, generator=draw) for _ in range(2))
    condition = generator.condition(text)
    v = guided_velocity(generator, latents, 0.6, condition, Guidance(4.0), "joint")
    (v * g).sum().backward()
    return v.detach(), torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])


@pytest.fixture(scope="module")
def text() -> Any:
    prompt = "a large blue square moves right on a dark background"
    return load_generator("tiny").encode_prompts([prompt], [""])


@pytest.fixture(scope="module")
def resident(text: Any) -> tuple[Tensor, Tensor]:
    generator = load_generator("tiny", text_encoder=False)
    generator.transformer.enable_gradient_checkpointing()
    return lora_gradient(generator, text)


@pytest.mark.parametrize("memory", ["offload", "block-offload"])
def test_memory_changes_no_bit(text: Any, resident: tuple[Tensor, Tensor], memory: Memory) -> None:
    generator = load_generator("tiny", text_encoder=False, memory=memory)
    generator.transformer.enable_gradient_checkpointing()
    for got, expected in zip(lora_gradient(generator, text), resident, strict=True):
        assert torch.equal(got, expected)


def streamed(**options: Any) -> tuple[Generator, Boundary]:
    generator, boundary = load_generator("tiny", text_encoder=False, **options), Boundary()
    stream_blocks(generator.transformer, CPU, boundary)
    boundary.close(generator.transformer.transformer_blocks)
    return generator, boundary


def test_an_adapter_on_streamed_blocks(text: Any, resident: tuple[Tensor, Tensor]) -> None:
    """What rests is poison, so the adapter's passes use the copies alone."""
    generator, boundary = streamed()
    for got, expected in zip(lora_gradient(generator, text), resident, strict=True):
        assert torch.equal(got, expected)
    assert boundary.bytes == 0
    # the adapter is no part of what moves
    layers = adapted_layers(generator.transformer)
    trained = {p.data_ptr() for p in generator.transformer.parameters() if p.requires_grad}
    assert len(trained) == 2 * len(layers)
    assert not trained & boundary.real.keys()


def sweeps(generator: Generator, text: Any) -> list[Tensor]:
    """A rollout, two steps with gradient and the base's calls, as a batch of a training runs them.

    Returns:
        The states, the base's velocities and the adapter's gradients.
    """
    parameters = attach(generator.transformer, SPEC, seed=1)
    draw = torch.Generator().manual_seed(2)
    for tensor in adapter_state(generator.transformer).values():
        tensor.copy_(torch.randn(tensor.shape, generator=draw) * 0.05)
    condition, guidance = generator.condition(text), Guidance(4.0)
    x = torch.randn(generator.latent_shape(1, 5, 32, 32), generator=draw)
    found = [x]
    with torch.no_grad():
        for sigma in (1.0, 0.8, 0.5):
            v = guided_velocity(generator, found[-1], sigma, condition, guidance, "detached")
            found.append(found[-1] - 0.2 * v)
    leaf = found[1].clone().requires_grad_()  # the first step's input carries gradient, too
    for sigma, state, negative in ((0.5, found[2], "detached"), (0.8, leaf, "joint")):
        v = guided_velocity(generator, state, sigma, condition, guidance, negative)
        with torch.no_grad(), scaled(generator.transformer, 0.0):
            base = guided_velocity(generator, state, sigma, condition, guidance, "detached")
        (v - 0.9 * base).square().sum().backward()
        found.append(base)
    assert leaf.grad is not None
    return [*found, leaf.grad, *(p.grad for p in parameters if p.grad is not None)]


def test_sweeps_on_streamed_blocks(text: Any) -> None:
    reference = load_generator("tiny", text_encoder=False)
    reference.transformer.enable_gradient_checkpointing()
    expected = sweeps(reference, text)
    generator, boundary = streamed()
    sizes = [bytes_of(block) for block in generator.transformer.transformer_blocks]
    got = sweeps(generator, text)
    assert len(got) == len(expected) > 100
    for one, other in zip(got, expected, strict=True):
        assert torch.equal(one, other)
    assert expected[-1].norm() > 0
    assert boundary.peak <= 2 * max(sizes) < sum(sizes)
    assert boundary.bytes == 0


def test_of_the_blocks_that_the_cache_skips_only_the_next_is_fetched(text: Any) -> None:
    generator, boundary = streamed()
    blocks = generator.transformer.transformer_blocks
    forwards = [block.forward for block in blocks]
    condition = generator.condition(text).positive
    latents = generator.initial_noise(generator.latent_shape(1, 5, 32, 32), [0])
    with torch.no_grad(), FirstBlockCache(generator.transformer, 1e9) as cache:
        with cache.call(full=True):
            generator.velocity(latents, 0.9, condition)
        whole = boundary.copies
        with cache.call(full=False):
            generator.velocity(latents, 0.8, condition)
    fetched = [t for block in blocks[:2] for t in (*block.parameters(), *block.buffers())]
    assert boundary.copies == whole + len(fetched)
    assert [block.forward for block in blocks] == forwards  # streamed still, after the cache
    assert boundary.bytes == 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_an_adapter_on_a_gpu(text: Any) -> None:
    """The adapter lies on the device though its layers rest in the CPU's memory."""
    found = []
    for memory in ("resident", "block-offload"):
        generator = load_generator("tiny", text_encoder=False, device="cuda", memory=memory)  # type: ignore[arg-type]
        generator.transformer.enable_gradient_checkpointing()
        found.append(lora_gradient(generator, text))
        state = adapter_state(generator.transformer)
        assert {tensor.device.type for tensor in state.values()} == {"cuda"}
    for got, expected in zip(*found, strict=True):
        assert torch.equal(got, expected)


# Measured: cosine and relative error were 0.9997 and 0.023 (int8), 0.963 and 0.292 (nf4), 0.9967
# and 0.082 (fp8), 0.9993 and 0.039 (int8-compute), 0.9921 and 0.127 (fp8-compute); -rP shows them.
@pytest.mark.parametrize(
    ("quantise", "cosine", "error"),
    [
        pytest.param("int8", 0.999, 0.05, marks=needs_library),
        pytest.param("nf4", 0.95, 0.4, marks=needs_library),
        ("fp8", 0.99, 0.15),
        ("int8-compute", 0.998, 0.07),
        ("fp8-compute", 0.98, 0.2),
    ],
)
def test_quantised(
    text: Any,
    resident: tuple[Tensor, Tensor],
    quantise: Quantise,
    cosine: float,
    error: float,
    record_property: Any,
) -> None:
    generator = load_generator("tiny", text_encoder=False, quantise=quantise)
    generator.transformer.enable_gradient_checkpointing()
    velocity, gradient = lora_gradient(generator, text)
    found = torch.cosine_similarity(gradient, resident[1], dim=0).item()
    distance = ((gradient - resident[1]).norm() / resident[1].norm()).item()
    off = ((velocity - resident[0]).norm() / resident[0].norm()).item()
    record_property("measured", f"cosine {found:.5f}, error {distance:.4f}, velocity {off:.4f}")
    print(f"{quantise}: cosine {found:.5f}, relative error {distance:.4f}, velocity {off:.4f}")
    assert found > cosine
    assert 0 < distance < error


@pytest.mark.slow
@pytest.mark.parametrize(
    "quantise", [pytest.param("nf4", marks=needs_library), "fp8", "int8-compute"]
)
def test_quantised_and_streamed(text: Any, quantise: Quantise) -> None:
    """Packed weights travel as they are: the same bits as quantised and resident."""
    expected = lora_gradient(load_generator("tiny", text_encoder=False, quantise=quantise), text)
    generator, boundary = streamed(quantise=quantise)
    for got, wanted in zip(lora_gradient(generator, text), expected, strict=True):
        assert torch.equal(got, wanted)
    assert boundary.copies > 0
    assert boundary.bytes == 0


@pytest.mark.slow
def test_a_run_on_a_quantised_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the recipe to the exported adapter; the other numbers are another base's."""
    monkeypatch.setenv("REWARD_TUNING_CACHE", str(tmp_path / "cache"))
    world = write_world(tmp_path / "world")
    short = ("train.steps=1", "evaluation.prompts=2", "evaluation.seeds=1")
    losses = []
    for overrides in ((), ("generator.quantise=fp8", "generator.memory=block-offload")):
        folder = run(tiny_recipe(world, tmp_path / str(len(losses)), *short, *overrides)).folder
        row = json.loads((folder / "metrics.jsonl").read_text().splitlines()[0])
        assert row["grad_norm"] > 0
        assert list((folder / "lora").iterdir())
        losses.append(row["loss"])
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], rel=0.1)


@pytest.mark.slow
def test_a_run_that_goes_on_with_less_memory_ends_in_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every change that `--retry-with-less-memory` makes, but for kept graphs, at once."""
    monkeypatch.setenv("REWARD_TUNING_CACHE", str(tmp_path / "cache"))
    world = write_world(tmp_path / "world")
    short = ("evaluation.prompts=2", "evaluation.seeds=1", "train.checkpoint_every=1")
    plain = (*short, "train.steps=3", "train.decoder_checkpointing=false")
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    run(tiny_recipe(world, whole, *plain))

    def run_out(event: ProgressEvent) -> None:
        if (event.stage, event.done, event.phase) == ("training", 1, "sweep"):
            raise torch.OutOfMemoryError("tried in vain")

    with pytest.raises(OutOfMemory, match="decoder_checkpointing=true"):
        run(tiny_recipe(world, cut, *plain), progress=run_out)
    less = (
        "train.decoder_checkpointing=segments",
        "train.gradient_checkpointing=true",
        "generator.memory=block-offload",
    )
    run(tiny_recipe(world, cut, *short, "train.steps=3", *less), resume=True)
    for name in ("checkpoints/step-000003/adapter.safetensors", "evaluation.json"):
        assert (cut / name).read_bytes() == (whole / name).read_bytes()


@pytest.mark.slow
def test_offloaded_activations_change_no_bit_of_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With graphs kept from the rollout, and the base's calls between them."""
    monkeypatch.setenv("REWARD_TUNING_CACHE", str(tmp_path / "cache"))
    world = write_world(tmp_path / "world")
    short = ("train.steps=1", "evaluation.prompts=2", "evaluation.seeds=1", "train.anchor=0.1")
    kept = ("train.keep_graphs=1", "train.gradient_checkpointing=true")
    rows = []
    for override in ("false", "true"):
        options = (*short, *kept, f"train.offload_activations={override}")
        folder = run(tiny_recipe(world, tmp_path / override, *options)).folder
        row = json.loads((folder / "metrics.jsonl").read_text().splitlines()[0])
        rows.append((row["loss"], row["grad_norm"]))
    assert rows[0] == rows[1]
    assert rows[0][1] > 0


def test_offloaded_activations_need_checkpoints(tmp_path: Path) -> None:
    world = write_world(tmp_path / "world")
    with pytest.raises(TuningError, match=r"offload_activations.*gradient_checkpointing=true"):
        tiny_recipe(world, tmp_path / "run", "train.offload_activations=true")
