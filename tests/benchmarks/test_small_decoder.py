"""What the benchmark of the small decoder compares, on random models."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from base_model.loading.checkpoint import load_vae
from base_model.loading.small_decoder import write_small_decoder
from base_model.networks.small_decoder import SmallDecoder, SmallDecoderConfig, vae_fingerprint
from benchmarks import small_decoder as benchmark
from reward_tuning.judges.judge import FramedJudge
from reward_tuning.progress import silent
from reward_tuning.tuning.parts import RunParts, load_parts
from tests.reward_tuning.tiny_run import tiny_recipe, write_world


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunParts]:
    world = write_world(tmp_path_factory.mktemp("world"))
    torch.manual_seed(0)
    decoder = SmallDecoder(SmallDecoderConfig(widths=(32, 24, 8), blocks=(1, 1, 1)))
    fingerprint = vae_fingerprint(load_vae(world / "generator"))
    write_small_decoder(world / "a.safetensors", decoder, fingerprint=fingerprint, command="none")
    keys = ("train.decoder=small", f"train.small_decoder={world / 'a.safetensors'}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REWARD_TUNING_CACHE", str(tmp_path_factory.mktemp("cache")))
        recipe = tiny_recipe(world, Path("unused"), *keys)
        yield load_parts(recipe, torch.device("cpu"), 2, silent)


def judges_of(parts: RunParts) -> list[FramedJudge]:
    return [judge for judge in parts.judges if isinstance(judge, FramedJudge)]


def test_cosines_of_each_decoder_at_each_level(parts: RunParts) -> None:
    rows = benchmark.compared(parts, judges_of(parts), 0, 1, 2)
    assert [row["sigma"] for row in rows] == [*parts.sigmas[:-1].tolist(), 0.0]
    for row in rows:
        assert 0.0 < row["psnr"] < 40.0
        for by in benchmark.OTHERS:
            assert row[f"{by} loss"] == pytest.approx(row[f"{by} clip"], abs=1e-4)  # one judge
            assert abs(row[f"{by} loss"]) < 0.9  # a student of random weights
    shown = benchmark.table(rows, "small-gradient").splitlines()
    assert shown[1].split() == ["sigma", "loss", "clip"]
    assert len(shown) == 2 + 5


def test_the_vae_itself_has_a_cosine_of_1(parts: RunParts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "OTHERS", ("vae",))
    rows = benchmark.compared(parts, judges_of(parts), 0, 1, 2)
    assert all(row["vae loss"] == pytest.approx(1.0, abs=1e-5) for row in rows)


def test_every_decoder_is_timed(parts: RunParts) -> None:
    seconds = benchmark.timed(parts, 2, 1)
    assert list(seconds) == ["vae", "small", "small-gradient"]
    assert all(value > 0 for value in seconds.values())
