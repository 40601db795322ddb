"""Questions of published judges, as data; README.md names their authors."""

from __future__ import annotations

from functools import cache
from pathlib import Path


@cache
def template(name: str) -> str:
    """Return the text of `video_align` or `hpsv3`, with `{text_prompt}` for the prompt."""
    path = Path(__file__).parent / f"{name}.txt"
    # Bytes, so that no platform changes an end of line: every blank of the texts matters.
    return path.read_bytes().decode("utf-8")
