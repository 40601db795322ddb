from pathlib import Path

import pytest

from tests.reward_tuning.pretrain.small_judges import (
    CROSS_JUDGES,
    FRAME_JUDGES,
    shrink,
    train_small,
    train_small_cross,
)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of every judge of single frames and of latents, each trained for a few steps."""
    folder = tmp_path_factory.mktemp("judges")
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch)
        for name in FRAME_JUDGES:
            train_small(name, folder)
    return folder


@pytest.fixture(scope="session")
def trained_cross(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the judges with cross-attention, each trained for two steps."""
    folder = tmp_path_factory.mktemp("cross-judges")
    for name in CROSS_JUDGES:
        train_small_cross(name, folder)
    return folder
