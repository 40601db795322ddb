"""What docs/security.md promises, against the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from reward_tuning.files.masked_text import LEAST, SECRET_NAME
from reward_tuning.schema.black_box_kinds import BLACK_BOXES
from reward_tuning.schema.recipe import Recipe
from reward_tuning.schema.tracking import TrackerName

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")


def test_every_kind_that_runs_or_sends_something_is_named() -> None:
    for kind in ("python", *BLACK_BOXES):
        assert re.search(rf"of kind .*`{kind}`", PAGE), kind
    for name in TrackerName.__args__:  # type: ignore[attr-defined]
        assert name == "tensorboard" or name in PAGE.lower()


def test_sections_that_name_files_are_listed() -> None:
    for section in ("generator", "prompts", "lora.init", "train.replay", "output", "tracking"):
        assert f"`{section}" in PAGE
        assert section.partition(".")[0] in Recipe.model_fields


def test_the_numbers_are_those_of_the_code() -> None:
    assert f"fewer than {LEAST} characters" in PAGE
    for word in ("key", "token", "secret", "password", "signature"):
        assert SECRET_NAME.search(word)
    lines = re.findall(r'^  "(torch[^"]*)",$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    torch = next(Requirement(line) for line in lines if Requirement(line).name == "torch")
    assert not torch.specifier.contains(Version("2.5.1"))
    assert "torch 2.6 or newer" in PAGE


@pytest.mark.parametrize("target", ["sbom", "audit"])
def test_its_commands_exist(target: str) -> None:
    assert f"`make {target}`" in PAGE
    assert f"\n{target}: " in (ROOT / "Makefile").read_text()


def test_readers_find_it() -> None:
    for page in ("README.md", "docs/README.md"):
        assert "security.md)" in (ROOT / page).read_text(encoding="utf-8")
