"""Long prompts: who is warned of what, with limits that are counted here by hand."""

import json
from pathlib import Path

import pytest
import torch

from reward_tuning.inputs.prompts import Prompt
from reward_tuning.judges.judge import FramedJudge
from reward_tuning.judges.truncation import report_truncation
from reward_tuning.progress import ProgressEvent
from rewards import ClipReward, Relative, load_reward
from tests.rewards.tiny_clip import ARCHITECTURE, flat_file, random_state

# each of these words is one token of CLIP's vocabulary; 75 fit beside the marks at both ends
FITS, LONG, LONGEST = (" ".join(["cat"] * count) for count in (75, 76, 90))


@pytest.fixture
def clip(tmp_path: Path) -> ClipReward:
    path = flat_file(tmp_path, random_state(ARCHITECTURE), architecture=json.dumps(ARCHITECTURE))
    judge = load_reward("clip", path)
    assert isinstance(judge, ClipReward)
    return judge


def test_a_truncated_text_is_one_whose_end_changes_nothing(clip: ClipReward) -> None:
    assert clip.context_length == 77
    assert clip.truncated([FITS, LONG, "a dog", LONGEST]) == [1, 3]
    cut, whole, other = clip.tower.text_features([LONG, FITS, FITS[:-3] + "dog"])
    assert torch.equal(cut, whole)
    assert not torch.equal(whole, other)
    clip.relative = Relative("good {prompt}", "a very very bad {prompt}")
    assert clip.truncated([FITS, "cat", " ".join(["cat"] * 72)]) == [0, 2]


def test_one_warning_a_judge_and_a_set(clip: ClipReward) -> None:
    told: list[ProgressEvent] = []
    aesthetic = load_reward("aesthetic", "tiny/aesthetic.safetensors")
    judges = [FramedJudge(clip, "clip", (0,)), FramedJudge(aesthetic, "aesthetic", (0,))]
    sets = {
        "prompts.train": [Prompt(LONGEST, LONGEST), Prompt(LONG, LONG), Prompt("a", "a")] * 2,
        "prompts.held_out": [Prompt(LONGEST, "a cat")],  # the judges read the short text
    }
    report_truncation(judges, sets, told.append)
    (event,) = told
    assert event.note == (
        "warning: prompts.train: the judge clip reads 77 tokens, but 2 of 3 prompts are longer: "
        f"their ends are not judged. The longest: {LONGEST[:57] + '...'!r} (359 characters). Give "
        "them a short reward_prompt"
    )
