"""Weights of the package, whole and damaged, and published ones, here and missing."""

import shutil
from pathlib import Path

import pytest

from base_model.files.published_generators import SIZES, published_generators
from reward_tuning.doctor import weights
from reward_tuning.doctor.facts import Fact
from rewards.core.published import PUBLISHED


@pytest.fixture
def empty_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hub cache without files, for all who look into it."""
    from huggingface_hub import constants, file_download

    hub = tmp_path / "hub"
    for module in (constants, file_download.constants):
        monkeypatch.setattr(module, "HF_HUB_CACHE", str(hub))
    return hub


def cached(hub: Path, name: str, *files: str) -> None:
    """Put files of a repository into the cache as the hub's library does."""
    commit = "c" * 40
    repository = hub / f"models--{name.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs/main").write_text(commit)
    for file in files:
        path = repository / "snapshots" / commit / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")


def by_name(facts: object) -> dict[str, Fact]:
    return {fact.name: fact for fact in facts}  # type: ignore[attr-defined]


def test_shipped_weights_are_whole() -> None:
    found = by_name(weights.shipped_facts())
    assert {fact.mark for fact in found.values()} == {"ok"}
    assert "tiny-camera" in found["shipped generators"].value
    assert "tiny/hps.safetensors" in found["shipped judges"].value


def test_a_damaged_shipped_judge_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "weights"
    (folder / "tiny").mkdir(parents=True)
    real = weights.shipped_folder("rewards", "weights") / "tiny"
    shutil.copy(real / "hps.safetensors", folder / "tiny")
    whole = (real / "clip.safetensors").read_bytes()
    (folder / "tiny/clip.safetensors").write_bytes(whole[:-1])
    (folder / "tiny/mps.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
    monkeypatch.setattr(weights, "shipped_folder", lambda *_: folder)
    fact = by_name(weights.shipped_facts())["shipped judges"]
    assert fact.mark == "problem"
    assert fact.value.endswith("tiny/clip.safetensors, tiny/mps.safetensors")
    assert "pip install" in fact.todo


def test_no_shipped_generator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "WEIGHTS", tmp_path / "gone")
    monkeypatch.setattr(weights, "shipped_checkpoints", list)
    assert by_name(weights.shipped_facts())["shipped generators"].mark == "problem"


def test_published_generators(empty_hub: Path) -> None:
    found = by_name(weights.published_generator_facts())
    assert [fact.mark for fact in found.values()] == ["note", "note"]
    assert found["EasyAnimateV5.1 7B"].value == "not on this disk, about 31 GB"
    name = published_generators(SIZES[0])[2]
    files = [f"{part}/config.json" for part in ("transformer", "vae", "text_encoder")]
    weight_files = [file.replace("config.json", "x.safetensors") for file in files]
    cached(empty_hub, name, *files, *weight_files)
    here = by_name(weights.published_generator_facts())["EasyAnimateV5.1 7B"]
    assert (here.mark, here.value) == ("ok", f"on this disk: {name}")


def test_published_judges(empty_hub: Path) -> None:
    cached(empty_hub, "yuvalkirstain/PickScore_v1", "model.safetensors")
    found = by_name(weights.published_judge_facts())
    assert list(found) == [entry.name for entry in PUBLISHED]
    assert found["pickscore"].mark == "ok"
    missing = found["hps-v2.1"]
    assert missing.mark == "note"
    assert missing.value == "not on this disk, 1.97 GB, for judges of kind hps"
    assert missing.todo.startswith("hf download xswu/HPSv2 HPS_v2.1_compressed.pt --revision ")
    assert "the vocabulary of a judge" in found["bert-base-uncased"].value
    assert found["aesthetic-v2.5"].todo.endswith("then name the file's path as the checkpoint")
    assert found["qwen2-vl-2b"].todo == "hf download Qwen/Qwen2-VL-2B-Instruct"
