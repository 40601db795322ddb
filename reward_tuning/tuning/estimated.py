"""Judges whose gradient is estimated: clips near each clip, scores, and a loss with that gradient.

They see whole clips as they are, decoded without gradient, and may answer while the next batch is
rolled out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor

from base_model.networks.small_decoder import DecodedBy
from reward_tuning.gradient.estimates import group_gradient, paired_gradient, with_gradient
from reward_tuning.judges.background import Asking
from reward_tuning.judges.judge import FramedJudge, Judge, judged_window
from reward_tuning.judges.judging import Verdicts
from reward_tuning.sampling.cheap_steps import CheapSteps
from reward_tuning.sampling.sampler import ClipSampler
from reward_tuning.tuning.draws import Batch
from reward_tuning.tuning.views import RolledOut, View, rolled_out
from rewards.core.black_box import BlackBoxReward

Scores = dict[str, Tensor]
"""Label of a judge -> scores `(1 + P, b)`: of a batch's clips, and of clips near them."""


@dataclass(frozen=True)
class Estimates:
    """How the gradients of judges are estimated.

    Attributes:
        clips: Neighbours in a batch that have one prompt, K.
        pairs: Clips near each clip, P; 0 where no judge compares such.
        distance: Share of new noise in their start, in (0, 1].
    """

    clips: int = 1
    pairs: int = 0
    distance: float = 0.5


@dataclass(frozen=True)
class Asked:
    """What estimated judges were asked about one view of a batch.

    Attributes:
        near: Latents of the clips near the view's.
        answer: Waits for the scores; None where a frame was not finite, which judges refuse.
    """

    near: Sequence[Tensor]
    answer: Callable[[], Scores | None]


@dataclass(frozen=True)
class NearClips:
    """The rollouts of clips near those of a batch.

    Attributes:
        latents: P reward inputs for each view.
        steps: Sampler steps taken.
        full_steps: Those that ran every block of the transformer.
    """

    latents: Sequence[Sequence[Tensor]] = field(default=())
    steps: int = 0
    full_steps: int = 0


def estimated_judges(judges: Sequence[Judge]) -> list[FramedJudge]:
    """Return the judges whose gradient is estimated."""
    return [one for one in judges if isinstance(one, FramedJudge) and one.gradient != "exact"]


def exact_judges(judges: Sequence[Judge]) -> list[Judge]:
    """Return the judges that are differentiated."""
    return [one for one in judges if not isinstance(one, FramedJudge) or one.gradient == "exact"]


def near_clips(
    sampler: ClipSampler,
    batch: Batch,
    sigmas: Tensor,
    estimates: Estimates,
    views: int,
    cheap: CheapSteps | None,
) -> NearClips:
    """Roll out P clips near each clip of a batch, with its plan, to the same reward inputs.

    Args:
        sampler: The generator with its adapter attached.
        batch: The batch.
        sigmas: `(N + 1,)`, the sampler's table.
        estimates: Number and distance.
        views: Number of the batch's own reward inputs.
        cheap: How the rollout computes steps that no sweep needs.
    """
    found: list[RolledOut] = []
    for number in range(estimates.pairs):
        near = replace(batch, near=(number, estimates.distance), more_plans=(), later_plans=())
        found.append(rolled_out(sampler, near, sigmas, cheap))
    return NearClips(
        [[chain.views[place].x for chain in found] for place in range(views)],
        sum(chain.steps for chain in found),
        sum(chain.full_steps for chain in found),
    )


