#!/usr/bin/env bash
# torch 2.15.0, tensorboard 2.21.0 (CPU), seen 2026-12-01:
# A SummaryWriter with `purge_step` does not hide the events of the writer before it, if it is the
# eleventh writer of its process and the two were opened in the same second.
#
# TensorBoard's Python reader takes the event files of a folder in the order of their names, not of
# their events: `events.out.tfevents.SECOND.HOST.PID.COUNT`. COUNT is the number of the writer within
# its process, without padding, so that 10 sorts before 9, and 100 before 99; a writer opened after the clock was set back sorts first
# for the same reason. The later file is then read first: its session start has nothing to purge, and
# the values that it replaces are shown beside its own. The same two writers as the first and second
# of the process behave. A loop over short runs, or a set of tests in one process, meets it.
#
# Valid input: two writers on one folder, one after the other, the first one closed; scalars alone.
#
# Output seen:
#   writers 0 and 1: [(0, 5.0)]
#   writers 9 and 10: [(0, 5.0), (0, 1.0), (1, 1.0), (2, 1.0)]
#
# Exits with 0 while that holds, with 1 when it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    torch==2.15.0 tensorboard==2.21.0 numpy==2.3.5 setuptools==80.9.0
cat > "$folder/order.py" <<'PY'
import logging
import sys
import time
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

logging.disable()
root = Path(sys.argv[1])


def two_writers(folder: Path) -> list[tuple[int, float]]:
    time.sleep(1.0 - time.time() % 1.0)  # both in one second
    with SummaryWriter(str(folder)) as first:
        for step in (0, 1, 2):
            first.add_scalar("loss", 1.0, step)
    with SummaryWriter(str(folder), purge_step=0) as second:
        second.add_scalar("loss", 5.0, 0)
    seconds = {file.name.split(".")[3] for file in folder.iterdir()}
    assert len(seconds) == 1, seconds
    events = EventAccumulator(str(folder))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars("loss")]


early = two_writers(root / "early")
for number in range(2, 9):
    SummaryWriter(str(root / f"other-{number}")).close()
late = two_writers(root / "late")
print("writers 0 and 1:", early)
print("writers 9 and 10:", late)
same = early == [(0, 5.0)] and late == [(0, 5.0), (0, 1.0), (1, 1.0), (2, 1.0)]
sys.exit(0 if same else 1)
PY
"$folder/venv/bin/python" "$folder/order.py" "$folder/runs"
