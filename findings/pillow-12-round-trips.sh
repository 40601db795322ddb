#!/bin/sh
# Pillow 12.3 cannot read back two files that it has just written; Pillow 13.0 can.
#
# Pillow 12.3.0 and 13.0.0. Linux, x86-64, Python 3.11 or newer.
#
# 1. A picture of mode YCbCr, saved as TIFF with the defaults: opening works, loading ends in
#    "image file is truncated (0 bytes not processed)". The file is whole: Pillow 13 reads it.
# 2. An animated PNG of pictures of mode P, each with a palette of its own: every frame after the
#    first comes back in the first one's colours, without an error. GIF and WebP keep them.
#
# Expected: what a library writes, it reads, in the version before as well as in this one. Here:
# constraints.txt has Pillow 13 where Python allows it; the extra `trackers` may bring 12.3 along,
# because trackio 0.43 wants Pillow below 13.
#
# Exits with 1 if that changes.
set -eu

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
for version in 12.3.0 13.0.0; do
    python3 -m venv "$folder/$version"
    "$folder/$version/bin/pip" install -q --disable-pip-version-check "pillow==$version"
done

cat >"$folder/try.py" <<'PYTHON'
import io

import PIL
from PIL import Image

colours = [(200, 40, 40), (40, 200, 40), (40, 40, 200)]
tiff, png = io.BytesIO(), io.BytesIO()
Image.new("RGB", (16, 16), colours[0]).convert("YCbCr").save(tiff, "TIFF")
try:
    Image.open(tiff).load()
    read = "reads it"
except OSError as error:
    read = str(error)
frames = [Image.new("RGB", (16, 16), colour).quantize(256) for colour in colours]
frames[0].save(png, "PNG", save_all=True, append_images=frames[1:], duration=100)
found, kept = Image.open(png), []
for place, colour in enumerate(colours):
    found.seek(place)
    kept.append(found.convert("RGB").getpixel((0, 0)) == colour)
print(f"{PIL.__version__}: TIFF: {read}; PNG: {kept}")
PYTHON
for version in 12.3.0 13.0.0; do
    "$folder/$version/bin/python" "$folder/try.py" | tee -a "$folder/said"
done
expected='12.3.0: TIFF: image file is truncated (0 bytes not processed); PNG: [True, False, False]
13.0.0: TIFF: reads it; PNG: [True, True, True]'
[ "$(cat "$folder/said")" = "$expected" ]
