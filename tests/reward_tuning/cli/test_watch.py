"""`reward-tuning watch` as people start it."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.reward_tuning.command_line import Command, command
from tests.reward_tuning.watch.run_files import write_run

run = pytest.fixture(command, name="run")


def test_it_prints_a_secret_address_and_serves_until_ctrl_c(tmp_path: Path) -> None:
    write_run(tmp_path / "runs/one")
    process = subprocess.Popen(
        [sys.executable, "-m", "reward_tuning.cli", "watch", str(tmp_path / "runs")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == f"{tmp_path / 'runs'}: 1 run\n"
        address = process.stdout.readline().strip()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/[\w-]{32}/", address)
        assert "ssh -L" in process.stdout.readline()
        with urllib.request.urlopen(f"{address}state", timeout=20) as answer:
            assert [one["name"] for one in json.load(answer)["runs"]] == ["one"]
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
        assert process.returncode == 130
        assert err == "\nstopped by Ctrl-C\n"
    finally:
        process.kill()


def test_what_cannot_be_watched_is_refused(run: Command, tmp_path: Path) -> None:
    result = run("watch", tmp_path / "missing")
    assert result.code == 2
    assert "missing does not exist; give a run folder" in result.err


def test_a_port_in_use_is_refused(run: Command, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        result = run("watch", tmp_path, "--port", port)
    assert result.code == 2
    assert f"port {port} cannot be used" in result.err
