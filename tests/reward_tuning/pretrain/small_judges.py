"""Judges of a few thousand weights, and trainings of a few steps."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from base_model.tiny.scenes import ATTRIBUTES, scenes
from base_model.training.loop import Schedule
from reward_tuning.pretrain import (
    judge_clip,
    judge_configs,
    judge_cross,
    judge_image_reward,
    judge_latent,
    judge_mps,
)
from reward_tuning.pretrain.judge_configs import JudgeRun
from reward_tuning.pretrain.judge_data import (
    draw_frames,
    named_rng,
)
from reward_tuning.pretrain.judges import JUDGES, TRAINERS, JudgeName, train_judge
from reward_tuning.pretrain.qwen_start import BASE, CRITIC, SHIPPED_BASE
from rewards import load_reward
from rewards.core.locate import SHIPPED

CROSS_JUDGES: tuple[JudgeName, ...] = ("image-reward", "mps")

FRAME_JUDGES = [
    name
    for name in JUDGES
    if name not in (*CROSS_JUDGES, "qwen-critic", "vjepa2", "video-align", "hpsv3")
]
"""Judges that the `trained` fixture trains; the others have fixtures of their own."""

SMALL = {
    **judge_configs.CLIP,
    "vision_cfg": {**judge_configs.CLIP["vision_cfg"], "width": 8, "head_width": 64},
}


SMALL_PICKSCORE = {
    **judge_configs.PICKSCORE,
    "vision_cfg": {"image_size": 64, "layers": 1, "width": 16, "head_width": 16, "patch_size": 16},
}


SMALL_SIGLIP = {
    **judge_configs.SIGLIP,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "patch_size": 16,
}


SMALL_LATENT = {
    **judge_configs.LATENT_CLIP,
    "latent_cfg": {"channels": 16, "widths": [8], "depths": [1], "heads": 1},
}


def clean(count: int = 24) -> torch.Tensor:
    return draw_frames(count, named_rng("test", 0)[0], "train")[1]


def latent_cache(count: int = 40) -> dict[str, torch.Tensor]:
    """Latents that say which clip and which moment they are; scenes as the generator's cache."""
    chosen = scenes("train")[:: len(scenes("train")) // count][:count]
    places = [[w.index(getattr(s, n)) for n, w in ATTRIBUTES.items()] for s in chosen]
    moments = torch.arange(3.0)[None, None, :, None, None]
    clips = torch.arange(float(count))[:, None, None, None, None]
    latents = (clips + moments / 10).expand(count, 16, 3, 4, 4).contiguous()
    return {"latents": latents, "scenes": torch.tensor(places)}


def train_small(name: JudgeName, folder: Path, seed: int = 1) -> Path:
    training = folder / "training"
    training.mkdir(parents=True, exist_ok=True)
    save_file(latent_cache(), training / "latents.safetensors")
    return train_judge(name, folder, seed, lambda *_: None, training=training, steps=4)


def shrink(patch: pytest.MonkeyPatch) -> None:
    from reward_tuning.pretrain import judge_aesthetic, judge_pickscore, judge_siglip, judges

    for module in (judges, judge_clip, judge_aesthetic):
        patch.setattr(module, "CLIP", SMALL)
    patch.setattr(judge_clip, "BATCH", 8)
    patch.setattr(judge_clip, "LESSON_BATCH", 4)
    for module in (judge_clip, judge_pickscore):
        patch.setattr(module, "LESSON", judge_clip.Lesson(silhouettes=0, faded=1, steps=2))
    patch.setattr(judge_pickscore, "PREFERENCES_FROM", 3)
    patch.setattr(judge_pickscore, "PICKSCORE", SMALL_PICKSCORE)
    patch.setattr(judge_siglip, "SIGLIP", SMALL_SIGLIP)
    patch.setattr(judge_siglip, "BATCH", 4)
    patch.setattr(judge_clip, "PAIRS", 4)
    patch.setattr(judge_latent, "LATENT_CLIP", SMALL_LATENT)
    patch.setattr(judge_latent, "BATCH", 4)
    patch.setattr(judges, "PREFERENCES_FROM", 3)
    patch.setattr(judge_aesthetic, "BLOCKS", 1)
    patch.setattr(judge_aesthetic, "BLOCK", 16)
    patch.setattr(judge_configs, "tokenizer_texts", lambda: ["a red circle"] * 3)
    patch.setattr(judge_configs, "MERGES", 5)
    vocabulary = {"vocab_size": 519}
    for config in (SMALL, SMALL_LATENT, SMALL_PICKSCORE, judges.CLIP_HELD_OUT):
        patch.setitem(config, "text_cfg", {**config["text_cfg"], **vocabulary})


def shrink_cross(patch: pytest.MonkeyPatch) -> None:
    """Two steps of learning to see, small batches, a vocabulary of a few words."""
    patch.setattr(judge_cross, "EYES_SCHEDULE", replace(judge_cross.EYES_SCHEDULE, steps=2))
    for name, value in {"BATCH": 4, "SILHOUETTES": 1, "FADED": 2, "FRAMES": 4, "PAIRS": 2}.items():
        patch.setattr(judge_cross, name, value)
    patch.setattr(judge_image_reward, "MEASURED_PAIRS", 4)
    patch.setattr(judge_configs, "MERGES", 5)
    for module in (judge_configs, judge_image_reward):
        patch.setattr(module, "tokenizer_texts", lambda: ["a red circle 红"] * 3)
    text = {**judge_configs.MPS["text"], "vocab_size": 519}
    patch.setattr(judge_mps, "MPS", {**judge_configs.MPS, "text": text})


def train_small_cross(name: JudgeName, folder: Path, seed: int = 1) -> Path:
    training = folder / "training"
    training.mkdir(parents=True, exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        shrink_cross(patch)
        return train_judge(name, folder, seed, lambda *_: None, training=training, steps=2)


def check_loads_and_scores(path: Path, kind: str, name: str) -> None:
    """A trained file names its command, holds fp16, loads, and has a gradient in the frames."""
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
        dtypes = {file.get_tensor(key).dtype for key in file.keys()}  # noqa: SIM118
    assert metadata["command"] == f"reward-tuning pretrain tiny --only {name} --seed 1"
    assert dtypes == {torch.float16}
    judge = load_reward(kind, path)
    frames = torch.rand(1, 2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    score = judge(frames.requires_grad_(), ["a red circle"])
    (gradient,) = torch.autograd.grad(score.sum(), frames)
    assert float(gradient.abs().max()) > 0


def train_from_critic(name: JudgeName, folder: Path, frames: torch.Tensor) -> tuple[Path, Any]:
    """Train a judge on Qwen2-VL for three steps, twice; check its files, its gradient and bytes.

    Args:
        name: The judge.
        folder: Gets the critic, the base and the judge.
        frames: `(1, f, 3, H, W)`.

    Returns:
        The path of the judge, and the judge.
    """
    shutil.copytree(SHIPPED / "tiny" / CRITIC, folder / CRITIC)
    rows: list[dict[str, float]] = []
    schedule = Schedule(steps=3, learning_rate=1e-3, optimiser="muon", report_every=1)
    run = JudgeRun(
        name, folder, folder / "training", 0, schedule, lambda *told: rows.append(told[3])
    )
    path = TRAINERS[name](run)
    assert len(rows) == 3
    for file in ("config.json", "tokenizer.json", "chat_template.jinja"):
        here, there = (root / file for root in (folder / BASE, SHIPPED / SHIPPED_BASE))
        assert here.read_bytes() == there.read_bytes()
    judge = load_reward(name.replace("-", "_"), path)
    frames = frames.requires_grad_()
    judge(frames, ["a red star"]).sum().backward()
    assert frames.grad is not None
    assert float(frames.grad.flatten(2).norm(dim=2).min()) > 0
    weights = path / "checkpoint-3" / "model.pth" if path.is_dir() else path
    first = weights.read_bytes()
    TRAINERS[name](replace(run, training=folder / "again"))
    assert weights.read_bytes() == first
    return path, judge
