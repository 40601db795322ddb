"""Vote files as the vote page of a report saves them."""

import json
from pathlib import Path
from typing import Any


def vote(
    prompt: int,
    choice: str,
    *,
    left: str = "base",
    right: str = "tuned",
    control: bool = False,
    at: str = "2026-11-30T12:00:00.000Z",
) -> dict[str, Any]:
    return {
        "prompt": prompt,
        "left": left,
        "right": right,
        "choice": choice,
        "control": control,
        "at": at,
    }


def content(votes: list[dict[str, Any]], *, voter: str = "", report: str = "r1") -> dict[str, Any]:
    return {
        "format": "reward-tuning-votes",
        "version": 1,
        "report": {"id": report, "title": "a run"},
        "voter": voter,
        "votes": votes,
    }


def write_votes(path: Path, votes: list[dict[str, Any]], **given: str) -> Path:
    path.write_text(json.dumps(content(votes, **given)), encoding="utf-8")
    return path
