"""MPS: human preference in one respect, given the prompt (Zhang et al., CVPR 2024, 2405.14705).

A condition, a list of words, selects the respect: the image attends only to the words of the prompt
that are related to it. Prompts are encoded once; an image costs the vision tower and the cross
model.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from rewards.clip_towers.tokenizers import Tokenizer, build_transformers_tokenizer
from rewards.clip_towers.tower import unit_length
from rewards.core.base import FrameReward
from rewards.core.preprocess import Preprocess, PreprocessChoice, chosen_preprocess
from rewards.core.tower_options import TowerOptions
from rewards.core.weight_file import find_fields, load_weights
from rewards.errors import RewardError
from rewards.kinds.pickscore import pickscore_preprocess
from rewards.networks.mps import (
    PUBLISHED_ARCHITECTURE,
    MpsArchitecture,
    MpsNetwork,
    check_architecture,
    load_network,
)

CONDITIONS = {
    "overall": (
        "light, color, clarity, tone, style, ambiance, artistry, shape, face, hair, hands, limbs, "
        "structure, instance, texture, quantity, attributes, position, number, location, word, "
        "things."
    ),
    "aesthetics": "light, color, clarity, tone, style, ambiance, artistry",
    "detail": "shape, face, hair, hands, limbs, structure, instance, texture",
    "alignment": "quantity, attributes, position, number, location",
}
"""Conditions by name.

`overall` is the authors' own text, and that of the only weights they released; the other three are
the parts of it that DiffSynth-Studio scores with those weights.
"""

THRESHOLD = 0.01
"""Threshold of the released forward pass; the authors' evaluation scripts use 0.3."""


class MpsReward(FrameReward):
    """The scaled cosine of prompt and attended image; about 8 to 15 on published weights.

    Attributes:
        network: CLIP and the cross model.
        tokenizer: Tokenizer of prompts and condition.
        preprocess: Preprocessing of frames.
        about: Text of the condition.
        threshold: A word counts if its largest similarity with the condition's words exceeds this
            fraction of the prompt's best word.

    Raises:
        RewardError: The condition is empty, or no word could exceed the threshold.
    """

    name = "mps"

    def __init__(
        self,
        network: MpsNetwork,
        tokenizer: Tokenizer,
        preprocess: Preprocess,
        dtype: torch.dtype = torch.float32,
        *,
        about: str = CONDITIONS["overall"],
        threshold: float = THRESHOLD,
    ) -> None:
        if not about.strip():
            raise RewardError(
                f"MPS got the condition {about!r}; give one of {', '.join(CONDITIONS)}, or words"
            )
        if not 0.0 <= threshold < 1.0:
            raise RewardError(
                f"MPS got the threshold {threshold}; allowed: 0 or more and less than 1, the "
                f"prompt's best word. The authors use {THRESHOLD} and 0.3"
            )
        self.network = network.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.preprocess = preprocess
        self.dtype = dtype
        self.about = about
        self.threshold = threshold
        self.device = next(self.network.parameters()).device
        self.context_length = tokenizer.context_length
        self._prompts: dict[str, Tensor] = {}

    @property
    def modules(self) -> list[nn.Module]:
        """The module with CLIP and the cross model."""
        return [self.network]

    def condition(self, prompts: Sequence[str]) -> Tensor:
        """Encode prompts without gradient; each is encoded alone, and cached.

        Returns:
            `(b, length + 1, width + 1)` fp32 (or fp64): the prompt's tokens, then the prompt as a
            whole; the last channel is 1 for a token that the image may look at, else 0.
        """
        for prompt in dict.fromkeys(prompts):
            if prompt not in self._prompts:
                self._prompts[prompt] = self._read(prompt)
        return torch.stack([self._prompts[prompt] for prompt in prompts]).to(self.device)

    def truncated(self, prompts: Sequence[str]) -> list[int]:
        """Return the positions of prompts that are cut off."""
        most = self.tokenizer.context_length - 2  # without the start and end token
        return [i for i, prompt in enumerate(prompts) if len(self.tokenizer.encode(prompt)) > most]

    @torch.no_grad()
    def _read(self, prompt: str) -> Tensor:
        tokens, whole = self.network.text_tokens(self.tokenizer([prompt]).to(self.device))
        words, _ = self.network.text_tokens(self.tokenizer([self.about]).to(self.device))
        keep = related(tokens, words, self.threshold)
        rows = torch.cat([tokens, whole[:, None]], dim=1)
        marks = torch.cat([keep, keep.new_zeros(1, 1)], dim=1).to(rows.dtype)
        packed = torch.cat([rows, marks[..., None]], dim=-1)[0]
        return packed.to(torch.promote_types(packed.dtype, torch.float32))

    def image_features(self, images: Tensor) -> Tensor:
        """Return CLIP's class token, independent of prompts, `(n, d)` of length 1."""
        return unit_length(self.network.image_tokens(self._pixels(images))[:, 0])

    def score_images(self, images: Tensor, condition: Tensor | None) -> Tensor:
        """Score `(n, 3, H, W)` in [0, 1] with the result of `condition`: `(n,)` fp32 (fp64)."""
        assert condition is not None
        text, whole, keep = condition[:, :-1, :-1], condition[:, -1, :-1], condition[:, :-1, -1] > 0
        image = self.network.image_tokens(self._pixels(images))
        seen = self.network.cross_model(image, text.to(self.dtype), keep)[:, 0]
        return scaled_cosine(self.network, whole, seen)

    def _pixels(self, images: Tensor) -> Tensor:
        return self.preprocess(images).to(self.dtype)


