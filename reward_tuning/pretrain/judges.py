"""Train the embedded judges by name.

The judges of frames have the format of their published counterparts: tensor names of open_clip or
transformers, the published heads, one loader. `clip-held-out` has another architecture, another
seed and another stream of data; no method may train on it. `pickscore` and `siglip` are vision
transformers, the others residual towers. `latent-clip` reads the generator's noisy latents,
`vjepa2` the motion of a clip; `qwen-critic` is a small Qwen2-VL that answers questions about clips,
and `video-align` and `hpsv3` are the same model with heads at special tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
from reward_tuning.pretrain.judge_hpsv3 import train_hpsv3
from reward_tuning.pretrain.judge_image_reward import train_image_reward
from reward_tuning.pretrain.judge_latent import train_latent_clip
from reward_tuning.pretrain.judge_mps import train_mps
from reward_tuning.pretrain.judge_pickscore import train_pickscore
from reward_tuning.pretrain.judge_siglip import train_aesthetic_v2_5, train_siglip
from reward_tuning.pretrain.judge_video_align import train_video_align
from reward_tuning.pretrain.judge_vjepa2 import train_vjepa2

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
    """Train one embedded judge, or continue an interrupted training.

    Args:
        name: One of `JUDGES`; `hps` and `aesthetic` start from `clip.safetensors` in the same
            folder, `aesthetic-v2-5` from `siglip.safetensors`, `video-align` and `hpsv3` from the
            folder `qwen-critic`.
        out_dir: Folder for `NAME.safetensors` and the tokenizer, or for a folder `NAME`.
        seed: Seed of weights and data; the same seed gives the same file on one machine.
        report: Callback, called every few steps.
        training: Folder of checkpoints and logs; `latent-clip` reads the generator's VAE, or the
            latents of its transformer's training, from it.
        steps: Length of the training; None takes the judge's own.

    Returns:
        Path of the judge's file or folder, fp16, with the command that made it in its metadata.

    Raises:
        TuningError: The name is unknown, or the judge that it starts from is missing.
        FileNotFoundError: `training` has no finished VAE.
    """
    if name not in JUDGES:
        raise TuningError(f"unknown embedded judge {name!r}; allowed: {', '.join(JUDGES)}")
    schedule = SCHEDULES[name]
    if steps is not None:
        schedule = replace(schedule, steps=steps)
    out_dir.mkdir(parents=True, exist_ok=True)
    run = JudgeRun(name, out_dir, training, seed, schedule, report)
    return TRAINERS[name](run)


TRAINERS: Mapping[JudgeName, Callable[[JudgeRun], Path]] = {
    "clip": lambda run: train_clip(run, CLIP),
    "clip-held-out": lambda run: train_clip(run, CLIP_HELD_OUT, PREFERENCES_FROM),
    "hps": train_hps,
    "aesthetic": train_aesthetic,
    "latent-clip": train_latent_clip,
    "pickscore": train_pickscore,
    "siglip": train_siglip,
    "aesthetic-v2-5": train_aesthetic_v2_5,
    "image-reward": train_image_reward,
    "mps": train_mps,
    "vjepa2": train_vjepa2,
    "qwen-critic": train_critic,
    "video-align": train_video_align,
    "hpsv3": train_hpsv3,
}
