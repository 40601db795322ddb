"""ImageReward: human preference for an image, given a prompt (Xu et al., 2304.05977).

The prompt attends to the image by cross-attention, so only its token numbers can be cached: a frame
costs one pass of the vision tower and one of the text tower.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from rewards.clip_towers.tower import unit_length
from rewards.core.base import FrameReward
from rewards.core.locate import resolve_file
from rewards.core.preprocess import Preprocess
from rewards.core.published import published
from rewards.core.tower_options import TowerOptions
from rewards.core.weight_file import WeightFile, find_fields, load_weights, verify
from rewards.errors import RewardError
from rewards.kinds.clip import clip_preprocess
from rewards.networks.blip import (
    PUBLISHED_ARCHITECTURE,
    BlipArchitecture,
    BlipScorer,
    check_architecture,
    load_scorer,
)
from rewards.networks.wordpiece import WordPiece

MEAN = 0.16717362830052426
"""Mean of the head's output over the publishers' images, which normalises the score."""

STD = 1.0333394966054072
"""Standard deviation of the same."""

PROMPT_TOKENS = 35
"""Tokens of every prompt, [CLS] and [SEP] included: shorter ones are padded, longer ones cut."""

TOKENIZER = "bert-base-uncased"
"""Published name of the vocabulary of the published file."""


class ImageRewardReward(FrameReward):
    """A standardised preference: about -2.3 to 2 on the publishers' images.

    Attributes:
        scorer: Vision tower, text tower and head.
        tokenizer: Tokenizer of the prompts.
        preprocess: Preprocessing of frames.
    """

    name = "image_reward"

    def __init__(
        self,
        scorer: BlipScorer,
        tokenizer: WordPiece,
        preprocess: Preprocess,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.scorer = scorer.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.preprocess = preprocess
        self.dtype = dtype
        self.device = next(self.scorer.parameters()).device
        self.context_length = tokenizer.length
        self._tokens: dict[str, Tensor] = {}

    @property
    def modules(self) -> list[nn.Module]:
        """The module with both towers and the head."""
        return [self.scorer]

    def condition(self, prompts: Sequence[str]) -> Tensor:
        """Return token numbers and masks of prompts, `(b, 2, 35)` int64, cached by prompt."""
        new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._tokens]
        if new:
            self._tokens.update(zip(new, self.tokenizer(new), strict=True))
        return torch.stack([self._tokens[prompt] for prompt in prompts]).to(self.device)

    def truncated(self, prompts: Sequence[str]) -> list[int]:
        """Return the positions of prompts that are cut off."""
        most = self.tokenizer.length
        return [i for i, prompt in enumerate(prompts) if self.tokenizer.count(prompt) > most]

    def image_features(self, images: Tensor) -> Tensor:
        """Return the vision tower's class token, `(n, d)` of length 1."""
        return unit_length(self.scorer.image_tokens(self._pixels(images))[:, 0])

    def score_images(self, images: Tensor, condition: Tensor | None) -> Tensor:
        """Score `(n, 3, H, W)` in [0, 1] with `(n, 2, 35)`: `(n,)` fp32 (fp64 for fp64 towers)."""
        assert condition is not None
        ids, mask = condition.unbind(dim=1)
        return (self.scorer(self._pixels(images), ids, mask) - MEAN) / STD

    def _pixels(self, images: Tensor) -> Tensor:
        return self.preprocess(images).to(self.dtype)


def load_image_reward(
    checkpoint: str | Path,
    tower_options: TowerOptions,
    *,
    architecture: BlipArchitecture | None = None,
    tokenizer: str | Path | None = None,
) -> ImageRewardReward:
    """Load ImageReward's published file, or a small one that states its architecture.

    Args:
        checkpoint: Name or path of the file (see `rewards.load_reward`), a flat state dict with the
            published names.
        tower_options: Where and how both towers run; layer norms have the dtype too, the head stays
            fp32.
        architecture: Sizes of a file that does not state them; by default the published ones.
        tokenizer: BERT's `vocab.txt`: a path, or `bert-base-uncased` from the hub's cache, the
            default for a file that names none.

    Raises:
        RewardError: See `rewards.load_reward`; also if the vocabulary is missing or does not match.
    """
    loaded = load_weights(checkpoint, tower_options.folder)
    sizes = find_fields(
        loaded, architecture, PUBLISHED_ARCHITECTURE, check_architecture, "ImageReward"
    )
    words = WordPiece(_find_vocabulary(loaded, tower_options.folder, tokenizer), PROMPT_TOKENS)
    if words.size != sizes["text"]["vocab_size"]:
        raise RewardError(
            f"the tokenizer has {words.size} tokens with [DEC] and [ENC], {loaded.path} has "
            f"{sizes['text']['vocab_size']}: they do not match. The published file needs the "
            f"vocab.txt of {TOKENIZER}"
        )
    scorer = load_scorer(loaded, sizes, tower_options)
    preprocess = clip_preprocess(sizes["vision"]["image_size"])
    if "preprocess" in loaded.metadata:
        preprocess = Preprocess.from_json(loaded.metadata["preprocess"])
    return ImageRewardReward(scorer, words, preprocess, tower_options.dtype)


def _find_vocabulary(
    checkpoint: WeightFile, folder: Path | None, tokenizer: str | Path | None
) -> Path:
    inside = checkpoint.metadata.get("tokenizer")
    if tokenizer is None and inside is not None:
        path = checkpoint.path.parent / inside
        if not path.is_file():
            raise RewardError(
                f"the tokenizer file {path} is missing; put it next to the judge's file"
            )
        return path
    name = str(tokenizer or TOKENIZER)
    path = resolve_file(name, folder)
    entry = published(name.partition("@")[0])
    if entry is not None:
        verify(path, entry)
    return path
