#!/usr/bin/env bash
# OpenCV 5.0.0 (opencv-python-headless 5.0.0.93), seen 2026-11-29: GIFs that it writes do not keep the
# colours of a picture with two colours, and a larger colour table makes them worse.
#
# A GIF holds up to 256 colours of one's choice, so a picture of two colours fits exactly, and Pillow
# stores it so. cv2.imwrite (and imwriteanimation) dithers onto a fixed table instead: white comes back
# as (252, 252, 255), and 200, 120, 40 as a mixture of four colours. IMWRITE_GIF_QUALITY takes
# IMWRITE_GIF_COLORTABLE_SIZE_8 to _256, whose names promise a table of that size. SIZE_8 and SIZE_16
# write the same file, of eight colours; SIZE_32 to SIZE_256 write the same file, which is further from
# the picture than the default. imwrite returns True each time.
#
# Valid input: 64 x 64 uint8, one half (200, 120, 40), the other white.
#
# Output seen (mean absolute error in levels of 255, and number of colours):
#   Pillow                 0.00  2 colours
#   default               11.29  9 colours
#   SIZE_8                46.52  8 colours
#   SIZE_16               46.52  8 colours
#   SIZE_32               20.38  9 colours
#   SIZE_256              20.38  9 colours
#
# Exits with 0 while that holds, with 1 when it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  opencv-python-headless==5.0.0.93 numpy==2.3.5 pillow==12.3.0
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import sys

import cv2
import numpy as np
from PIL import Image

picture = np.full((64, 64, 3), 255, dtype=np.uint8)
picture[:, :32] = (200, 120, 40)


def report(name: str, path: str, reference: np.ndarray) -> tuple[float, int]:
    read = np.asarray(Image.open(path).convert("RGB"))
    error = float(np.abs(read.astype(int) - reference).mean())
    colours = len(np.unique(read.reshape(-1, 3), axis=0))
    print(f"{name:20s} {error:6.2f}  {colours} colours")
    return error, colours


rgb = picture[..., ::-1]
Image.fromarray(rgb).save("pillow.gif")
exact = report("Pillow", "pillow.gif", rgb)
assert cv2.imwrite("default.gif", picture)
default = report("default", "default.gif", rgb)
found = {}
for size in (8, 16, 32, 256):
    flags = [cv2.IMWRITE_GIF_QUALITY, getattr(cv2, f"IMWRITE_GIF_COLORTABLE_SIZE_{size}")]
    assert cv2.imwrite(f"{size}.gif", picture, flags)
    found[size] = report(f"SIZE_{size}", f"{size}.gif", rgb)
same = exact == (0.0, 2) and default[0] > 5 and found[8] == found[16] and found[16][1] == 8
sys.exit(not (same and found[32] == found[256] and found[256][0] > default[0]))
PY
