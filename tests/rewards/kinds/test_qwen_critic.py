from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rewards.core.tower_options import TowerOptions
from rewards.errors import RewardError
from rewards.kinds.qwen_critic import ASPECTS, QwenCritic, choose_questions, load_qwen_critic
from tests.rewards import tiny_qwen
from tests.rewards.qwen.test_model import reference_states
from tests.rewards.tiny_qwen import PROMPTS, bytes_clips, write_folder


def critic(*aspects: str) -> QwenCritic:
    return QwenCritic(tiny_qwen.tower(), aspects or tuple(ASPECTS))


def clips(count: int = 2, frames: int = 3) -> Tensor:
    return bytes_clips(count, frames, 56, 84).float() / 255


def test_the_score_is_the_mean_log_odds_of_yes() -> None:
    judge = critic()
    raw = bytes_clips(2, 3, 56, 84)
    scores = judge(raw.float() / 255, PROMPTS)
    assert scores.dtype == torch.float32
    tokenizer, head = judge.tower.tokenizer, judge.tower.model.lm_head
    yes, no = (tokenizer.convert_tokens_to_ids(word) for word in ("Yes", "No"))
    for row, prompt in enumerate(PROMPTS):
        odds = []
        for question in ASPECTS.values():
            text = question.replace("{prompt}", prompt)
            logits = head(reference_states(judge.tower, raw[row], text)[-1])
            chances = torch.log_softmax(logits, dim=0)
            odds.append(chances[yes] - chances[no])
        torch.testing.assert_close(scores[row], torch.stack(odds).mean(), atol=1e-5, rtol=1e-5)


def test_aspects_alone_are_the_parts_of_the_mean() -> None:
    frames = clips()
    parts = critic().per_aspect(frames, PROMPTS)
    assert list(parts) == list(ASPECTS)
    torch.testing.assert_close(
        torch.stack(list(parts.values())).mean(dim=0), critic()(frames, PROMPTS)
    )
    for name, score in parts.items():
        torch.testing.assert_close(critic(name)(frames, PROMPTS), score, atol=1e-5, rtol=1e-5)


def test_own_questions_and_whether_the_prompt_matters() -> None:
    own = 'Is "{prompt}" what a cat would like?'
    judge = critic("artefact", own)
    assert judge.questions == {"artefact": ASPECTS["artefact"], own: own}
    assert judge.reads_text
    assert not critic("artefact").reads_text
    frames = clips(1)
    one, other = (judge.per_aspect(frames, [prompt]) for prompt in PROMPTS)
    torch.testing.assert_close(one["artefact"], other["artefact"], atol=1e-5, rtol=1e-5)
    assert float((one[own] - other[own]).abs()) > 1e-3


@pytest.mark.parametrize("aspects", [("objects",), (), ("colour", "colour"), "colour"])
def test_unknown_aspects_are_refused(aspects: tuple[str, ...]) -> None:
    with pytest.raises(RewardError, match="allowed: a list of different names among object"):
        choose_questions(aspects)


def test_chunks_change_neither_score_nor_gradient() -> None:
    results = []
    for chunk in (None, 1, 2):
        judge = critic()
        judge.chunk = chunk
        frames = clips(3).requires_grad_()
        scores = judge(frames, [*PROMPTS, "a dog"])
        (scores * torch.tensor([1.0, -2.0, 0.5])).sum().backward()
        results.append((scores.detach(), frames.grad))
    for scores, gradient in results[1:]:
        torch.testing.assert_close(scores, results[0][0], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(gradient, results[0][1], atol=1e-6, rtol=1e-4)


def test_gradient_ascent_on_pixels_raises_the_score() -> None:
    judge = critic()
    frames = (0.3 + 0.4 * clips(1, 4)).requires_grad_()
    first = float(judge(frames, PROMPTS[:1]).detach())
    for _ in range(10):
        (gradient,) = torch.autograd.grad(judge(frames, PROMPTS[:1]).sum(), frames)
        frames = (frames + 0.02 * gradient.sign()).detach().clamp(0, 1).requires_grad_()
    assert float(judge(frames, PROMPTS[:1]).detach()) > first + 0.5


def test_bad_input() -> None:
    judge = critic()
    with pytest.raises(RewardError, match="non-empty text"):
        judge(clips(1), [" "])
    with pytest.raises(RewardError, match=r"contains <\|video_pad\|>"):
        judge(clips(1), ["a <|video_pad|>"])
    with pytest.raises(RewardError, match="range over"):
        judge(clips(1) * 255, ["a"])
    with pytest.raises(RewardError, match=r"positions, but the Qwen2-VL has 4,096\. Give"):
        judge(clips(1), ["a fox " * 3000])


def test_loading_and_sharing(tmp_path: Path) -> None:
    built = tiny_qwen.model(tied=True)
    write_folder(tmp_path / "gen" / "text_encoder", built)
    tiny_qwen.tokenizer().save_pretrained(tmp_path / "gen" / "tokenizer")
    options: dict[str, Any] = {"tower_options": TowerOptions(folder=tmp_path)}
    options |= {"min_pixels": 28 * 28, "max_pixels": 112 * 112}
    loaded = load_qwen_critic("gen", **options, aspects=["colour"])
    shared = load_qwen_critic("gen", **options, aspects=["colour"], model=built)
    assert shared.modules == [built]
    assert loaded.modules != [built]
    frames = clips()
    assert torch.equal(loaded(frames, PROMPTS), shared(frames, PROMPTS))
    some = load_qwen_critic("gen", **options, model=built, count=2)
    every = load_qwen_critic("gen", **options, model=built)
    torch.testing.assert_close(some(frames, PROMPTS), every(frames[:, ::2], PROMPTS))


def test_a_text_encoder_that_never_learned_to_say_yes_is_refused() -> None:
    # Its tokenizer writes Yes in two tokens, as it never learned the word: refused, with a reason.
    from base_model.files.shipped import resolve_checkpoint
    from base_model.generator import load_generator

    encoder = load_generator("tiny").prompt_encoder
    assert encoder is not None
    with pytest.raises(RewardError, match="'Yes' in 2 tokens"):
        load_qwen_critic(
            resolve_checkpoint("tiny"),
            TowerOptions(),
            model=encoder.text_encoder,
        )


def test_parts_ask_about_each_claim_of_the_prompt() -> None:
    """Prompts with two claims and with one, asked in one call: each clip has its own mean."""
    prompts = ["a red ball rolls, and a dog watches", "a blue square"]
    frames = clips(2)
    scores = critic("parts", "artefact").per_aspect(frames, prompts)
    questions = [
        f'"{claim}" Does the video show this? Answer Yes or No.'
        for claim in ("a red ball rolls", "a dog watches", "a blue square")
    ]
    one, two, three = (critic(question) for question in questions)
    both = (one(frames[:1], prompts[:1]) + two(frames[:1], prompts[:1])) / 2
    torch.testing.assert_close(scores["parts"][:1], both, atol=1e-5, rtol=1e-5)
    alone = three(frames[1:], prompts[1:])
    torch.testing.assert_close(scores["parts"][1:], alone, atol=1e-5, rtol=1e-5)
    artefact = critic("artefact")(frames, prompts)
    torch.testing.assert_close(scores["artefact"], artefact, atol=1e-5, rtol=1e-5)
    whole = critic("parts", "artefact")(frames, prompts)
    torch.testing.assert_close(whole, (scores["parts"] + artefact) / 2, atol=1e-5, rtol=1e-5)
