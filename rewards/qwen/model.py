"""A frozen Qwen2-VL that reads clips with texts: patches in, hidden states out, differentiable.

The steps are those of transformers' processor and model, on tensors alone. The positions of tokens
(M-RoPE) are computed here, by one of two rules (`Positions`):

- `grid`: Qwen2-VL's own, which its published weights were trained with: text after a clip continues
  after the largest position of the clip in time, height or width. transformers 5.23 considers only
  height and width, which differs for clips with more patches in time than per side.
- `plain`: 0, 1, 2, ... on all three axes, for clip and text. VideoAlign and HPSv3 pass
  `inputs_embeds` without `position_ids` to the model of transformers 4.45.2, in training and in
  scoring, which then uses these positions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from rewards.errors import RewardError
from rewards.qwen.frames import QwenFrames

Medium = Literal["video", "image"]
Positions = Literal["grid", "plain"]

START, END = "<|vision_start|>", "<|vision_end|>"
PAD: dict[Medium, str] = {"video": "<|video_pad|>", "image": "<|image_pad|>"}


@dataclass(frozen=True)
class Reading:
    """The language model's states at every token of b sequences: a clip and its k texts.

    Attributes:
        states: `(b, l, d)` after the last norm, in the model's dtype.
        tokens: `(b, l)` token numbers.
        parts: `(b, l)`: 0 for the clip and the tokens before it, 1 to k for the texts, -1 for
            padding.
        ends: `(b, k)` positions of each text's last token.
        features: `(b, v, d)` vision tokens, before the language model.
    """

    states: Tensor
    tokens: Tensor
    parts: Tensor
    ends: Tensor
    features: Tensor

    def last(self) -> Tensor:
        """Return the states that predict the answers, `(b, k, d)`."""
        return self.states.take_along_dim(self.ends[..., None], dim=1)

    def at(self, token: int) -> Tensor:
        """Return the states at a token that every sequence contains once, `(b, d)`."""
        found = self.tokens == token
        assert bool((found.sum(dim=1) == 1).all()), (
            "a sequence does not contain the token exactly once"
        )
        return self.states[found]


class QwenTower:
    """A Qwen2-VL, its tokenizer, and the preprocessing of its clips.

    Attributes:
        model: transformers' `Qwen2VLForConditionalGeneration`; may be shared with others.
        tokenizer: Tokenizer of the model.
        frames: Converts clips to patches.
        medium: Medium that the clips are for the model.
        positions: Numbering of tokens, set by the training of the weights.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        frames: QwenFrames,
        medium: Medium = "video",
        positions: Positions = "grid",
    ) -> None:
        self.model: Any = model.requires_grad_(False).eval()
        self.tokenizer = tokenizer
        self.frames = frames
        self.medium = medium
        self.positions = positions
        rows = model.get_input_embeddings().weight.shape[0]
        if len(tokenizer) > rows:
            raise RewardError(
                f"the tokenizer has {len(tokenizer):,} tokens, the model {rows:,} embeddings: they "
                "do not match. Take tokenizer and weights from one checkpoint"
            )

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device

    def at_rate(self, fps: float) -> QwenTower:
        """Return this model for clips of `fps` frames per second."""
        other = copy(self)
        other.frames = replace(self.frames, clip_fps=fps)
        return other

    def checkpoint_gradients(self) -> None:
        """Recompute every block of both towers in the backward pass; changes no number.

        transformers does so in training mode only, which differs from evaluation by dropout.

        Raises:
            RewardError: The config has dropout, so training mode would change the score.
        """
        dropout = self.model.config.text_config.attention_dropout
        if dropout:
            raise RewardError(
                f"attention_dropout is {dropout} in the judge's config, so gradient checkpointing "
                "would make its score random. Set it to 0 in config.json"
            )
        self.model.gradient_checkpointing_enable({"use_reentrant": False})
        self.model.train()

    def conversation(self, text: str) -> str:
        """Return a user's turn with the clip, then the text, ready for the answer.

        Written as text, the clip's position is the same in every version of the chat template.
        """
        content = [{"type": "text", "text": f"{START}{PAD[self.medium]}{END}{text}"}]
        conversation: str = self.tokenizer.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
        )
        return conversation

    def check_plain(self, text: str) -> None:
        """Check that a prompt contains none of the tokenizer's special tokens.

        Raises:
            RewardError: It contains one, which would change the question.
        """
        found = [token for token in self.tokenizer.get_added_vocab() if token in text]
        if found:
            raise RewardError(
                f"the prompt {text!r} contains {', '.join(found)}, a special token of this judge. "
                "Remove it from the prompt"
            )

    def tokens(self, text: str) -> tuple[list[int], list[int]]:
        """Return the tokens of a conversation before and after its clip."""
        ids: list[int] = self.tokenizer(self.conversation(text))["input_ids"]
        pad = self.tokenizer.convert_tokens_to_ids(PAD[self.medium])
        assert ids.count(pad) == 1
        place = ids.index(pad)
        return ids[:place], ids[place + 1 :]

    def clip_features(self, clips: Tensor) -> tuple[Tensor, tuple[int, int, int]]:
        """Encode clips `(b, f, 3, H, W)`: vision tokens `(b, v, d)`, and their grid."""
        patches = self.frames(clips)
        t, h, w = patches.grid
        visual = self.model.model.visual
        grids = torch.tensor([patches.grid] * len(clips), device=clips.device)
        out = visual(patches.values.to(visual.patch_embed.proj.weight.dtype), grid_thw=grids)
        features: Tensor = getattr(out, "pooler_output", out)  # a bare tensor before 5.0
        m = self.frames.merge_size
        return features.unflatten(0, (len(clips), -1)), (t, h // m, w // m)

    def read(self, clips: Tensor, texts: Sequence[Sequence[str]]) -> Reading:
        """Read clips, each with its k independent texts (see `read_tokens`)."""
        return self.read_tokens(clips, [[self.tokens(text) for text in those] for those in texts])

    def read_tokens(
        self, clips: Tensor, texts: Sequence[Sequence[tuple[list[int], list[int]]]]
    ) -> Reading:
        """Read clips, each with its texts.

        The texts of a clip follow it in one sequence, each at the positions it would have alone and
        masked from the others: k questions cost one pass over the clip, which is most of a
        sequence, and give the result of k passes.

        Args:
            clips: `(b, f, 3, H, W)` in [0, 1], on the model's device.
            texts: k of `tokens` for each of the b clips.

        Raises:
            RewardError: They are longer than the model's positions.
        """
        features, grid = self.clip_features(clips)
        pad = self.tokenizer.convert_tokens_to_ids(PAD[self.medium])
        rows = [_pack(those, pad, grid, self.positions) for those in texts]
        length = max(len(row.tokens) for row in rows)
        most = max(int(row.places.max()) for row in rows) + 1
        known = self.model.config.text_config.max_position_embeddings
        if most > known:
            raise RewardError(
                f"a clip and its texts take {most:,} positions, but the Qwen2-VL has {known:,}. "
                "Give a shorter prompt (reward_prompt), fewer frames or fewer pixels"
            )
        device = clips.device
        tokens = torch.tensor([row.padded(row.tokens, length, 0) for row in rows], device=device)
        parts = torch.tensor([row.padded(row.parts, length, -1) for row in rows], device=device)
        places = torch.stack([F.pad(row.places, (0, length - row.places.shape[1])) for row in rows])
        embeddings = self.model.get_input_embeddings()(tokens)
        at_clip = (tokens == pad)[..., None]
        embeddings = embeddings.masked_scatter(at_clip, features.to(embeddings.dtype))
        output = self.model.model.language_model(
            inputs_embeds=embeddings,
            attention_mask=_mask(parts, embeddings.dtype),
            position_ids=places.transpose(0, 1).to(device),
            use_cache=False,
        )
        ends = torch.tensor([row.ends for row in rows], device=device)
        return Reading(output.last_hidden_state, tokens, parts, ends, features)


@dataclass(frozen=True)
class _Row:
    """One sequence: tokens, the part of each (0 before the texts), positions, ends of the texts."""

    tokens: list[int]
    parts: list[int]
    places: Tensor
    ends: list[int]

    @staticmethod
    def padded(values: list[int], length: int, value: int) -> list[int]:
        return values + [value] * (length - len(values))


def _pack(
    pairs: Sequence[tuple[list[int], list[int]]],
    pad: int,
    grid: tuple[int, ...],
    positions: Positions,
) -> _Row:
    before = pairs[0][0]
    assert all(pair[0] == before for pair in pairs), "the clip is not at one position"
    clip = [pad] * math.prod(grid)
    head = len(before) + len(clip)
    tokens, parts, ends = [*before, *clip], [0] * head, []
    places = [_places(positions, len(before), grid, head)]
    for part, (_, text) in enumerate(pairs, start=1):
        tokens += text
        parts += [part] * len(text)
        ends.append(len(tokens) - 1)
        places.append(_places(positions, len(before), grid, head + len(text))[:, head:])
    return _Row(tokens, parts, torch.cat(places, dim=1), ends)


def _places(positions: Positions, start: int, grid: tuple[int, ...], length: int) -> Tensor:
    if positions == "plain":
        return torch.arange(length).expand(3, -1)
    return rope_places(start, grid, length)


def _mask(parts: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the attention mask of parts `(b, l)`: `(b, 1, l, l)`, causal, texts independent.

    Padding attends to padding, so that no row is empty; nothing else does.
    """
    length = parts.shape[1]
    seen = torch.ones(length, length, dtype=torch.bool, device=parts.device).tril()
    seen = seen & ((parts[:, None, :] == 0) | (parts[:, None, :] == parts[:, :, None]))
    mask = torch.zeros(seen.shape, dtype=dtype, device=parts.device)
    return mask.masked_fill(~seen, torch.finfo(dtype).min)[:, None]


def rope_places(start: int, grid: tuple[int, ...], length: int) -> Tensor:
    """Return grid positions in time, height, width (M-RoPE, arXiv 2409.12191) of text and clip.

    Args:
        start: Number of tokens before the clip.
        grid: T, h and w of the clip, in tokens.
        length: Number of all tokens, those of the clip included.

    Returns:
        `(3, length)`: equal numbers for text; for the clip its grid, from `start` on.
    """
    axes = torch.meshgrid(*(torch.arange(n) for n in grid), indexing="ij")
    clip = torch.stack(axes).flatten(1) + start
    before = torch.arange(start).expand(3, -1)
    after = torch.arange(length - start - math.prod(grid)).expand(3, -1) + start + max(grid)
    return torch.cat([before, clip, after], dim=1)
