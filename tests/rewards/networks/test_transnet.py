"""TransNetV2 against the authors' network and plain loops."""

from typing import Any

import torch

from rewards.kinds.no_cuts import NoCuts
from rewards.networks.transnet import HEIGHT, WIDTH, band, histograms
from tests.rewards import transnet_oracle
from tests.rewards.transnet_oracle import shipped_weights

authors = transnet_oracle.authors
judge = transnet_oracle.judge


@shipped_weights
def test_both_outputs_are_those_of_the_authors_network(authors: Any, judge: NoCuts) -> None:
    draw = torch.Generator().manual_seed(1)
    frames = torch.randint(0, 256, (2, 12, HEIGHT, WIDTH, 3), generator=draw, dtype=torch.uint8)
    with torch.no_grad():
        last, others = authors(frames)
        found = judge.network(frames.permute(0, 1, 4, 2, 3).float() / 255)
    torch.testing.assert_close(found[0], last[..., 0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found[1], others["many_hot"][..., 0], atol=1e-5, rtol=1e-5)


def test_histograms_and_bands_against_loops() -> None:
    frames = torch.rand((1, 2, 3, 3, 4))
    found = histograms(frames)
    for time in range(2):
        counts = [0.0] * 512
        for red, green, blue in (frames[0, time] * 255).round().int().flatten(1).T.tolist():
            counts[(red >> 5) * 64 + (green >> 5) * 8 + (blue >> 5)] += 1
        assert found[0, time].tolist() == counts
    square = torch.rand(1, 3, 3)
    rows = band(square)[0]
    for time in range(3):
        for place in range(101):
            other = time + place - 50
            expected = float(square[0, time, other]) if 0 <= other < 3 else 0.0
            assert float(rows[time, place]) == expected
