"""One adapter in the layouts of the tools that people have."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from peft import LoraConfig, PeftModel
from safetensors.torch import save_file
from torch import Tensor, nn

from base_model.loading.key_map import to_original
from reward_tuning.lora.adapter import linear_modules
from reward_tuning.lora.export import import_adapter
from tests.reward_tuning.tiny_transformer import tiny_transformer

RANK = 4
Tensors = dict[str, Tensor]


class Factors(NamedTuple):
    down: Tensor
    up: Tensor

    @property
    def product(self) -> Tensor:
        return self.up.double() @ self.down.double()


def adapter() -> dict[str, Factors]:
    """Random factors for every linear layer of the tiny transformer."""
    draw = torch.Generator().manual_seed(7)
    return {
        path: Factors(
            torch.randn(RANK, layer.in_features, generator=draw),
            torch.randn(layer.out_features, RANK, generator=draw) * 0.1,
        )
        for path, layer in linear_modules(tiny_transformer()).items()
    }


ADAPTER = adapter()
FIRST = next(iter(ADAPTER))


def same_name(path: str) -> str:
    return path


def per_block(path: str) -> str:
    """As in a transformer whose blocks are compiled one by one."""
    block = re.compile(r"(transformer_blocks\.\d+)\.")
    return block.sub(r"\1._orig_mod.", path)


def dotted(
    prefix: str,
    down: str = "lora_A.weight",
    up: str = "lora_B.weight",
    *,
    rename: Callable[[str], str] = same_name,
    alpha: float | None = None,
) -> Tensors:
    """Keys with the modules' own dots."""
    found: Tensors = {}
    for path, factors in ADAPTER.items():
        name = prefix + rename(path)
        found |= {f"{name}.{down}": factors.down, f"{name}.{up}": factors.up}
        if alpha is not None:
            found[f"{name}.alpha"] = torch.tensor(alpha)
    return found


def flat(
    prefix: str, rename: Callable[[str], str] = to_original, alpha: float | None = 2.0
) -> Tensors:
    """Keys as kohya's scripts and the original trainer write them."""
    found: Tensors = {}
    for path, factors in ADAPTER.items():
        name = prefix + rename(path).replace(".", "_")
        found |= {f"{name}.lora_down.weight": factors.down, f"{name}.lora_up.weight": factors.up}
        if alpha is not None:
            found[f"{name}.alpha"] = torch.tensor(alpha)
    return found


def cut(tensors: Tensors, rank: int) -> Tensors:
    """The first module's factors at a smaller rank."""
    names = {FIRST, to_original(FIRST), FIRST.replace(".", "_")}
    names.add(to_original(FIRST).replace(".", "_"))
    found = dict(tensors)
    for key, tensor in tensors.items():
        if any(name in key for name in names) and tensor.dim() == 2:
            first = "lora_A" in key or "lora_down" in key
            found[key] = tensor[:rank] if first else tensor[:, :rank]
    return found


def save(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    plain = {key: tensor.contiguous().clone() for key, tensor in tensors.items()}
    if path.suffix == ".safetensors":
        save_file(plain, path, metadata=metadata)
    else:
        torch.save(plain, path)
    return path


def peft_folder(
    folder: Path,
    tensors: Tensors | None = None,
    weights: str = "adapter_model.safetensors",
    **changes: Any,
) -> Path:
    """A folder with a config as peft itself writes it."""
    LoraConfig(r=RANK, lora_alpha=8, target_modules=list(ADAPTER)).save_pretrained(folder)
    file = folder / "adapter_config.json"
    config = json.loads(file.read_text(encoding="utf-8")) | {"inference_mode": True, **changes}
    file.write_text(json.dumps(config), encoding="utf-8")
    save(folder / weights, dotted("base_model.model.") if tensors is None else tensors)
    return folder


def peft_change(folder: Path) -> dict[str, Tensor]:
    """What peft itself adds to each weight for a folder, fp64."""
    base = tiny_transformer()
    before = {path: layer.weight.detach().double() for path, layer in linear_modules(base).items()}
    model: Any = PeftModel.from_pretrained(base, str(folder))
    merged: nn.Module = model.merge_and_unload()
    return {
        path: layer.weight.detach().double() - before[path]
        for path, layer in linear_modules(merged).items()
    }


Make = Callable[[], Tensors]
MODEL = tiny_transformer().to("meta")


def change(path: Path) -> dict[str, Tensor]:
    """What a file adds to each weight: (alpha / rank) up down, fp64."""
    weights = import_adapter(path, MODEL)
    assert all(down.shape[0] == weights.rank for down, _ in weights.state.values())
    return {
        name: weights.alpha / weights.rank * (up.double() @ down.double())
        for name, (down, up) in weights.state.items()
    }


def assert_same(got: dict[str, Tensor], wanted: dict[str, Tensor], tolerance: float) -> None:
    assert got.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert float((got[name] - tensor).norm() / tensor.norm()) < tolerance, name


def by_formula(strength: float) -> dict[str, Tensor]:
    """As `merge_lora` of the original trainer: strength times up times down."""
    return {path: strength * factors.product for path, factors in ADAPTER.items()}
