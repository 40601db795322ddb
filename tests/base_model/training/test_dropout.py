import pytest
import torch

from base_model.core.kinds import KINDS
from base_model.training.dropout import draw_dropped, without_control, without_text


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_share_of_the_samples_is_dropped() -> None:
    assert draw_dropped(20000, 0.1, seeded()).float().mean().item() == pytest.approx(0.1, abs=0.01)
    assert not draw_dropped(100, 0.0, seeded()).any()
    assert draw_dropped(100, 1.0, seeded()).all()


def test_the_empty_prompt_takes_the_place_of_a_dropped_one() -> None:
    text, empty = torch.randn(3, 4, 5, generator=seeded()), torch.full((4, 5), 7.0)
    found = without_text(text, empty, torch.tensor([False, True, False]))
    assert torch.equal(found[1], empty)
    assert torch.equal(found[[0, 2]], text[[0, 2]])


@pytest.mark.parametrize("channels", [38, 48])
def test_control_and_reference_are_dropped_apart(channels: int) -> None:
    kind, count = KINDS[channels], 4000
    found = without_control(torch.ones(count, kind.extra, 1, 1, 1), kind, seeded())[..., 0, 0, 0]
    control, reference = found[:, :-16], found[:, -16:]
    assert all(set(part.unique().tolist()) <= {0.0, 1.0} for part in (control, reference))
    assert (control == control[:, :1]).all()
    assert (reference == reference[:, :1]).all()
    assert 1 - reference.mean().item() == pytest.approx(0.2, abs=0.02)
    # rays are never dropped
    assert 1 - control.mean().item() == pytest.approx(0.2 if channels == 48 else 0.0, abs=0.02)
    if channels == 48:
        both = ((control[:, 0] == 0) & (reference[:, 0] == 0)).float().mean().item()
        assert both == pytest.approx(0.04, abs=0.01)  # independent
