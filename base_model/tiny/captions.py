"""Captions of scenes in English and Chinese, and the parser from a caption to its scene.

The grammar is small and exact: every caption belongs to one scene, so the oracle knows from the
prompt alone what a clip should show.
"""

from __future__ import annotations

import random
from functools import cache
from typing import Literal

from base_model.tiny.scenes import Scene, scenes

Language = Literal["en", "zh"]
LANGUAGES: tuple[Language, ...] = ("en", "zh")

ENGLISH_TEMPLATES = (
    "a {size} {colour} {shape} {moves} on a {background} background",
    "on a {background} background, a {size} {colour} {shape} {moves}",
    "a {colour} {shape}, {size}, {moves}, {background} background",
    "a video of a {size} {shape} in {colour} that {moves} over a {background} backdrop",
)
ENGLISH_MOVES = {
    "left": ("moves left", "drifts to the left"),
    "right": ("moves right", "drifts to the right"),
    "up": ("moves up", "rises"),
    "down": ("moves down", "sinks"),
    "still": ("stays still", "rests"),
}

CHINESE_TEMPLATES = (
    "一个{size}{colour}{shape}在{background}背景上{moves}",
    "{background}背景上，一个{size}{colour}{shape}{moves}",
    "{colour}的{shape}，{size}，{moves}，{background}背景",
    "视频里一个{size}的{colour}{shape}在{background}的画面中{moves}",
)
CHINESE_WORDS = {
    "red": "红色", "yellow": "黄色", "green": "绿色",
    "cyan": "青色", "blue": "蓝色", "purple": "紫色",
    "circle": "圆形", "square": "正方形", "triangle": "三角形", "star": "五角星",
    "dark": "深色", "bright": "浅色", "striped": "条纹", "checkered": "棋盘格",
    "small": "小号", "medium": "中号", "large": "大号",
}  # fmt: skip
CHINESE_MOVES = {
    "left": ("向左移动", "往左飘"),
    "right": ("向右移动", "往右飘"),
    "up": ("向上移动", "上升"),
    "down": ("向下移动", "下沉"),
    "still": ("静止不动", "停着"),
}


@cache
def phrasings(scene: Scene, language: Language) -> tuple[str, ...]:
    """Return every caption of a scene in one language, in a fixed order."""
    if language == "en":
        templates, moves = ENGLISH_TEMPLATES, ENGLISH_MOVES[scene.motion]
        words = {w: w for w in (scene.size, scene.colour, scene.shape, scene.background)}
    else:
        templates, moves = CHINESE_TEMPLATES, CHINESE_MOVES[scene.motion]
        words = CHINESE_WORDS
    return tuple(
        template.format(
            size=words[scene.size],
            colour=words[scene.colour],
            shape=words[scene.shape],
            background=words[scene.background],
            moves=move,
        )
        for template in templates
        for move in moves
    )


def draw_caption(scene: Scene, rng: random.Random, language: Language | None = None) -> str:
    """Draw one caption of a scene; None draws the language too."""
    return rng.choice(phrasings(scene, language or rng.choice(LANGUAGES)))


@cache
def _captions() -> dict[str, tuple[Scene, Language]]:
    return {
        caption: (scene, language)
        for scene in scenes()
        for language in LANGUAGES
        for caption in phrasings(scene, language)
    }


def parse_caption(caption: str) -> tuple[Scene, Language]:
    """Return the scene and the language of a caption.

    Raises:
        ValueError: The text is no caption of the grammar, so the oracle cannot judge it.
    """
    try:
        return _captions()[caption]
    except KeyError:
        raise ValueError(
            f"{caption!r} is not a caption of the embedded world; "
            f"an example: {phrasings(scenes()[0], 'en')[0]!r}"
        ) from None


def every_caption(split: Literal["train", "held_out"] | None = None) -> list[str]:
    """Return every caption of a split in both languages, in a fixed order."""
    return [c for s in scenes(split) for lang in LANGUAGES for c in phrasings(s, lang)]
