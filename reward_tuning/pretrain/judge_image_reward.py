"""Train the embedded ImageReward: the published network and tensor names at a small size."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from reward_tuning.pretrain.judge_clip import normalised
from reward_tuning.pretrain.judge_configs import (
    CLIP_PREPROCESS,
    IMAGE_REWARD,
    VOCABULARY_FILE,
    JudgeRun,
    save_judge,
    seed_weights,
)
from reward_tuning.pretrain.judge_cross import large_weights, learn_to_see, train_cross_judge
from reward_tuning.pretrain.judge_data import draw_pairs, named_rng, tokenizer_texts
from rewards.clip_towers.tower import unit_length
from rewards.kinds.image_reward import MEAN, PROMPT_TOKENS, STD
from rewards.networks.blip import BlipScorer
from rewards.networks.wordpiece import WordPiece, train_vocabulary, write_vocabulary

MEASURED_PAIRS = 128
"""Preference pairs for scaling the trained score to mean 0 and standard deviation 1."""


def train_image_reward(run: JudgeRun) -> Path:
    """Train vision tower, text tower and head with `train_cross_judge`."""
    tokenizer = small_vocabulary(run.out_dir)
    eyes = trained_eyes(run)
    seed_weights(run)
    architecture = {**IMAGE_REWARD, "text": {**IMAGE_REWARD["text"], "vocab_size": tokenizer.size}}
    scorer = BlipScorer(architecture).eval()
    large_weights(scorer.text)
    scorer.vision.load_state_dict(eyes)
    pretraining = BlipPretraining(scorer)

    def score(tokens: Tensor, texts: Sequence[str]) -> Tensor:
        ids, mask = tokenizer(texts).unbind(dim=1)
        used = int(mask.sum(dim=1).max())  # nothing attends to the padding: drop it
        state = scorer.first_state(ids[:, :used], mask[:, :used], tokens)
        with torch.autocast("cpu", enabled=False):
            return scorer.head(state.float()).squeeze(-1)

    def align(tokens: Tensor, texts: Sequence[str]) -> Tensor:
        return pretraining.compare(tokens, tokenizer(texts))

    train_cross_judge(run, pretraining, scorer.image_tokens, score, align)
    _standardise(scorer, run, tokenizer)
    metadata = {
        "kind": "image_reward",
        "architecture": json.dumps(architecture),
        "preprocess": CLIP_PREPROCESS.to_json(),
        "tokenizer": VOCABULARY_FILE,
    }
    return save_judge(run, scorer.published_state(), metadata)


def trained_eyes(run: JudgeRun) -> dict[str, Tensor]:
    """Train a `BlipVisionModel` with `learn_to_see` and return its tensors."""
    seed_weights(replace(run, name="cross-eyes"))
    tower = BlipScorer({**IMAGE_REWARD, "text": {**IMAGE_REWARD["text"], "vocab_size": 1}}).vision
    learn_to_see(run, "cross-eyes", tower, lambda x: tower(pixel_values=x).last_hidden_state)
    return {name: tensor.detach().clone() for name, tensor in tower.state_dict().items()}


class BlipPretraining(nn.Module):
    """BLIP's contrastive projections, which scores and shipped files do not need."""

    def __init__(self, scorer: BlipScorer) -> None:
        super().__init__()
        self.scorer = scorer
        self.vision_proj, self.text_proj = nn.Linear(64, 32), nn.Linear(64, 32)
        self.scale = nn.Parameter(torch.tensor(10.0).log())

    def compare(self, tokens: Tensor, rows: Tensor) -> Tensor:
        """Compare tokens of n images with `(m, 2, length)` from the tokenizer: `(n, m)` logits."""
        ids, mask = rows.unbind(dim=1)
        text = self.scorer.text(input_ids=ids, attention_mask=mask, is_decoder=False)
        image = unit_length(self.vision_proj(tokens[:, 0]))
        words = unit_length(self.text_proj(text.last_hidden_state[:, 0]))
        return self.scale.exp().clamp(max=50) * image @ words.T


def small_vocabulary(out_dir: Path) -> WordPiece:
    """Load the grammar's words as a BERT vocabulary in a folder; write it if it is missing."""
    path = out_dir / VOCABULARY_FILE
    if not path.is_file():
        temporary = path.with_name(path.name + ".part")
        write_vocabulary(temporary, train_vocabulary(tokenizer_texts()))
        temporary.replace(path)
    return WordPiece(path, PROMPT_TOKENS)


@torch.no_grad()
def _standardise(scorer: BlipScorer, run: JudgeRun, tokenizer: WordPiece) -> None:
    """Scale the head's last layer to the published mean and standard deviation of scores."""
    pairs = draw_pairs(MEASURED_PAIRS, *named_rng(run.name, run.seed, "standardise"), "train")
    ids, mask = tokenizer([*pairs.prompts, *pairs.prompts]).unbind(dim=1)
    frames = torch.cat([pairs.better, pairs.worse])
    numbers = scorer(normalised(frames), ids, mask)
    last = list(scorer.head.parameters())[-2:]
    factor = STD / numbers.std()
    last[0].mul_(factor)
    last[1].sub_(numbers.mean()).mul_(factor).add_(MEAN)
