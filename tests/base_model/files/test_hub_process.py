"""The downloading process: its pulse, and errors as text. It patches classes, so it runs apart."""

import json
import subprocess
import sys
from pathlib import Path

from base_model.files.hub_process import download

ROOT = Path(__file__).parents[3]
PULSE = """
import json, socket
from base_model.files.hub_process import beat_on_bytes
beats = []
beat_on_bytes(lambda: beats.append(1))
here, there = socket.socketpair()
there.sendall(b"abc")
assert here.recv(2) == b"ab"
buffer = bytearray(1)
here.recv_into(buffer)
received = len(beats)
there.close()
here.recv(1)
print(json.dumps([received, len(beats), buffer.decode()]))
"""


def test_the_pulse_beats_for_bytes_and_not_for_the_end_of_a_stream() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", PULSE], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert json.loads(ran.stdout) == [2, 2, "c"]


def test_an_invalid_name_is_an_answer_and_not_a_traceback() -> None:
    answer = download("not/a/name", None, ["*.json"])
    assert set(answer) == {"error"}
    assert answer["error"].startswith("HFValidationError: ")
    assert "\n" not in answer["error"]
