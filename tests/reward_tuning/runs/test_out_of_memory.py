"""Memory that runs out: recognised, explained, and what is left to change."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from reward_tuning.progress import ProgressEvent, silent
from reward_tuning.runs.out_of_memory import (
    OTHER,
    ROUNDED,
    SAME,
    MeasuringOutOfMemory,
    OutOfMemory,
    PhaseOutOfMemory,
    SharedOutOfMemory,
    StepOutOfMemory,
    leave_together,
    measuring,
    memory_changes,
    message,
    next_change,
    out_of_memory_told,
    ran_out,
)
from reward_tuning.schema.loading import load_recipe
from tests.reward_tuning.recipes_for_tests import write_recipe


def values(folder: Path, *overrides: str) -> dict[str, Any]:
    return load_recipe(write_recipe(folder), overrides).model_dump(mode="json")


def test_the_allocators_of_torch_and_numpy_are_recognised() -> None:
    found = []
    for allocate in (lambda: torch.empty(2**60), lambda: np.empty(2**55)):
        with pytest.raises((RuntimeError, MemoryError)) as failed:
            allocate()
        found.append(ran_out(failed.value))
    assert found == [True, True]
    assert ran_out(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"))
    assert ran_out(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"))
    assert not ran_out(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not ran_out(ValueError("out of memory"))


def test_changes_come_one_by_one_until_none_is_left(tmp_path: Path) -> None:
    """Each is a recipe that loads."""
    made: list[str] = ["train.keep_graphs=2", "train.decoder_checkpointing=false"]
    begun = len(made)
    while change := next_change(values(tmp_path, *made), cuda=True):
        made += change.override.split()
    assert made[begun:] == [
        "train.keep_graphs=0",
        "train.decoder_checkpointing=true",
        "train.decoder_checkpointing=segments",
        "train.gradient_checkpointing=true",
        "generator.memory=offload",
        "generator.memory=block-offload",
        "train.offload_activations=true",
    ]
    assert all(one.numbers == OTHER for one in memory_changes(values(tmp_path, *made), cuda=True))


def test_on_the_cpu_moving_weights_frees_nothing(tmp_path: Path) -> None:
    found = memory_changes(values(tmp_path), cuda=False)
    assert [one.override for one in found if one.numbers == SAME] == [
        "train.decoder_checkpointing=segments",
        "train.gradient_checkpointing=true",
    ]


def test_segments_are_for_the_gradient_of_the_vaes_decoder(tmp_path: Path) -> None:
    def offered(recipe: dict[str, Any]) -> bool:
        found = [one.override for one in memory_changes(recipe, cuda=False)]
        return "train.decoder_checkpointing=segments" in found

    assert offered(values(tmp_path))
    assert not offered(values(tmp_path, "train.decoder=small"))
    assert offered(values(tmp_path, "train.decoder=small", "train.true_decoder_every=4"))
    assert not offered(values(tmp_path, "train.decoder_checkpointing=segments"))
    scored = load_recipe("tiny-nft-hps", check_files=False).model_dump(mode="json")
    assert not offered(scored)


def test_without_a_gradient_only_weights_and_batch_are_less(tmp_path: Path) -> None:
    """What is computed again for the gradient, or moved with it, lowers no peak of samples."""
    made = ["train.keep_graphs=2", "train.batch_size=4"]
    begun = len(made)
    while change := next_change(values(tmp_path, *made), cuda=True, gradient=False):
        made += change.override.split()
    assert made[begun:] == ["generator.memory=offload", "generator.memory=block-offload"]
    found = memory_changes(values(tmp_path, *made), cuda=True, gradient=False)
    assert [(one.override, one.numbers) for one in found] == [
        ("evaluation.batch_size=2", OTHER),
        ("generator.quantise=int8", OTHER),
    ]
    own = values(tmp_path, *made, "evaluation.batch_size=1")
    found = memory_changes(own, cuda=False, gradient=False)
    assert [one.override for one in found] == ["generator.quantise=int8"]
    finetuned = {name: value for name, value in own.items() if name != "evaluation"}
    assert memory_changes(finetuned, cuda=False, gradient=False) == found


@pytest.mark.parametrize(
    ("stage", "error", "gradient"),
    [
        ("training", PhaseOutOfMemory("sweep", MemoryError("in vain")), True),
        ("training", StepOutOfMemory("in vain"), True),
        ("training", MeasuringOutOfMemory("in vain"), False),
        ("evaluation of tuned", MemoryError("in vain"), False),
        ("samples", MemoryError("in vain"), False),
        ("guards: base", MemoryError("in vain"), False),
        ("loading", MemoryError("in vain"), True),
    ],
    ids=str,
)
def test_what_is_offered_helps_where_memory_ran_out(
    tmp_path: Path, stage: str, error: Exception, gradient: bool
) -> None:
    with (
        pytest.raises(OutOfMemory) as failed,
        out_of_memory_told(values(tmp_path), tmp_path, silent, lambda: False) as report,
    ):
        report(ProgressEvent(stage, 1, 2))
        raise error
    assert failed.value.gradient == gradient
    assert ("train.gradient_checkpointing=true" in str(failed.value)) == gradient
    nothing = "less memory for the same run: the recipe has nothing left to change"
    assert (nothing in str(failed.value).splitlines()) != gradient


def test_blocks_that_are_compiled_are_not_moved(tmp_path: Path) -> None:
    found = memory_changes(values(tmp_path, "train.compile=true"), cuda=True)
    assert "generator.memory=block-offload" not in [one.override for one in found]


def test_kept_graphs_are_the_only_change_to_rounding(tmp_path: Path) -> None:
    found = memory_changes(values(tmp_path, "train.keep_graphs=auto"), cuda=True)
    assert [one.override for one in found if one.numbers == ROUNDED] == [
        "train.keep_graphs=0 train.keep_graphs_memory=1.0"
    ]


def test_a_budget_of_graphs_goes_with_them(tmp_path: Path) -> None:
    """The changed recipe loads: a budget without graphs would be refused."""
    graphs = ("train.keep_graphs=auto", "train.keep_graphs_memory=4")
    change = next_change(values(tmp_path, *graphs), cuda=False)
    assert change is not None
    train = values(tmp_path, *graphs, *change.override.split())["train"]
    assert (train["keep_graphs"], train["keep_graphs_memory"]) == (0, 1.0)


def test_moved_blocks_round_otherwise_under_a_merged_adapter(tmp_path: Path) -> None:
    plain = values(tmp_path)
    merged = plain | {
        "generator": plain["generator"] | {"adapter": "a.safetensors", "dtype": "float32"}
    }

    def of_blocks(recipe: dict[str, Any]) -> str:
        found = memory_changes(recipe, cuda=True)
        (one,) = (one for one in found if one.override == "generator.memory=block-offload")
        return one.numbers

    assert (of_blocks(plain), of_blocks(merged)) == (SAME, ROUNDED)


@pytest.mark.parametrize("name", ["tiny-nft-hps", "tiny-prfl-latent"])
def test_what_a_recipe_would_refuse_is_not_offered(name: str) -> None:
    given = load_recipe(name).model_dump(mode="json")
    for change in memory_changes(given, cuda=True):
        if not change.override.startswith(("generator.quantise", "generator.memory")):
            load_recipe(name, change.override.split())


def test_the_message_names_what_is_left_and_how_to_go_on(tmp_path: Path) -> None:
    root = tmp_path / "run"
    lines = message(
        values(tmp_path, "train.batch_size=4"), root, "out of memory in x", cuda=False
    ).splitlines()
    assert lines[0] == "out of memory in x"
    assert lines[1] == (
        "less memory for the same run: train.decoder_checkpointing=segments, "
        "train.gradient_checkpointing=true"
    )
    assert lines[2] == f"the next of them: reward-tuning resume {root} --retry-with-less-memory"
    assert re.match(r"less memory, but another run: .*train.batch_size=2", lines[3])
    assert lines[-1] == f"see what fits: reward-tuning estimate {root / 'recipe.yaml'}"


def test_a_failed_allocation_is_told_with_its_stage(tmp_path: Path) -> None:
    with (
        pytest.raises(OutOfMemory, match=r"^out of memory in guards 3/18, step 2 of 4: tried in"),
        out_of_memory_told(values(tmp_path), tmp_path, silent, lambda: False) as report,
    ):
        report(ProgressEvent("guards", 3, 18, "step 2 of 4"))
        raise torch.OutOfMemoryError("tried in vain\nmore")
    with (
        pytest.raises(RuntimeError, match=r"^another$"),
        out_of_memory_told(values(tmp_path), tmp_path, silent, lambda: False),
    ):
        raise RuntimeError("another")


def test_a_step_that_fails_so_is_named_with_its_phase() -> None:
    failed = PhaseOutOfMemory("sweep", torch.OutOfMemoryError("tried in vain\nmore"))
    with pytest.raises(
        StepOutOfMemory, match=r"^out of memory in the phase sweep of step 4: tried in vain$"
    ):
        leave_together(failed, 4, Accelerator(cpu=True))


def test_measuring_names_a_failed_allocation_alone() -> None:
    with pytest.raises(MeasuringOutOfMemory, match=r"^tried in vain$") as failed, measuring():
        raise torch.OutOfMemoryError("tried in vain\nmore")
    assert ran_out(failed.value)
    assert not failed.value.shared
    with pytest.raises(RuntimeError, match=r"^another$"), measuring(Accelerator(cpu=True)):
        raise RuntimeError("another")


@pytest.mark.parametrize("shared", [False, True])
def test_what_all_processes_raise_is_told_apart(tmp_path: Path, shared: bool) -> None:
    with (
        pytest.raises(OutOfMemory) as failed,
        out_of_memory_told(values(tmp_path), tmp_path, silent, lambda: False),
    ):
        raise MeasuringOutOfMemory("tried in vain", shared=shared)
    assert isinstance(failed.value, SharedOutOfMemory) == shared
