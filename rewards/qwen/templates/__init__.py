"""Texts that published judges are asked with, as data: README.md says whose."""

from __future__ import annotations

from functools import cache
from pathlib import Path


@cache
def template(name: str) -> str:
    """The text of `video_align` or `hpsv3`, with `{text_prompt}` where the prompt goes."""
    path = Path(__file__).parent / f"{name}.txt"
    # Bytes, so that no platform changes an end of line: the texts count to the last blank.
    return path.read_bytes().decode("utf-8")
