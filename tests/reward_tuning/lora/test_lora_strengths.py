"""Strengths: of several LoRAs together, of a run's checkpoint, of an adapter that starts a run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import nn

from reward_tuning.errors import TuningError
from reward_tuning.lora.adapter import (
    LoraSpec,
    LoraWeights,
    adapter_state,
    attach,
    attach_weights,
    linear_modules,
    lora_weights,
)
from reward_tuning.lora.combining import combine, has_no_effect
from reward_tuning.lora.export import export_adapter, import_adapter
from reward_tuning.lora.init import attach_adapter, check_start
from reward_tuning.runs.checkpoints import RunCheckpoint, save_checkpoint
from reward_tuning.schema.sections import LoraSection
from tests.reward_tuning.command_line import command
from tests.reward_tuning.lora_layouts import FIRST, cut, dotted, flat, peft_folder, save
from tests.reward_tuning.tiny_transformer import inputs, tiny_transformer, velocity


def drawn(rank: int, alpha: float, targets: str, seed: int) -> LoraWeights:
    """An adapter of random factors."""
    transformer = tiny_transformer()
    attach(transformer, LoraSpec(rank, alpha, targets), seed=0)
    draw = torch.Generator().manual_seed(seed)
    for tensor in adapter_state(transformer).values():
        tensor.copy_(torch.randn(tensor.shape, generator=draw) * 0.3)
    return lora_weights(transformer)


TWO = (drawn(4, 2.0, "attention", 1), drawn(3, 6.0, "all-linear", 2))


def test_two_adapters_are_what_peft_makes_of_both(tmp_path: Path) -> None:
    for name, weights in zip("ab", TWO, strict=True):
        export_adapter(weights, tmp_path / name, "peft")
    model: Any = PeftModel.from_pretrained(tiny_transformer(), str(tmp_path / "a"), "a")
    model.load_adapter(str(tmp_path / "b"), "b")
    model.base_model.set_adapter(["a", "b"])
    wanted = velocity(model.base_model.model, *inputs())
    ours = tiny_transformer()
    attach_weights(ours, combine([(weights, 1.0) for weights in TWO]))
    assert torch.allclose(velocity(ours, *inputs()), wanted, rtol=1e-4, atol=1e-5)


def test_each_of_several_adapters_counts_at_its_scale() -> None:
    scales = (0.5, -1.5)
    both = combine(list(zip(TWO, scales, strict=True)))
    assert both.rank == 7
    for path in linear_modules(tiny_transformer()):
        wanted: Any = 0.0
        for weights, scale in zip(TWO, scales, strict=True):
            if path in weights.state:
                down, up = (one.double() for one in weights.state[path])
                wanted = wanted + scale * weights.alpha / weights.rank * (up @ down)
        down, up = (one.double() for one in both.state[path])
        got = both.alpha / both.rank * (up @ down)
        assert torch.allclose(got, wanted, rtol=1e-5, atol=1e-6)


# --- checkpoints of a run


@pytest.fixture
def step(tmp_path: Path) -> Path:
    """A checkpoint whose adapter has alpha 2 at rank 4."""
    transformer = tiny_transformer()
    attach_weights(transformer, TWO[0])
    adapter = adapter_state(transformer)
    recipe = {"lora": {"rank": 4, "alpha": 2.0}}
    checkpoint = RunCheckpoint(3, 12, 0, 0, adapter, {}, {}, recipe, {}, ema=adapter)
    return save_checkpoint(tmp_path / "run" / "checkpoints", checkpoint, keep=1)


def test_a_checkpoints_adapter_has_the_runs_strength(step: Path, tmp_path: Path) -> None:
    model = tiny_transformer()
    copy = shutil.copy(step / "adapter.safetensors", tmp_path / "mine.safetensors")
    for path in (step / "adapter.safetensors", step / "ema.safetensors", Path(copy)):
        assert (import_adapter(path, model).rank, import_adapter(path, model).alpha) == (4, 2.0)
    with pytest.raises(TuningError, match=r"two adapters; name its ema\.safetensors"):
        import_adapter(step, model)
    (step / "ema.safetensors").unlink()
    assert import_adapter(step, model).alpha == 2.0


def test_a_checkpoint_without_a_header_takes_alpha_from_its_state(step: Path) -> None:
    """As of runs of former versions."""
    path = step / "adapter.safetensors"
    save_file(load_file(path), path)
    assert import_adapter(path, tiny_transformer()).alpha == 2.0
    state = step / "state.json"
    content = json.loads(state.read_text(encoding="utf-8"))
    state.write_text(json.dumps({**content, "recipe": {"lora": None}}), encoding="utf-8")
    with pytest.raises(TuningError, match=r"not give the run's lora\.rank and lora\.alpha"):
        import_adapter(path, tiny_transformer())
    state.unlink()
    with pytest.raises(TuningError, match=r"alpha is in state\.json, which is missing"):
        import_adapter(path, tiny_transformer())


# --- the start of a run


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
