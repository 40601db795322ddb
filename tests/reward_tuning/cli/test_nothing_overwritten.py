"""Every verb that writes leaves alone what is there, unless it is told otherwise."""

from __future__ import annotations

from pathlib import Path

import pytest

from reward_tuning.errors import TuningError
from reward_tuning.inputs.rendered_prompts import MODES, WRITTEN, write_rendered_prompts
from reward_tuning.pretrain import pretrain_tiny
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


@pytest.mark.parametrize("mode", MODES)
def test_the_names_that_are_looked_for_are_those_that_are_written(
    tmp_path: Path, mode: str
) -> None:
    write_rendered_prompts(tmp_path, mode, 1)
    written = {path.name for path in tmp_path.iterdir()} - {"prompts.jsonl"}
    assert written == {f"000{ending}" for ending in WRITTEN[mode]}


def test_clips_of_another_name_are_no_matter(run: Command, tmp_path: Path) -> None:
    (tmp_path / "holiday.mp4").write_bytes(MINE)
    assert run("render", tmp_path, "--count", 1).code == 0
    assert (tmp_path / "holiday.mp4").read_bytes() == MINE


@pytest.mark.parametrize("name", ["0000.mp4", "clips.jsonl", "0000.mask.mp4"])
def test_generate_overwrites_nothing_unasked(run: Command, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(MINE)
    ran = run("generate", "--prompt", "a", "--output", tmp_path, "--previews")
    assert ran.code == 2
    assert f"--output: {tmp_path / name} exists and is not overwritten" in ran.err
    assert (tmp_path / name).read_bytes() == MINE


def test_pretrain_takes_no_folder_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "generator").mkdir()
    (tmp_path / "generator/model.safetensors").write_bytes(MINE)
    with pytest.raises(TuningError, match=r"holds files and no earlier pretraining"):
        pretrain_tiny(only="hps", output=tmp_path)
    assert (tmp_path / "generator/model.safetensors").read_bytes() == MINE
    assert [path.name for path in tmp_path.iterdir()] == ["generator"]
    (tmp_path / "file").write_bytes(MINE)
    with pytest.raises(TuningError, match="is no folder"):
        pretrain_tiny(only="hps", output=tmp_path / "file")


def test_calibrate_looks_at_the_place_before_it_samples(run: Command, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(MINE)
    ran = run("calibrate", "tiny-draft-hps", "--write", tmp_path / "file/mine.yaml")
    assert (ran.code, ran.out) == (2, "")
    assert "is no folder" in ran.err
    assert "base clips" not in ran.err
