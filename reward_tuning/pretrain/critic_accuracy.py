"""How often the embedded judges on Qwen2-VL are right about combinations that they never saw."""

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
    """Share of right answers on held-out combinations, half of them Yes.

    Args:
        critic: through its public interface, on whole clips.
        count: clips; each is asked every aspect once a language.
        seed: of clips and questions.

    Returns:
        `"colour/en"` and so on -> share in [0, 1]; `"artefact"` has no prompt, so no language.
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
    """Share of held-out pairs that each axis orders right; half is chance.

    Visual quality between a clip and one with the same frames spoiled, motion quality between a
    clip and one with a fault of motion, text alignment between a clip's caption and the same with
    another word, on one clip.

    Args:
        judge: through its public interface.
        count: pairs an axis (two captions a language for TA).
        seed: of clips and captions.

    Returns:
        `"VQ"`, `"VQ/blur"` and so on, `"MQ/frozen"` and so on, `"TA/colour/en"` and so on
        -> share in [0, 1].
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
