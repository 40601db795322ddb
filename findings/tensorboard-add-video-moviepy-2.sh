#!/usr/bin/env bash
# torch 2.15.0, tensorboard 2.21.0, moviepy 2.2.1, imageio 2.38.1 (CPU), seen 2026-11-29:
# SummaryWriter.add_video writes an event without a clip, and does not raise.
#
# torch imports `moviepy.editor`, which moviepy dropped in 2.0 (November 2024). The import error is
# caught, and the printed line blames other packages: "moviepy is installed, but can't import
# moviepy.editor. Some packages could be missing [imageio, requests]". Both are installed here. The
# step and the tag reach the file, so the writer looks as if it worked; TensorBoard shows no clip. With
# moviepy 1.0.3 the same code writes a GIF.
#
# Valid input: (1, 8, 3, 32, 32) uint8, as documented.
#
# Output seen:
#   moviepy 2.2.1: bytes of the clip 0; printed: moviepy is installed, but can't import moviepy.editor. ...
#   moviepy 1.0.3: bytes of the clip 16542
#
# Exits with 0 while that holds, with 1 when it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
pip() { "$folder/venv/bin/pip" install --quiet --disable-pip-version-check "$@"; }
pip torch==2.15.0 tensorboard==2.21.0 numpy==2.3.5 requests==2.32.5 setuptools==80.9.0
cat > "$folder/video.py" <<'PY'
import sys
import warnings

warnings.filterwarnings("ignore")
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

folder = sys.argv[1]
torch.manual_seed(0)
clip = torch.randint(0, 256, (1, 8, 3, 32, 32), dtype=torch.uint8)
with SummaryWriter(folder) as writer:
    writer.add_video("clip", clip, global_step=1, fps=8)
events = EventAccumulator(folder)
events.Reload()
tags = events.Tags()["images"]
print(len(events.Images("clip")[0].encoded_image_string) if tags else 0)
PY
run() { "$folder/venv/bin/python" "$folder/video.py" "$folder/$1" 2>"$folder/stderr" | tee "$folder/$1.txt" | tail -n 1; }
pip moviepy==2.2.1 imageio==2.38.1
new=$(run two)
echo "moviepy 2.2.1: bytes of the clip $new; printed: $(head -n 1 "$folder/two.txt")"
pip moviepy==1.0.3 imageio==2.38.1
old=$(run one)
echo "moviepy 1.0.3: bytes of the clip $old"
[ "$new" -eq 0 ] && [ "$old" -gt 1000 ] && grep -q "can't import moviepy.editor" "$folder/two.txt"
