#!/usr/bin/env bash
# wandb 0.31.0, seen 2026-11-30: an offline run whose process is killed has lost what it logged last.
#
# With WANDB_MODE=offline the file `run-ID.wandb` is the only copy of the data, and `wandb sync` is
# meant to send what a crashed run left. It is written in blocks of 32 KiB, and the block that is
# being filled is lost when the process that logs is killed (SIGKILL, as by the system when memory
# runs out). A run of 50 small steps, logged over a second and followed by two seconds of rest,
# leaves not one of them. After `finish` all 50 are there.
#
# We read the file when the run is resumed, and log the lost steps again from metrics.jsonl
# (reward_tuning/runs/wandb_log.py).
#
# Output seen:
#   finished: 50 of 50 steps in the file
#   killed: 0 of 50 steps in the file
#
# Exits with 0 while that holds, with 1 when it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check wandb==0.31.0
cat > "$folder/log.py" <<'PY'
import os
import signal
import sys
import time

import wandb

settings = wandb.Settings(console="off", silent=True)
run = wandb.init(mode="offline", dir=sys.argv[1], settings=settings)
for step in range(50):
    run.log({"loss": 1.0}, step=step)
    time.sleep(0.02)
time.sleep(2)
if sys.argv[2] == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
run.finish()
PY
cat > "$folder/count.py" <<'PY'
import struct
import sys
from pathlib import Path

from wandb.proto.wandb_internal_pb2 import Record

(path,) = Path(sys.argv[1]).glob("wandb/offline-run-*/run-*.wandb")
data, place, whole, steps = path.read_bytes(), 7, b"", 0
while place + 7 <= len(data):  # the format of LevelDB's log
    if 32768 - place % 32768 < 7:
        place += 32768 - place % 32768
        continue
    _, length, kind = struct.unpack_from("<IHB", data, place)
    whole += data[place + 7 : place + 7 + length]
    place += 7 + length
    if kind in (1, 4):
        steps += Record.FromString(whole).WhichOneof("record_type") == "history"
        whole = b""
print(steps)
PY
for end in finished killed; do
    mkdir "$folder/$end"
    "$folder/venv/bin/python" "$folder/log.py" "$folder/$end" "$end" >/dev/null 2>&1 || true
    sleep 3
    steps=$("$folder/venv/bin/python" "$folder/count.py" "$folder/$end")
    echo "$end: $steps of 50 steps in the file"
    echo "$steps" >"$folder/$end.txt"
done
[ "$(cat "$folder/finished.txt")" = 50 ] && [ "$(cat "$folder/killed.txt")" -lt 50 ]