def related(text: Tensor, condition: Tensor, threshold: float) -> Tensor:
    """Return which tokens of each prompt are related to a condition.

    The authors divide by the largest similarity of the whole batch, so that a prompt's mask depends
    on its neighbours; this divides by the largest of the prompt itself, as for a batch of one.

    Args:
        text: `(n, j, width)` tokens of prompts.
        condition: `(1 or n, k, width)` tokens of the condition.
        threshold: Fraction of the best token's similarity.

    Returns:
        `(n, j)` bool.
    """
    similarity = (text @ condition.transpose(1, 2)).amax(dim=2)
    return similarity / similarity.amax(dim=1, keepdim=True) > threshold


def scaled_cosine(network: MpsNetwork, text: Tensor, image: Tensor) -> Tensor:
    """Return the cosine of two `(n, width)`, times the factor that CLIP has learnt: `(n,)`."""
    scale = network.model.logit_scale.to(torch.promote_types(image.dtype, torch.float32)).exp()
    return scale * (unit_length(text) * unit_length(image)).sum(dim=-1)


def load_mps(
    checkpoint: str | Path,
    tower_options: TowerOptions,
    *,
    architecture: MpsArchitecture | None = None,
    condition: str = "overall",
    threshold: float = THRESHOLD,
    preprocess: PreprocessChoice = "own",
) -> MpsReward:
    """Load the re-released state dict, or a small file that states its architecture.

    Args:
        checkpoint: Name or path of the file (see `rewards.load_reward`). The authors' own file is a
            pickled module and is refused.
        tower_options: Where and how the networks run; the cosine is fp32.
        architecture: Sizes of a file that does not state them; by default the published ones.
        condition: Name in `CONDITIONS`, or a list of words.
        threshold: Fraction of the best word's similarity above which a word counts.
        preprocess: `own` as the authors, `squash` as EasyAnimate's reward script
            (`rewards.core.preprocess.Preprocess.squashed`), whose score is the cosine without the
            factor `exp(logit_scale)`.

    Raises:
        RewardError: See `rewards.load_reward`.
    """
    loaded = load_weights(checkpoint, tower_options.folder)
    sizes = find_fields(loaded, architecture, PUBLISHED_ARCHITECTURE, check_architecture, "MPS")
    merges = loaded.metadata.get("tokenizer")
    tokenizer = mps_tokenizer(sizes, loaded.path.parent / merges if merges else None)
    network = load_network(loaded, sizes, tower_options)
    own = pickscore_preprocess(sizes["vision"]["image_size"])
    if "preprocess" in loaded.metadata:
        own = Preprocess.from_json(loaded.metadata["preprocess"])
    spec = chosen_preprocess(own, preprocess)
    about = CONDITIONS.get(condition, condition)
    return MpsReward(
        network, tokenizer, spec, tower_options.dtype, about=about, threshold=threshold
    )


def mps_tokenizer(architecture: MpsArchitecture, merges: Path | None) -> Tokenizer:
    """Build transformers' tokenizer of CLIP for an architecture, with OpenAI's or other merges.

    Raises:
        RewardError: The merges file is missing, or its vocabulary has another size.
    """
    text = architecture["text"]
    sizes = {"vocab_size": text["vocab_size"], "context_length": text["max_position_embeddings"]}
    return build_transformers_tokenizer({"text_cfg": sizes}, merges)
