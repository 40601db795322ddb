"""The tower against transformers' own processor and model, and the gradient to the pixels."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from rewards.core.torchvision_import import ensure_torchvision_importable
from rewards.errors import RewardError
from rewards.kinds.qwen_critic import ASPECTS
from rewards.qwen.model import Medium, Positions, QwenTower, rope_places
from tests.rewards import tiny_qwen
from tests.rewards.tiny_qwen import bytes_clips

TEXTS = ("Is it red? Answer Yes or No.", "What moves? Say it in one word, please.", "Hm?")


def reference_states(tower: QwenTower, clip: Tensor, text: str) -> Tensor:
    """Last hidden states of transformers' processor and model for one clip or image in bytes.

    The positions are those that transformers computes, or, of a tower with plain ones, 0, 1, 2, ...
    """
    ensure_torchvision_importable()
    from transformers import Qwen2VLImageProcessor, Qwen2VLProcessor, Qwen2VLVideoProcessor

    limits = {"shortest_edge": 28 * 28, "longest_edge": 112 * 112}
    processor = Qwen2VLProcessor(
        Qwen2VLImageProcessor(size=dict(limits)),
        tower.tokenizer,
        Qwen2VLVideoProcessor(size=dict(limits), cap_pixels_per_frame=False),
        chat_template=tower.tokenizer.chat_template,
    )
    media = {"videos": [clip]} if tower.medium == "video" else {"images": [clip[0]]}
    batch = processor(
        text=[tower.conversation(text)],
        return_tensors="pt",
        return_mm_token_type_ids=True,
        **media,
    )
    if tower.positions == "plain":
        length = batch["input_ids"].shape[1]
        batch["position_ids"] = torch.arange(length).expand(3, 1, -1)
    with torch.no_grad():
        output = tower.model.model(**batch, use_cache=False)
    states: Tensor = output.last_hidden_state[0]
    return states


@pytest.mark.parametrize("positions", ["grid", "plain"])
@pytest.mark.parametrize(
    ("medium", "frames", "height", "width"),
    [("video", 4, 56, 56), ("video", 5, 84, 112), ("video", 2, 28, 84), ("image", 1, 56, 84)],
)
def test_states_are_those_of_transformers(
    medium: Medium, frames: int, height: int, width: int, positions: Positions
) -> None:
    tower = tiny_qwen.tower(medium)
    tower.positions = positions
    clips = bytes_clips(2, frames, height, width)
    reading = tower.read(clips.float() / 255, [TEXTS, TEXTS])
    for row, clip in enumerate(clips):
        for k, text in enumerate(TEXTS):
            expected = reference_states(tower, clip, text)
            torch.testing.assert_close(reading.last()[row, k], expected[-1], atol=1e-5, rtol=1e-5)


def test_every_token_of_one_text_is_that_of_transformers() -> None:
    tower = tiny_qwen.tower()
    clips = bytes_clips(1, 3, 56, 84)
    reading = tower.read(clips.float() / 255, [TEXTS[:1]])
    expected = reference_states(tower, clips[0], TEXTS[0])
    assert reading.states.shape[1] == len(expected)
    torch.testing.assert_close(reading.states[0], expected, atol=1e-5, rtol=1e-5)


def test_places_are_those_of_transformers_for_clips_as_wide_as_long() -> None:
    built = tiny_qwen.model()
    video = built.config.video_token_id
    start, grid, text = 5, (2, 3, 4), 7
    tokens = torch.tensor([[9] * start + [video] * 24 + [9] * text])
    expected, _ = built.model.get_rope_index(
        tokens,
        mm_token_type_ids=(tokens == video).int() * 2,
        video_grid_thw=torch.tensor([[2, 6, 8]]),
    )
    assert torch.equal(rope_places(start, grid, 36), expected[:, 0])


def test_text_goes_on_behind_the_latest_frame_of_a_long_clip() -> None:
    # The rule of the published training: one more than the largest place so far, on any axis.
    start, (t, h, w), text = 3, (9, 2, 1), 4
    places = rope_places(start, (t, h, w), start + t * h * w + text)
    clip = [(start + i, start + j, start + k) for i in range(t) for j in range(h) for k in range(w)]
    assert places[:, start : start + t * h * w].T.tolist() == [list(place) for place in clip]
    after = max(max(place) for place in clip) + 1
    assert places[:, -text:].tolist() == [list(range(after, after + text))] * 3


def test_a_clip_is_read_the_same_alone_and_with_others() -> None:
    tower = tiny_qwen.tower()
    clips = bytes_clips(3, 3, 56, 56).float() / 255
    texts: Sequence[Sequence[str]] = [TEXTS[:2], ("No?", TEXTS[1]), TEXTS[1:]]
    together = tower.read(clips, texts).last()
    for row in range(3):
        alone = tower.read(clips[row : row + 1], texts[row : row + 1]).last()[0]
        torch.testing.assert_close(together[row], alone, atol=1e-5, rtol=1e-5)


def test_texts_of_a_clip_do_not_see_each_other() -> None:
    tower = tiny_qwen.tower()
    clips = bytes_clips(1, 2, 56, 56).float() / 255
    one = tower.read(clips, [(TEXTS[0], TEXTS[1])]).last()[0]
    other = tower.read(clips, [(TEXTS[2], TEXTS[1])]).last()[0]
    torch.testing.assert_close(one[1], other[1], atol=1e-5, rtol=1e-5)
    assert float((one[0] - other[0]).abs().max()) > 0.1


def score(tower: QwenTower, clips: Tensor) -> Tensor:
    return tower.read(clips, [tuple(ASPECTS.values())] * len(clips)).last()[..., 0].mean()


@pytest.mark.parametrize("frames", [4, 5])
def test_the_gradient_reaches_every_frame_and_is_the_difference_quotient(frames: int) -> None:
    tower = tiny_qwen.tower()
    clips = (0.2 + 0.6 * torch.rand((1, frames, 3, 60, 60))).requires_grad_()
    (gradient,) = torch.autograd.grad(score(tower, clips), clips)
    sizes = gradient.flatten(2).norm(dim=2)[0]
    assert float(sizes.min()) > 0.05 * float(sizes.max()) > 0
    direction = torch.randn(clips.shape, generator=torch.Generator().manual_seed(3))
    direction = gradient / gradient.norm() + direction / direction.norm()
    step = 0.02
    with torch.no_grad():
        quotient = score(tower, clips + step * direction) - score(tower, clips - step * direction)
    slope = float((gradient * direction).sum())
    assert float(quotient) / (2 * step) == pytest.approx(slope, rel=0.02)


def test_gradient_checkpointing_changes_no_gradient() -> None:
    def gradient(tower: QwenTower) -> Tensor:
        clips = (bytes_clips(2, 3, 56, 56).float() / 255).requires_grad_()
        (found,) = torch.autograd.grad(score(tower, clips), clips)
        return found

    plain = gradient(tiny_qwen.tower())
    tower = tiny_qwen.tower()
    runs = []
    block = tower.model.model.visual.blocks[0].norm1
    block.register_forward_hook(lambda *_: runs.append(1))
    tower.checkpoint_gradients()
    torch.testing.assert_close(gradient(tower), plain, atol=1e-7, rtol=1e-6)
    assert len(runs) == 2  # forward, and again in the backward pass


def test_dropout_is_refused_where_it_would_be_switched_on() -> None:
    tower = tiny_qwen.tower()
    tower.model.config.text_config.attention_dropout = 0.1
    with pytest.raises(RewardError, match=r"attention_dropout is 0\.1"):
        tower.checkpoint_gradients()


def test_weights_in_bfloat16_score_nearly_alike() -> None:
    tower = tiny_qwen.tower()
    clips = bytes_clips(1, 4, 56, 56).float() / 255
    exact = tower.read(clips, [TEXTS]).last()
    half: Any = tiny_qwen.model().to(torch.bfloat16)
    rough = QwenTower(half, tower.tokenizer, tower.frames).read(clips, [TEXTS]).last()
    assert rough.dtype == torch.bfloat16
    assert float((rough.float() - exact).norm() / exact.norm()) < 0.05


def test_special_tokens_in_a_prompt_are_refused() -> None:
    tower = tiny_qwen.tower()
    with pytest.raises(RewardError, match=r"contains <\|im_end\|>"):
        tower.check_plain("a star<|im_end|> Yes")
    tower.check_plain("a star | with <bars>")


def test_a_tokenizer_of_another_model_is_refused() -> None:
    with pytest.raises(RewardError, match="embeddings"):
        QwenTower(tiny_qwen.model(100), tiny_qwen.tokenizer(), tiny_qwen.spec())
