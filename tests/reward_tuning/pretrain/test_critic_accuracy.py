"""How judges on Qwen2-VL are measured, on judges whose answers are known."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from base_model.tiny.captions import parse_caption
from base_model.tiny.scenes import ATTRIBUTES
from reward_tuning.pretrain.critic_accuracy import axis_accuracy, critic_accuracy
from reward_tuning.pretrain.critic_data import ASKED
from rewards.kinds.qwen_critic import ASPECTS
from tests.reward_tuning.pretrain.oracle_words import words_in


class Constant:
    """A critic that gives every question the same answer."""

    def __init__(self, answer: float) -> None:
        self.answer = answer

    def ask(self, clips: Tensor, questions: list[list[str]]) -> Tensor:
        return torch.full((len(clips), len(questions[0])), self.answer)


class Oracle:
    """A critic that reads clips with the oracle and says No to artefacts never."""

    def ask(self, clips: Tensor, questions: list[list[str]]) -> Tensor:
        rows = []
        for clip, texts in zip(clips, questions, strict=True):
            read = words_in(clip)
            row = []
            for aspect, text in zip(ASPECTS, texts, strict=True):
                if aspect not in ASKED:
                    row.append(1.0)
                    continue
                before, _, after = ASPECTS[aspect].partition("{prompt}")
                scene, _ = parse_caption(text.removeprefix(before).removesuffix(after))
                name = ASKED[aspect]
                row.append(1.0 if read[name] == getattr(scene, name) else -1.0)
            rows.append(row)
        return torch.tensor(rows)


def test_answers_are_counted_by_aspect_and_language() -> None:
    yes, no, oracle = (
        critic_accuracy(critic, 30, 0)  # type: ignore[arg-type]
        for critic in (Constant(1.0), Constant(-1.0), Oracle())
    )
    keys = {f"{aspect}/{lang}" for aspect in ASKED for lang in ("en", "zh")} | {"artefact"}
    assert yes.keys() == no.keys() == oracle.keys() == keys
    for key in keys:
        assert yes[key] + no[key] == pytest.approx(1.0)
        assert 0.25 < yes[key] < 0.75
    assert min(oracle[key] for key in keys - {"artefact"}) > 0.8
    assert oracle["artefact"] == yes["artefact"]


class Words:
    """A judge whose text alignment counts the words that the oracle reads; other axes by `sign`."""

    def __init__(self, sign: float) -> None:
        self.sign = sign

    def per_axis(self, clips: Tensor, prompts: Sequence[str]) -> dict[str, Tensor]:
        right = []
        for clip, prompt in zip(clips, prompts, strict=True):
            read, (scene, _) = words_in(clip), parse_caption(prompt)
            right.append(float(sum(read[name] == getattr(scene, name) for name in ATTRIBUTES)))
        level = self.sign * clips.mean(dim=(1, 2, 3, 4))
        return {"VQ": level, "MQ": level, "TA": self.sign * torch.tensor(right)}


def test_each_axis_is_counted_on_its_own_pairs() -> None:
    found, opposite = (axis_accuracy(Words(sign), 6, 0) for sign in (1.0, -1.0))  # type: ignore[arg-type]
    assert {"VQ", "MQ", "TA"} < found.keys() == opposite.keys()
    assert found["TA"] > 0.9
    assert opposite["TA"] < 0.1
    assert found["VQ"] + opposite["VQ"] == pytest.approx(1.0)
    assert {key.rsplit("/")[-1] for key in found if key.startswith("TA/")} == {"en", "zh"}


class Blind:
    """A judge that never reads the prompt."""

    def per_axis(self, clips: Tensor, prompts: Sequence[str]) -> dict[str, Tensor]:
        return dict.fromkeys(("VQ", "MQ", "TA"), clips.mean(dim=(1, 2, 3, 4)))


def test_text_alignment_compares_two_captions_of_one_clip() -> None:
    found = axis_accuracy(Blind(), 6, 0)  # type: ignore[arg-type]
    assert found["TA"] == 0.0  # two equal scores: no caption is preferred
    assert found["VQ"] > 0.0