@torch.no_grad()
def ask(
    sampler: ClipSampler,
    judges: Sequence[FramedJudge],
    x: Tensor,
    near: Sequence[Tensor],
    prompts: Sequence[str],
    *,
    small_decoder: bool,
    asking: Asking,
) -> Asked:
    """Decode clips, and have estimated judges score them.

    Those of this process score before it returns: their weights may leave the device afterwards,
    and a user's class may change global settings while it works.

    Args:
        sampler: Its generator decodes.
        judges: At least one, estimated.
        x: `(b, 16, t, h, w)`.
        near: P batches of latents near `x`; only judges with gradient paired see them.
        prompts: b texts.
        small_decoder: Decode with the generator's small decoder.
        asking: Where those outside this process are asked: at once, or in the background.
    """
    window = judged_window(judges)
    by: DecodedBy = "small" if small_decoder else "vae"
    shown = [sampler.generator.decode(latents, window, by=by) for latents in (x, *near)]

    @torch.no_grad()
    def score(judges: Sequence[FramedJudge]) -> Scores | None:
        if not all(bool(frames.isfinite().all()) for frames in shown):
            return None
        found = {}
        for judge in judges:
            seen = shown if judge.gradient == "paired" else shown[:1]
            # In one call: a judge of pairs compares the clips of a call that have one prompt.
            frames, texts = torch.cat(seen), list(prompts) * len(seen)
            scores = judge.scores(frames, texts, first=window.start)
            found[judge.label] = scores.unflatten(0, (len(seen), -1))
        return found

    outside = [judge for judge in judges if isinstance(judge.reward, BlackBoxReward)]
    inside = [judge for judge in judges if not isinstance(judge.reward, BlackBoxReward)]
    wait = asking.ask(partial(score, outside))
    own = score(inside)

    def answer() -> Scores | None:
        others = wait()
        return None if own is None or others is None else own | others

    return Asked(near, answer)


@dataclass(frozen=True)
class Answers:
    """The verdicts of estimated judges on one view, and how far the compared scores lie apart."""

    verdicts: Verdicts
    spread: dict[str, float]


def estimated_verdicts(
    judges: Sequence[Judge], asked: Asked, x: Tensor, view: View, estimates: Estimates
) -> Answers | None:
    """Wait for the scores of the estimated judges, and return their losses with their gradients.

    Args:
        judges: Judges of the recipe.
        asked: What was asked about the view.
        x: The view's latents, a leaf with gradient.
        view: The view.
        estimates: How gradients are estimated.

    Returns:
        None where a frame was not finite.
    """
    answered = asked.answer()
    if answered is None:
        return None
    found = Answers({}, {})
    for judge in estimated_judges(judges):
        scores = answered[judge.label].to(x.device)
        verdict = estimated_verdict(judge, scores, x, view, asked.near, estimates.clips)
        found.verdicts[judge.label] = verdict
        found.spread[judge.label] = score_spread(judge, scores, estimates.clips)
    return found


def estimated_verdict(
    judge: FramedJudge, scores: Tensor, x: Tensor, view: View, near: Sequence[Tensor], clips: int
) -> tuple[Tensor, Tensor]:
    """Return the loss of an estimated judge, a scalar with its gradient at `x`, and the scores.

    Args:
        judge: The judge.
        scores: `(1 + P, b)`, or `(1, b)` with gradient group.
        x: The view's latents, a leaf with gradient.
        view: The view.
        near: Latents near the view's.
        clips: Neighbours in a batch that have one prompt.
    """
    losses = judge.losses_of(scores)
    own = x.detach()
    if judge.gradient == "group":
        gradient = group_gradient(losses[0], own, clips)
    else:
        gradient = paired_gradient(losses[0], own, list(zip(losses[1:], near, strict=True)))
    loss = losses[0]
    if view.clip_weights is not None:
        loss = view.clip_weights * loss
        gradient = gradient * view.clip_weights.view(-1, *[1] * (x.dim() - 1))
    return with_gradient(loss.mean(), x, gradient), scores[0]


def score_spread(judge: FramedJudge, scores: Tensor, clips: int) -> float:
    """Return how far the scores that an estimate compares lie apart, root mean square.

    Args:
        judge: The judge.
        scores: `(1 + P, b)`.
        clips: Neighbours in a batch that have one prompt.
    """
    if judge.gradient == "paired":
        return float((scores[1:] - scores[0]).square().mean().sqrt())
    own = scores[0].unflatten(0, (-1, clips))
    return float((own - own.mean(dim=1, keepdim=True)).square().mean().sqrt())
