"""Train the embedded generator from nothing, stage by stage, on rendered clips.

Stages, each resumable and each needing those before it:

    text          tokenizer and Qwen2-VL language model on captions said again in other words
    vae-images    the VAE on single frames, as the published image alignment does
    vae-clips     the decoder on whole clips; latents do not change any more
    transformer   flow matching on cached latents and text states; a lesson on shape at the end
    transformer-shapes   goes on from it: a second lesson, then clips of every kind

The encoder stays frame-wise: its three latents are codes of frames 0, 4 and 8, between which
the decoder learns to move things. In a world of constant speeds nothing is lost by it.

`write_checkpoint` puts the results into the diffusers layout that `load_generator` reads.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLMagvit, EasyAnimateTransformer3DModel
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import Qwen2Tokenizer, Qwen2VLForConditionalGeneration

from base_model.files.reproducible import save_reproducibly
from base_model.generator import Condition, Generator
from base_model.loading.config_conversion import model_index
from base_model.networks.prompt_encoder import PromptEncoder
from base_model.sampling.sigmas import MU
from base_model.tiny import configs
from base_model.tiny.captions import LANGUAGES, draw_caption, every_caption
from base_model.tiny.key_frames import encode_key_frames
from base_model.tiny.render import draw_staging, render, render_staged
from base_model.tiny.scenes import FRAMES, SIDE, Scene, draw_scenes
from base_model.tiny.scenes import scenes as every_scene
from base_model.training.flow_matching import TEXT_DROPOUT, flow_matching_loss
from base_model.training.loop import (
    ReportFn,
    Schedule,
    python_random,
    step_generator,
    train,
)
from base_model.training.published_text_encoder import write_text_encoder, write_tokenizer
from base_model.training.text_encoder import (
    build_text_encoder,
    language_model_loss,
    train_tokenizer,
)
from base_model.training.vae import (
    PAST_TAP_RATE,
    slow_past_taps,
    start_frame_wise,
    vae_loss,
    whole_clip,
)

SCHEDULES = {
    "text": Schedule(steps=300, learning_rate=1e-3, ema_decay=0.99),
    "vae-images": Schedule(
        steps=7000, learning_rate=1.5e-3, optimiser="muon", weight_decay=0.0, ema_decay=0.998
    ),
    "vae-clips": Schedule(
        steps=2000,
        learning_rate=1.5e-3,
        optimiser="muon",
        weight_decay=0.0,
        ema_decay=0.998,
        checkpoint_every=100,
    ),
    "transformer": Schedule(
        steps=4000, horizon=6000, learning_rate=2e-3, optimiser="muon", warmup=100, weight_decay=0.0
    ),
    "transformer-shapes": Schedule(
        steps=4500, learning_rate=1.5e-3, optimiser="muon", warmup=100, weight_decay=0.0
    ),
}
STAGES = tuple(SCHEDULES)

IMAGE_BATCH = 8
CLIP_BATCH = 4
CAPTION_BATCH = 32
LATENT_BATCH = 32
CACHED_CLIPS = 10000

LESSON_CLIPS = 2000


def image_batch(generator: torch.Generator) -> Tensor:
    """Two frames each of freshly rendered clips, (IMAGE_BATCH, 1, 3, 64, 64)."""
    rng = python_random(generator)
    clips = render(draw_scenes(IMAGE_BATCH // 2, rng), rng)
    first, last = rng.randint(0, 3), rng.randint(4, 8)
    return torch.cat([clips[:, first : first + 1], clips[:, last : last + 1]])


def clip_batch(generator: torch.Generator) -> Tensor:
    """Freshly rendered clips, (CLIP_BATCH, 9, 3, 64, 64)."""
    rng = python_random(generator)
    return render(draw_scenes(CLIP_BATCH, rng), rng)


ENCODED_AT_ONCE = 50
DrawClips = Callable[[random.Random], tuple[list[Scene], Tensor]]
"""Draws ENCODED_AT_ONCE scenes and renders their clips."""


def clips_of_any_scene(rng: random.Random) -> tuple[list[Scene], Tensor]:
    """ENCODED_AT_ONCE scenes and their clips."""
    scenes = draw_scenes(ENCODED_AT_ONCE, rng)
    return scenes, render(scenes, rng)


def clips_of_a_lesson(rng: random.Random) -> tuple[list[Scene], Tensor]:
    """ENCODED_AT_ONCE scenes of large still shapes in the middle, and their clips.

    Where a shape is and how it moves is most of what noise hides; what shape it is, so little that
    after 2,600 steps the error did not depend on the shape's word at any noise level, when
    every other word had long been learned. With nothing else to guess, shape counts.
    """
    large = [s for s in every_scene("train") if s.size == "large" and s.motion == "still"]
    scenes = rng.choices(large, k=ENCODED_AT_ONCE)
    return scenes, torch.stack([render_amid(scene, rng, spread=1.0) for scene in scenes])


def clips_of_a_second_lesson(rng: random.Random) -> tuple[list[Scene], Tensor]:
    """ENCODED_AT_ONCE scenes of any kind that pass the middle within 4 pixels, and their clips."""
    scenes = draw_scenes(ENCODED_AT_ONCE, rng)
    return scenes, torch.stack([render_amid(scene, rng, spread=4.0) for scene in scenes])


def render_amid(scene: Scene, rng: random.Random, *, spread: float) -> Tensor:
    """A clip whose shape is in the middle, within `spread` pixels, at half time."""
    staging = draw_staging(scene, rng)
    centre = [
        SIDE / 2 + rng.uniform(-spread, spread) - v * (FRAMES - 1) / 2 for v in staging.velocity
    ]
    return render_staged(scene, replace(staging, centre=(centre[0], centre[1])))


@dataclass(frozen=True)
class Lesson:
    """Steps of a stage in which half of each batch is drawn otherwise."""

    name: str
    draw: DrawClips
    steps: range


LESSONS = {
    "transformer": Lesson("lessons", clips_of_a_lesson, range(2800, 4000)),
    "transformer-shapes": Lesson("second-lessons", clips_of_a_second_lesson, range(1500)),
}


class TinyPretraining:
    """The stages of one pre-training run in one folder.

    Attributes:
        folder: Where stages keep checkpoints, logs and caches.
        seed: Of every draw.
        report: Called every few steps of every stage.
    """

    def __init__(self, folder: Path, *, seed: int, report: ReportFn) -> None:
        self.folder = folder
        self.seed = seed
        self.report = report

    def run(self, stage: str) -> None:
        """Run one stage, or what is left of it."""
        match stage:
            case "text":
                self._train_text()
            case "vae-images":
                self._train_vae(stage, image_batch, past_tap_rate=0.0)
            case "vae-clips":
                self._train_vae(stage, clip_batch, past_tap_rate=PAST_TAP_RATE)
            case "transformer" | "transformer-shapes":
                self._train_transformer(stage)
            case _:
                raise ValueError(f"no pre-training stage {stage!r}; stages: {', '.join(STAGES)}")

    def _train(self, stage: str, module: torch.nn.Module, loss: Any, **options: Any) -> None:
        train(
            stage,
            module,
            loss,
            SCHEDULES[stage],
            folder=self.folder,
            seed=self.seed,
            report=self.report,
            **options,
        )

    def _trained(self, stage: str, module: torch.nn.Module, *, averaged: bool = True) -> None:
        """Load a finished stage's weights: the moving average, or those of its last step."""
        path = self.folder / f"{stage}.ckpt"
        if not path.exists():
            raise FileNotFoundError(
                f"stage {stage!r} has not been run in {self.folder}: run it first"
            )
        state = torch.load(path, weights_only=True)
        if state["step"] < SCHEDULES[stage].steps:
            raise FileNotFoundError(f"stage {stage!r} is at step {state['step']}: finish it first")
        own = state["parameters"] | (state["ema"] if averaged else {})
        module.load_state_dict(module.state_dict() | own)

    def tokenizer(self) -> Qwen2Tokenizer:
        """The tokenizer; trained anew each time, which takes a second."""
        conversations = [
            f"system\nYou are a helpful assistant.\nuser\n{caption}\nassistant\n"
            for caption in every_caption("train")
        ]
        return train_tokenizer(
            conversations, vocab_size=configs.TEXT_VOCABULARY, max_length=configs.TEXT_LENGTH
        )

    def _new_text_encoder(self, tokenizer: Qwen2Tokenizer) -> Qwen2VLForConditionalGeneration:
        with seeded(self.seed):
            return build_text_encoder(tokenizer, configs.TEXT, configs.VISION)

    def _train_text(self) -> None:
        tokenizer = self.tokenizer()
        model = self._new_text_encoder(tokenizer)
        model.model.visual.requires_grad_(False)

        def loss(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
            rng = python_random(generator)
            drawn = draw_scenes(CAPTION_BATCH, rng)
            pairs = [(draw_caption(scene, rng), draw_caption(scene, rng)) for scene in drawn]
            return language_model_loss(model, tokenizer, pairs)

        self._train("text", model, loss)

    def _new_vae(self) -> AutoencoderKLMagvit:
        vae = AutoencoderKLMagvit(**configs.VAE)
        start_frame_wise(vae, step_generator(self.seed, "vae-start", 0))
        return vae

    def _train_vae(
        self,
        stage: str,
        batch: Callable[[torch.Generator], Tensor],
        *,
        past_tap_rate: float,
    ) -> None:
        vae = self._new_vae()
        if stage == "vae-clips":
            self._trained("vae-images", vae)
            vae.encoder.requires_grad_(False)
            vae.quant_conv.requires_grad_(False)

        def loss(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
            frames = batch(generator)
            with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16_convolutions_learn()):
                return vae_loss(vae, frames, generator)

        with whole_clip(vae):
            self._train(stage, vae, loss, around_step=lambda: slow_past_taps(vae, past_tap_rate))

    def vae(self) -> AutoencoderKLMagvit:
        """The trained VAE."""
        vae = self._new_vae()
        self._trained("vae-images", vae)
        self._trained("vae-clips", vae)
        return vae.requires_grad_(False).eval()

    def prompt_encoder(self) -> PromptEncoder:
        """The trained text encoder with its tokenizer."""
        tokenizer = self.tokenizer()
        model = self._new_text_encoder(tokenizer)
        self._trained("text", model)
        return PromptEncoder(model.requires_grad_(False).eval(), tokenizer, batch_size=64)

    def latent_cache(self) -> dict[str, Tensor]:
        """Latents and text states of CACHED_CLIPS clips, made once.

        `latents` (n, 16, 3, 8, 8) scaled to unit variance, `text` (n, 2, l, d) for a caption in
        English and one in Chinese, `scenes` (n, 5) places of the clips' words in `ATTRIBUTES`,
        `empty` (l, d) and `scaling_factor` ().
        """
        path = self.folder / "latents.safetensors"
        if not path.exists():
            latents, text, scenes = self._encode_clips("latents", CACHED_CLIPS, clips_of_any_scene)
            scale = 1.0 / latents.std()
            cache = {
                "latents": latents * scale,
                "text": text,
                "scenes": scenes,
                "empty": self.prompt_encoder()([""])[0],
                "scaling_factor": scale,
            }
            save_whole(cache, path)
        return load_file(path)

    def lesson_cache(self, stage: str) -> dict[str, Tensor]:
        """`latents` and `text` as in `latent_cache`, of LESSON_CLIPS clips that teach shape."""
        lesson = LESSONS[stage]
        path = self.folder / f"{lesson.name}.safetensors"
        if not path.exists():
            latents, text, _ = self._encode_clips(lesson.name, LESSON_CLIPS, lesson.draw)
            scale = self.latent_cache()["scaling_factor"]
            save_whole({"latents": latents * scale, "text": text}, path)
        return load_file(path)

    def _encode_clips(
        self, name: str, count: int, draw: DrawClips
    ) -> tuple[Tensor, Tensor, Tensor]:
        vae, encoder = self._new_vae(), self.prompt_encoder()
        self._trained("vae-images", vae)
        vae.requires_grad_(False).eval()
        latents, text, shown = [], [], []
        for start in range(0, count, ENCODED_AT_ONCE):
            rng = python_random(step_generator(self.seed, name, start))
            scenes, clips = draw(rng)
            latents.append(encode_key_frames(vae, clips))
            captions = [draw_caption(s, rng, language) for s in scenes for language in LANGUAGES]
            text.append(encoder(captions).unflatten(0, (len(scenes), len(LANGUAGES))))
            shown += [scene.places for scene in scenes]
            self.report(name, start + ENCODED_AT_ONCE, count, {})
        return torch.cat(latents), torch.cat(text).to(torch.bfloat16), torch.tensor(shown)

    def _train_transformer(self, stage: str) -> None:
        cache, lessons = self.latent_cache(), self.lesson_cache(stage)
        model = Generator(self._new_transformer(), self._new_vae())
        if stage == "transformer-shapes":
            self._trained("transformer", model.transformer, averaged=False)

        def loss(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
            rows = torch.randint(0, len(cache["latents"]), (LATENT_BATCH,), generator=generator)
            language = torch.randint(0, len(LANGUAGES), (LATENT_BATCH,), generator=generator)
            latents, text = cache["latents"][rows], cache["text"][rows, language]
            if step in LESSONS[stage].steps:
                half = LATENT_BATCH // 2
                rows = torch.randint(0, len(lessons["latents"]), (half,), generator=generator)
                latents[:half] = lessons["latents"][rows]
                text[:half] = lessons["text"][rows, language[:half]]
            dropped = torch.rand(LATENT_BATCH, generator=generator) < TEXT_DROPOUT
            text = torch.where(dropped[:, None, None], cache["empty"], text.float())
            # At 84 tokens the backward is a quarter shorter with plain products than with flash.
            with torch.autocast("cpu", torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
                return flow_matching_loss(model, latents, Condition(text), generator, mu=MU)

        self._train(stage, model.transformer, loss)

    def _new_transformer(self) -> EasyAnimateTransformer3DModel:
        with seeded(self.seed):
            return EasyAnimateTransformer3DModel(**configs.TRANSFORMER)

    def transformer(self) -> EasyAnimateTransformer3DModel:
        """The trained transformer."""
        transformer = self._new_transformer()
        self._trained("transformer-shapes", transformer)
        return transformer.requires_grad_(False).eval()

    def write_checkpoint(self, target: Path, *, command: str) -> None:
        """Write transformer (bf16), VAE (fp16), text encoder (bf16), tokenizer, scheduler, index.

        Args:
            target: The checkpoint folder; parts that are there are replaced.
            command: What made the weights, for the files' metadata.
        """
        vae = self.vae()
        # diffusers' inpaint pipeline reads cache_mag_vae, which its own VAE class does not take.
        vae.register_to_config(
            scaling_factor=float(self.latent_cache()["scaling_factor"]), cache_mag_vae=True
        )
        encoder = self.prompt_encoder()
        parts = (
            ("vae", vae, torch.float16, "diffusion_pytorch_model"),
            ("transformer", self.transformer(), torch.bfloat16, "diffusion_pytorch_model"),
        )
        for name, module, dtype, file in parts:
            folder = target / name
            folder.mkdir(parents=True, exist_ok=True)
            module.to(dtype)
            state = module.state_dict()
            metadata = {"format": "pt", "command": command}
            save_reproducibly(folder / f"{file}.safetensors", state, metadata)
            module.save_config(folder)
        write_text_encoder(
            target / "text_encoder", encoder.text_encoder, torch.bfloat16, {"command": command}
        )
        write_tokenizer(target / "tokenizer", encoder.tokenizer)
        (target / "model_index.json").write_text(model_index(configs.TRANSFORMER["in_channels"]))
        scheduler = target / "scheduler" / "scheduler_config.json"
        scheduler.parent.mkdir(exist_ok=True)
        scheduler.write_text(json.dumps(configs.SCHEDULER, indent=2) + "\n")


def bfloat16_convolutions_learn() -> bool:
    """Whether the CPU gives bfloat16 weight gradients of 3D convolutions that can be used.

    oneDNN's are NaN or wrong on CPUs with AMX (`findings/conv3d-bfloat16-gradient-amx.sh`): there
    the VAE is trained in float32.
    """
    has_amx = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return has_amx is None or not has_amx()


def save_whole(tensors: dict[str, Tensor], path: Path) -> None:
    """`save_file` under a temporary name, then renamed."""
    temporary = path.with_suffix(".tmp")
    save_file(tensors, temporary)
    temporary.replace(path)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's global generator, which module constructors draw from, and put it back."""
    state = torch.get_rng_state()
    torch.manual_seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(state)
