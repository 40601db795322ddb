"""Text states of the shipped checkpoint: those of its encoder, computed once."""

from pathlib import Path
from typing import Any

import pytest
import torch

from base_model.files.shipped import WEIGHTS
from base_model.loading.checkpoint import load_text_encoder
from reward_tuning.inputs import text_states as module
from reward_tuning.inputs.text_states import text_states
from reward_tuning.progress import ProgressEvent

CPU = torch.device("cpu")
PROMPTS = ["a small red star moves left", "", "a small red star moves left"]


def states(folder: Path, prompts: list[str], **options: Any) -> dict[str, torch.Tensor]:
    return text_states("tiny", prompts, dtype=torch.float32, device=CPU, folder=folder, **options)


def test_states_are_those_of_the_encoder_and_come_from_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[ProgressEvent] = []
    found = states(tmp_path, PROMPTS, progress=events.append)
    assert list(found) == PROMPTS[:2]
    encoder = load_text_encoder(WEIGHTS / "tiny", dtype=torch.float32, device=CPU)
    with torch.no_grad():
        expected = encoder(PROMPTS[:2])
    for prompt, state in zip(PROMPTS[:2], expected, strict=True):
        torch.testing.assert_close(found[prompt], state, rtol=1e-5, atol=1e-6)
    assert events[0].phase == "loading the text encoder"
    assert (events[-1].done, events[-1].total) == (2, 2)
    monkeypatch.setattr(module, "load_text_encoder", lambda *_, **__: pytest.fail("loaded"))
    again = states(tmp_path, PROMPTS)
    assert all(torch.equal(again[prompt], found[prompt]) for prompt in found)


def test_an_encoder_in_memory_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = load_text_encoder(WEIGHTS / "tiny", dtype=torch.float32, device=CPU)
    monkeypatch.setattr(module, "load_text_encoder", lambda *_, **__: pytest.fail("loaded"))
    assert states(tmp_path, ["a red star"], encoder=encoder)["a red star"].ndim == 2
