"""Train the embedded generator from nothing, stage by stage, on rendered clips.

Stages, each resumable and each needing those before it:

    text          tokenizer and Qwen2-VL language model, on captions and their paraphrases
    vae-images    the VAE on single frames, as in the published image alignment
    vae-clips     the decoder on whole clips; the latents stay as they are from here on
    transformer   flow matching on cached latents and text states; a lesson on shape at the end
    transformer-shapes   continues it: a second lesson, then clips of every kind

The encoder stays frame-wise: its three latents encode frames 0, 4 and 8, and the decoder learns the
motion between them. In a world of constant speeds this loses nothing.

`write_checkpoint` writes the results in the diffusers layout that `load_generator` reads.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
from base_model.tiny.scenes import draw_scenes
from base_model.tiny.training_clips import (
    ENCODED_AT_ONCE,
    LESSON_CLIPS,
    LESSONS,
    DrawClips,
    clip_batch,
    draw_any_clips,
    image_batch,
)
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
    bfloat16_gradients_work,
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

CAPTION_BATCH = 32
LATENT_BATCH = 32
CACHED_CLIPS = 10000


class TinyPretraining:
    """The stages of one pre-training run in one folder.

    Attributes:
        folder: Folder of the stages' checkpoints, logs and caches.
        seed: Seed of every random draw.
        report: Callback, called every few steps of every stage.
    """

    def __init__(self, folder: Path, *, seed: int, report: ReportFn) -> None:
        self.folder = folder
        self.seed = seed
        self.report = report

    def run(self, stage: str) -> None:
        """Run one stage, from its checkpoint if there is one."""
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
                raise ValueError(
                    f"unknown pre-training stage {stage!r}; allowed: {', '.join(STAGES)}"
                )

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
        """Load the weights of a finished stage: the moving average, or those of its last step."""
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
        """Train the tokenizer, which takes a second and always gives the same result."""
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
            with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16_gradients_work()):
                return vae_loss(vae, frames, generator)

        with whole_clip(vae):
            self._train(stage, vae, loss, around_step=lambda: slow_past_taps(vae, past_tap_rate))

    def vae(self) -> AutoencoderKLMagvit:
        """Load the trained VAE."""
        vae = self._new_vae()
        self._trained("vae-images", vae)
        self._trained("vae-clips", vae)
        return vae.requires_grad_(False).eval()

    def prompt_encoder(self) -> PromptEncoder:
        """Load the trained text encoder with its tokenizer."""
        tokenizer = self.tokenizer()
        model = self._new_text_encoder(tokenizer)
        self._trained("text", model)
        return PromptEncoder(model.requires_grad_(False).eval(), tokenizer, batch_size=64)

    def latent_cache(self) -> dict[str, Tensor]:
        """Return latents and text states of CACHED_CLIPS clips, encoded on the first call.

        `latents` (n, 16, 3, 8, 8) scaled to unit variance; `text` (n, 2, l, d) for one caption in
        English and one in Chinese; `scenes` (n, 5), indices of the scenes' words in `ATTRIBUTES`;
        `empty` (l, d) and `scaling_factor` ().
        """
        path = self.folder / "latents.safetensors"
        if not path.exists():
            latents, text, scenes = self._encode_clips("latents", CACHED_CLIPS, draw_any_clips)
            scale = 1.0 / latents.std()
            cache = {
                "latents": latents * scale,
                "text": text,
                "scenes": scenes,
                "empty": self.prompt_encoder()([""])[0],
                "scaling_factor": scale,
            }
            write_cache(cache, path)
        return load_file(path)

    def lesson_cache(self, stage: str) -> dict[str, Tensor]:
        """Return `latents` and `text` as in `latent_cache`, of LESSON_CLIPS clips of the lesson."""
        lesson = LESSONS[stage]
        path = self.folder / f"{lesson.name}.safetensors"
        if not path.exists():
            latents, text, _ = self._encode_clips(lesson.name, LESSON_CLIPS, lesson.draw)
            scale = self.latent_cache()["scaling_factor"]
            write_cache({"latents": latents * scale, "text": text}, path)
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
            # At 84 tokens the backward pass takes a quarter less time with plain products than with
            # flash attention.
            with torch.autocast("cpu", torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
                return flow_matching_loss(model, latents, Condition(text), generator, mu=MU)

        self._train(stage, model.transformer, loss)

    def _new_transformer(self) -> EasyAnimateTransformer3DModel:
        with seeded(self.seed):
            return EasyAnimateTransformer3DModel(**configs.TRANSFORMER)

    def transformer(self) -> EasyAnimateTransformer3DModel:
        """Load the trained transformer."""
        transformer = self._new_transformer()
        self._trained("transformer-shapes", transformer)
        return transformer.requires_grad_(False).eval()

    def write_checkpoint(self, target: Path, *, command: str) -> None:
        """Write transformer (bf16), VAE (fp16), text encoder (bf16), tokenizer, scheduler, index.

        Args:
            target: Folder of the checkpoint; existing parts are replaced.
            command: Command that made the weights, for the files' metadata.
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


def write_cache(tensors: dict[str, Tensor], path: Path) -> None:
    """Write a safetensors file under a temporary name, then rename it."""
    temporary = path.with_suffix(".tmp")
    save_file(tensors, temporary)
    temporary.replace(path)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's global generator, which module constructors draw from; restore it at the end."""
    state = torch.get_rng_state()
    torch.manual_seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(state)
