"""A full or read-only file system, a real one, at each of a run's kinds of writes."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping

import pytest

from tests.reward_tuning.tiny_run import write_world

ALONE = ("unshare", "--map-root-user", "--mount")


def may_mount() -> bool:
    """Whether a user may have a file system of their own here."""
    if shutil.which("unshare") is None:
        return False
    test = "mount -t tmpfs -o size=4096 tmpfs /mnt"
    return (
        subprocess.run([*ALONE, "sh", "-c", test], capture_output=True, check=False).returncode == 0
    )


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not may_mount(), reason="needs a user namespace with a file system of its own"
    ),
]


@pytest.fixture(scope="module")
def messages(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    world = write_world(tmp_path_factory.mktemp("world"))
    place = tmp_path_factory.mktemp("disk")
    done = subprocess.run(
        [*ALONE, sys.executable, "-m", "tests.reward_tuning.small_disk", str(world), str(place)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    return {
        moment: re.sub(r"\.tmp-\d+", ".tmp", text.replace(str(place), "DISK"))
        for moment, text in found.items()
    }


FULL = "could not be written: No space left on device. Its earlier content is unchanged; free"
CLIP = "cannot be written (ffmpeg: No space left on device); free some space"


@pytest.mark.parametrize(
    ("moment", "told"),
    [
        ("samples", f"clip DISK/samples/samples/step-000000/00.mp4: {CLIP}"),
        ("checkpoint", f"DISK/checkpoint/checkpoints/step-000002 {FULL}"),
        ("export", f"DISK/export/.lora.tmp/adapter_model.safetensors {FULL}"),
        ("evaluation", f"clip DISK/evaluation/evaluation/step-000002/tuned/00.mp4: {CLIP}"),
        ("read-only", "DISK/read-only/checkpoints/step-000002 could not be written: Read-only"),
    ],
)
def test_a_run_ends_with_the_file_and_resumes_into_the_same_bytes(
    messages: Mapping[str, str], moment: str, told: str
) -> None:
    assert messages[moment].startswith(told)
