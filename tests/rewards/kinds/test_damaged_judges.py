"""Files and texts that no judge can take: told in its own error, never something of a library's."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from rewards import RewardError, load_latent_reward, load_reward
from rewards.core.locate import SHIPPED
from rewards.core.weight_file import load_weights
from rewards.kinds.dynamic_degree import build_raft

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
        load_weights(path)


def test_tensors_without_names(tmp_path: Path) -> None:
    path = tmp_path / "judge.pt"
    torch.save({"state_dict": {3: torch.zeros(1)}}, path)
    with pytest.raises(RewardError, match="tensors without names: 3"):
        load_weights(path)


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


@pytest.mark.parametrize("kind", ["clip", "mps", "vjepa2", "latent"])
def test_quantised_weights_are_refused(tmp_path: Path, kind: str) -> None:
    file = f"{'latent-clip' if kind == 'latent' else kind}.safetensors"
    path = _written(tmp_path, file)
    with safe_open(path, framework="pt") as opened:
        metadata = opened.metadata()
    state = {name: tensor.to(torch.int8) for name, tensor in load_file(path).items()}
    save_file(state, path, metadata)
    with pytest.raises(RewardError, match=r"\d+ quantised, .* is torch\.int8"):
        load_latent_reward(path) if kind == "latent" else load_reward(kind, path)


@pytest.mark.parametrize(
    "field",
    [
        {"hidden_size": "wide"},
        {"hidden_size": 0},
        {"hidden_size": -72},
        {"num_attention_heads": 0},
        {"hidden_act": "none of these"},
    ],
)
def test_a_configuration_that_no_v_jepa_2_can_have(tmp_path: Path, field: dict[str, Any]) -> None:
    with safe_open(TINY / "vjepa2.safetensors", framework="pt") as opened:
        config = json.loads(opened.metadata()["architecture"])
    save_file(load_file(TINY / "vjepa2.safetensors"), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config | field))
    with pytest.raises(RewardError, match=r"cannot build a V-JEPA 2|does not fit a V-JEPA 2"):
        load_reward("vjepa2", tmp_path)


KERNEL = "feature_encoder.convnormrelu.0.weight"


def test_rafts_that_are_none(tmp_path: Path) -> None:
    state = build_raft("raft_small").state_dict()

    def written(change: dict[str, Any]) -> Path:
        torch.save(state | change, tmp_path / "raft.pth")
        return tmp_path / "raft.pth"

    with pytest.raises(RewardError, match="is neither torchvision's RAFT"):
        load_reward("dynamic_degree", written({KERNEL: torch.tensor(3.0)}))
    with pytest.raises(RewardError, match="1 quantised"):
        load_reward("dynamic_degree", written({KERNEL: state[KERNEL].to(torch.int8)}))
    halves = {name: tensor.half() for name, tensor in state.items() if tensor.is_floating_point()}
    judge = load_reward("dynamic_degree", written(halves))
    assert judge(torch.rand(1, 2, 3, 64, 64), ["-"]).shape == (1,)  # computed in fp32


def test_weights_with_nan_are_refused(tmp_path: Path) -> None:
    path = _written(tmp_path, "clip.safetensors", damage="visual.conv1.weight")
    with pytest.raises(RewardError, match=r"1 contain NaN: visual\.conv1\.weight"):
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


def test_a_package_that_is_not_installed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(build_raft("raft_small").state_dict(), tmp_path / "raft.pth")
    monkeypatch.setitem(sys.modules, "torchvision.models", None)
    with pytest.raises(RewardError, match=r"kind dynamic_degree needs torchvision, .*pip"):
        load_reward("dynamic_degree", tmp_path / "raft.pth")


def test_a_package_that_is_too_old_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is there, and the model is not in it."""
    monkeypatch.setitem(sys.modules, "transformers", ModuleType("transformers"))
    with pytest.raises(RewardError, match=r"kind vjepa2 needs transformers, .*VJEPA2Config"):
        load_reward("vjepa2", "tiny/vjepa2.safetensors")
