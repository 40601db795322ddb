"""Clips in 8 bits, as files and as pictures."""

import base64
import hashlib
import io

import numpy as np
import pytest
import torch
from PIL import Image

from rewards.core.shown_clip import ShownClip


def test_frames_are_rounded_to_8_bits() -> None:
    levels = torch.tensor([-1e-5, 0.0, 0.4 / 255, 0.6 / 255, 254.4 / 255, 1.0, 1.0 + 1e-5, 0.5])
    clip = levels.view(2, 1, 2, 2).expand(2, 3, 2, 2)
    shown = ShownClip.of(clip.double().requires_grad_(), 8.0)
    assert shown.frames.dtype == np.uint8
    assert shown.frames.shape == (2, 2, 2, 3)
    assert shown.frames[..., 0].ravel().tolist() == [0, 0, 0, 1, 254, 255, 255, 128]


def test_the_digest_is_of_shape_and_bytes() -> None:
    clip = ShownClip.of(torch.zeros(2, 3, 4, 6), 8.0)
    expected = hashlib.sha256(b"(2, 4, 6, 3)" + bytes(2 * 3 * 4 * 6)).hexdigest()
    assert clip.digest == expected
    assert ShownClip.of(torch.zeros(2, 3, 6, 4), 8.0).digest != expected
    changed = torch.zeros(2, 3, 4, 6)
    changed[1, 2, 3, 5] = 1 / 255
    assert ShownClip.of(changed, 8.0).digest != expected


@pytest.mark.parametrize(("form", "most"), [("png", 0), ("jpeg", 6)])
def test_frames_as_pictures(form: str, most: int) -> None:
    rows, columns = torch.meshgrid(
        torch.linspace(0, 1, 16), torch.linspace(0, 1, 24), indexing="ij"
    )
    frame = torch.stack([rows, columns, 1 - rows])
    clip = ShownClip.of(torch.stack([frame, frame.flip(1)]), 8.0)
    urls = clip.data_urls(form)  # type: ignore[arg-type]
    assert len(urls) == 2
    for url, expected in zip(urls, clip.frames, strict=True):
        head, content = url.split(",")
        assert head == f"data:image/{form};base64"
        read = np.asarray(Image.open(io.BytesIO(base64.b64decode(content))))
        assert np.abs(read.astype(int) - expected).max() <= most


def test_the_file_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    clip = ShownClip.of(torch.rand(1, 3, 16, 16), 8.0)
    first = clip.mp4
    monkeypatch.setattr("rewards.core.shown_clip.mp4_bytes", None)
    assert clip.mp4 is first
