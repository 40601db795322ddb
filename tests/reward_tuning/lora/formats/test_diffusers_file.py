"""The diffusers file, read by diffusers in each of its ways."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import EasyAnimateTransformer3DModel
from diffusers.loaders import PeftAdapterMixin
from safetensors.torch import load_file, save_file

from reward_tuning.lora.export import (
    DIFFUSERS_FILE,
    export_adapter,
    import_adapter,
)
from reward_tuning.lora.formats import tensor_file
from tests.reward_tuning.lora.test_export import same, tuned
from tests.reward_tuning.tiny_transformer import inputs, tiny_transformer, velocity


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
