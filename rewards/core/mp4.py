"""A clip as the bytes of an mp4 file that any player reads, nearly as it was."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np

from rewards.errors import RewardError

CRF = 6
"""x264's quality; 0 would be lossless, in a profile that few players read."""
SHOWN = 300  # characters of ffmpeg's message


def mp4_bytes(video: np.ndarray[Any, np.dtype[np.uint8]], fps: float) -> bytes:
    """Encode a clip as H.264 with 4:2:0 colour; the same frames give the same bytes.

    Args:
        video: Frames `(f, H, W, 3)`; an odd side is padded by a copy of its last pixels, since
            4:2:0 needs even ones.
        fps: Frames per second.

    Raises:
        RewardError: ffmpeg failed, such as on a full disk.
    """
    height, width = video.shape[1:3]
    if height % 2 or width % 2:
        video = np.pad(video, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        height, width = video.shape[1:3]
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-v", "error", "-xerror"]
    command += ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(fps)]
    command += ["-i", "-", "-an", "-vcodec", "libx264", "-pix_fmt", "yuv420p", "-crf", str(CRF)]
    # One thread: with several, the bytes depend on the machine. The index in front lets a server
    # play the clip while it arrives.
    command += ["-threads", "1", "-bitexact", "-movflags", "+faststart"]
    try:
        # A file, because an mp4 in a pipe would need fragments, which some readers refuse.
        with tempfile.TemporaryDirectory(prefix="judged-") as folder:
            file = Path(folder) / "clip.mp4"
            command.append(f"file:{file}")
            done = subprocess.run(command, input=video.tobytes(), capture_output=True, check=False)
            if done.returncode:
                said = done.stderr.decode(errors="replace").strip()[-SHOWN:]
                raise OSError(f"ffmpeg ended with code {done.returncode}: {said}")
            return file.read_bytes()
    except OSError as error:
        raise RewardError(
            f"a clip {tuple(video.shape)} cannot be written as mp4 for a judge ({error}); free "
            f"some space in {tempfile.gettempdir()}, or set TMPDIR to another folder"
        ) from error
