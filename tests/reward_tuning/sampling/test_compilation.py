"""Compilation: the same outputs, and a message where no compiler works."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_a_machine_without_a_compiler_is_told(tmp_path: Path) -> None:
    program = (
        "import torch\n"
        "from reward_tuning.sampling.compilation import compiled\n"
        "from reward_tuning.errors import TuningError\n"
        "try:\n    compiled(torch.nn.Linear(2, 2))\n"
        "except TuningError as error:\n    print(error)\n"
    )
    found = {}
    for compiler in ("no-such-compiler", None):
        own = {"CXX": compiler, "PATH": str(tmp_path)} if compiler else {}
        found[compiler] = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, **own, "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / str(compiler))},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    assert "torch.compile does not work here" in found["no-such-compiler"]
    assert "rollout.compile=false" in found["no-such-compiler"]
    assert found[None] == ""
