"""Exports: identity of export then import, other readers, the golden LoRA, bad files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from diffusers import EasyAnimateTransformer3DModel
from diffusers.loaders import PeftAdapterMixin
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import nn

from base_model.files import reproducible as weight_file
from reward_tuning.errors import TuningError
from reward_tuning.lora.adapter import (
    LoraSpec,
    LoraWeights,
    attach,
    attach_weights,
    linear_modules,
    lora_weights,
)
from reward_tuning.lora.export import (
    DIFFUSERS_FILE,
    FORMATS,
    ExportFormat,
    export_adapter,
    import_adapter,
)
from reward_tuning.lora.formats import original_file, tensor_file
from tests.reward_tuning.lora.test_adapter import filled
from tests.reward_tuning.tiny_transformer import inputs, tiny_transformer, velocity

GOLDEN = Path(__file__).parents[2] / "golden"
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
def test_export_then_import_is_the_identity(
    tmp_path: Path, format: ExportFormat, targets: str
) -> None:
    _, weights = tuned(targets)
    path = export_adapter(weights, tmp_path / NAMES[format], format)
    again = import_adapter(path, tiny_transformer())
    assert same(again, weights)
    # and through every other format
    for other in FORMATS:
        turned = export_adapter(again, tmp_path / f"{other}-{NAMES[other]}", other)
        assert same(import_adapter(turned, tiny_transformer()), weights)


@pytest.mark.parametrize("format", FORMATS)
def test_bf16_export_is_the_rounded_adapter_at_half_the_size(
    tmp_path: Path, format: ExportFormat
) -> None:
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


def test_the_same_adapter_gives_the_same_bytes(tmp_path: Path) -> None:
    tensors = {"b": torch.arange(4.0), "a": torch.ones(2, 3)}
    metadata = dict.fromkeys(["format", "sshs_model_hash", "sshs_legacy_hash", "one"], "x")
    ours = {weight_file.safetensors_bytes(tensors, metadata) for _ in range(20)}
    ours.add(weight_file.safetensors_bytes(tensors, dict(reversed(metadata.items()))))
    assert len(ours) == 1
    # the control: the library alone orders metadata by a random hash
    assert len({safetensors.torch.save(tensors, metadata) for _ in range(20)}) > 1
    path = tmp_path / "x.safetensors"
    path.write_bytes(weight_file.safetensors_bytes(tensors, {"k": "ü", "a": "b"}))
    read, metadata = tensor_file.read_tensors(path)
    assert read.keys() == tensors.keys()
    assert all(torch.equal(read[k], tensors[k]) for k in tensors)
    assert metadata == {"k": "ü", "a": "b"}


# --- other readers


def test_peft_reads_the_folder(tmp_path: Path) -> None:
    transformer, weights = tuned()
    expected = velocity(transformer, *inputs())
    export_adapter(weights, tmp_path / "lora", "peft")
    base = tiny_transformer()
    assert not torch.allclose(velocity(base, *inputs()), expected, rtol=1e-2)
    model = PeftModel.from_pretrained(base, str(tmp_path / "lora"))
    assert torch.equal(velocity(model.base_model.model, *inputs()), expected)


def test_diffusers_reads_the_file_with_the_right_strength(tmp_path: Path) -> None:
    class Adaptable(EasyAnimateTransformer3DModel, PeftAdapterMixin):  # type: ignore[misc]
        """The stock class has no LoRA loader of its own."""

    Adaptable.__name__ = "EasyAnimateTransformer3DModel"
    transformer, weights = tuned()
    expected = velocity(transformer, *inputs())
    path = export_adapter(weights, tmp_path / DIFFUSERS_FILE, "diffusers")
    # By a path alone the header is dropped, by a name of a .safetensors file it is read, and a copy
    # without a header is what other programs leave of it.
    bare = tmp_path / "bare.safetensors"
    save_file(load_file(path), bare)
    ways: list[tuple[Path, dict[str, Any]]] = [
        (path, {}),
        (path, {"use_safetensors": True}),
        (path.parent, {"weight_name": path.name}),
        (bare, {}),
    ]
    for place, options in ways:
        model = tiny_transformer()
        model.__class__ = Adaptable
        model.load_lora_adapter(str(place), prefix="transformer", **options)
        assert torch.equal(velocity(model, *inputs()), expected)
    header = tensor_file.read_tensors(path)[1]
    assert header["original_alpha"] == "2.0"
    assert not torch.allclose(velocity(tiny_transformer(), *inputs()), expected, rtol=1e-2)


def test_a_diffusers_file_in_a_folder_is_found(tmp_path: Path) -> None:
    _, weights = tuned()
    export_adapter(weights, tmp_path / "f" / DIFFUSERS_FILE, "diffusers")
    assert same(import_adapter(tmp_path / "f", tiny_transformer()), weights)


def test_original_layout_is_the_trainers_own(tmp_path: Path) -> None:
    """Our export of the golden LoRA has the golden file's names, values and digests."""
    golden = GOLDEN / "lora_original_layout.safetensors"
    weights = import_adapter(golden, tiny_transformer())
    assert (weights.rank, weights.alpha) == (4, 2.0)
    assert set(weights.state) == set(linear_modules(tiny_transformer()))
    path = export_adapter(weights, tmp_path / "lora.safetensors", "original")
    ours, theirs = load_file(path), load_file(golden)
    assert ours.keys() == theirs.keys()
    for key, tensor in theirs.items():
        assert ours[key].shape == tensor.shape
        assert torch.equal(ours[key], tensor)
    assert tensor_file.read_tensors(path)[1] == tensor_file.read_tensors(golden)[1]


