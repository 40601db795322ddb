"""Which device a part works on, and that it exists."""

import re

import pytest
import torch

from reward_tuning.errors import TuningError
from reward_tuning.sampling.devices import placed, require_device


def test_a_named_device_or_the_runs() -> None:
    assert placed("cpu", torch.device("cuda")) == torch.device("cpu")
    assert placed("cuda:1", torch.device("cpu")) == torch.device("cuda", 1)
    assert placed(None, torch.device("cuda", 3)) == torch.device("cuda", 3)


@pytest.mark.parametrize(
    ("cards", "name", "told"),
    [
        (0, "cuda", "this machine has cpu. Name"),
        (2, "cuda:2", "this machine has cpu, cuda:0, cuda:1. Name"),
        (2, "cuda:1", None),
        (1, "cuda", None),
        (0, "cpu", None),
        (0, None, None),
    ],
)
def test_devices_of_this_machine(
    monkeypatch: pytest.MonkeyPatch, cards: int, name: str | None, told: str | None
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cards > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cards)
    if told is None:
        require_device("generator.x", name)
        return
    with pytest.raises(TuningError, match=re.escape(f"generator.x is {name}; {told}")):
        require_device("generator.x", name)


def test_several_processes_do_not_share_a_card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(TuningError, match=r"generator\.vae_device is cuda:1, where each of the 2"):
        require_device("generator.vae_device", "cuda:1")
    require_device("generator.vae_device", "cpu")
