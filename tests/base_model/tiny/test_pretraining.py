"""All stages of pre-training with a few steps each, and the checkpoint they end in."""

import importlib.util
import json
import random
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from base_model.files.shipped import resolve_checkpoint
from base_model.generator import load_generator
from base_model.loading.text_encoder_files import newer_than_easyanimate
from base_model.networks import magvit
from base_model.sampling.guidance import Guidance
from base_model.sampling.sample import euler_sample
from base_model.sampling.sigmas import sigma_table
from base_model.tiny import pretraining, training_clips
from base_model.tiny.captions import parse_caption
from base_model.tiny.key_frames import encode_key_frames
from base_model.tiny.pretraining import (
    STAGES,
    TinyPretraining,
    seeded,
)
from base_model.tiny.render import render
from base_model.tiny.scenes import SIDE, Scene, draw_scenes
from base_model.training.loop import Schedule
from tests.goldens import relative

COMMAND = "a test of the whole chain"
PARTS = {
    "vae/diffusion_pytorch_model.safetensors": torch.float16,
    "transformer/diffusion_pytorch_model.safetensors": torch.bfloat16,
    "text_encoder/model.safetensors": torch.bfloat16,
}


class InterruptedRunError(Exception):
    pass


class Report:
    """Counts reports, and at the second of a stage, once each, interrupts it."""

    def __init__(self, *, interrupt: bool = False) -> None:
        self.interrupt = interrupt
        self.seen: list[tuple[str, int, int]] = []
        self.interrupted: list[str] = []

    def __call__(self, stage: str, step: int, steps: int, _numbers: dict[str, float]) -> None:
        self.seen.append((stage, step, steps))
        middle = stage in ("latents", "lessons", "second-lessons") or step == 2
        if self.interrupt and middle and stage not in self.interrupted:
            self.interrupted.append(stage)
            raise InterruptedRunError


class Ran:
    """One pre-training run: its folder, its checkpoint, and what it rendered and captioned."""

    def __init__(self, folder: Path, *, interrupt: bool = False) -> None:
        self.folder, self.checkpoint = folder / "work", folder / "checkpoint"
        self.report = Report(interrupt=interrupt)
        self.pretraining = TinyPretraining(self.folder, seed=0, report=self.report)
        for stage in STAGES:
            for _ in range(4):  # the transformer is stopped at latents, lessons and its own steps
                with suppress(InterruptedRunError):
                    self.pretraining.run(stage)
                    break
            else:
                pytest.fail(f"{stage} did not end")
        self.pretraining.write_checkpoint(self.checkpoint, command=COMMAND)


@pytest.fixture(scope="module", autouse=True)
def small() -> Iterator[None]:
    """Three steps a stage on batches of four; architectures stay as shipped."""
    with pytest.MonkeyPatch.context() as patch:
        schedule = Schedule(
            steps=3, learning_rate=1e-3, warmup=1, checkpoint_every=1, report_every=1
        )
        patch.setattr(pretraining, "SCHEDULES", dict.fromkeys(STAGES, schedule))
        for module, name, size in (
            (training_clips, "IMAGE", 4),
            (training_clips, "CLIP", 1),
            (pretraining, "CAPTION", 4),
            (pretraining, "LATENT", 4),
        ):
            patch.setattr(module, f"{name}_BATCH", size)
        patch.setattr(pretraining, "CACHED_CLIPS", 50)
        patch.setattr(pretraining, "LESSON_CLIPS", 50)
        lessons = {k: replace(v, steps=range(1, 2)) for k, v in pretraining.LESSONS.items()}
        patch.setattr(pretraining, "LESSONS", lessons)
        yield


@pytest.fixture(scope="module")
def seen() -> list[Scene]:
    return []


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, seen: list[Scene]) -> Iterator[Ran]:
    def recorded(count: int, rng: random.Random) -> list[Scene]:
        drawn = draw_scenes(count, rng)
        seen.extend(drawn)
        return drawn

    with pytest.MonkeyPatch.context() as patch:
        for module in (pretraining, training_clips):
            patch.setattr(module, "draw_scenes", recorded)
        yield Ran(tmp_path_factory.mktemp("whole"))


@pytest.mark.slow
def test_every_stage_ran_to_its_end(ran: Ran) -> None:
    counts = {stage: [s for name, s, _ in ran.report.seen if name == stage] for stage in STAGES}
    assert counts == {stage: [1, 2, 3] for stage in STAGES}
    assert ("latents", 50, 50) in ran.report.seen
    for stage in STAGES:
        state = torch.load(ran.folder / f"{stage}.ckpt", weights_only=True)
        assert state["step"] == 3
        assert all(value.isfinite().all() for value in state["ema"].values())


