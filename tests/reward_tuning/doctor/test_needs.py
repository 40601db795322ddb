"""What recipes need: generator, judges, keys, trackers, libraries, memory, folders."""

from pathlib import Path
from typing import Any

import pytest

from base_model.errors import GeneratorError
from reward_tuning.doctor import needs
from reward_tuning.doctor.facts import Fact
from reward_tuning.evidence.any_recipe import AnyRecipe, load_any_recipe
from tests.reward_tuning.recipes_for_tests import write_recipe

HUB_ID = "alibaba-pai/EasyAnimateV5.1-7b-zh-InP"


@pytest.fixture(autouse=True)
def empty_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


def recipe(folder: Path, **changes: Any) -> AnyRecipe:
    return load_any_recipe(write_recipe(folder, **changes))


def by_name(facts: object) -> dict[str, Fact]:
    return {fact.name: fact for fact in facts}  # type: ignore[attr-defined]


def test_a_shipped_recipe_has_all_it_needs() -> None:
    demo = load_any_recipe("tiny-demo")
    facts = [*needs.generator_facts(demo), *needs.judge_facts(demo), *needs.tracker_facts(demo)]
    facts += needs.library_facts(demo, cuda=False)
    assert {fact.mark for fact in facts} == {"ok"}
    assert {"generator", "judge hps", "judge clip_held_out", "tracker tensorboard"} <= {
        fact.name for fact in facts
    }


def test_a_generator_to_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    wanted = recipe(tmp_path, generator__checkpoint=f"{HUB_ID}@v1")
    (fact,) = needs.generator_facts(wanted)
    assert fact.mark == "note"
    assert fact.value == f"{HUB_ID}@v1 is not on this disk, about 31 GB"
    assert fact.todo.startswith(f"hf download {HUB_ID} --revision v1, or leave it")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    (offline,) = needs.generator_facts(wanted)
    assert (offline.mark, "unset HF_HUB_OFFLINE" in offline.todo) == ("problem", True)


def test_missing_judges_with_their_commands(tmp_path: Path) -> None:
    facts = by_name(needs.judge_facts(recipe(tmp_path)))
    judge = facts["judge hps"]
    assert (judge.mark, judge.value) == ("problem", "hps-v2.1 is not on this disk, 1.97 GB")
    assert judge.todo.startswith("hf download xswu/HPSv2 HPS_v2.1_compressed.pt")
    assert facts["judge clip_held_out"].mark == "problem"


def test_judges_outside_this_process(tmp_path: Path) -> None:
    rewards = [
        {"kind": "hps", "checkpoint": "tiny/hps.safetensors", "weight": 1.0},
        {"kind": "motion_energy", "weight": 0.1},
    ]
    outside = [
        {"kind": "http", "url": "http://localhost:1/score", "key_env": "SCORE_KEY"},
        {"kind": "command", "command": ["python3", "judge.py"]},
    ]
    changes = {"rewards": rewards, "evaluation__held_out_rewards": outside}
    wanted = recipe(tmp_path, **changes)
    facts = list(needs.judge_facts(wanted, {}))
    told = {(fact.name, fact.value): fact for fact in facts}
    assert ("judge motion_energy", "a formula, no file") in told
    assert ("judge http_held_out", "sends clips to http://localhost:1/score") in told
    assert ("judge command_held_out", "starts python3 judge.py") in told
    (missing,) = [fact for fact in facts if fact.mark == "problem"]
    assert (missing.name, missing.todo) == ("judge http_held_out", "export SCORE_KEY=...")
    set_ = needs.judge_facts(wanted, {"SCORE_KEY": "a-key-that-is-secret"})
    assert {fact.mark for fact in set_} == {"ok"}


def test_a_tracker_that_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from reward_tuning.runs import tracker_packages

    monkeypatch.setattr(tracker_packages, "find_spec", lambda name: None)
    (fact,) = needs.tracker_facts(recipe(tmp_path, tracking=["trackio"]))
    assert fact.mark == "problem"
    assert "trackio is not installed" in fact.value
    assert "pip install 'trackio>=0.43'" in fact.todo


def test_libraries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from reward_tuning.doctor import programs

    assert list(needs.library_facts(recipe(tmp_path / "plain"), cuda=False)) == []
    monkeypatch.setattr(programs.shutil, "which", lambda name: None)
    compiled = recipe(tmp_path / "compiled", train__compile=True)
    assert [fact.name for fact in needs.library_facts(compiled, cuda=False)] == ["C++ compiler"]
    assert [fact.name for fact in needs.library_facts(compiled, cuda=True)] == ["triton"]
    moments = recipe(tmp_path / "moments", train__optimiser="adamw-8bit")
    assert [fact.name for fact in needs.library_facts(moments, cuda=False)] == ["bitsandbytes"]


