"""Files and texts that no judge can take: told in its own error, never something of a library's."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from rewards import RewardError, load_reward
from rewards.checkpoint import SHIPPED, load_checkpoint

TINY = SHIPPED / "tiny"
OWN_ARCHITECTURE = {
    "clip": "clip.safetensors",
    "pickscore": "pickscore.safetensors",
    "image_reward": "image-reward.safetensors",
    "mps": "mps.safetensors",
    "aesthetic_v2_5": "siglip.safetensors",
}


def _written(folder: Path, file: str, *, damage: str | None = None, said: str = "") -> Path:
    """A shipped judge's file with its neighbours, one value NaN or its architecture replaced."""
    for neighbour in TINY.iterdir():
        if neighbour.suffix in (".gz", ".txt"):
            shutil.copy(neighbour, folder)
    with safe_open(TINY / file, framework="pt") as opened:
        state = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        metadata = dict(opened.metadata())
    if damage is not None:
        state[damage].view(-1)[0] = float("nan")
    if said:
        metadata["architecture"] = said
    save_file(state, folder / file, metadata)
    return folder / file


@pytest.mark.parametrize("content", [b"hello", b"\x80\x02", b"e", b"(", bytes(range(7, 90))])
def test_bytes_that_are_no_torch_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "judge.pt"
    path.write_bytes(content)
    with pytest.raises(RewardError, match=r"judge\.pt"):
        load_checkpoint(path)


def test_tensors_without_names(tmp_path: Path) -> None:
    path = tmp_path / "judge.pt"
    torch.save({"state_dict": {3: torch.zeros(1)}}, path)
    with pytest.raises(RewardError, match="tensors without names: 3"):
        load_checkpoint(path)


def test_a_name_longer_than_any_file_has() -> None:
    with pytest.raises(RewardError, match="does not exist"):
        load_reward("hps", "x" * 5000)


@pytest.mark.parametrize("said", ["{", "[1]", "3"])
@pytest.mark.parametrize("kind", OWN_ARCHITECTURE)
def test_an_architecture_that_is_no_object(tmp_path: Path, kind: str, said: str) -> None:
    path = _written(tmp_path, OWN_ARCHITECTURE[kind], said=said)
    options = {"tower": str(path)} if kind == "aesthetic_v2_5" else {}
    checkpoint = "tiny/aesthetic-v2-5.safetensors" if options else path
    with pytest.raises(RewardError, match="architecture in"):
        load_reward(kind, checkpoint, **options)


def test_weights_with_nan_are_refused(tmp_path: Path) -> None:
    path = _written(tmp_path, "clip.safetensors", damage="visual.conv1.weight")
    with pytest.raises(RewardError, match=r"1 with NaN in them: visual\.conv1\.weight"):
        load_reward("clip", path)


@pytest.mark.parametrize(
    "file",
    ["config.json", "tokenizer.json", "tokenizer_config.json", "video_preprocessor_config.json"],
)
@pytest.mark.parametrize("content", ["{", "[]", "{}"])
def test_a_folder_with_a_damaged_part(tmp_path: Path, file: str, content: str) -> None:
    folder = tmp_path / "critic"
    shutil.copytree(TINY / "qwen-critic", folder)
    if content == "{}" and file in ("video_preprocessor_config.json", "tokenizer_config.json"):
        pytest.skip("nothing in it is needed")
    (folder / file).write_text(content, encoding="utf-8")
    with pytest.raises(RewardError, match="critic"):
        load_reward("qwen_critic", folder)


@pytest.mark.parametrize("kind", ["pickscore", "mps", "image_reward"])
def test_half_a_letter(kind: str) -> None:
    judge = load_reward(kind, f"tiny/{kind.replace('_', '-')}.safetensors")
    with pytest.raises(RewardError, match="lone surrogate"):
        judge(torch.zeros(1, 1, 3, 64, 64), ["a\ud800 ball"])


def test_an_array_is_no_tensor() -> None:
    judge = load_reward("flicker")
    with pytest.raises(RewardError, match=r"ndarray; .*from_numpy"):
        judge(torch.zeros(1, 3, 3, 8, 8).numpy(), ["a"])  # type: ignore[arg-type]  # the point
