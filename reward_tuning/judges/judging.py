"""Losses and scores of a batch of latents: decoded for judges of frames, or scored as they are."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from base_model.networks.small_decoder import DecodedBy
from reward_tuning.errors import TuningError
from reward_tuning.judges.clip_terms import ClipTerms, likeness, shortfall, steady_motion
from reward_tuning.judges.judge import FramedJudge, LatentJudge, judged_window
from reward_tuning.sampling.sampler import ClipSampler
from reward_tuning.seeds import derive_generator
from rewards import FrameReward
from rewards.core.shared_towers import frames_shared

Verdicts = dict[str, tuple[Tensor, Tensor]]
"""Label of a judge or term -> its loss, a scalar with gradient, and its scores `(b,)` without."""


def on_frames(
    sampler: ClipSampler,
    judges: Sequence[FramedJudge],
    latents: Tensor,
    prompts: Sequence[str],
    *,
    seeds: Sequence[int],
    common_seed: int | None = None,
    frames: tuple[int, ...] | None = None,
    terms: ClipTerms = ClipTerms(),  # noqa: B008  # frozen
    clip_weights: Tensor | None = None,
    by: DecodedBy = "vae",
) -> Verdicts | None:
    """Decode the frames that the judges see, and score them.

    10 parameters: the clips, their judges, and each choice of a recipe about what they are shown.

    Args:
        sampler: Its generator decodes.
        judges: At least one.
        latents: `(b, 16, t, h, w)`.
        prompts: b texts.
        seeds: b seeds, from which the augmentation of each clip is drawn.
        common_seed: Seed of the frames that judges draw; None for the first of `seeds`.
        frames: Positions that may be judged; latents before the first one needed are then decoded
            without gradient. None for every frame.
        terms: Terms that are added to the judges.
        clip_weights: `(b,)`, a factor of each clip's loss by a judge; None for 1.
        by: What decodes (`Generator.decode`).

    Returns:
        The verdicts; None if a frame is not finite, which judges refuse.
    """
    if frames is not None:
        judges = [judge.within(frames) for judge in judges]
    draws = seeds[0] if common_seed is None else common_seed
    judges = [judge.drawn(derive_generator(draws, "frames", judge.label)) for judge in judges]
    window = judged_window(judges)
    shown = sampler.generator.decode(
        latents,
        window,
        detach_context=frames is not None,
        checkpointing=sampler.decoder_checkpointing,
        by=by,
    )
    if not bool(shown.isfinite().all()):
        return None
    with frames_shared(shown):
        verdicts = {
            judge.label: judge.loss(
                shown,
                prompts,
                seeds=seeds,
                first=window.start,
                clip_weights=clip_weights,
            )
            for judge in judges
        }
        if terms.motion:
            moved = steady_motion(shown)
            loss = terms.motion * shortfall(moved, terms.motion_target)
            verdicts["motion_term"] = loss, moved.detach()
        if terms.repulsion:
            alike = likeness(
                features_seen_by(judges[0], shown, window.start), terms.clips_per_prompt
            )
            verdicts["likeness"] = terms.repulsion * alike.mean(), alike.detach()
    return verdicts


def features_seen_by(judge: FramedJudge, frames: Tensor, first: int) -> Tensor:
    """Return the image features of each clip as a judge sees it, `(b, d)`: the mean over frames.

    Raises:
        TuningError: The judge has no image tower.
    """
    if not isinstance(judge.reward, FrameReward):
        raise TuningError(
            f"train.repulsion: the first judge, {judge.label}, has no image features; put one of "
            "kind hps, clip or aesthetic first"
        )
    return judge.reward.clip_features(judge.judged(frames, first)).to(frames.device)


def on_latents(
    judges: Sequence[LatentJudge], latents: Tensor, sigma: float, prompts: Sequence[str]
) -> Verdicts:
    """Score noisy latents at one noise level."""
    return {judge.label: judge.loss(latents, sigma, prompts) for judge in judges}
