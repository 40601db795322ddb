"""Names of a LoRA's tensors: built, read back, and those that peft itself gives."""

import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from torch import nn

from reward_tuning.lora.names import PEFT_PREFIX, factors_by_module, tensors_by_name


def test_names_are_those_of_peft() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=["0", "2"]))
    theirs = get_peft_model_state_dict(adapted)
    factors = {
        "0": (torch.zeros(2, 4), torch.zeros(6, 2)),
        "2": (torch.zeros(2, 6), torch.zeros(3, 2)),
    }
    ours = tensors_by_name(factors, PEFT_PREFIX)
    assert {name: tensor.shape for name, tensor in ours.items()} == {
        name: tensor.shape for name, tensor in theirs.items()
    }


def test_names_are_read_back_in_their_order() -> None:
    factors = {path: (torch.rand(2, 4), torch.rand(6, 2)) for path in ("b.to_q", "a.to_k")}
    named = tensors_by_name(factors)
    assert list(named) == [
        "b.to_q.lora_A.weight",
        "b.to_q.lora_B.weight",
        "a.to_k.lora_A.weight",
        "a.to_k.lora_B.weight",
    ]
    again = factors_by_module(named)
    assert list(again) == ["b.to_q", "a.to_k"]
    for path, (down, up) in factors.items():
        assert again[path][0] is down
        assert again[path][1] is up
