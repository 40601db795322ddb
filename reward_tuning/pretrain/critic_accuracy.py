"""Accuracy of the embedded judges on Qwen2-VL on held-out combinations."""

from __future__ import annotations

import torch

from base_model.tiny.captions import LANGUAGES
from reward_tuning.pretrain.critic_data import ASKED, draw_asked
from reward_tuning.pretrain.judge_data import named_rng
from reward_tuning.pretrain.video_align_data import SORTS, draw_compared
from rewards.kinds.qwen_critic import ASPECTS, QwenCritic
from rewards.kinds.video_align import VideoAlignReward

CLIPS_AT_ONCE = 25


@torch.no_grad()
def critic_accuracy(critic: QwenCritic, count: int, seed: int) -> dict[str, float]:
    """Return the share of right answers on held-out combinations, half of them Yes.

    Args:
        critic: Critic, called through its public interface on whole clips.
        count: Number of clips; each gets a question about every aspect in each language.
        seed: Seed of clips and questions.

    Returns:
        Share in [0, 1] by `"colour/en"` and so on; `"artefact"` has no prompt and so no language.
    """
    right: dict[str, list[float]] = {}
    for block in range(0, count, CLIPS_AT_ONCE):
        for language in LANGUAGES:
            rng, generator = named_rng("critic accuracy", seed, block)  # the same clips in both
            clips = min(CLIPS_AT_ONCE, count - block)
            asked = draw_asked(clips, tuple(ASPECTS), rng, generator, "held_out", language)
            said = critic.ask(asked.shown.clips, asked.questions) > 0
            for k, aspect in enumerate(ASPECTS):
                key = f"{aspect}/{language}" if aspect in ASKED else aspect
                hits = (said[:, k] == (asked.answers[:, k] > 0)).float()
                right.setdefault(key, []).extend(hits.tolist())
    return {key: sum(values) / len(values) for key, values in sorted(right.items())}


@torch.no_grad()
def axis_accuracy(judge: VideoAlignReward, count: int, seed: int) -> dict[str, float]:
    """Return the share of held-out pairs that each axis orders correctly; half is chance.

    Visual quality compares a clip with a degraded version of its frames, motion quality a clip with
    one that has a motion fault, and text alignment two captions of one clip that differ in a word.

    Args:
        judge: Judge, called through its public interface.
        count: Number of pairs for each axis (two captions in each language for TA).
        seed: Seed of clips and captions.

    Returns:
        Share in [0, 1] by `"VQ"`, `"VQ/blur"`, `"MQ/frozen"`, `"TA/colour/en"` and so on.
    """
    right: dict[str, list[float]] = {}
    for sort in SORTS:
        for language in LANGUAGES if sort == "TA" else ("en",):
            for block in range(0, count, CLIPS_AT_ONCE):
                rng, generator = named_rng("axis accuracy", sort, language, seed, block)
                size = min(CLIPS_AT_ONCE, count - block)
                pairs = draw_compared(size, rng, generator, "held_out", language, (sort,))
                better = judge.per_axis(pairs.first, pairs.prompts)[sort]
                if sort == "TA":
                    worse = judge.per_axis(pairs.first, pairs.others)[sort]
                else:
                    worse = judge.per_axis(pairs.second, pairs.prompts)[sort]
                for reason, hit in zip(pairs.reasons, (better > worse).tolist(), strict=True):
                    key = f"{sort}/{reason}/{language}" if sort == "TA" else f"{sort}/{reason}"
                    right.setdefault(sort, []).append(float(hit))
                    right.setdefault(key, []).append(float(hit))
    return {key: sum(values) / len(values) for key, values in sorted(right.items())}
