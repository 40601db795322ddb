"""Judges that look at so many frames a second are told how fast a clip's frames follow."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from reward_tuning.judges.judge import FramedJudge
from reward_tuning.judges.loading import load_judges
from reward_tuning.schema.judge_kinds import DynamicDegreeSection, VideoAlignSection
from rewards import Reward
from rewards.kinds.dynamic_degree import DynamicDegree, build_raft
from rewards.kinds.motion import MotionEnergy
from rewards.kinds.video_align import VideoAlignReward
from tests.rewards import tiny_qwen
from tests.rewards.small_video_align import reward_model, with_lora, write
from tests.rewards.tiny_qwen import PROMPTS, bytes_clips, write_folder

CPU = torch.device("cpu")


def authors_frames(total: int, video_fps: float, fps: float = 2.0) -> list[int]:
    """Of VideoAlign's reader: ``smart_nframes``, then evenly from the first to the last."""
    most = min(768, total) // 2 * 2
    wanted = min(max(total / video_fps * fps, 4), most)
    wanted = min(round(wanted / 2) * 2, total)
    places: list[int] = torch.linspace(0, total - 1, wanted).round().long().tolist()
    return places


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A VideoAlign that looks at two frames a second, as the published one."""
    root = tmp_path_factory.mktemp("align")
    write_folder(root / "base", tiny_qwen.model(), old=True)
    write(root / "judge", with_lora(reward_model()), "whole")
    return root


def framed(folder: Path, length: int, **options: Any) -> FramedJudge:
    section = VideoAlignSection.model_validate(
        {
            "kind": "video_align",
            "checkpoint": str(folder / "judge"),
            "base": str(folder / "base"),
            **options,
        }
    )
    (judge,) = load_judges([section], length, CPU)
    assert isinstance(judge, FramedJudge)
    return judge


def whole(folder: Path, clip: Tensor, places: list[int]) -> Tensor:
    """The score of these frames, all of them looked at."""
    return framed(folder, len(places), count=len(places)).scores(clip[:, places], PROMPTS[:1])


@pytest.mark.parametrize(
    ("rate", "expected"),
    [(8.0, 12), (24.0, 4), (16.0, 6), (29.97, 4), (12.5, 8), (3.0, 32)],
)
@torch.no_grad()
def test_video_align_looks_at_the_frames_its_authors_would(
    folder: Path, rate: float, expected: int
) -> None:
    clip = bytes_clips(1, 49, 28, 28).float() / 255
    places = authors_frames(49, rate)
    assert len(places) == expected
    judge = framed(folder, 49).reward
    assert isinstance(judge, VideoAlignReward)
    found = judge.at_rate(rate)(clip, PROMPTS[:1])
    torch.testing.assert_close(found, whole(folder, clip, places))
    assert judge.tower.frames.clip_fps == 8.0  # the one that others hold is as it was


@torch.no_grad()
def test_a_recipe_may_say_the_rate(folder: Path) -> None:
    clip = bytes_clips(1, 49, 28, 28).float() / 255
    told = framed(folder, 49, clip_fps=16.0)
    expected = whole(folder, clip, authors_frames(49, 16.0))
    torch.testing.assert_close(told.scores(clip, PROMPTS[:1]), expected)


@torch.no_grad()
def test_a_few_frames_of_a_clip_are_as_long_as_the_clip(folder: Path) -> None:
    clip = bytes_clips(1, 49, 28, 28).float() / 255
    few = framed(folder, 49, frames=25)  # every second one: 4 a second
    assert few.positions == tuple(range(0, 49, 2))
    places = [2 * place for place in authors_frames(25, 4.0)]
    assert len(places) == 12  # as many as of all 49 frames at 8 a second
    torch.testing.assert_close(few.scores(clip, PROMPTS[:1]), whole(folder, clip, places))
    told = framed(folder, 49, frames=25, clip_fps=24.0)  # then 12 a second, of 2 seconds
    places = [2 * place for place in authors_frames(25, 12.0)]
    assert len(places) == 4
    torch.testing.assert_close(told.scores(clip, PROMPTS[:1]), whole(folder, clip, places))


def test_dynamic_degree_thins_clips_by_their_rate(tmp_path: Path) -> None:
    torch.manual_seed(0)
    torch.save(build_raft("raft_small").state_dict(), tmp_path / "raft.pth")
    data = {"kind": "dynamic_degree", "checkpoint": str(tmp_path / "raft.pth")}
    seen: list[int] = []

    def flow(self: DynamicDegree, frames: Tensor) -> Tensor:
        seen.append(frames.shape[1])
        return torch.zeros(1, frames.shape[1] - 1, 2, 16, 16)

    clips = torch.rand(1, 9, 3, 16, 16)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DynamicDegree, "flow", flow)
        (judge,) = load_judges([DynamicDegreeSection.model_validate(data)], 9, CPU)
        assert isinstance(judge, FramedJudge)
        assert isinstance(judge.reward, DynamicDegree)
        for rate in (8.0, 24.0, 30.0, 60.0, 5.0):
            judge.reward.at_rate(rate)(clips, ["-"])
        judge.scores(clips, ["-"])
        (told,) = load_judges([DynamicDegreeSection.model_validate(data | {"fps": 24.0})], 9, CPU)
        assert isinstance(told, FramedJudge)
        told.scores(clips, ["-"])
        few = DynamicDegreeSection.model_validate(data | {"fps": 24.0, "frames": 5})
        (told,) = load_judges([few], 9, CPU)
        assert isinstance(told, FramedJudge)
        told.scores(clips, ["-"])
    # Every frame, or every 3rd, 4th, 8th; of 5 frames at 12 a second every 2nd.
    assert seen == [9, 3, 3, 2, 9, 9, 3, 3]


def test_no_rate_matters_to_a_judge_of_every_frame() -> None:
    judge = MotionEnergy()
    assert judge.at_rate(24.0) is judge

    def bare(frames: Tensor, prompts: list[str]) -> Tensor:
        return frames.mean(dim=(1, 2, 3, 4))

    own: Reward = bare  # type: ignore[assignment]
    clips = torch.rand(2, 5, 3, 4, 4)
    framed = FramedJudge(own, "own", (0, 2, 4))
    torch.testing.assert_close(framed.scores(clips, ["-"] * 2), bare(clips[:, ::2], []))