@pytest.mark.usefixtures("ran")
@pytest.mark.slow
def test_only_training_scenes_were_seen(seen: list[Scene]) -> None:
    # Three steps of 4 captions, of 2 clips and of 1; 50 cached ones; 50 of the second lesson.
    assert len(seen) == 3 * (4 + 2 + 1) + 50 + 50
    first, clips = training_clips.draw_still_shapes(random.Random(0))
    assert len(first) == len(clips) == 50
    assert {scene.split for scene in first} == {"train"}
    assert {(scene.size, scene.motion) for scene in first} == {("large", "still")}
    assert {scene.split for scene in seen} == {"train"}


@pytest.mark.slow
def test_the_checkpoint_loads_and_samples_in_both_languages(ran: Ran) -> None:
    generator = load_generator(ran.checkpoint)
    captions = [
        "a small red circle moves up on a dark background",
        "条纹背景上，一个大号蓝色五角星停着",
    ]
    assert [parse_caption(caption)[1] for caption in captions] == ["en", "zh"]
    with torch.no_grad():
        text = generator.encode_prompts(captions, ["", ""])
        noise = generator.initial_noise(generator.latent_shape(2, 9, SIDE, SIDE), [0, 1])
        latents = euler_sample(
            generator, generator.condition(text), noise, sigma_table(2), Guidance(5.0)
        )
        frames = generator.decode(latents)
    assert frames.shape == (2, 9, 3, 64, 64)
    assert frames.isfinite().all()
    assert frames.std() > 0
    assert text.positive.shape == (2, 36, 128)
    assert not torch.equal(text.positive[0], text.positive[1])


@pytest.mark.slow
def test_the_files_hold_the_averaged_weights(ran: Ran) -> None:
    """Each parameter is its last stage's moving average, rounded to the shipped dtype."""
    stages = {
        "vae": ("vae-images", "vae-clips"),
        "transformer": ("transformer", "transformer-shapes"),
    }
    stages["text_encoder"] = ("text",)
    for path, dtype in PARTS.items():
        written = load_file(ran.checkpoint / path)
        assert {value.dtype for value in written.values()} == {dtype}
        trained: dict[str, torch.Tensor] = {}
        for stage in stages[path.split("/", maxsplit=1)[0]]:
            trained |= torch.load(ran.folder / f"{stage}.ckpt", weights_only=True)["ema"]
        if path.startswith("text_encoder"):  # the file has the published checkpoints' names
            trained = {
                name.replace("model.language_model.", "model."): value
                for name, value in trained.items()
            }
        # All is trained but the vision tower, which the generator never runs.
        assert set(trained) == {name for name in written if "visual." not in name}
        for name, value in trained.items():
            assert torch.equal(written[name], value.to(dtype)), name


@pytest.mark.slow
def test_the_checkpoint_is_in_the_published_files(ran: Ran) -> None:
    assert newer_than_easyanimate(ran.checkpoint) == ()
    index = json.loads((ran.checkpoint / "model_index.json").read_text())
    assert index["_class_name"] == "EasyAnimatePipeline"
    files = {path.relative_to(ran.checkpoint).as_posix() for path in ran.checkpoint.rglob("*.*")}
    shipped = cast("Path", resolve_checkpoint("tiny"))
    assert files == {path.relative_to(shipped).as_posix() for path in shipped.rglob("*.*")}


@pytest.mark.slow
def test_every_file_says_what_made_it(ran: Ran) -> None:
    assert {str(p.relative_to(ran.checkpoint)) for p in ran.checkpoint.rglob("*.safetensors")} == {
        *PARTS
    }
    for path in PARTS:
        with safe_open(ran.checkpoint / path, "pt") as file:
            assert file.metadata() == {"format": "pt", "command": COMMAND}


@pytest.mark.slow
def test_the_checkpoint_is_small_enough_to_ship(ran: Ran) -> None:
    """The judges share the 48 MB with it."""
    size = sum(path.stat().st_size for path in ran.checkpoint.rglob("*") if path.is_file())
    assert 5e6 < size < 20e6


@pytest.mark.slow
def test_the_cache_says_what_its_clips_show(ran: Ran, seen: list[Scene]) -> None:
    places = ran.pretraining.latent_cache()["scenes"].tolist()
    # Drawn after three steps of 4 captions, of 2 clips and of 1.
    assert [Scene.of_places(row) for row in places] == seen[21:71]


@pytest.mark.slow
def test_latents_have_unit_variance_and_the_vae_knows_the_scale(ran: Ran) -> None:
    cache = ran.pretraining.latent_cache()
    assert cache["latents"].shape == (50, 16, 3, 8, 8)
    assert cache["latents"].std().item() == pytest.approx(1.0, abs=1e-4)
    assert cache["text"].shape == (50, 2, 36, 128)
    assert cache["empty"].shape == (36, 128)
    vae = load_generator(ran.checkpoint, text_encoder=False).vae
    assert vae.config.scaling_factor == pytest.approx(cache["scaling_factor"].item())
    rng = random.Random(0)
    latents = magvit.encode(vae, render(draw_scenes(4, rng), rng))
    assert latents.std().item() == pytest.approx(1.0, abs=0.1)


