"""pretrain: what it refuses before anything is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from reward_tuning.errors import TuningError
from reward_tuning.pretrain import pretrain_tiny
from reward_tuning.pretrain.small_decoder import Distillation
from reward_tuning.schema.recipe import Recipe
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


def test_the_small_decoder_of_a_recipe(
    run: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}

    def distil(recipe: Recipe, **rest: Any) -> Path:
        asked.update(rest, seed=recipe.seed, guidance=recipe.sampling.guidance_scale)
        return tmp_path / "a.safetensors"

    monkeypatch.setattr("reward_tuning.pretrain.small_decoder.distil_decoder", distil)
    words = ("--recipe", "tiny-drtune-hps", "--seed", "5", "--width", "96", "--steps", "7")
    done = run("pretrain", "small-decoder", "sampling.guidance_scale=2.5", *words)
    assert (done.code, done.out) == (0, f"Written: {tmp_path / 'a.safetensors'}\n")
    assert (asked["seed"], asked["guidance"]) == (5, 2.5)
    assert asked["size"] == Distillation(width=96, steps=7)
    assert asked["output"] == Path("pretrain/small-decoder")
    assert asked["command"] == (
        "reward-tuning pretrain small-decoder --recipe tiny-drtune-hps "
        "sampling.guidance_scale=2.5 seed=5 --width 96 --steps 7"
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["small"], "pretrain: got 'small'; allowed: tiny, small-decoder"),
        (["tiny", "--width", "32"], "pretrain tiny: --width belongs to pretrain small-decoder"),
        (["tiny", "seed=3"], "pretrain tiny: key=value belongs to pretrain small-decoder"),
        (["small-decoder", "--only", "hps"], "--only belongs to pretrain tiny"),
        (["small-decoder", "--width", "40"], "--width: got 40; allowed: multiples of 32"),
        (["small-decoder", "--recipe", "tiny-prfl-latent"], "has no judge of frames"),
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
