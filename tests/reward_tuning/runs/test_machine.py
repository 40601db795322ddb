import json
import os
import platform
import re
from pathlib import Path

import psutil
import pytest
import torch

from reward_tuning.errors import TuningError
from reward_tuning.runs.machine import MACHINE, machine_facts, record_start


def test_each_start_adds_a_row(tmp_path: Path) -> None:
    cpu = torch.device("cpu")
    record_start(tmp_path, cpu, step=0, processes=2, memory_keys={"generator.memory": "resident"})
    record_start(tmp_path, cpu, step=40, processes=2, memory_keys={"generator.memory": "offload"})
    rows = [json.loads(line) for line in (tmp_path / MACHINE).read_text().splitlines()]
    assert [(row["step"], row["processes"], row["device"]) for row in rows] == [
        (0, 2, "cpu"),
        (40, 2, "cpu"),
    ]
    assert [row["recipe"]["generator.memory"] for row in rows] == ["resident", "offload"]
    assert rows[0]["cores"] == os.cpu_count()
    assert rows[0]["memory"] == psutil.virtual_memory().total
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", rows[0]["begun"])


def test_no_row_names_the_machine_or_its_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "node", lambda: "secret-host")
    text = json.dumps(machine_facts(torch.device("cpu")))
    assert "secret-host" not in text
    assert str(Path.home()) not in text


def test_a_gpu_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"name of {device}")
    facts = machine_facts(torch.device("cuda", 1))
    assert (facts["device"], facts["gpu"]) == ("name of cuda:1", True)


def test_a_folder_that_is_gone_is_an_error_with_advice(tmp_path: Path) -> None:
    with pytest.raises(TuningError, match=r"machine.jsonl could not be written"):
        record_start(tmp_path / "gone", torch.device("cpu"), step=0, processes=1, memory_keys={})
