"""Sections of options: the flat command that Typer sees, and the sections that the verb gets."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import pytest
import typer
from click.testing import CliRunner

from reward_tuning.cli.option_sections import takes_sections
from tests.reward_tuning.command_line import Command, command

run = pytest.fixture(command, name="run")


@dataclass(frozen=True)
class Size:
    """Sides of a clip."""

    PANEL: ClassVar[str] = "Size"

    width: Annotated[int, typer.Option(min=16, help="Pixels")]
    names: Annotated[list[str] | None, typer.Option("--name", help="Repeat for several")] = None


@dataclass(frozen=True)
class Place:
    """Where clips go."""

    folder: Annotated[Path, typer.Option(help="A folder")] = Path("clips")
    quantise: Annotated[str | None, typer.Option("--quantise", "--quantize")] = None


def invoke(*arguments: str) -> tuple[int, str, list[tuple[Size, Place]]]:
    calls: list[tuple[Size, Place]] = []

    @takes_sections
    def draw(size: Size, place: Place) -> None:
        """Draw clips."""
        calls.append((size, place))

    app = typer.Typer(add_completion=False)
    app.command(draw.__name__)(draw)
    done = CliRunner().invoke(typer.main.get_command(app), arguments)
    output = " ".join(done.output.replace("│", " ").split())  # rich wraps lines in boxes
    return done.exit_code, output, calls


def test_the_verb_gets_whole_sections() -> None:
    words = ["--width", "32", "--name", "a", "--name", "b", "--folder", "x", "--quantize", "fp8"]
    code, _, calls = invoke(*words)
    assert code == 0
    assert calls == [(Size(32, ["a", "b"]), Place(Path("x"), "fp8"))]


def test_defaults_are_those_of_the_fields() -> None:
    assert invoke("--width", "16")[2] == [(Size(16), Place())]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Missing option"),
        (["--width", "8"], "Invalid value for '--width'"),
        (["--high"], "No such"),
    ],
)
def test_ranges_and_required_options_are_those_of_the_fields(
    arguments: list[str], message: str
) -> None:
    code, output, calls = invoke(*arguments)
    assert (code, calls) == (2, [])
    assert message in output


def test_help_has_the_docstring_and_a_panel_for_each_section() -> None:
    _, output, _ = invoke("--help")
    assert "Draw clips." in output
    options, _, size = output.partition(" Size ")
    assert "--folder" in options
    assert "--quantise" in options
    assert "--width" in size
    assert "--width" not in options


def test_an_option_in_two_sections_is_a_bug() -> None:
    def twice(one: Size, two: Size) -> None: ...

    with pytest.raises(AssertionError, match="an option is in two sections"):
        takes_sections(twice)


def test_each_panel_is_printed_once_and_help_is_in_one_with_others(run: Command) -> None:
    for verb in ("evaluate", "mix"):
        output = run(verb, "--help").out
        heads = [line.strip("╭─╮ ") for line in output.splitlines() if line.startswith("╭")]
        assert heads[0] == "Arguments"
        assert "Options" not in heads
        assert len(heads) == len(set(heads))
        last = output.rpartition("╭")[2]
        assert "--help" in last
