#!/bin/sh
# Pillow reads two kinds of 16-bit TIFF wrongly, without an error.
#
# Pillow 13.0.0, tifffile 2026.3.3. Linux, x86-64.
#
# 1. RGB of 16 bits in planes (PlanarConfiguration 2): opened as mode RGB of 8 bits, whose pixels are
#    the bytes of the 16-bit numbers, low and high in turn. 16-bit RGB that is interleaved is right.
# 2. Grey of 16 bits that counts from white (PhotometricInterpretation 0): mode I;16 with the levels
#    as they are stored, so the picture is a negative. At 1 to 8 bits Pillow turns such levels round.
#
# Exits with 1 if that changes.
set -eu

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q --disable-pip-version-check pillow==13.0.0 tifffile==2026.3.3 numpy==2.3.5

cd "$folder"
"$folder/env/bin/python" - <<'PYTHON'
import sys

import numpy as np
import tifffile
from PIL import Image

grey = np.arange(48 * 64, dtype=np.uint16).reshape(48, 64) * 21
colours = np.stack([grey, grey[::-1], 65535 - grey])
tifffile.imwrite("planes.tif", colours, photometric="rgb", planarconfig="separate")
tifffile.imwrite("from-white.tif", grey, photometric="miniswhite")
tifffile.imwrite("from-white-8.tif", (grey >> 8).astype(np.uint8), photometric="miniswhite")

planes = Image.open("planes.tif")
off = np.abs(np.asarray(planes).astype(int) - (colours >> 8).transpose(1, 2, 0)).max()
print(f"planes: mode {planes.mode}, largest difference from the high bytes {off} of 255")
deep, shallow = (np.asarray(Image.open(f"from-white{end}.tif")) for end in ("", "-8"))
stored, turned = np.array_equal(deep, grey), np.array_equal(shallow, 255 - (grey >> 8))
print(f"from white: 16 bits as stored {stored}, 8 bits turned round {turned}")
sys.exit(not (planes.mode == "RGB" and off > 200 and stored and turned))
PYTHON
