"""The metrics of an evaluation, and their names in the cache: everything that decides a value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from reward_tuning.errors import TuningError
from reward_tuning.evidence.judge_identity import SCORES_VERSION, judge_identity
from reward_tuning.evidence.request import Setup
from reward_tuning.files.hashes import text_sha256
from reward_tuning.inputs.prompts import Prompt
from reward_tuning.schema.judge_parts import EachFrameSection, FramesSection
from reward_tuning.schema.primary import MEASURES, ORACLE
from reward_tuning.tuning.evaluation import oracle_applies

SHARPNESS = "sharpness_"
"""Prefix of a metric: the sharpness of the judge whose label follows."""
DRIFT, DIVERSITY = "drift", "feature_diversity"


@dataclass(frozen=True)
class MetricNames:
    """What is measured on every clip.

    Attributes:
        judges: Label of each judge to its identity.
        sharpened: Labels of the judges whose sharpness is measured.
        seer: Label of the judge by whose image features clips are compared; None for no diversity.
        oracle: Whether the embedded world's oracle applies.
    """

    judges: Mapping[str, str]
    sharpened: Sequence[str]
    seer: str | None
    oracle: bool

    def of_clip(self, prompt: Prompt) -> dict[str, str]:
        """Return each metric of a prompt's clips with its name in the cache, without the drift."""
        text = text_sha256(prompt.reward_text)
        found = {label: f"judge:{identity}:{text}" for label, identity in self.judges.items()}
        measures = [*MEASURES, *(ORACLE if self.oracle else ())]
        found |= {name: f"{name}:{SCORES_VERSION}" for name in measures}
        found |= {
            SHARPNESS + label: f"sharpness:{self.judges[label]}:{text}" for label in self.sharpened
        }
        if self.seer is not None:
            found[DIVERSITY] = f"features:{self.judges[self.seer]}"
        return found


def metric_names(setup: Setup, *, sharpness: bool) -> MetricNames:
    """Return the metrics of an evaluation.

    Args:
        setup: What all sides have in common.
        sharpness: Measure the sharpness of the judges that are trained on, or of all judges where
            none is known to be.

    Raises:
        TuningError: The metric that decides is not among them.
        RewardError: A judge's file is missing.
    """
    sections = {judge.label: judge for judge in setup.judges}
    chosen = list(setup.trained_on) or list(sections)
    sharpened = [one for one in chosen if isinstance(sections[one], FramesSection)]
    # A held-out one first: the features of a judge that is trained on are fooled with it.
    order = [*setup.never_trained_on, *setup.trained_on]
    seers = [
        label
        for label in order
        if isinstance(sections[label], EachFrameSection) and sections[label].kind != "python"
    ]
    found = MetricNames(
        {label: judge_identity(judge) for label, judge in sections.items()},
        sharpened if sharpness else [],
        seers[0] if seers and setup.seeds > 1 else None,
        oracle_applies(setup.prompts, setup.size),
    )
    measured = found.of_clip(setup.prompts[0])
    if setup.primary is not None and setup.primary not in measured:
        raise TuningError(
            f"--primary: got {setup.primary!r}, which is not measured with these prompts, judges "
            f"and seeds; allowed: {', '.join(measured)}"
        )
    return found