def test_quantised_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from base_model.memory import quantise

    (works,) = needs.library_facts(recipe(tmp_path, generator__quantise="fp8"), cuda=False)
    assert (works.mark, works.value) == ("ok", "fp8 works on cpu")

    def missing() -> None:
        raise GeneratorError("quantise=nf4 needs a library. Install it with `pip install x`.")

    monkeypatch.setattr(quantise, "_bitsandbytes", missing)
    (lacks,) = needs.library_facts(recipe(tmp_path / "b", generator__quantise="nf4"), cuda=False)
    assert (lacks.name, lacks.mark) == ("quantise", "problem")
    assert (lacks.value, lacks.todo) == (
        "quantise=nf4 needs a library",
        "Install it with `pip install x`",
    )


GB = 10**9


def memory_fact(folder: Path, memory: str, machine: int, device: int | None) -> list[Fact]:
    wanted = recipe(folder, generator__checkpoint=HUB_ID, generator__memory=memory)
    return list(needs.memory_facts(wanted, needs.MemoryHere(machine * GB, device and device * GB)))


def test_memory_of_the_gpu(tmp_path: Path) -> None:
    (fits,) = memory_fact(tmp_path / "a", "resident", 4, 40)
    assert (fits.mark, fits.value.startswith("13.6 GB of the GPU's 40 GB")) == ("ok", True)
    (small,) = memory_fact(tmp_path / "b", "resident", 64, 8)
    assert (small.mark, "block-offload" in small.todo) == ("problem", True)
    assert memory_fact(tmp_path / "c", "sharded", 64, 8) == []


def test_blocks_that_rest_need_the_machines_memory(tmp_path: Path) -> None:
    (fits,) = memory_fact(tmp_path / "a", "block-offload", 32, 8)
    assert fits.mark == "ok"
    assert "of this machine's 32 GB for the transformer's weights, which rest there" in fits.value
    (small,) = memory_fact(tmp_path / "b", "block-offload", 8, 80)
    ways = "generator.quantise=nf4, or a machine with more memory"
    assert (small.mark, small.todo) == ("problem", ways)


def test_only_what_a_recipe_allows_is_advised() -> None:
    def todo(name: str, *overrides: str, device: int | None = 2) -> str:
        wanted = load_any_recipe(name, overrides, check_files=False)
        here = needs.MemoryHere(2 * GB, device and device * GB)
        (small,) = needs.memory_facts(wanted, here)
        assert small.mark == "problem"
        return small.todo

    adapter, whole = "easyanimate-v5.1-7b-hps", "finetune/stage-2-3328"
    assert todo(adapter) == (
        "generator.memory=block-offload, or generator.quantise=nf4, or a GPU with more memory"
    )
    assert todo(adapter, "train.compile=true") == "a GPU with more memory"
    assert todo(whole) == "a GPU with more memory"
    assert todo(adapter, "generator.quantise=nf4", device=None) == "a machine with more memory"
    assert todo(adapter, "generator.dtype=float32", device=None) == (
        "generator.quantise=nf4, or generator.dtype=bfloat16, or a machine with more memory"
    )


def test_memory_without_a_gpu(tmp_path: Path) -> None:
    (small,) = memory_fact(tmp_path / "a", "block-offload", 8, None)
    assert (small.mark, "block-offload" in small.todo) == ("problem", False)
    for packed in (None, "nf4"):
        wanted = recipe(
            tmp_path / str(packed), generator__checkpoint=HUB_ID, generator__quantise=packed
        )
        (slow,) = needs.memory_facts(wanted, needs.MemoryHere(64 * GB, None))
        assert (slow.mark, "far too slow" in slow.todo) == ("note", True)
    (tiny,) = needs.memory_facts(load_any_recipe("tiny-demo"), needs.MemoryHere(64 * GB, None))
    assert (tiny.mark, tiny.todo) == ("ok", "")


def test_folders_and_their_bytes(tmp_path: Path) -> None:
    wanted = recipe(tmp_path, generator__checkpoint=HUB_ID, train__ema_decay=0.99)
    output, hub, own, temporary = needs.places(wanted)
    # rank 8: one checkpoint of value, two moments and average, and three LoRAs
    assert output.needed == 8 * 1_327_104 * (16 + 3 * 4)
    assert hub.needed == 31_000_000_000 + 1_972_490_005 + 3_944_437_764
    assert hub.why == f"{HUB_ID}, hps-v2.1, clip-vit-h-14"
    assert own.needed == temporary.needed == 0
    assert [place.needed for place in needs.places(None)] == [0, 0, 0, 0]


def test_judges_of_every_verb() -> None:
    assert [judge.label for judge in needs.judges_of(load_any_recipe("tiny-demo"))] == [
        "hps",
        "image_reward",
        "clip_held_out",
    ]
    assert needs.judges_of(load_any_recipe("distil/tiny-4-steps"))
