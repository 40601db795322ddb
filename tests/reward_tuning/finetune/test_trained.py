"""An adapter, or every weight: what is trained, and what the model is while it is measured."""

from __future__ import annotations

import pytest
import torch

from reward_tuning.errors import TuningError
from reward_tuning.finetune.trained import exported_weights, trained_part
from reward_tuning.progress import silent
from reward_tuning.runs.training_state import Ema, TrainingState
from reward_tuning.schema.sections import LoraSection
from tests.reward_tuning.tiny_transformer import tiny_transformer


def test_an_adapter_leaves_the_base_frozen() -> None:
    model = tiny_transformer()
    section = LoraSection(rank=2, alpha=2.0, targets="attention")
    trained = trained_part(model, section, seed=1, progress=silent)
    names = {name for name, p in model.named_parameters() if p.requires_grad}
    assert names and all("lora" in name for name in names)
    assert len(trained.parameters) == len(names) == len(trained.state())


def test_without_an_adapter_every_weight_is_trained() -> None:
    model, other = tiny_transformer(), tiny_transformer(seed=1)
    model.requires_grad_(False)
    trained = trained_part(model, None, seed=1, progress=silent)
    assert all(p.requires_grad for p in model.parameters())
    assert len(trained.parameters) == len(list(model.parameters()))
    trained.load(dict(other.named_parameters()))
    for own, given in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(own, given)


@pytest.mark.parametrize("change", ["missing", "shape"])
def test_weights_of_another_transformer_are_refused(change: str) -> None:
    model = tiny_transformer()
    trained = trained_part(model, None, seed=1, progress=silent)
    state = {name: tensor.clone() for name, tensor in trained.state().items()}
    name = next(iter(state))
    if change == "missing":
        del state[name]
    else:
        state[name] = state[name][:1]
    with pytest.raises(TuningError, match="another transformer"):
        trained.load(state)


def test_the_model_is_its_average_within_the_context_alone() -> None:
    model = tiny_transformer()
    trained = trained_part(model, None, seed=1, progress=silent)
    optimiser = torch.optim.SGD(trained.parameters, lr=0.1)
    average = Ema(trained.state(), 0.9)
    name, tensor = next(iter(trained.state().items()))
    start = tensor.clone()
    with torch.no_grad():
        trained.parameters[0].add_(1.0)
    state = TrainingState(optimiser=optimiser, ema=average)
    with pytest.raises(ZeroDivisionError), exported_weights(trained, state) as weights:
        assert torch.equal(weights[name], start)
        assert torch.equal(trained.parameters[0], start)
        raise ZeroDivisionError
    assert torch.equal(trained.parameters[0], start + 1.0)  # also where the body fails
    with exported_weights(trained, TrainingState(optimiser=optimiser, ema=None)) as weights:
        assert torch.equal(weights[name], start + 1.0)
