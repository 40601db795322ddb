from pathlib import Path

import pytest

from tests.goldens import write_checkpoint


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint a test may spoil."""
    return write_checkpoint(tmp_path / "checkpoint")
