"""Headings of the curves of a training: what people call the number of a key."""

from __future__ import annotations

import re

from reward_tuning.report.metric_groups import label_of

_RUN = {
    "loss": "Loss",
    "held_out/loss": "Held-out loss",
    "grad_norm": "Gradient norm",
    "motion": "Motion of the latents",
    "drift": "Drift of the latents from the base",
    "seconds/step": "Seconds for each step",
}
_GUARDS = {
    "motion": "Motion of the clips, ratio to the base",
    "diversity": "Diversity of the clips, ratio to the base",
    "drift": "Drift from the base",
    "reward/before": "Training reward, until the guard evaluation before",
    "reward/now": "Training reward, since the guard evaluation before",
    "seconds": "Seconds for each guard evaluation",
}
_REWARD = re.compile(r"reward/(.+)", re.DOTALL)
_MEASURED = re.compile(r"measures/(.+)/([a-z]+)", re.DOTALL)


def title_of(key: str, *, guards: bool = False) -> str:
    """Return the heading of a number of metrics.jsonl or guards.jsonl.

    Args:
        key: Its key, with `/` between the levels: `reward/hps`. Labels of judges stay as they are.
        guards: It is a number of guards.jsonl.
    """
    if title := (_GUARDS if guards else _RUN).get(key):
        return title
    if guards and (measured := _MEASURED.fullmatch(key)):
        name, part = label_of(measured[1]), measured[2]
        return f"{name}, change against the base" if part == "mean" else f"{name}: {part}"
    if not guards and (reward := _REWARD.fullmatch(key)):
        return f"Training reward: {reward[1]}"
    words = ": ".join(part.replace("_", " ") for part in key.split("/"))
    title = words[:1].upper() + words[1:]
    return f"{title}, of the guards" if guards else title
