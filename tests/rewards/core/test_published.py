"""Records of published files: their names and the commands that fetch them."""

from pathlib import Path

import pytest

from rewards import RewardError
from rewards.core.locate import resolve_file
from rewards.core.published import PUBLISHED, published


@pytest.fixture(autouse=True)
def _no_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # An empty cache: whatever lies on the machine, nothing is found and nothing is asked for.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


def test_published_files_are_known_by_name_id_and_file() -> None:
    hps = published("hps-v2.1")
    assert hps is not None
    assert published("xswu/HPSv2/HPS_v2.1_compressed.pt") is hps
    assert published("/data/HPS_v2.1_compressed.pt") is hps
    assert published("/data/open_clip_model.safetensors") is None  # every hub CLIP is called so
    assert published("tiny/hps.safetensors") is None
    assert len({e.name for e in PUBLISHED}) == len(PUBLISHED)
    assert all(len(e.sha256) == 64 for e in PUBLISHED if e.sha256)


def test_files_that_lie_elsewhere_say_how_to_fetch_them(tmp_path: Path) -> None:
    with pytest.raises(RewardError, match=r"curl -LO https://pai-.*/Third_Party/MPS_overall\.pth"):
        resolve_file("mps-overall", tmp_path)
    with pytest.raises(RewardError, match=r"ImageReward\.pt \(1\.79 GB\).*hf download THUDM/Image"):
        resolve_file("image-reward", tmp_path)
    # Every BERT has a vocab.txt: the name alone does not make a file that of bert-base-uncased.
    assert published("somewhere/vocab.txt") is None
