"""Train the embedded PickScore: a CLIP with a vision transformer, saved as transformers' CLIPModel.

Patches do not see edges at first: with the residual towers' lesson (real frames after 350 steps of
32) shape fell from 90 % on silhouettes to 42 % on real frames. With this longer lesson and four
times the weight on shape afterwards, shape is as accurate as the other attributes.
"""

from __future__ import annotations

import math
from pathlib import Path

from reward_tuning.pretrain.judge_clip import LARGEST_SCALE, Lesson, taught_clip
from reward_tuning.pretrain.judge_configs import (
    PICKSCORE,
    JudgeRun,
    clip_metadata,
    save_judge,
    small_merges,
)
from rewards.clip_towers.hf_keys import to_transformers
from rewards.clip_towers.tokenizers import build_transformers_tokenizer
from rewards.kinds.pickscore import pickscore_preprocess

PREFERENCES_FROM = 1300
"""First step with preference pairs in addition to captions."""

LESSON = Lesson(silhouettes=150, faded=700, steps=800, weight=2.0)


def train_pickscore(run: JudgeRun) -> Path:
    """Train PickScore: a lesson on shape, captions, then captions with preference pairs."""
    words = build_transformers_tokenizer(PICKSCORE, small_merges(run.out_dir))
    model = taught_clip(run, PICKSCORE, PREFERENCES_FROM, LESSON, words)
    state = to_transformers(model.state_dict())
    state["logit_scale"] = state["logit_scale"].clamp(max=math.log(LARGEST_SCALE))
    size = PICKSCORE["vision_cfg"]["image_size"]
    metadata = clip_metadata("pickscore", PICKSCORE, pickscore_preprocess(size))
    return save_judge(run, state, metadata)