def test_import_onto_a_transformer_reproduces_it(tmp_path: Path) -> None:
    transformer, weights = tuned("attention+mlp")
    path = export_adapter(weights, tmp_path / "lora.safetensors", "original")
    fresh = tiny_transformer()
    parameters = attach_weights(fresh, import_adapter(path, fresh))
    assert len(parameters) == 2 * len(weights.state)
    assert torch.equal(velocity(fresh, *inputs()), velocity(transformer, *inputs()))


def test_modules_without_alpha_count_once(tmp_path: Path) -> None:
    """As the original reader: no alpha is strength 1, so alpha = rank."""
    _, weights = tuned("attention")
    path = export_adapter(weights, tmp_path / "a.safetensors", "original")
    tensors = {k: t for k, t in load_file(path).items() if not k.endswith(".alpha")}
    save_file(tensors, tmp_path / "b.safetensors")
    assert import_adapter(tmp_path / "b.safetensors", tiny_transformer()).alpha == 4.0


def test_a_meta_transformer_is_enough_to_convert(tmp_path: Path) -> None:
    _, weights = tuned()
    path = export_adapter(weights, tmp_path / "lora.safetensors", "original")
    assert same(import_adapter(path, tiny_transformer().to("meta")), weights)


# --- bad files


@pytest.mark.parametrize("format", FORMATS)
def test_truncated_files_are_told(tmp_path: Path, format: ExportFormat) -> None:
    _, weights = tuned("attention")
    path = export_adapter(weights, tmp_path / NAMES[format], format)
    file = path / "adapter_model.safetensors" if format == "peft" else path
    content = file.read_bytes()
    for length in (0, 5, 200, len(content) - 1):
        file.write_bytes(content[:length])
        with pytest.raises(TuningError, match="truncated"):
            import_adapter(path, tiny_transformer())


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
def test_adapters_of_another_model_are_told(tmp_path: Path, format: ExportFormat) -> None:
    _, weights = tuned()
    path = export_adapter(weights, tmp_path / NAMES[format], format)
    shorter = tiny_transformer(num_layers=3)
    with pytest.raises(TuningError, match=r"transformer_blocks[._]3.*another model"):
        import_adapter(path, shorter)
    wider = tiny_transformer(attention_head_dim=32)
    with pytest.raises(TuningError, match=r"has down \(4, 32\)"):
        import_adapter(path, wider)


@pytest.mark.parametrize("format", FORMATS)
def test_shape_mismatches_are_told(tmp_path: Path, format: ExportFormat) -> None:
    _, weights = tuned("attention")
    state = dict(weights.state)
    module = next(iter(state))
    down, up = state[module]
    state[module] = (down, up[:, :3])
    path = export_adapter(LoraWeights(4, 2.0, state), tmp_path / NAMES[format], format)
    with pytest.raises(TuningError, match=rf"{module} has down .* up \(32, 3\)"):
        import_adapter(path, tiny_transformer())


@pytest.mark.parametrize("half", ["down", "up"])
def test_half_a_pair_is_told(tmp_path: Path, half: str) -> None:
    _, weights = tuned("attention")
    file = export_adapter(weights, tmp_path / "lora.safetensors", "original")
    tensors = load_file(file)
    key = original_file.original_key("transformer_blocks.0.attn1.to_q")
    save_file({k: t for k, t in tensors.items() if k != f"{key}.lora_{half}.weight"}, file)
    with pytest.raises(TuningError, match=rf"'{key}' lacks its {half}"):
        import_adapter(file, tiny_transformer())


# --- writing


@pytest.mark.parametrize("format", FORMATS)
def test_a_failed_write_leaves_what_was_there(
    tmp_path: Path, format: ExportFormat, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, weights = tuned("attention")
    path = export_adapter(weights, tmp_path / NAMES[format], format)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("reward_tuning.files.atomic_write.os.fsync", full)
    other = LoraWeights(4, 8.0, weights.state)
    with pytest.raises(TuningError, match="No space left"):
        export_adapter(other, path, format)
    monkeypatch.undo()
    assert same(import_adapter(path, tiny_transformer()), weights)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]  # no leftovers
    export_adapter(other, path, format)
    assert import_adapter(path, tiny_transformer()).alpha == 8.0
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_folder_that_is_no_export_is_not_replaced(tmp_path: Path) -> None:
    _, weights = tuned("attention")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_text("dear")
    with pytest.raises(TuningError, match="no earlier export"):
        export_adapter(weights, tmp_path / "photos", "peft")
    assert (tmp_path / "photos" / "a.jpg").read_text() == "dear"


def test_wrong_requests(tmp_path: Path) -> None:
    _, weights = tuned("attention")
    with pytest.raises(TuningError, match="allowed are peft, diffusers, original"):
        export_adapter(weights, tmp_path / "x", "kohya")  # type: ignore[arg-type]
    with pytest.raises(TuningError, match=r"ends in \.safetensors; got no ending"):
        export_adapter(weights, tmp_path / "x", "original")
