"""The shorter forward pass of an adapted layer against peft's, to the bit."""

import copy
from typing import Any

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora.layer import Linear
from torch import Tensor, nn

from reward_tuning.lora.forward import use_direct_forward


def adapted(*, alpha: float = 8, dtype: torch.dtype = torch.float32) -> Any:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(96, 48)).to(dtype).requires_grad_(False)
    config = LoraConfig(r=8, lora_alpha=alpha, target_modules=["0"], init_lora_weights=False)
    layer = inject_adapter_in_model(config, model)[0]
    for part in (layer.lora_A, layer.lora_B):
        part["default"].to(torch.float32)
    return layer


def everything(layer: Any, x: Tensor) -> list[Tensor]:
    """Value, and the gradients of the input and of the adapter."""
    x = x.detach().requires_grad_()
    y = layer(x)
    weight = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(y.dtype)
    trained = [p for p in layer.parameters() if p.requires_grad]
    return [y, *torch.autograd.grad((y * weight).sum(), [x, *trained])]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Calls of peft's forward pass."""
    seen: list[Any] = []
    forward = Linear.forward

    def counted(self: Any, *args: Any, **kwargs: Any) -> Tensor:
        seen.append(self)
        result: Tensor = forward(self, *args, **kwargs)
        return result

    monkeypatch.setattr(Linear, "forward", counted)
    return seen


@pytest.mark.parametrize("sliced", [False, True])
def test_same_bits_as_peft(calls: list[Any], sliced: bool) -> None:
    layer, x = adapted(), torch.randn(3, 20, 96)
    x = x[:, 5:] if sliced else x
    expected = everything(layer, x)
    assert len(calls) == 1
    use_direct_forward(layer, "default")
    found = everything(layer, x)
    assert len(calls) == 1
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(found, expected, strict=True))
    assert found[-1].any()


@pytest.mark.parametrize("case", ["strength", "dtype", "off"])
def test_other_adapters_are_left_to_peft(calls: list[Any], case: str) -> None:
    layer = adapted(
        alpha=4 if case == "strength" else 8,
        dtype=torch.bfloat16 if case == "dtype" else torch.float32,
    )
    if case == "off":
        layer.enable_adapters(False)
    x = torch.randn(2, 5, 96).to(layer.base_layer.weight.dtype)
    expected = layer(x)
    use_direct_forward(layer, "default")
    assert torch.equal(layer(x), expected)
    assert len(calls) == 2


def test_a_copy_runs_its_own_weights() -> None:
    layer, x = adapted(), torch.randn(2, 5, 96)
    use_direct_forward(layer, "default")
    before, other = layer(x), copy.deepcopy(layer)
    with torch.no_grad():
        other.lora_B["default"].weight.zero_()
    assert torch.equal(layer(x), before)
    assert torch.equal(other(x), layer.base_layer(x))
