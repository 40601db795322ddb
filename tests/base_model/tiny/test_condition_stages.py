"""Each stage trains, stops, continues, and its checkpoint loads."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from base_model.generator import Generator, load_generator
from base_model.tiny import condition_stages
from base_model.tiny.condition_stages import CONDITION_STAGES, ConditionTraining
from base_model.training.loop import Schedule

CHANNELS = {"inpaint": 33, "control": 48, "camera": 38}


@pytest.fixture(scope="module")
def generator() -> Generator:
    return load_generator("tiny", text_encoder=False)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    schedule = Schedule(steps=2, learning_rate=1e-3, warmup=1, checkpoint_every=1, report_every=1)
    monkeypatch.setattr(condition_stages, "SCHEDULE", schedule)
    monkeypatch.setattr(condition_stages, "CLIPS", 6)
    monkeypatch.setattr(condition_stages, "ENCODED_AT_ONCE", 3)
    monkeypatch.setattr(condition_stages, "LATENT_BATCH", 4)
    monkeypatch.setenv("REWARD_TUNING_CACHE", str(tmp_path / "cache"))
    yield


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("kind", CONDITION_STAGES)
def test_a_stage_trains_and_its_checkpoint_loads(kind: str, tmp_path: Path) -> None:
    training = ConditionTraining(
        kind, tmp_path / "work", base="tiny", seed=0, report=lambda *_: None
    )
    training.write_checkpoint(tmp_path / "own", command="a test")
    state = torch.load(tmp_path / "work" / f"{kind}.ckpt", weights_only=True)
    assert state["step"] == 2
    model = load_generator(tmp_path / "own")
    assert model.kind.name == kind
    weight = model.transformer.proj.weight
    assert weight.shape[1] == CHANNELS[kind]
    assert torch.equal(weight, state["ema"]["proj.weight"].to(torch.bfloat16).float())
    assert weight[:, 16:].any()  # the new channels have begun to learn
    with safe_open(tmp_path / "own" / "transformer" / "delta.safetensors", "pt") as file:
        assert file.metadata()["command"] == "a test"


@pytest.mark.slow
@pytest.mark.usefixtures("short")
def test_a_stopped_stage_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    def stop(_stage: str, step: int, _steps: int, numbers: dict[str, float]) -> None:
        if numbers and step == 1:
            raise KeyboardInterrupt

    def run(folder: Path, report: object) -> torch.Tensor:
        training = ConditionTraining(
            "camera",
            folder,
            base="tiny",
            seed=0,
            report=report,  # type: ignore[arg-type]
        )
        weight: torch.Tensor = training.run().transformer.proj.weight
        return weight

    whole = run(tmp_path / "whole", lambda *_: None)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts", stop)
    assert torch.equal(whole, run(tmp_path / "parts", lambda *_: None))
