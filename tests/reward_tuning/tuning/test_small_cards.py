"""The recipes for cards of one size, run whole on the CPU at the embedded size."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from base_model.memory.quantise import QuantisedLinear
from reward_tuning.errors import TuningError
from reward_tuning.inputs import text_states
from reward_tuning.schema.loading import load_recipe
from reward_tuning.schema.locate import shipped_recipes
from reward_tuning.schema.recipe import Recipe
from reward_tuning.tuning import parts
from reward_tuning.tuning.preflight import check_run
from reward_tuning.tuning.trainer import run
from tests.reward_tuning.recipes_for_tests import write_recipe
from tests.reward_tuning.tiny_run import tiny_recipe, write_world

CARDS = [recipe.name for recipe in shipped_recipes() if recipe.name.endswith("gb")]
HAS_LIBRARY = importlib.util.find_spec("bitsandbytes") is not None
needs_library = pytest.mark.skipif(not HAS_LIBRARY, reason="needs bitsandbytes (extra: quantise)")
SMALL = (
    "generator.checkpoint=tiny",
    "prompts.train=tiny/train.jsonl",
    "prompts.held_out=tiny/held_out.jsonl",
    "sampling.frames=5",
    "sampling.height=32",
    "sampling.width=32",
    "sampling.steps=4",
    "method.active_steps=2",
    "rewards.0.checkpoint=tiny/hps.safetensors",
    "rewards.0.dtype=float32",
    "rewards.0.frames=2",
    "evaluation.held_out_rewards.0.checkpoint=tiny/clip-held-out.safetensors",
    "evaluation.held_out_rewards.0.dtype=float32",
    "evaluation.held_out_rewards.0.frames=2",
    "evaluation.steps=2",
    "evaluation.prompts=2",
    "lora.rank=2",
    "train.steps=1",
    "train.gradient_accumulation=1",
    "train.checkpoint_every=1",
    "train.sample_every=0",
)
"""What makes a published recipe one of the embedded generator; how weights are held stays."""


def test_names() -> None:
    assert [name.removeprefix("easyanimate-v5.1-") for name in CARDS] == [
        "12b-hps-16gb",
        "12b-hps-24gb",
        "12b-hps-48gb",
        "12b-hps-512-80gb",
        "7b-hps-24gb",
    ]


def test_they_differ_from_the_recipe_for_large_cards_in_memory_and_size_alone() -> None:
    for name in CARDS:
        base = load_recipe(f"{name.partition('-hps')[0]}-hps", check_files=False)
        recipe = load_recipe(name, check_files=False)
        generator = {"memory": "resident", "quantise": None, "text_encoder_device": None}
        back = recipe.model_copy(
            update={
                "output": base.output,
                "generator": recipe.generator.model_copy(update=generator),
                "train": recipe.train.model_copy(
                    update={"decoder_checkpointing": True, "keep_graphs": base.train.keep_graphs}
                ),
                "sampling": recipe.sampling.model_copy(update={"height": 256, "width": 256}),
            }
        )
        assert back == base, name
        assert recipe.generator.memory != "resident"
        side = 512 if "-512-" in name else 256
        assert (recipe.sampling.height, recipe.sampling.width) == (side, side)


CASES = [
    pytest.param(name, override, marks=marks, id=f"{name.removeprefix('easyanimate-')}{override}")
    for name in CARDS
    for override, marks in (
        [
            ("", needs_library),  # as it is: nf4
            ("generator.quantise=int8-compute", ()),
        ]
        if "16gb" in name
        else [("", ())]
    )
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "override"), CASES)
def test_a_run(name: str, override: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One update and an evaluation; where bitsandbytes is missing, int8-compute stands for nf4."""
    monkeypatch.setenv("REWARD_TUNING_CACHE", str(tmp_path / "cache"))
    seen: dict[str, Any] = {}
    load = parts.load_generator

    def watched(*arguments: Any, **options: Any) -> Any:
        seen.update(options)
        seen["generator"] = load(*arguments, **options)
        return seen["generator"]

    monkeypatch.setattr(parts, "load_generator", watched)
    changes = [*SMALL, f"output={tmp_path / 'run'}", *([override] if override else [])]
    recipe = load_recipe(name, changes)
    folder = run(recipe).folder
    assert (seen["memory"], seen["quantise"]) == (
        recipe.generator.memory,
        recipe.generator.quantise,
    )
    assert seen["dtype"] == torch.bfloat16
    blocks = seen["generator"].transformer.transformer_blocks
    kinds = {m.kind for m in blocks.modules() if isinstance(m, QuantisedLinear)}
    assert kinds == ({recipe.generator.quantise} if recipe.generator.quantise else set())
    assert all(
        ("forward" in vars(b)) == (recipe.generator.memory == "block-offload") for b in blocks
    )
    row = json.loads((folder / "metrics.jsonl").read_text().splitlines()[0])
    assert row["grad_norm"] > 0
    assert list((folder / "lora").iterdir())
    assert (folder / "evaluation.json").is_file()


def test_prompts_are_encoded_where_the_recipe_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REWARD_TUNING_CACHE", str(tmp_path / "cache"))
    world = write_world(tmp_path / "world")
    devices: list[Any] = []
    load = text_states.load_text_encoder

    def noted(*arguments: Any, device: Any, **options: Any) -> Any:
        devices.append(device)
        return load(*arguments, device="cpu", **options)

    monkeypatch.setattr(text_states, "load_text_encoder", noted)

    def loaded(*overrides: str) -> None:
        recipe = tiny_recipe(world, tmp_path / "run", *overrides)
        with pytest.raises(TypeError, match="texts are encoded"):
            parts.load_parts(recipe, torch.device("meta"), 1, lambda event: None)

    def stop(*arguments: Any, **options: Any) -> Any:
        raise TypeError("texts are encoded")

    monkeypatch.setattr(parts, "load_generator", stop)
    for name in ("load_judges", "report_truncation"):
        monkeypatch.setattr(parts, name, lambda *arguments, **options: [])
    loaded("generator.text_encoder_device=cpu", "seed=1")
    assert devices == [torch.device("cpu")]
    monkeypatch.setenv("REWARD_TUNING_CACHE", str(tmp_path / "another"))
    loaded()
    assert devices[1:] == [torch.device("meta")]  # the run's


def test_a_device_that_is_missing_or_is_none_is_told(tmp_path: Path) -> None:
    def recipe(value: str) -> Recipe:
        return load_recipe(write_recipe(tmp_path), [f"generator.text_encoder_device={value}"])

    mistakes = check_run(recipe("cuda:7"), torch.device("cpu")).mistakes
    assert any(
        "generator.text_encoder_device is cuda:7; this machine has cpu" in m for m in mistakes
    )
    with pytest.raises(TuningError, match=r"text_encoder_device.*'gpu'.*allowed: cpu, cuda"):
        recipe("gpu")
