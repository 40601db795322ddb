"""HPSv3 (Ma et al., arXiv 2508.03789): human preference from a Qwen2-VL-7B, frame by frame.

Each frame is an image with one long text; at the text's special token a small network gives mu and
sigma of the preference, of which mu is the score. It is unbounded; published means of generators
are between -0.2 and 10.6. The published scores use images that PIL resizes in 8 bits, and so do
these, with a straight-through gradient (on random weights the score is 0.02 to 0.07 off without the
rounding, 0.0007 with it). The published differentiable code resizes floats without a clamp.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rewards.core.base import FrameReward
from rewards.core.tower_options import TowerOptions
from rewards.core.weight_file import check_keys, load_weights
from rewards.errors import RewardError
from rewards.qwen.files import (
    EMBEDDING,
    build_qwen_model,
    find_folder,
    load_tokenizer,
    read_config,
    renamed,
)
from rewards.qwen.frames import frames_of_folder
from rewards.qwen.model import QwenTower
from rewards.qwen.templates import template

TOKEN = "<|Reward|>"
PIXELS = 256 * 28 * 28
"""Pixels of every image: HPSv3's smallest and largest number are equal."""

BASE = "Qwen/Qwen2-VL-7B-Instruct"
HEAD = "rm_head."
NO_TOKEN = -1
"""Padding after a text that is shorter than others of the batch."""


def build_head(width: int) -> nn.Sequential:
    """Build the head: Linear, ReLU, dropout, Linear, ReLU, Linear to mu and sigma; fp32."""
    return nn.Sequential(
        nn.Linear(width, 1024),
        nn.ReLU(),
        nn.Dropout(0.05),
        nn.Linear(1024, 16),
        nn.ReLU(),
        nn.Linear(16, 2),
    ).eval()


class HpsV3Reward(FrameReward):
    """The mean mu of the preference for each frame.

    Attributes:
        tower: The model, without a language head; it sees a frame as an image.
        head: fp32, `(n, d)` -> `(n, 2)`.
    """

    name = "hpsv3"

    def __init__(self, tower: QwenTower, head: nn.Sequential) -> None:
        self.tower = tower
        self.device = tower.device
        self.head = head.requires_grad_(False).eval()
        self._template = template("hpsv3")
        self._token = tower.tokenizer.convert_tokens_to_ids(TOKEN)

    @property
    def modules(self) -> list[nn.Module]:
        """The model and its head."""
        return [self.tower.model, self.head]

    def condition(self, prompts: Sequence[str]) -> Tensor:
        """Return the tokens after the image, `(b, l)`, padded by -1."""
        for prompt in prompts:
            self.tower.check_plain(prompt)
        texts = [self._template.replace("{text_prompt}", prompt) for prompt in prompts]
        rows = [torch.tensor(self.tower.tokens(text)[1]) for text in texts]
        return nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=NO_TOKEN)

    def preferences(self, images: Tensor, condition: Tensor) -> Tensor:
        """Return mu and sigma, `(n, 2)` fp32, for `(n, 3, H, W)` in [0, 1] and `(n, l)` tokens."""
        before, _ = self.tower.tokens("")
        texts = [[(before, [t for t in row if t != NO_TOKEN])] for row in condition.tolist()]
        states = self.tower.read_tokens(images[:, None], texts).at(self._token)
        scores: Tensor = self.head(states.to(next(self.head.parameters()).dtype))
        return scores

    def score_images(self, images: Tensor, condition: Tensor | None) -> Tensor:
        """Score frames: `(n, 3, H, W)` in [0, 1] and `(n, l)` tokens -> `(n,)`."""
        assert condition is not None
        return self.preferences(images, condition)[:, 0]

    def image_features(self, images: Tensor) -> Tensor:
        """Return the mean vision token: `(n, 3, H, W)` -> `(n, d)` of length 1, fp32."""
        features, _ = self.tower.clip_features(images[:, None])
        return F.normalize(features.float().mean(dim=1), dim=-1)


def load_hpsv3(
    checkpoint: str | Path,
    tower_options: TowerOptions,
    *,
    base: str | Path | None = None,
    pixels: int | None = None,
) -> HpsV3Reward:
    """Load HPSv3's file, with old or new key names.

    Args:
        checkpoint: The file, `hpsv3` or `MizzenAI/HPSv3/HPSv3.safetensors` in the hub's cache.
        tower_options: Where and how the model runs; the head is fp32.
        base: Qwen2-VL that config and tokenizer come from; by default the one in the file's
            metadata, else `Qwen/Qwen2-VL-7B-Instruct` in the hub's cache. Its weights are not read.
        pixels: Pixels of an image as the model sees it, 200,704 as published.

    Raises:
        RewardError: A file is missing, damaged or of another model.
    """
    loaded = load_weights(checkpoint, tower_options.folder)
    metadata = loaded.metadata
    below = find_folder(base or metadata.get("base", BASE), tower_options.folder)
    state = renamed(loaded.state, loaded.path)
    head_state = {n.removeprefix(HEAD): state.pop(n) for n in list(state) if n.startswith(HEAD)}
    tokenizer = load_tokenizer(below.tokenizer, [TOKEN])
    if EMBEDDING not in state or state[EMBEDDING].ndim == 0:
        raise RewardError(
            f"{loaded.path} lacks {EMBEDDING}, which every whole Qwen2-VL has: it is not an HPSv3. "
            "Give the file HPSv3.safetensors of MizzenAI/HPSv3 or one like it"
        )
    config = read_config(below.weights, state[EMBEDDING].shape[0])
    head = build_head(config.text_config.hidden_size)
    shapes = {name: tensor.shape for name, tensor in head.state_dict().items()}
    check_keys(shapes, head_state, "the head (rm_head) of HPSv3", loaded.path)
    head.load_state_dict({name: tensor.float() for name, tensor in head_state.items()})
    model = build_qwen_model(config, state, loaded.path, tower_options, language_head=False)
    size = pixels or _pixels(metadata.get("pixels", str(PIXELS)), loaded.path)
    frames = frames_of_folder(
        below.weights, {"min_pixels": size, "max_pixels": size, "quantised": True, "passes": 2}
    )
    tower = QwenTower(model, tokenizer, frames, "image", "plain")
    if tower_options.gradient_checkpointing:
        tower.checkpoint_gradients()
    return HpsV3Reward(tower, head.to(tower_options.device))


def _pixels(text: str, path: Path) -> int:
    if not text.isdecimal():
        raise RewardError(
            f"{path} has pixels {text!r} in its metadata; expected a number such as {PIXELS}. Set "
            "`pixels` of the judge, or make the file again"
        )
    return int(text)
