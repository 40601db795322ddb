"""Judges that are not on this machine, found by name."""

from pathlib import Path

import pytest

from reward_tuning.judges.missing import missing_judges, require_judges
from reward_tuning.schema.judge_kinds import AestheticSection, HpsSection, VideoAlignSection
from rewards import RewardError

HERE = HpsSection(kind="hps", checkpoint="tiny/hps.safetensors")
HPS = HpsSection(kind="hps", checkpoint="hps-v2.1", name="preference")
HEAD = AestheticSection(
    kind="aesthetic", checkpoint="tiny/aesthetic.safetensors", tower="clip-vit-l-14"
)
FOLDER = VideoAlignSection(kind="video_align", checkpoint="video-reward", base="qwen2-vl-2b")


@pytest.fixture(autouse=True)
def _empty_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


def test_files_towers_and_folders_are_listed_with_their_commands() -> None:
    assert missing_judges([HERE]) == []
    found = missing_judges([HERE, HPS, HEAD, FOLDER])
    assert [line.partition(":")[0] for line in found] == [
        "preference",
        "aesthetic",
        "video_align",
        "video_align",
    ]
    for line, name in zip(
        found, ("xswu/HPSv2", "clip-vit-l-14", "KwaiVGI/VideoReward", "Qwen2-VL-2B"), strict=True
    ):
        assert name in line
        assert "Fetch it with: " in line


def test_what_two_judges_share_is_listed_once() -> None:
    again = HPS.model_copy(update={"name": "again"})
    assert len(missing_judges([HPS, again])) == 1


def test_all_of_them_are_refused_at_once() -> None:
    require_judges([HERE])
    with pytest.raises(RewardError) as caught:
        require_judges([HPS, HEAD])
    assert str(caught.value).splitlines() == missing_judges([HPS, HEAD])
