"""An adapter that starts from a LoRA: checked before anything is loaded, and trainable."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from reward_tuning.errors import TuningError
from reward_tuning.lora.adapter import (
    adapter_state,
)
from reward_tuning.lora.combining import has_no_effect
from reward_tuning.lora.export import import_adapter
from reward_tuning.lora.init import attach_adapter, check_start
from reward_tuning.schema.sections import LoraSection
from tests.reward_tuning.command_line import command
from tests.reward_tuning.lora_layouts import FIRST, cut, dotted, flat, peft_folder, save
from tests.reward_tuning.tiny_transformer import tiny_transformer


def section(path: Path, **changes: Any) -> LoraSection:
    given = {"rank": 4, "alpha": 8.0, "targets": "all-linear", "init": str(path), **changes}
    return LoraSection(**given)


def refused(lora: LoraSection, model: nn.Module, said: str) -> None:
    with pytest.raises(TuningError, match=said):
        check_start(lora, model)
    with pytest.raises(TuningError, match=said):
        attach_adapter(tiny_transformer(), lora, seed=0)


def test_a_start_is_looked_into_before_anything_is_loaded(tmp_path: Path) -> None:
    meta = tiny_transformer().to("meta")
    folder = peft_folder(tmp_path / "a")
    assert check_start(section(folder), meta) == ""
    assert check_start(section(folder), None) == ""
    refused(section(folder, rank=8), meta, r"has rank 4 and alpha 8, the recipe 8 and 8; set lora")
    refused(section(folder, targets="attention"), meta, r"adapts \d+ modules, lora.targets selects")
    pissa = section(peft_folder(tmp_path / "b", init_lora_weights="pissa"))
    refused(pissa, meta, "pissa")
    broken = save(
        tmp_path / "nan.safetensors", {k: v * float("nan") for k, v in dotted("").items()}
    )
    for lora, said in ((pissa, "pissa"), (section(broken), "NaN")):
        with pytest.raises(TuningError, match=said):
            check_start(lora, None)  # the generator is not here yet
    zero = {k: v * ("lora_A" in k) for k, v in dotted("").items()}
    untrained = save(tmp_path / "zero.safetensors", zero)
    assert "changes nothing" in check_start(section(untrained, alpha=4.0), meta)
    notes: list[str] = []
    attach_adapter(
        tiny_transformer(),
        section(untrained, alpha=4.0),
        seed=0,
        progress=lambda event: notes.append(event.note),
    )
    assert [note for note in notes if "changes nothing" in note] == notes


def test_validate_looks_into_the_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = command(capsys)
    foreign, pissa = tmp_path / "a", tmp_path / "b"
    peft_folder(foreign)
    peft_folder(pissa, init_lora_weights="pissa")
    rows = tmp_path / "rows.csv"
    rows.write_text("file_path,text\na.mp4,a\n", encoding="utf-8")
    finetune = ("finetune/tiny-lora", f"data.metadata={rows}")
    for recipe in (("tiny-drtune-hps",), finetune):
        for folder, said in ((foreign, "this transformer"), (pissa, "is 'pissa', a start that")):
            done = run("validate", *recipe, f"lora.init={folder}")
            assert done.code == 2
            assert "lora.init: " in done.err
            assert said in done.err


def test_a_module_of_a_smaller_rank_can_learn_with_the_whole_rank(tmp_path: Path) -> None:
    tensors = cut(flat("lora_unet__", alpha=None), 2)
    path = save(tmp_path / "lora.safetensors", tensors)
    weights = import_adapter(path, tiny_transformer())
    assert (weights.rank, weights.alpha) == (4, 4.0)
    model = tiny_transformer()
    attach_adapter(model, section(path, alpha=4.0), seed=0)
    state = adapter_state(model)
    down, up = state[f"{FIRST}.lora_A.weight"], state[f"{FIRST}.lora_B.weight"]
    assert torch.equal(up[:, 2:], torch.zeros_like(up[:, 2:]))
    assert (down[2:] != 0).all()  # else neither would ever have a gradient
    assert torch.equal(down[:2], weights.state[FIRST][0][:2])
    assert not has_no_effect(weights)
