"""wandb's own files are read record by record, up to where a kill cut them."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from reward_tuning.runs.wandb_log import BLOCK, last_logged_step, records

pb = pytest.importorskip("wandb.proto.wandb_internal_pb2")


def history(step: int, padding: int = 0) -> bytes:
    record = pb.Record()
    record.history.step.num = step
    item = record.history.item.add()
    item.key, item.value_json = "text", "x" * padding
    return bytes(record.SerializeToString())


def write(path: Path, messages: list[bytes], size: int | None = None) -> Path:
    """LevelDB's log as its documentation describes it, written independently of the reader."""
    out = bytearray(b":W&B\xe1\xbe\x00")
    for whole in messages:
        first, message = True, whole
        while True:
            left = BLOCK - len(out) % BLOCK
            if left < 7:
                out += b"\0" * left
                continue
            part, message = message[: left - 7], message[left - 7 :]
            kind = {(True, True): 1, (True, False): 2, (False, False): 3, (False, True): 4}[
                first, not message
            ]
            out += struct.pack("<IHB", 0, len(part), kind) + part
            first = False
            if not message:
                break
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(out[:size])
    return path


def test_records_across_blocks(tmp_path: Path) -> None:
    sizes = [10, 32700, 32760, 5, 100_000, 7]
    path = write(tmp_path / "a", [history(i, size) for i, size in enumerate(sizes)])
    found = list(records(path))
    assert [one.history.step.num for one in found] == [0, 1, 2, 3, 4, 5]
    assert [len(one.history.item[0].value_json) for one in found] == sizes


@pytest.mark.parametrize("size", [0, 7, 100, 40_000, 98_304])
def test_a_file_that_was_cut(tmp_path: Path, size: int) -> None:
    messages = [history(i, 1000) for i in range(100)]
    found = list(records(write(tmp_path / "a", messages, size)))
    assert [one.history.step.num for one in found] == list(range(len(found)))
    whole = sum(map(len, messages[: len(found) + 1]))
    assert whole + 7 * (len(found) + 1) > size - 7 * 4 - 7


def test_the_last_step_of_several_files(tmp_path: Path) -> None:
    assert last_logged_step(tmp_path) == -1
    write(tmp_path / "wandb/offline-run-1-a/run-a.wandb", [history(3), history(4)])
    write(tmp_path / "wandb/run-2-a/run-a.wandb", [history(2)])
    write(tmp_path / "wandb/offline-run-3-a/run-a.wandb", [])
    assert last_logged_step(tmp_path) == 4
