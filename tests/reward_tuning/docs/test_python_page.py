"""The example of docs/python.md runs as it is shown, and its table lists what `rt` offers."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import reward_tuning as rt

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")


def test_the_table_lists_every_name() -> None:
    table = "\n".join(line for line in PAGE.splitlines() if line.startswith("| `rt."))
    assert set(re.findall(r"`rt\.(\w+)", table)) == set(rt.__all__)


@pytest.mark.slow
def test_the_example_runs(tmp_path: Path) -> None:
    example = "\n".join(re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL))
    done = subprocess.run(
        [sys.executable, "-c", example],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "tuned.mp4").stat().st_size > 1000
    assert (tmp_path / "runs" / "from-python" / "evaluation.json").is_file()
    lines = done.stdout.splitlines()
    assert any(line.startswith("training 2 2") for line in lines)
    assert lines[-1] == "torch.Size([1, 16, 3, 8, 8])"
    sides = [
        line.split()[0] for line in lines if re.fullmatch(r"(base|from-python.*) [\d.]+", line)
    ]
    assert sides[0] == "base"
    assert len(sides) == 3
    scores = re.findall(r"tensor\(\[(-?[\d.]+), (-?[\d.]+)\]", done.stdout)
    base, tuned, half = scores
    assert len({base, tuned, half}) == 3  # two steps already move every clip
