"""From the sections of a recipe to its judges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from reward_tuning.errors import TuningError
from reward_tuning.judges.augmentation import Augmentation
from reward_tuning.judges.judge import FramedJudge, Judge, LatentJudge
from reward_tuning.judges.shared_encoder import SharedEncoder
from reward_tuning.schema.judge_kinds import LatentSection
from reward_tuning.schema.judge_parts import (
    BestOverFrames,
    EachFrameSection,
    FramesSection,
    JudgeSection,
    RandomFrames,
    SoftMinOverFrames,
    TextSection,
)
from reward_tuning.schema.judge_roles import FrameRewardSection, RewardSection
from rewards import FrameReward, Reward, RewardError, load_latent_reward, load_reward
from rewards.core.base import FrozenReward
from rewards.core.shared_towers import TowerPool


def load_judges(
    sections: Sequence[JudgeSection],
    frames: int,
    device: torch.device,
    shared: SharedEncoder | None = None,
) -> list[Judge]:
    """Load the judges of a recipe; equal towers of several judges are held once.

    Args:
        sections: Sections of the judges, resolved, as `load_recipe` leaves them.
        frames: Number of frames of a clip.
        device: Device of the judges that name none of their own.
        shared: The generator's text encoder on that device, for judges that use it.

    Raises:
        RewardError: A file is missing, damaged or of another kind.
        TuningError: A judge uses the generator's text encoder and there is none, or one that
            cannot answer; or its prompt or `over_frames` does not fit it.
    """
    pool = TowerPool()  # equal towers on two devices are two
    return [_load(section, _options(section, shared), frames, device, pool) for section in sections]


def _options(section: JudgeSection, shared: SharedEncoder | None) -> dict[str, Any]:
    """Return the keywords of the judge's loader."""
    options = section.loader_options()
    if section.of_generator:
        if shared is None:
            raise TuningError(
                f"the judge {section.label} has checkpoint: generator, but no generator is loaded "
                "here whose text encoder it could use. Give the generator's folder instead "
                "(./generator if it has that name), or a Qwen2-VL's, such as tiny/qwen-critic"
            )
        options |= {"checkpoint": shared.folder, "model": shared.encoder.text_encoder}
    return options


def _load(
    section: JudgeSection,
    options: dict[str, Any],
    frames: int,
    device: torch.device,
    pool: TowerPool,
) -> Judge:
    device = device if section.own_device is None else torch.device(section.own_device)
    if "dtype" in options:
        options["dtype"] = getattr(torch, options["dtype"])
    if isinstance(section, LatentSection):
        latent = load_latent_reward(**options, device=device, name=section.label)
        judge = LatentJudge(latent, section.label, stays=section.own_device is not None)
        return replace(judge, **_terms(section)) if isinstance(section, RewardSection) else judge
    assert isinstance(section, FramesSection), section.kind
    try:
        reward = load_reward(section.kind, **options, device=device, name=section.label, pool=pool)
    except RewardError as error:
        if not section.of_generator:
            raise
        raise TuningError(
            f"the judge {section.label} has checkpoint: generator, but the text encoder of "
            f"{options['checkpoint']} cannot be used as a judge: {error}"
        ) from error
    prompt = section.prompt if isinstance(section, TextSection) else None
    if prompt is not None:
        _use_fixed_prompt(reward, prompt, section.label)
    framed = FramedJudge(
        reward,
        section.label,
        tuple(section.judged_frames(frames)),
        grayscale=section.grayscale,
        prompt=prompt,
        clip_fps=section.given_rate,
        stays=section.own_device is not None,
    )
    if isinstance(section, EachFrameSection):
        framed = replace(framed, **_over_frames(section, reward))
    if not isinstance(section, FrameRewardSection):
        return framed
    augment = section.augmentation
    return replace(
        framed,
        **_terms(section),
        augmentation=None if augment is None else Augmentation(**augment.model_dump()),
        robust_radius=section.robust_radius,
        gradient=section.gradient or "exact",
    )


def _use_fixed_prompt(reward: FrozenReward, prompt: str, label: str) -> None:
    """Let a judge read one text for every clip, so that clips need no prompts for it.

    Raises:
        TuningError: The judge reads no text, or cuts this one off.
    """
    if not reward.reads_text:
        raise TuningError(
            f"the judge {label} reads no text, so its prompt {prompt!r} has no effect; remove it"
        )
    if reward.truncated([prompt]):
        raise TuningError(
            f"the judge {label} reads {reward.context_length} tokens, but its prompt is longer: "
            f"{prompt!r}; shorten it"
        )
    reward.reads_text = False


def _over_frames(section: EachFrameSection, reward: Reward) -> dict[str, Any]:
    """Return the fields of a `FramedJudge` that reduce the scores of frames to the clip's."""
    over = section.over_frames
    if isinstance(over, SoftMinOverFrames | BestOverFrames) and not isinstance(reward, FrameReward):
        raise TuningError(
            f"the judge {section.label} scores whole clips, so over_frames: {over.kind} has no "
            "scores of frames to reduce; remove it, or derive the class from FrameReward"
        )
    match over:
        case SoftMinOverFrames(sharpness=sharpness):
            return {"soft_min": sharpness}
        case BestOverFrames(share=share):
            return {"best": share}
        case RandomFrames(count=count):
            return {"random_frames": count}
    return {}


def _terms(section: RewardSection) -> dict[str, Any]:
    """Return the fields of the loss that training adds to a judge."""
    return section.model_dump(include={"weight", "target", "mean", "std"})
