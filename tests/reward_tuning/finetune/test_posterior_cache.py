"""Posteriors on the disk: each is computed once, and a damaged one again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from reward_tuning.errors import TuningError
from reward_tuning.finetune.posterior_cache import PosteriorCache

MOMENTS = torch.arange(8.0).view(2, 4)


class Vae:
    """Counts how often it encodes."""

    calls = 0

    def __call__(self) -> Tensor:
        self.calls += 1
        return MOMENTS.to(torch.bfloat16)


@pytest.fixture
def vae() -> Vae:
    return Vae()


def test_one_file_for_each_part_and_vae(tmp_path: Path, vae: Vae) -> None:
    cache = PosteriorCache(tmp_path / "cache", "vae 1")
    for identity in (["a", 0], ["a", 0], ["a", 1]):
        found = cache.get(lambda identity=identity: identity, vae)  # type: ignore[misc]
        assert found.dtype == torch.float32
        assert torch.equal(found, MOMENTS)
    assert (vae.calls, cache.hits, cache.misses) == (2, 1, 2)
    assert len(list((tmp_path / "cache").iterdir())) == 2
    again = PosteriorCache(tmp_path / "cache", "vae 1")
    again.get(lambda: ["a", 1], vae)
    assert (vae.calls, again.hits) == (2, 1)
    other = PosteriorCache(tmp_path / "cache", "vae 2")
    other.get(lambda: ["a", 1], vae)
    assert (vae.calls, other.misses) == (3, 1)


def test_without_a_folder_nothing_is_kept_nor_hashed(vae: Vae) -> None:
    def never() -> list[object]:
        raise AssertionError("the file was hashed")

    cache = PosteriorCache(None, "vae")
    for _ in range(2):
        assert torch.equal(cache.get(never, vae), MOMENTS)
    assert (vae.calls, cache.hits, cache.misses) == (2, 0, 0)


@pytest.mark.parametrize("place", [0, -1])
def test_a_damaged_file_is_made_again(
    tmp_path: Path, vae: Vae, place: int, caplog: pytest.LogCaptureFixture
) -> None:
    PosteriorCache(tmp_path, "vae").get(lambda: ["a"], vae)
    (file,) = tmp_path.iterdir()
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)
    cache = PosteriorCache(tmp_path, "vae")
    assert torch.equal(cache.get(lambda: ["a"], vae), MOMENTS)
    assert (cache.hits, cache.misses) == (0, 1)
    assert "is damaged" in caplog.text
    assert torch.equal(PosteriorCache(tmp_path, "vae").get(lambda: ["a"], vae), MOMENTS)
    assert vae.calls == 2


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path, vae: Vae) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TuningError, match="could not be written"):
        PosteriorCache(tmp_path / "file", "vae").get(lambda: ["a"], vae)
