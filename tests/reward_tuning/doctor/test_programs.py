"""Programs that are there, that are not, and that do not start."""

from collections.abc import Iterable
from pathlib import Path

import pytest

from reward_tuning.doctor import programs
from reward_tuning.doctor.facts import Fact
from reward_tuning.files import ffmpeg


def only(facts: Iterable[Fact]) -> Fact:
    (fact,) = facts
    return fact


def having(*names: str) -> programs.Which:
    return lambda name: f"/usr/bin/{name}" if name in names else None


def nothing(name: str) -> None:
    del name


def test_compiler() -> None:
    assert only(programs.compiler_fact({}, having("clang++"))).value == "/usr/bin/clang++"
    assert only(programs.compiler_fact({"CXX": "g++-12"}, having("g++-12"))).mark == "ok"
    missing = only(programs.compiler_fact({}, having()))
    assert (missing.mark, "apt-get install g++" in missing.todo) == ("note", True)
    named = only(programs.compiler_fact({"CXX": "icpx"}, having("g++"), missing="problem"))
    assert (named.mark, "icpx" in named.value) == ("problem", True)


def test_triton_matters_on_a_gpu() -> None:
    assert only(programs.triton_fact(False, nothing)).mark == "ok"
    missing = only(programs.triton_fact(True, nothing, missing="problem"))
    assert (missing.mark, "pip install triton" in missing.todo) == ("problem", True)
    assert only(programs.triton_fact(True, lambda _: "3.9.0")).value == "3.9.0"


def test_bitsandbytes() -> None:
    assert only(programs.bitsandbytes_fact(lambda _: "0.49")).value == "0.49"
    missing = only(programs.bitsandbytes_fact(nothing))
    assert (missing.mark, "pip install 'bitsandbytes>=0.46'" in missing.todo) == ("note", True)


def test_ffmpeg_of_this_environment_starts() -> None:
    fact = only(programs.ffmpeg_fact())
    assert fact.mark == "ok"
    assert fact.value.endswith(ffmpeg.executable())


@pytest.mark.parametrize("content", ["#!/bin/sh\nexit 3\n", None])
def test_ffmpeg_that_does_not_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None
) -> None:
    program = tmp_path / "ffmpeg"
    if content is not None:
        program.write_text(content)
        program.chmod(0o755)
    monkeypatch.setattr(ffmpeg, "executable", lambda: str(program))
    fact = only(programs.ffmpeg_fact())
    assert fact.mark == "problem"
    assert "IMAGEIO_FFMPEG_EXE" in fact.todo


def test_browsers(tmp_path: Path) -> None:
    both = only(programs.browser_fact(having("chromium-browser", "firefox"), tmp_path))
    assert both.value == "Chromium (/usr/bin/chromium-browser), Firefox (/usr/bin/firefox)"
    none = only(programs.browser_fact(having(), tmp_path))
    assert (none.mark, "report.html" in none.todo) == ("note", True)
    (tmp_path / "Applications/Safari.app").mkdir(parents=True)
    assert only(programs.browser_fact(having(), tmp_path)).value == "Safari"
