"""Adapters by the paths that name them: names, checkpoints, damaged and foreign files."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from reward_tuning.errors import TuningError
from reward_tuning.evidence.named_adapters import named_adapters, read_named_adapters
from reward_tuning.lora.module_shapes import transformer_shapes
from reward_tuning.progress import ProgressEvent


@pytest.fixture(scope="module")
def shapes(world: Path) -> nn.Module:
    return transformer_shapes(world / "generator")


def test_names_are_as_much_of_the_path_as_tells_them_apart(tmp_path: Path) -> None:
    for name in ("a/x.safetensors", "b/x.safetensors", "b/y.safetensors", "base"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = named_adapters([tmp_path / "a/x.safetensors", tmp_path / "b/y.safetensors"])
    assert [one.name for one in found] == ["x", "y"]
    found = named_adapters([tmp_path / "a/x.safetensors", tmp_path / "b/x.safetensors"])
    assert [one.name for one in found] == ["a/x", "b/x"]
    (found_base,) = named_adapters([tmp_path / "base"])  # a side has that name already
    assert found_base.name == f"{tmp_path.name}/base"


def test_checkpoints_of_a_run(finished: Path, shapes: nn.Module) -> None:
    found = named_adapters([finished], checkpoints=True)
    assert [(one.name, one.step) for one in found] == [
        ("first step 1", 1),
        ("first step 2", 2),
        ("first", None),
    ]
    events: list[ProgressEvent] = []
    first, last = read_named_adapters(found, shapes, events.append)
    # the export is the moving average after the last step
    average = load_file(finished / "checkpoints/step-000002/ema.safetensors")
    path = next(iter(last.weights.state))
    assert torch.equal(last.weights.state[path][1], average[f"{path}.lora_B.weight"])
    (exported,) = read_named_adapters(found[2:], shapes)
    assert last.sha256 == exported.sha256 != first.sha256
    (note,) = [event.note for event in events]
    assert note == "first is left out: it is the same adapter as first step 2"


def test_a_damaged_checkpoint(finished: Path, shapes: nn.Module, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    path = run / "checkpoints/step-000001/ema.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(TuningError, match=r"step-000001 is damaged: ema\.safetensors does not fit"):
        read_named_adapters(named_adapters([run], checkpoints=True), shapes)
    (path.parent / "state.json").write_text("{}")
    with pytest.raises(TuningError, match="step-000001 is damaged, or an older"):
        read_named_adapters(named_adapters([run], checkpoints=True), shapes)


def test_an_adapter_without_effect_and_a_foreign_one(
    finished: Path, shapes: nn.Module, tmp_path: Path
) -> None:
    source = finished / "lora/pytorch_lora_weights.safetensors"
    tensors = load_file(source)
    save_file(
        {name: t * (0 if "lora_B" in name else 1) for name, t in tensors.items()},
        tmp_path / "nothing.safetensors",
    )
    events: list[ProgressEvent] = []
    read_named_adapters(named_adapters([tmp_path / "nothing.safetensors"]), shapes, events.append)
    assert "changes nothing" in events[0].note
    save_file(
        {"unet.down.lora_A.weight": torch.ones(2, 3), "unet.down.lora_B.weight": torch.ones(3, 2)},
        tmp_path / "foreign.safetensors",
    )
    with pytest.raises(TuningError, match=r"foreign\.safetensors"):
        read_named_adapters(named_adapters([tmp_path / "foreign.safetensors"]), shapes)


@pytest.mark.parametrize(
    ("sources", "checkpoints", "text"),
    [
        ([], False, "nothing to evaluate"),
        (["a.safetensors", "./a.safetensors"], False, "is given twice"),
        (["a.safetensors"], True, "--checkpoints: .* has no checkpoints"),
        (["nowhere"], False, "no LoRA at"),
        (["unfinished"], False, "is not finished; resume it"),
    ],
)
def test_errors(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    sources: list[str],
    checkpoints: bool,
    text: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.safetensors").touch()
    Path("unfinished").mkdir()
    Path("unfinished/recipe.yaml").touch()
    with pytest.raises(TuningError, match=text):
        named_adapters([Path(one) for one in sources], checkpoints=checkpoints)
