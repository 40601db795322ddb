"""pretrain: what it refuses before anything is trained."""

from __future__ import annotations

from pathlib import Path

import pytest

from reward_tuning.errors import TuningError
from reward_tuning.pretrain import pretrain_tiny
from tests.reward_tuning.command_line import Command, command

run = pytest.fixture(command, name="run")
MINE = b"a clip of mine"


def test_pretrain_takes_no_folder_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "generator").mkdir()
    (tmp_path / "generator/model.safetensors").write_bytes(MINE)
    with pytest.raises(TuningError, match=r"holds files but no earlier pre-training"):
        pretrain_tiny(only="hps", output=tmp_path)
    assert (tmp_path / "generator/model.safetensors").read_bytes() == MINE
    assert [path.name for path in tmp_path.iterdir()] == ["generator"]
    (tmp_path / "file").write_bytes(MINE)
    with pytest.raises(TuningError, match="is not a folder"):
        pretrain_tiny(only="hps", output=tmp_path / "file")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["small"], "pretrain: got 'small'; allowed: tiny"),
        (["tiny", "--only", "nothing"], "nothing"),
        (["tiny", "--only", "hps", "--output", "file"], "is not a folder"),
    ],
)
def test_mistakes_of_the_verb(
    run: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_bytes(MINE)
    done = run("pretrain", *words)
    assert (done.code, done.out) == (2, "")
    assert message in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
