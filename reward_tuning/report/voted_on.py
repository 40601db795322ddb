"""What votes are about: the identity of a report, which a vote file repeats."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from reward_tuning.report.evaluations import Evaluation
from reward_tuning.report.pages import readable

MOST_TITLE = 200
"""Characters of a title; a vote file may not have more."""


def voted_on(
    folder: Path, evaluation: Evaluation, names: Sequence[Mapping[int, str]]
) -> dict[str, str]:
    """Return id and title of a report, as its vote files hold them.

    The id is that of the prompts, the sides and the content of their clips: a report that is
    written again has the same one, and votes on other clips never mix with these.

    Args:
        folder: Folder of the report.
        evaluation: Its evaluation.
        names: For each side, prompt index to the name of its clip, which is a hash.
    """
    about = [
        [[question.prompt, question.seed] for question in evaluation.questions],
        [[side.name, side.strength, side.steps] for side in evaluation.sides],
        [sorted(of_side.items()) for of_side in names],
    ]
    digest = hashlib.sha256(json.dumps(about).encode()).hexdigest()
    title = readable(folder.resolve().name or "report")[:MOST_TITLE]
    return {"id": digest[:24], "title": title}
