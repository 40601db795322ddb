"""The file of a judge: shipped, on disk, in the hub's cache, or missing."""

import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from rewards import RewardError
from rewards.core.locate import SHIPPED, resolve_file, shipped_names
from rewards.core.weight_file import load_weights

PINNED = "697403c78157020a1ae59d23f111aa58ced35b0a"

STATE = {"a": torch.arange(600.0), "b.weight": torch.ones(2, 3)}


@pytest.fixture(autouse=True)
def _no_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # An empty cache: whatever lies on the machine, nothing is found and nothing is asked for.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


def test_shipped_names_resolve_before_paths(tmp_path: Path) -> None:
    names = shipped_names()
    assert "tiny/hps.safetensors" in names
    (tmp_path / "tiny").mkdir()
    save_file(STATE, tmp_path / "tiny" / "hps.safetensors")
    assert resolve_file("tiny/hps.safetensors", tmp_path) == SHIPPED / "tiny/hps.safetensors"


def test_paths_are_relative_to_the_folder(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "mine.safetensors", {"kind": "clip"})
    for name in ("mine.safetensors", tmp_path / "mine.safetensors"):
        loaded = load_weights(name, tmp_path)
        assert loaded.path == tmp_path / "mine.safetensors"
        assert loaded.metadata == {"kind": "clip"}
        assert loaded.published is None
        assert {k: v.tolist() for k, v in loaded.state.items()} == {
            k: v.tolist() for k, v in STATE.items()
        }


def test_a_missing_published_judge_says_how_to_get_it() -> None:
    with pytest.raises(RewardError) as caught:
        resolve_file("hps-v2.1")
    text = str(caught.value)
    for part in ("HPS_v2.1_compressed.pt", "1.97 GB", "hf download xswu/HPSv2"):
        assert part in text
    with pytest.raises(
        RewardError, match=re.escape("sac+logos+ava1-l14-linearMSE.pth (0.00371 GB)")
    ):
        resolve_file("laion-aesthetic-v2")


def test_a_missing_file_names_what_is_there(tmp_path: Path) -> None:
    with pytest.raises(RewardError, match=r"'tiny/hsp\.safetensors' does not exist.*hps-v2\.1"):
        resolve_file("tiny/hsp.safetensors", tmp_path)
    with pytest.raises(RewardError, match=r"hf download org/repo folder/file\.safetensors"):
        resolve_file("org/repo/folder/file.safetensors", tmp_path)


def test_hub_files_come_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str, str | None]] = []
    save_file(STATE, tmp_path / "cached.safetensors")

    def cached(repo: str, file: str, revision: str | None) -> str | None:
        asked.append((repo, file, revision))
        return str(tmp_path / "cached.safetensors") if revision in known else None

    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", cached)
    known = [None, "v1.0", PINNED]
    for name in ("org/repo/sub/file.pt", "org/repo/sub/file.pt@v1.0", "hps-v2", "clip-vit-l-14"):
        assert resolve_file(name).name == "cached.safetensors"
    assert asked == [
        ("org/repo", "sub/file.pt", None),
        ("org/repo", "sub/file.pt", "v1.0"),
        ("xswu/HPSv2", "HPS_v2_compressed.pt", PINNED),
        ("xswu/HPSv2", "HPS_v2_compressed.pt", None),  # only where the first is not there
        ("timm/vit_large_patch14_clip_224.openai", "open_clip_model.safetensors", None),
    ]
    known = ["v1.0"]  # another revision than the one wanted is not taken
    with pytest.raises(RewardError, match=r"hf download org/repo sub/file.pt --revision v2"):
        resolve_file("org/repo/sub/file.pt@v2")
    with pytest.raises(RewardError, match=f"hf download xswu/HPSv2 .* --revision {PINNED}"):
        resolve_file("hps-v2")
