"""A clip that does not fit into memory: refused before it is sampled, with numbers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from base_model.core.family import ClipSize
from base_model.generator import load_generator
from base_model.networks.magvit import decode
from base_model.networks.tiled_decode import Tiling
from reward_tuning.errors import TuningError
from reward_tuning.estimate.live_memory import LiveMemory
from reward_tuning.sampling import clip_memory
from reward_tuning.sampling.clip_memory import check_clip_fits, reported_out_of_memory
from tests.reward_tuning.command_line import Command, command

run = pytest.fixture(command)
CPU = torch.device("cpu")


def test_generate_refuses_before_the_first_step(run: Command, tmp_path: Path) -> None:
    size = ("--frames", 49, "--height", 16384, "--width", 16384)
    output = tmp_path / "a.mp4"
    ran = run("generate", "--prompt", "a red star", "--output", output, *size)
    assert (ran.code, ran.out) == (2, "")
    assert "error: a clip of 49 frames of 16384 x 16384 needs at least 1346.5 GB" in ran.err
    assert "GB of cpu are free; use fewer or smaller frames, or --tiled-decode" in ran.err
    assert "clips" not in ran.err  # nothing was sampled
    assert not output.exists()


MEASURE = """
import torch
from pathlib import Path
from base_model.generator import load_generator
generator = load_generator("tiny", text_encoder=False)
generator.decode(torch.zeros(1, 16, 1, 8, 8))
def peak():  # not getrusage's, which a process inherits from the one that started it
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])
before = peak()
generator.decode(torch.zeros(1, 16, {latents}, {side}, {side}))
print((peak() - before) * 1024)
"""


def told_need(monkeypatch: pytest.MonkeyPatch, frames: int, side: int) -> float:
    told: list[float] = []

    def shown(count: float) -> str:
        told.append(count)
        return f"{count}"

    monkeypatch.setattr(clip_memory, "free_memory", lambda device: 0)
    monkeypatch.setattr(clip_memory, "gigabytes", shown)
    with pytest.raises(TuningError, match="to be decoded"):
        check_clip_fits(
            load_generator("tiny", text_encoder=False), ClipSize(frames, side, side), None
        )
    return told[0]


CLIPS = pytest.mark.parametrize(("frames", "side"), [(1, 512), (5, 256)])


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of a process from /proc")
@CLIPS
def test_the_need_is_a_lower_bound(monkeypatch: pytest.MonkeyPatch, frames: int, side: int) -> None:
    """What fits must not be refused, on any CPU."""
    program = MEASURE.format(latents=(frames - 1) // 4 + 1, side=side // 8)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert told_need(monkeypatch, frames, side) < int(done.stdout)


@CLIPS
def test_the_need_is_that_of_all_tensors(
    monkeypatch: pytest.MonkeyPatch, frames: int, side: int
) -> None:
    vae = load_generator("tiny", text_encoder=False).vae.to("meta")
    latents = torch.zeros(1, 16, (frames - 1) // 4 + 1, side // 8, side // 8, device="meta")
    memory = LiveMemory(lambda: "")
    with memory, torch.no_grad():
        decode(vae, latents)
    counted = sum(memory.peaks[""].values())
    assert 0.9 * counted < told_need(monkeypatch, frames, side) <= counted


def test_tiles_need_less(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = load_generator("tiny", text_encoder=False)
    monkeypatch.setattr(clip_memory, "free_memory", lambda device: 2 * 10**9)
    size = ClipSize(9, 1024, 1024)
    with pytest.raises(TuningError, match=r"to be decoded, .* or --tiled-decode"):
        check_clip_fits(generator, size, None)
    check_clip_fits(generator, size, Tiling())


def test_an_allocation_that_fails_is_told() -> None:
    with (
        pytest.raises(TuningError, match=r"a clip does not fit into memory \(.*allocate"),
        reported_out_of_memory("a clip"),
    ):
        torch.empty(2**60)
    with pytest.raises(RuntimeError, match="mat1 and mat2"), reported_out_of_memory("a clip"):
        torch.zeros(2, 3) @ torch.zeros(2, 3)
