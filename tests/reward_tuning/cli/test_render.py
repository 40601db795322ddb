"""render: clips or prompts, and nothing overwritten unless asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from reward_tuning.inputs.prompts import read_prompts
from tests.reward_tuning.command_line import Command, command

run = pytest.fixture(command)
MINE = b"a clip of mine"


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ((), "0001.mp4"),
        ((), "metadata.csv"),
        (("--ask", "image"), "001.png"),
        (("--ask", "edit"), "000-mask.png"),
        (("--ask", "edges"), "000.mp4"),
        (("--ask", "trajectory"), "001.json"),
        (("--ask", "camera"), "prompts.jsonl"),
    ],
)
def test_render_overwrites_nothing_unasked(
    run: Command, tmp_path: Path, words: tuple[str, ...], name: str
) -> None:
    (tmp_path / name).write_bytes(MINE)
    ran = run("render", tmp_path, "--count", 2, *words)
    assert (ran.code, ran.out) == (2, "")
    assert f"{tmp_path / name} exists already and is not overwritten" in ran.err
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_bytes() == MINE
    ran = run("render", tmp_path, "--count", 2, "--overwrite", *words)
    assert ran.code == 0
    assert (tmp_path / name).read_bytes() != MINE


def test_clips_of_another_name_do_not_matter(run: Command, tmp_path: Path) -> None:
    (tmp_path / "holiday.mp4").write_bytes(MINE)
    assert run("render", tmp_path, "--count", 1).code == 0
    assert (tmp_path / "holiday.mp4").read_bytes() == MINE


def test_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = command(capsys)
    ran = run("render", tmp_path / "a", "--ask", "camera", "--count", 3, "--split", "held_out")
    assert ran.code == 0
    assert len(read_prompts(ran.out.strip())) == 3
    for options, message in (
        (("--ask", "image", "--only", "red"), "--only and --style are for clips"),
        (("--split", "held_out"), "--split is for --ask"),
    ):
        ran = run("render", tmp_path / "b", *options)
        assert ran.code == 2
        assert message in ran.err
