"""An mp4 by ffmpeg, whose failures are seen.

imageio's own writer starts the same ffmpeg and does not look how it ends: on a full disk it leaves
a file that no player opens, and says nothing.
"""

import subprocess
from pathlib import Path
from typing import Any

import numpy as np

from reward_tuning.files import ffmpeg

CRF = 12  # x264's quality; about 40 dB and more, so that a file shows what was judged


def write_mp4(path: Path, video: "np.ndarray[Any, np.dtype[np.uint8]]", fps: float) -> None:
    """Write H.264 with 4:2:0 colour; the same frames give the same bytes.

    Args:
        path: Where; on a failure what there is of it is no video.
        video: `(f, H, W, 3)`; odd sides are filled up by one pixel, which this colour needs.
        fps: Frames a second.

    Raises:
        OSError: ffmpeg failed, such as on a full disk; with its reason.
    """
    height, width = video.shape[1:3]
    if height % 2 or width % 2:
        video = np.pad(video, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    height, width = video.shape[1:3]
    command = [ffmpeg.executable(), "-y", "-v", "error", "-xerror"]
    command += ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(fps)]
    command += ["-i", "-", "-an", "-vcodec", "libx264", "-pix_fmt", "yuv420p", "-crf", str(CRF)]
    # one thread: the same frames give the same bytes
    command += ["-threads", "1", "-bitexact", ffmpeg.file_url(path)]
    # `run` kills it where a signal leaves by an exception.
    done = subprocess.run(command, input=video.tobytes(), capture_output=True, check=False)
    if done.returncode:
        raise OSError(f"ffmpeg: {ffmpeg.reason(ffmpeg.said(done.stderr), done.returncode)}")
