"""The judges of a recipe with the shapes of their networks, whose weights need not be here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from reward_tuning.errors import TuningError
from reward_tuning.estimate.random_weights import RandomWeights, fill
from reward_tuning.estimate.shapes import Shape
from reward_tuning.judges.judge import FramedJudge, Judge
from reward_tuning.judges.loading import load_judges
from reward_tuning.judges.missing import missing_judges
from reward_tuning.judges.offload import judge_modules
from reward_tuning.schema.judge_parts import JudgeSection, TwoTowerSection
from reward_tuning.schema.judge_roles import FrameRewardSection
from rewards.clip_towers.open_clip_models import (
    Architecture,
    build_model,
    cast_weights,
    image_size,
    open_clip_config,
    restore_causal_mask,
)
from rewards.clip_towers.tokenizers import build_tokenizer
from rewards.clip_towers.tower import ClipTower
from rewards.core.base import FrozenReward
from rewards.core.published import published
from rewards.kinds.clip import ClipReward, clip_preprocess
from rewards.kinds.hps import HpsReward, hps_preprocess


def judges_for_shape(
    sections: Sequence[JudgeSection], shape: Shape, frames: int, device: torch.device
) -> list[Judge]:
    """Return judges with networks of the right shapes.

    Args:
        sections: Sections of the judges, resolved.
        shape: Shapes of the run's networks.
        frames: Frames of a clip.
        device: Device of the judges.

    Raises:
        TuningError: The shapes of a judge are not known.
    """
    return [_judge(section, shape, frames, device) for section in sections]


def is_known(section: JudgeSection, shape: Shape) -> bool:
    """Return whether the shapes of a judge are known: by name, or from its files on this disk."""
    if _architecture(section, shape) is not None:
        return True
    return not section.of_generator and not missing_judges([section])


def formula_judge(frames: int) -> FramedJudge:
    """Return a judge without a network, in place of judges that are not counted."""
    return FramedJudge(_Brightness(), "formula", tuple(range(frames)))


class _Brightness:
    name = "formula"

    def __call__(self, frames: Tensor, prompts: Sequence[str]) -> Tensor:
        """Return the mean brightness `(b,)` of clips `(b, f, 3, H, W)`."""
        del prompts
        return frames.flatten(1).mean(dim=1)


def _judge(section: JudgeSection, shape: Shape, frames: int, device: torch.device) -> Judge:
    architecture = _architecture(section, shape)
    if architecture is not None:
        return _two_towers(section, architecture, frames, device)
    if not is_known(section, shape):
        raise TuningError(
            f"the shapes of the judge {section.label} are not known, because its files are not "
            "on this disk; `reward-tuning judges` tells how to fetch them"
        )
    (judge,) = load_judges([section], frames, torch.device("cpu"))
    if device.type != "cpu":
        for module in judge_modules([judge]):
            module.to(device)
        if isinstance(judge.reward, FrozenReward):
            judge.reward.device = device
    return judge


def _two_towers(
    section: Any, architecture: Architecture, frames: int, device: torch.device
) -> FramedJudge:
    dtype = getattr(torch, section.dtype)
    model = build_model(architecture, torch.device("meta"), dtype)
    cast_weights(model, architecture, dtype)
    fill(model, RandomWeights(device, section.label))
    if device.type != "meta":
        restore_causal_mask(model)
    if section.gradient_checkpointing:
        model.set_grad_checkpointing(True)
    model = model.to(device)
    hps, size = section.kind == "hps", image_size(architecture)
    tower = ClipTower(
        model,
        architecture,
        hps_preprocess(size) if hps else clip_preprocess(size),
        build_tokenizer(open_clip_config("ViT-H-14"), None, None),
        dtype,
    )
    reward = HpsReward(tower) if hps else ClipReward(tower)
    reward.name, reward.chunk = section.label, section.chunk
    terms = {}
    if isinstance(section, FrameRewardSection):
        terms = section.model_dump(include={"weight", "target", "mean", "std"})
    return FramedJudge(reward, section.label, tuple(section.judged_frames(frames)), **terms)


def _architecture(section: JudgeSection, shape: Shape) -> Architecture | None:
    """Return open_clip's architecture of a judge with two towers; None where it is not known."""
    if section.kind not in ("hps", "clip") or not isinstance(section, TwoTowerSection):
        return None
    record = published(section.checkpoint)
    if shape.judge is not None:
        return shape.judge
    if record is None or record.architecture is None:
        return None
    return open_clip_config(record.architecture)
