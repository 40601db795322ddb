"""Scores of files: in windows, at each file's rate, what is refused, and what is never lost."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from reward_tuning.cli.judges import judges_of_options
from reward_tuning.files.clips import read_clip, write_clip
from reward_tuning.judges import file_judging
from reward_tuning.judges.clip_files import ClipFile, find_clips, with_prompts
from reward_tuning.judges.scoring import file_judges, score_clips
from rewards import load_reward
from rewards.core.base import FrameReward
from rewards.kinds.dynamic_degree import DynamicDegree, build_raft
from rewards.qwen.frames import QwenFrames
from tests.reward_tuning.command_line import Command, command
from tests.reward_tuning.files.test_gif_file import blocks
from tests.rewards.tiny_clip import frames

CASES = Path(__file__).parents[1] / "cases/clips"
CPU = torch.device("cpu")
HPS = "hps:tiny/hps.safetensors"
PROMPT = "a red circle moves left"
_command = pytest.fixture(command, name="command")


# --- windows


def test_a_clip_is_read_in_windows_and_scores_as_a_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in range(2):
        write_clip(frames(1, 13, 48, 64, seed=seed)[0], tmp_path / f"{seed}.mp4")
    options = [
        HPS,
        "{kind: aesthetic, checkpoint: tiny/aesthetic.safetensors, frames: 5}",
        "{kind: clip, checkpoint: tiny/clip.safetensors, over_frames: {kind: soft_min, "
        "sharpness: 20.0}}",
        "sharpness",
        "motion_energy",
        "{kind: flicker, frames: 7}",
        "{kind: motion_flow}",
    ]
    judges = file_judges(judges_of_options(options), CPU)
    clips = [ClipFile(path, PROMPT) for path in find_clips([tmp_path])]
    whole = score_clips(clips, judges)
    seen: list[int] = []
    real = FrameReward.per_frame

    def per_frame(self: FrameReward, shown: Tensor, prompts: Sequence[str]) -> Tensor:
        seen.append(shown.shape[0] * shown.shape[1])
        return real(self, shown, prompts)

    monkeypatch.setattr(FrameReward, "per_frame", per_frame)
    monkeypatch.setattr(file_judging, "WINDOW", 6 * 3 * 48 * 64 * 4)  # 3 frames of 2 clips
    parts = score_clips(clips, judges)
    assert max(seen) == 6
    assert sum(seen) == 2 * (13 + 5 + 13)  # each frame once
    for one, other in zip(whole.clips, parts.clips, strict=True):
        assert one.scores == pytest.approx(other.scores, abs=1e-5)
    energy = load_reward("motion_energy", None)(read_clip(clips[0].path)[None], ["-"])
    assert parts.clips[0].scores["motion_energy"] == pytest.approx(float(energy), abs=1e-6)


def test_a_clip_that_does_not_fit_is_refused_with_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_clip(frames(1, 9, 48, 64)[0], tmp_path / "a.mp4")
    write_clip(frames(1, 2, 48, 64)[0], tmp_path / "b.mp4")
    monkeypatch.setattr(file_judging, "WHOLE", 1)
    monkeypatch.setattr(file_judging, "free_memory", lambda device: 3 * 4 * 3 * 48 * 64 * 4)
    clips = [ClipFile(path) for path in find_clips([tmp_path])]
    found = score_clips(clips, file_judges(judges_of_options(["motion_flow"]), CPU))
    assert [one.clip.path.name for one in found.clips] == ["b.mp4"]
    (why,) = found.skipped.values()
    assert "a.mp4: 9 frames of 48 x 64 need about 1.0 MB at once for motion_flow, but" in why
    assert "0.4 MB are free; use --frames 4 or fewer" in why
    # judges of single frames or a few neighbours need no more than a window
    frame_judges = file_judges(judges_of_options(["sharpness", "motion_energy"]), CPU)
    assert not score_clips(clips, frame_judges).skipped


# --- rates


def test_a_judge_at_a_rate_takes_that_of_the_file(tmp_path: Path) -> None:
    clip = frames(1, 24, 32, 32)[0]
    write_clip(clip, tmp_path / "a.mp4", fps=24)
    write_clip(clip, tmp_path / "b.mp4", fps=8)
    options = ["{kind: video_align, checkpoint: tiny/video-align, fps: 8.0, name: %s}"]
    sections = judges_of_options([options[0] % "file"])
    sections += judges_of_options(
        ["{kind: video_align, checkpoint: tiny/video-align, fps: 8.0, clip_fps: 12, name: said}"]
    )
    clips = [ClipFile(tmp_path / name, PROMPT) for name in ("a.mp4", "b.mp4")]
    found = score_clips(clips, file_judges(sections, CPU))
    for one, rate in zip(found.clips, (24, 8), strict=True):
        shown = read_clip(one.clip.path)[None]
        for label, fps in (("file", rate), ("said", 12)):
            judge = load_reward("video_align", "tiny/video-align", fps=8.0, clip_fps=fps)
            assert one.scores[label] == pytest.approx(float(judge(shown, [PROMPT])), abs=1e-5)
    assert len(QwenFrames(fps=8, clip_fps=24).chosen(24)) == 8
    assert len(QwenFrames(fps=8, clip_fps=8).chosen(24)) == 24
    # some of the frames are a slower clip: 12 of 24 at 24 a second are at 11.5 a second
    (half,) = score_clips(clips[:1], file_judges(sections[:1], CPU), frames=12).clips
    places = [round(i * 23 / 11) for i in range(12)]
    judge = load_reward("video_align", "tiny/video-align", fps=8.0, clip_fps=24 * 11 / 23)
    wanted = judge(read_clip(clips[0].path)[places][None], [PROMPT])
    assert half.scores["file"] == pytest.approx(float(wanted), abs=1e-5)


def test_dynamic_degree_takes_it_too() -> None:
    network = build_raft("raft_small")
    judge = DynamicDegree(network, 8.0)
    other = judge.at_rate(24.0)
    assert isinstance(other, DynamicDegree)
    assert (other.fps, judge.fps, other.model) == (24.0, 8.0, network)
    (section,) = judges_of_options(["{kind: dynamic_degree, checkpoint: tiny/hps.safetensors}"])
    assert section.given_rate is None
    said = "{kind: dynamic_degree, checkpoint: tiny/hps.safetensors, fps: 24}"
    (section,) = judges_of_options([said])
    assert section.given_rate == 24.0


def test_a_judge_without_a_rate_is_the_same(tmp_path: Path) -> None:
    judge = load_reward("motion_energy", None)
    assert judge.at_rate(24.0) is judge


# --- uneven times, gifs, cut files


def test_frames_of_uneven_times_are_scored_as_they_are_stored() -> None:
    judges = file_judges(judges_of_options(["motion_energy"]), CPU)
    names = ("variable-rate.mp4", "variable-rate-burst.mp4", "starts-late.mp4")
    found = score_clips([ClipFile(CASES / name) for name in names], judges)
    for one in found.clips:
        assert one.shape == (13, 64, 96)
        # as of the same frames evenly spaced; with frames repeated for a rate it was 0.0028
        assert one.scores["motion_energy"] == pytest.approx(0.0242, rel=0.02)


def test_a_gif_scores_as_its_frames(tmp_path: Path) -> None:
    clip = blocks([0, 0, 0, 1, 1, 2, 2, 2, 2])
    write_clip(clip, tmp_path / "c.gif")
    judges = file_judges(judges_of_options([HPS, "motion_energy"]), CPU)
    (found,) = score_clips([ClipFile(tmp_path / "c.gif", PROMPT)], judges).clips
    assert found.shape[0] == 9
    for kind, file in (("hps", "tiny/hps.safetensors"), ("motion_energy", None)):
        wanted = float(load_reward(kind, file)(clip[None], [PROMPT]))
        assert found.scores[kind] == pytest.approx(wanted, abs=1e-5)


# --- the file of the result


# --- what `generate` writes, `score` reads


def test_the_reward_prompt_goes_there_and_back(command: Command, tmp_path: Path) -> None:
    prompts = tmp_path / "p.jsonl"
    rows = [
        {"prompt": "a small red star moves left on a dark background", "reward_prompt": "red star"},
        {"prompt": "a large blue circle rests on a bright background"},
    ]
    prompts.write_text("\n".join(map(json.dumps, rows)))
    output = tmp_path / "clips"
    size = ("--frames", 1, "--height", 16, "--width", 16, "--steps", 1, "--guidance-scale", 1)
    ran = command("generate", "--prompts-file", prompts, "--output", output, *size)
    assert ran.code == 0, ran.err
    lines = [json.loads(line) for line in (output / "clips.jsonl").read_text().splitlines()]
    assert [line.get("reward_prompt") for line in lines] == ["red star", None]
    assert [line["prompt"] for line in lines] == [row["prompt"] for row in rows]
    found = with_prompts(find_clips([output]))
    assert [clip.prompt for clip in found] == ["red star", rows[1]["prompt"]]


def test_options_of_a_judge_hold_for_files(tmp_path: Path) -> None:
    write_clip(frames(1, 9, 48, 64)[0], tmp_path / "a.mp4")
    clip = ClipFile(tmp_path / "a.mp4", "something else")
    weights = "tiny/clip.safetensors"
    options = [
        f"{{kind: clip, checkpoint: {weights}, grayscale: true, name: grey}}",
        f"{{kind: clip, checkpoint: {weights}, prompt: {PROMPT}, name: fixed}}",
        f"{{kind: clip, checkpoint: {weights}, over_frames: {{kind: best, share: 0.3}}, "
        "name: best}",
        "{kind: motion_energy, grayscale: true, name: whole}",
    ]
    (found,) = score_clips([clip], file_judges(judges_of_options(options), CPU)).clips
    shown = read_clip(clip.path)[None]
    red, green, blue = shown.unbind(2)
    grey = (0.299 * red + 0.587 * green + 0.114 * blue)[:, :, None].expand_as(shown)
    judge = load_reward("clip", weights)
    assert isinstance(judge, FrameReward)
    of_frames = judge.per_frame(shown, ["something else"])
    wanted = {
        "grey": judge(grey, ["something else"]),
        "fixed": judge(shown, [PROMPT]),
        "best": of_frames.sort(descending=True).values[:, :2].mean(),
        "whole": load_reward("motion_energy", None)(grey, ["-"]),
    }
    assert found.scores == pytest.approx({k: float(v) for k, v in wanted.items()}, abs=1e-5)
    assert len({round(float(value), 4) for value in wanted.values()}) == 4