@pytest.mark.slow
def test_the_encoder_stays_frame_wise(ran: Ran) -> None:
    """That is what lets key frames stand for clips: equal to the cached encoder."""
    vae = ran.pretraining.vae()
    for name, value in vae.encoder.state_dict().items():
        if name.endswith("weight") and value.ndim == 5:
            assert not value[:, :, :-1].any(), name
            assert value[:, :, -1].any(), name
    past = [
        v[:, :, :-1] for v in vae.decoder.state_dict().values() if v.ndim == 5 and v.shape[2] > 1
    ]
    assert past
    assert all(value.any() for value in past)  # the decoder has learned of time
    rng = random.Random(1)
    clips = render(draw_scenes(2, rng), rng)
    assert relative(encode_key_frames(vae, clips), magvit.encode(vae, clips)) < 1e-5


@pytest.mark.slow
def test_an_interrupted_run_ends_in_the_same_bytes(
    ran: Ran, tmp_path_factory: pytest.TempPathFactory
) -> None:
    again = Ran(tmp_path_factory.mktemp("parts"), interrupt=True)
    assert again.report.interrupted == [
        *("text", "vae-images", "vae-clips", "latents", "lessons", "transformer"),
        *("second-lessons", "transformer-shapes"),
    ]
    files = sorted(p.relative_to(ran.checkpoint) for p in ran.checkpoint.rglob("*") if p.is_file())
    assert len(files) > 8
    assert files == sorted(
        p.relative_to(again.checkpoint) for p in again.checkpoint.rglob("*") if p.is_file()
    )
    for file in files:
        assert (ran.checkpoint / file).read_bytes() == (again.checkpoint / file).read_bytes(), file


@pytest.mark.parametrize(
    ("stage", "missing"), [("vae-clips", "vae-images"), ("transformer", "text")]
)
def test_a_stage_without_its_predecessor_is_told(tmp_path: Path, stage: str, missing: str) -> None:
    run = TinyPretraining(tmp_path, seed=0, report=Report())
    with pytest.raises(
        FileNotFoundError, match=rf"stage '{missing}' has not been run in .*: run it"
    ):
        run.run(stage)
    assert not (tmp_path / f"{stage}.ckpt").exists()


@pytest.mark.slow
def test_a_stage_on_half_a_predecessor_is_told(ran: Ran, tmp_path: Path) -> None:
    state = torch.load(ran.folder / "vae-images.ckpt", weights_only=True)
    torch.save(state | {"step": 2}, tmp_path / "vae-images.ckpt")
    run = TinyPretraining(tmp_path, seed=0, report=Report())
    with pytest.raises(FileNotFoundError, match="stage 'vae-images' is at step 2: finish it first"):
        run.run("vae-clips")


def test_a_checkpoint_of_unfinished_stages_is_told(tmp_path: Path) -> None:
    run = TinyPretraining(tmp_path, seed=0, report=Report())
    with pytest.raises(FileNotFoundError, match="stage 'vae-images' has not been run"):
        run.write_checkpoint(tmp_path / "checkpoint", command=COMMAND)
    assert not (tmp_path / "checkpoint").exists()


def test_an_unknown_stage_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"unknown pre-training stage 'vea'; allowed: text, vae-"):
        TinyPretraining(tmp_path, seed=0, report=Report()).run("vea")


def test_seeds_begin_from_other_weights(tmp_path: Path) -> None:
    one, same, other = (TinyPretraining(tmp_path, seed=seed, report=Report()) for seed in (0, 0, 1))
    for new in ("_new_vae", "_new_transformer"):
        first, again, third = (
            dict(getattr(run, new)().named_parameters()) for run in (one, same, other)
        )
        assert all(torch.equal(first[name], again[name]) for name in first)
        matrices = [name for name in first if first[name].ndim > 1]
        assert not any(torch.equal(first[name], third[name]) for name in matrices)


def test_seeding_puts_the_global_state_back() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    with seeded(1):
        first = torch.rand(3)
    with pytest.raises(InterruptedRunError), seeded(1):
        assert torch.equal(first, torch.rand(3))
        raise InterruptedRunError
    assert torch.equal(torch.get_rng_state(), before)


def test_shipped_schedules_have_warmed_up_before_they_end() -> None:
    # The module's own table is patched here: read it from the source of truth anew.
    spec = importlib.util.find_spec("base_model.tiny.pretraining")
    assert spec is not None
    assert spec.loader is not None
    fresh = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fresh)
    assert tuple(fresh.SCHEDULES) == STAGES
    for schedule in fresh.SCHEDULES.values():
        assert 0 < schedule.warmup < schedule.steps / 5
        end = schedule.horizon or schedule.steps
        assert end >= schedule.steps
        assert schedule.rate(end - 1) < 0.011 * schedule.learning_rate
