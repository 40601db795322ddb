"""Train the embedded judges.

The judges of frames look like their published counterparts: open_clip's classes and key names,
LAION's head, one loader. ``clip-held-out`` has another architecture, another seed and another
stream of data; no method may train on it. ``latent-clip`` reads the generator's noisy latents,
``qwen-critic`` is a small Qwen2-VL that answers questions about clips.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from base_model.training.loop import ReportFn
from reward_tuning.errors import TuningError
from reward_tuning.pretrain.judge_aesthetic import train_aesthetic
from reward_tuning.pretrain.judge_clip import train_clip, train_hps
from reward_tuning.pretrain.judge_configs import (
    CLIP,
    CLIP_HELD_OUT,
    JUDGES,
    PREFERENCES_FROM,
    SCHEDULES,
    JudgeName,
    JudgeRun,
)
from reward_tuning.pretrain.judge_critic import train_critic
from reward_tuning.pretrain.judge_latent import train_latent_clip

__all__ = ["JUDGES", "JudgeName", "train_judge"]


def train_judge(
    name: JudgeName,
    out_dir: Path,
    seed: int,
    report: ReportFn,
    *,
    training: Path,
    steps: int | None = None,
) -> Path:
    """Train one embedded judge, or continue where an interrupted training stopped.

    Args:
        name: one of :data:`JUDGES`; ``hps`` and ``aesthetic`` start from ``clip.safetensors`` in
            the same folder.
        out_dir: gets ``NAME.safetensors`` and the tokenizer, or a folder ``NAME``.
        seed: of weights and data; the same seed gives the same file on one machine.
        report: called every few steps.
        training: folder of checkpoints and logs; ``latent-clip`` takes the generator's VAE, or the
            latents that its transformer was trained on, from it.
        steps: another length of the training than the judge's own.

    Returns:
        Path of the judge's file or folder, fp16, with the command that made it in its metadata.

    Raises:
        TuningError: an unknown name, or the judge it starts from is missing.
        FileNotFoundError: ``training`` has no finished VAE.
    """
    if name not in JUDGES:
        raise TuningError(f"no embedded judge {name!r}; allowed: {', '.join(JUDGES)}.")
    schedule = SCHEDULES[name]
    if steps is not None:
        schedule = replace(schedule, steps=steps)
    out_dir.mkdir(parents=True, exist_ok=True)
    run = JudgeRun(name, out_dir, training, seed, schedule, report)
    match name:
        case "clip":
            return train_clip(run, CLIP)
        case "clip-held-out":
            return train_clip(run, CLIP_HELD_OUT, PREFERENCES_FROM)
        case "hps":
            return train_hps(run)
        case "aesthetic":
            return train_aesthetic(run)
        case "latent-clip":
            return train_latent_clip(run)
        case "qwen-critic":
            return train_critic(run)
