"""How often the embedded critic answers right about combinations that it never saw."""

from __future__ import annotations

import torch

from base_model.tiny.captions import LANGUAGES
from reward_tuning.pretrain.critic_data import ASKED, draw_asked
from reward_tuning.pretrain.judge_data import named_rng
from rewards.qwen_critic import ASPECTS, QwenCritic

CLIPS_AT_ONCE = 25


@torch.no_grad()
def critic_accuracy(critic: QwenCritic, count: int, seed: int) -> dict[str, float]:
    """Share of right answers on held-out combinations, half of them Yes.

    Args:
        critic: through its public interface, on whole clips.
        count: clips; each is asked every aspect once a language.
        seed: of clips and questions.

    Returns:
        ``"colour/en"`` and so on -> share in [0, 1]; ``"artefact"`` has no prompt, so no language.
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
