"""Qwen2-VL as a critic: it answers questions about a clip, and the score is how sure it is of Yes.

score = mean over questions of log p(Yes) - log p(No), at the position where the answer would begin.
The question `parts` is asked about each claim of the prompt, and counts as their mean.
Both probabilities have the same denominator, so this is a difference of two logits.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rewards.core.base import VideoReward, check_input
from rewards.core.tower_options import TowerOptions
from rewards.errors import RewardError
from rewards.qwen.claims import claims
from rewards.qwen.files import (
    build_qwen_model,
    find_folder,
    load_tokenizer,
    read_config,
    read_folder,
)
from rewards.qwen.frames import frames_of_folder
from rewards.qwen.model import QwenTower

PLACE = "{prompt}"

ASPECTS: dict[str, str] = {
    "object": f'"{PLACE}" Is this object in the video? Answer Yes or No.',
    "colour": f'"{PLACE}" Does the object in the video have this colour? Answer Yes or No.',
    "motion": f'"{PLACE}" Does the object in the video move like this? Answer Yes or No.',
    "artefact": "Is the video sharp, steady and free of artefacts? Answer Yes or No.",
}
"""Questions by name. The prompt comes first, so that the question can refer to it."""

PARTS = "parts"
PARTS_QUESTION = f'"{PLACE}" Does the video show this? Answer Yes or No.'
"""The question about each claim of the prompt (`rewards.qwen.claims`), by this name."""

ANSWERS = ("Yes", "No")


class QwenCritic(VideoReward):
    """A Qwen2-VL's confidence that a clip matches its prompt.

    Attributes:
        tower: The model.
        questions: Questions by name; the user's own are their own names.
        answers: Tokens of Yes and No.
    """

    name = "qwen_critic"

    def __init__(self, tower: QwenTower, aspects: Sequence[str] = tuple(ASPECTS)) -> None:
        self.tower = tower
        self.device = tower.device
        self.questions = choose_questions(aspects)
        self.reads_text = any(PLACE in question for question in self.questions.values())
        self.answers = [_one_token(tower.tokenizer, answer) for answer in ANSWERS]

    @property
    def modules(self) -> list[nn.Module]:
        """The model, which may be shared."""
        return [self.tower.model]

    def at_rate(self, fps: float) -> QwenCritic:
        """Return this judge for clips of `fps` frames per second."""
        other = copy(self)
        other.tower = self.tower.at_rate(fps)
        return other

    def ask(self, clips: Tensor, texts: Sequence[Sequence[str]]) -> Tensor:
        """Ask k questions about each clip.

        Args:
            clips: `(b, f, 3, H, W)` in [0, 1], on the critic's device.
            texts: k texts for each of the b clips.

        Returns:
            `(b, k)` fp32: log p(Yes) - log p(No).
        """
        states = self.tower.read(clips, texts).last()
        # fp32 from here on: a bf16 logit of 20 has steps of 0.125.
        dtype = clips.dtype
        head = self.tower.model.get_output_embeddings().weight[self.answers].to(dtype)
        yes, no = F.linear(states.to(dtype), head).unbind(dim=-1)
        return yes - no

    def per_aspect(self, frames: Tensor, prompts: Sequence[str]) -> dict[str, Tensor]:
        """Score each question: `(b, f, 3, H, W)` and b prompts -> `(b,)` by name.

        Raises:
            RewardError: The input cannot be scored.
        """
        check_input(frames, prompts)
        scores = self._each(frames.to(self.device), prompts)
        return dict(zip(self.questions, scores.unbind(dim=1), strict=True))

    def score_clips(self, frames: Tensor, prompts: Sequence[str]) -> Tensor:
        """Return the mean over questions: `(b, f, 3, H, W)` and b prompts -> `(b,)` fp32."""
        return self._each(frames, prompts).mean(dim=1)

    def _each(self, clips: Tensor, prompts: Sequence[str]) -> Tensor:
        """Score each question, `(b, k)` for k questions, `parts` by the mean over its claims."""
        for prompt in prompts:
            self.tower.check_plain(prompt)
        asked = [self._asked(prompt) for prompt in prompts]
        longest = max(len(texts) for texts, _ in asked)
        # Every clip is asked as often: one with fewer claims repeats its last question.
        texts = [own + own[-1:] * (longest - len(own)) for own, _ in asked]
        answers = self.ask(clips, texts)
        names = list(self.questions)
        rows = []
        for row, (_, of) in zip(answers, asked, strict=True):
            rows.append(
                torch.stack(
                    [row[[i for i, name in enumerate(of) if name == one]].mean() for one in names]
                )
            )
        return torch.stack(rows)

    def _asked(self, prompt: str) -> tuple[list[str], list[str]]:
        """Return the texts that are asked about a clip of a prompt, and the question of each."""
        texts, names = [], []
        for name, question in self.questions.items():
            for about in claims(prompt) if name == PARTS else [prompt]:
                texts.append(question.replace(PLACE, about))
                names.append(name)
        return texts, names


def choose_questions(aspects: Sequence[str]) -> dict[str, str]:
    """Return the questions of named aspects and the user's own.

    Args:
        aspects: Keys of `ASPECTS`, `parts`, or the user's own questions of more than one word, in
            which `{prompt}` is replaced by the prompt.

    Raises:
        RewardError: There is none, one occurs twice, or a single word is not the name of an aspect.
    """
    named = ASPECTS | {PARTS: PARTS_QUESTION}
    unknown = [aspect for aspect in aspects if aspect not in named and " " not in aspect.strip()]
    if isinstance(aspects, str) or not aspects or unknown or len(set(aspects)) < len(aspects):
        raise RewardError(
            f"aspects are {aspects!r}; allowed: a list of different names among "
            f"{', '.join(named)}, and your own questions with the answer Yes or No, in which "
            f"{PLACE} is replaced by the prompt"
        )
    return {aspect: named.get(aspect, aspect) for aspect in aspects}


def _one_token(tokenizer: Any, word: str) -> int:
    ids: list[int] = tokenizer(word)["input_ids"]
    if len(ids) != 1:
        raise RewardError(
            f"the tokenizer writes {word!r} in {len(ids)} tokens; a critic's answer must be one. "
            "Use the tokenizer of a Qwen2-VL-Instruct, or of tiny/qwen-critic"
        )
    return ids[0]


def load_qwen_critic(
    checkpoint: str | Path,
    tower_options: TowerOptions,
    *,
    aspects: Sequence[str] | None = None,
    model: Any = None,
    count: int | None = None,
    fps: float | None = None,
    clip_fps: float | None = None,
    min_pixels: int | None = None,
    max_pixels: int | None = None,
) -> QwenCritic:
    """Load a Qwen2-VL as a critic, or use one that is already loaded.

    The many parameters are keys of the recipe.

    Args:
        checkpoint: Folder with config, weights and tokenizer, a generator's checkpoint (whose text
            encoder is a whole Qwen2-VL), or a hub id in the cache.
        tower_options: Where and how the model runs; scores are fp32.
        aspects: Questions to ask (see `choose_questions`); by default all named ones.
        model: A loaded `Qwen2VLForConditionalGeneration` of this checkpoint, such as a generator's
            text encoder: it is frozen and used as it is, on its device; no weights are read.
        count: Number of frames that the model looks at; `None` for all, or as `fps` says.
        fps: Frames per second to look at.
        clip_fps: Frame rate of the clips; used with `fps` only.
        min_pixels: Smallest number of pixels of a frame as the model sees it.
        max_pixels: Largest number of pixels of a frame as the model sees it.

    Raises:
        RewardError: A file is missing, damaged or of another model, an aspect is unknown, or
            options exclude each other.
    """
    found = find_folder(checkpoint, tower_options.folder)
    choice = {"count": count, "fps": fps, "clip_fps": clip_fps}
    pixels = {"min_pixels": min_pixels, "max_pixels": max_pixels}
    # transformers' processors resize in 8 bits and round after each pass.
    resize = {"quantised": True, "passes": 2}
    frames = frames_of_folder(found.weights, {**choice, **pixels, **resize})
    tokenizer = load_tokenizer(found.tokenizer)
    if model is None:
        config, state = read_config(found.weights), read_folder(found.weights)
        model = build_qwen_model(config, state, found.weights, tower_options)
    tower = QwenTower(model, tokenizer, frames)
    if tower_options.gradient_checkpointing:
        tower.checkpoint_gradients()
    return QwenCritic(tower, tuple(ASPECTS) if aspects is None else aspects)
