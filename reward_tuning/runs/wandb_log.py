"""Read the files that wandb writes on this machine: the last step that reached the disk.

wandb writes them in blocks of 32 KiB, so a killed process leaves less than it logged
(findings/wandb-offline-killed.sh). The format is LevelDB's log: each block holds chunks of checksum
(4 bytes), length (2), kind (1: whole, 2: first, 3: middle, 4: last) and data; a record is a message
of wandb's protocol.
"""

from __future__ import annotations

import importlib
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HEAD, BLOCK, CHUNK = 7, 32768, struct.Struct("<IHB")
WHOLE, LAST = 1, 4


def records(path: Path) -> Iterator[Any]:
    """Yield the records (`wandb_internal_pb2.Record`) of a file, up to where it is cut short."""
    protocol = importlib.import_module("wandb.proto.wandb_internal_pb2")
    data = path.read_bytes()
    place, whole = HEAD, b""
    while place + CHUNK.size <= len(data):
        left = BLOCK - place % BLOCK
        if left < CHUNK.size:  # too little for another chunk; the block is filled up
            place += left
            continue
        _, length, kind = CHUNK.unpack_from(data, place)
        place += CHUNK.size
        if not kind or place + length > len(data):
            return
        whole += data[place : place + length]
        place += length
        if kind in (WHOLE, LAST):
            yield protocol.Record.FromString(whole)
            whole = b""


def last_logged_step(folder: Path) -> int:
    """Return the highest step in all files of a run; -1 for none.

    Args:
        folder: Folder with the `wandb` folder of the run.
    """
    steps = [
        record.history.step.num
        for path in folder.glob("wandb/*run-*/run-*.wandb")
        for record in records(path)
        if record.WhichOneof("record_type") == "history"
    ]
    return max(steps, default=-1)
