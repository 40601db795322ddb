import subprocess
import sys

import pytest

from rewards.core.torchvision_import import needs_declaration


@pytest.mark.parametrize(
    ("version", "cuda", "hip", "needed"),
    [
        ("__version__ = '0.28.0+cu130'", None, None, True),
        ("__version__ = '0.28.0+cu130'", "13.0", None, False),
        ("__version__ = '0.28.0+cu130'", None, "6.4", False),
        ("__version__ = '0.28.0+cpu'", None, None, False),
    ],
)
def test_only_a_cuda_torchvision_on_a_cpu_torch_needs_it(
    version: str, cuda: str | None, hip: str | None, needed: bool
) -> None:
    assert needs_declaration(version, cuda=cuda, hip=hip) is needed


SCRIPT = """
import torch
from rewards.core import torchvision_import
def fake(dets, scores, iou_threshold):
    return dets
try:
    torch.library.register_fake("torchvision::nms")(fake)
except RuntimeError as error:
    assert "nms" in str(error), error
else:
    raise SystemExit("the operator exists already: this proves nothing")
torch.version.cuda, torchvision_import.needs_declaration = None, lambda *a, **k: True
torchvision_import.ensure_torchvision_importable()
torchvision_import.ensure_torchvision_importable()
for name in ("nms", "qnms"):
    torch.library.register_fake("torchvision::" + name)(fake)
print("declared")
"""


def test_declaring_mends_what_torchvision_does_at_import() -> None:
    """``register_fake`` is where a CUDA torchvision fails at import beside a CPU-only torch."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT], capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "declared", done.stderr
