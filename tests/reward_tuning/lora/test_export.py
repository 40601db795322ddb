"""Exports: identity of export then import, other readers, the golden LoRA, bad files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from reward_tuning.errors import TuningError
from reward_tuning.lora.adapter import (
    LoraSpec,
    LoraWeights,
    adapter_state,
    attach,
    attach_weights,
    lora_weights,
)
from reward_tuning.lora.export import (
    FORMATS,
    export_adapter,
    export_every_format,
    import_adapter,
)
from reward_tuning.schema.sections import LoraSection
from tests.reward_tuning.lora.test_adapter import filled
from tests.reward_tuning.tiny_transformer import inputs, tiny_transformer, velocity

NAMES = {"peft": "lora", "diffusers": "lora.safetensors", "original": "lora.safetensors"}


def tuned(targets: str = "all-linear") -> tuple[nn.Module, LoraWeights]:
    """A transformer whose adapter has alpha != rank, and its weights."""
    transformer = tiny_transformer()
    attach(transformer, LoraSpec(4, 2.0, targets), seed=0)
    filled(transformer)
    return transformer, lora_weights(transformer)


def same(a: LoraWeights, b: LoraWeights) -> bool:
    return (
        (a.rank, a.alpha) == (b.rank, b.alpha)
        and list(a.state) == list(b.state)
        and all(
            torch.equal(x, y) and x.dtype == y.dtype
            for k in a.state
            for x, y in zip(a.state[k], b.state[k], strict=True)
        )
    )


@pytest.mark.parametrize("targets", ["attention", "all-linear"])
@pytest.mark.parametrize("format", FORMATS)
def test_export_then_import_is_the_identity(tmp_path: Path, format: str, targets: str) -> None:
    _, weights = tuned(targets)
    path = export_adapter(weights, tmp_path / NAMES[format], format)
    again = import_adapter(path, tiny_transformer())
    assert same(again, weights)
    # and through every other format
    for other in FORMATS:
        turned = export_adapter(again, tmp_path / f"{other}-{NAMES[other]}", other)
        assert same(import_adapter(turned, tiny_transformer()), weights)


@pytest.mark.parametrize("format", FORMATS)
def test_bf16_export_is_the_rounded_adapter_at_half_the_size(tmp_path: Path, format: str) -> None:
    _, weights = tuned()
    weights = LoraWeights(4, 3.3, weights.state)  # bf16 has no 3.3: alpha must not be rounded
    path = export_adapter(weights, tmp_path / NAMES[format], format, dtype=torch.bfloat16)
    again = import_adapter(path, tiny_transformer())
    assert again.alpha == pytest.approx(3.3, rel=1e-7)
    folded = 3.3 / 4 if format == "diffusers" else 1.0  # alpha / rank is in the up factors
    for module, (down, up) in weights.state.items():
        got = again.state[module]
        assert torch.equal(got[0], down.bfloat16().float())
        assert torch.allclose(got[1] * folded, (up * folded).bfloat16().float(), rtol=1e-6)


# --- other readers


def test_import_onto_a_transformer_reproduces_it(tmp_path: Path) -> None:
    transformer, weights = tuned("attention+mlp")
    path = export_adapter(weights, tmp_path / "lora.safetensors", "original")
    fresh = tiny_transformer()
    parameters = attach_weights(fresh, import_adapter(path, fresh))
    assert len(parameters) == 2 * len(weights.state)
    assert torch.equal(velocity(fresh, *inputs()), velocity(transformer, *inputs()))


def test_a_meta_transformer_is_enough_to_convert(tmp_path: Path) -> None:
    _, weights = tuned()
    path = export_adapter(weights, tmp_path / "lora.safetensors", "original")
    assert same(import_adapter(path, tiny_transformer().to("meta")), weights)


# --- bad files


def test_foreign_files_are_told(tmp_path: Path) -> None:
    model = tiny_transformer()
    with pytest.raises(TuningError, match="no such file"):
        import_adapter(tmp_path / "nothing.safetensors", model)
    with pytest.raises(TuningError, match=r"neither adapter_config\.json"):
        import_adapter(tmp_path, model)
    file = tmp_path / "vae.safetensors"
    save_file({"decoder.weight": torch.ones(1)}, file)
    with pytest.raises(TuningError, match=r"first key is 'decoder\.weight'"):
        import_adapter(file, model)
    save_file({}, file)
    with pytest.raises(TuningError, match="no tensors"):
        import_adapter(file, model)
    save_file({"transformer.a.lora_A.weight": torch.ones(1), "x": torch.ones(1)}, file)
    with pytest.raises(TuningError, match="key 'x'"):
        import_adapter(file, model)


@pytest.mark.parametrize("format", FORMATS)
def test_adapters_of_another_model_are_told(tmp_path: Path, format: str) -> None:
    _, weights = tuned()
    path = export_adapter(weights, tmp_path / NAMES[format], format)
    shorter = tiny_transformer(num_layers=3)
    with pytest.raises(TuningError, match=r"transformer_blocks[._]3.*another model"):
        import_adapter(path, shorter)
    wider = tiny_transformer(attention_head_dim=32)
    with pytest.raises(TuningError, match=r"has down \(4, 32\)"):
        import_adapter(path, wider)


@pytest.mark.parametrize("format", FORMATS)
def test_shape_mismatches_are_told(tmp_path: Path, format: str) -> None:
    _, weights = tuned("attention")
    state = dict(weights.state)
    module = next(iter(state))
    down, up = state[module]
    state[module] = (down, up[:, :3])
    path = export_adapter(LoraWeights(4, 2.0, state), tmp_path / NAMES[format], format)
    with pytest.raises(TuningError, match=rf"{module} has down .* up \(32, 3\)"):
        import_adapter(path, tiny_transformer())


# --- writing


def test_wrong_requests(tmp_path: Path) -> None:
    _, weights = tuned("attention")
    with pytest.raises(TuningError, match="allowed: peft, diffusers, original"):
        export_adapter(weights, tmp_path / "x", "kohya")  # type: ignore[arg-type]
    with pytest.raises(TuningError, match=r"ends in \.safetensors; got no suffix"):
        export_adapter(weights, tmp_path / "x", "original")


def test_a_runs_folder_has_every_format(tmp_path: Path) -> None:
    transformer, weights = tuned("attention")
    section = LoraSection(rank=4, alpha=2.0, targets="attention")
    (tmp_path / ".lora.tmp-1").mkdir()  # of a run that was killed
    export_every_format(section, tmp_path / "lora", adapter_state(transformer))
    assert [path.name for path in tmp_path.iterdir()] == ["lora"]
    for source in ("lora", "lora/pytorch_lora_weights.safetensors", "lora/original.safetensors"):
        assert same(import_adapter(tmp_path / source, tiny_transformer()), weights)
    attached = tiny_transformer()
    attach(attached, LoraSpec(4, 2.0, "attention"), seed=1)
    export_every_format(section, tmp_path / "lora", adapter_state(attached))
    assert not same(import_adapter(tmp_path / "lora", tiny_transformer()), weights)


@pytest.mark.parametrize("format", FORMATS)
def test_values_beyond_the_dtype_are_refused(tmp_path: Path, format: str) -> None:
    _, weights = tuned()
    large = LoraWeights(weights.rank, weights.alpha * 1e30, weights.state)
    path = tmp_path / NAMES[format]
    with pytest.raises(TuningError, match=r"values that float16 cannot; use a smaller --strength"):
        export_adapter(large, path, format, dtype=torch.float16)
    assert not list(tmp_path.iterdir())
    with pytest.raises(TuningError, match="values that float32 cannot"):
        export_adapter(LoraWeights(4, 1e300, weights.state), path, format)
