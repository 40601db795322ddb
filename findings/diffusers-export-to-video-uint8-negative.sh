#!/usr/bin/env bash
# diffusers 0.42.1 (imageio 2.38.1, imageio-ffmpeg 0.8.1), seen 2026-11-29: `export_to_video` writes the
# photographic negative of a clip whose frames are uint8 arrays, without a warning.
#
# The type of the argument is `list[np.ndarray]`. An array of any dtype is multiplied by 255 and cast to
# uint8. For uint8 the product wraps around: x * 255 mod 256 is -x mod 256, so every pixel x > 0 becomes
# 256 - x and black stays black. uint8 frames are what most readers of video return; the same frames as
# PIL images, or as floats in [0, 1], are right.
#
# Valid input: 4 frames of 64 x 64, one grey level of 200 each.
#
# Output seen (mean level of the file's frames, as ffmpeg decodes them):
#   PIL images    200
#   uint8 arrays   55
#
# Exits with 0 while that holds, with 1 when it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check diffusers==0.42.1 \
  imageio==2.38.1 imageio-ffmpeg==0.8.1 numpy==2.3.5 pillow==12.3.0
cd "$folder"
"$folder/venv/bin/python" - 2>/dev/null <<'PY'
import sys

import imageio.v3 as iio
import numpy as np
from diffusers.utils import export_to_video
from PIL import Image

frames = [np.full((64, 64, 3), 200, dtype=np.uint8) for _ in range(4)]
export_to_video([Image.fromarray(frame) for frame in frames], "pil.mp4", fps=8)
export_to_video(frames, "arrays.mp4", fps=8)
pil, arrays = (float(iio.imread(f"{name}.mp4").mean()) for name in ("pil", "arrays"))
print(f"PIL images    {pil:.0f}")
print(f"uint8 arrays  {arrays:3.0f}")
sys.exit(not (abs(pil - 200) < 3 and abs(arrays - 56) < 3))
PY
