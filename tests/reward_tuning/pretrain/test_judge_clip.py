"""The losses, the silhouettes and the adversarial step of the CLIPs' training."""

import json
from pathlib import Path

import pytest
import torch

from reward_tuning.pretrain import judge_clip
from reward_tuning.pretrain.judge_clip import attacked, contrastive_loss, silhouettes
from rewards.clip_towers.open_clip_models import build_model
from tests.reward_tuning.pretrain.small_judges import (
    SMALL,
    clean,
)


def test_silhouettes_are_white_shapes_on_black() -> None:
    frames = clean()
    shapes = silhouettes(frames)
    assert torch.equal(shapes[:, 0], shapes[:, 1])
    assert torch.equal(shapes[:, 0], shapes[:, 2])
    torch.testing.assert_close(shapes.amax(dim=(1, 2, 3)), torch.ones(len(frames)))
    # Grey is black, whatever its tone: most of every frame is background.
    assert float((shapes < 1e-3).float().mean(dim=(1, 2, 3)).min()) > 0.7
    colour = torch.tensor([0.2, 0.9, 0.3])[:, None, None]
    square = torch.full((3, 8, 8), 0.6)
    square[:, 2:5, 2:5] = colour
    assert silhouettes(square[None])[0, 0].sum() == 9


def test_contrastive_loss_is_clips_with_one_positive_each() -> None:
    logits = torch.randn(5, 5)
    labels = torch.arange(5)
    ce = torch.nn.functional.cross_entropy
    expected = (ce(logits, labels) + ce(logits.T, labels)) / 2
    torch.testing.assert_close(contrastive_loss(logits, torch.eye(5)), expected)


def test_contrastive_loss_is_least_where_probabilities_are_the_matches() -> None:
    match = torch.tensor([[1.0, 0.5, 0.0], [0.0, 0.5, 1.0], [0.5, 0.0, 0.0]])
    logits = torch.zeros(3, 3, requires_grad=True)
    optimizer = torch.optim.LBFGS([logits], max_iter=200)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = contrastive_loss(logits, match)
        loss.backward()
        return loss

    optimizer.step(closure)
    rows = logits.detach().softmax(dim=1)
    assert rows.argmax(dim=1).tolist() == [0, 2, 0]


def test_the_attack_lowers_every_margin_and_has_its_length() -> None:
    torch.manual_seed(0)
    model = build_model(SMALL, torch.device("cpu")).eval()
    frames = (0.1 + 0.8 * clean(8)).contiguous()
    texts = torch.nn.functional.normalize(torch.randn(4, SMALL["embed_dim"]), dim=1)
    moved = attacked(model, frames, texts, torch.full((8,), 0.1))
    torch.testing.assert_close((moved - frames).flatten(1).norm(dim=1), torch.full((8,), 0.1))

    def margins(x: torch.Tensor) -> torch.Tensor:
        a, b = model.encode_image(judge_clip.normalised(x), normalize=True).chunk(2)
        return ((a - b) * texts).sum(dim=1)

    assert bool((margins(moved) < margins(frames)).all())


@pytest.mark.slow
def test_preference_pairs_join_the_captions_of_the_held_out_judge(trained: Path) -> None:
    names = ("clip", "clip-held-out", "pickscore")
    logs = {name: trained / "training" / f"{name}.jsonl" for name in names}
    last = {name: json.loads(log.read_text().splitlines()[-1]) for name, log in logs.items()}
    assert "retrieved" in last["clip"]
    assert "preferred" not in last["clip"]
    assert 0.0 <= last["clip-held-out"]["preferred"] <= 1.0
    assert 0.0 <= last["pickscore"]["preferred"] <= 1.0
