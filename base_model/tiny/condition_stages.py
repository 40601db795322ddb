"""Train the embedded inpaint, control and camera checkpoints from the embedded text-to-video one.

As in the published stages, the patch embedding gets further input channels, which start at zero,
and every weight of the transformer is trained. VAE and text encoder stay as they are.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from base_model.core.kinds import kind_named
from base_model.files.shipped import resolve_checkpoint
from base_model.generator import Condition, Generator, load_generator
from base_model.loading.delta import write_delta
from base_model.sampling.sigmas import MU
from base_model.tiny.captions import LANGUAGES, draw_caption
from base_model.tiny.condition_clips import DRAWS
from base_model.tiny.pretraining import LATENT_BATCH, write_cache
from base_model.tiny.training_clips import ENCODED_AT_ONCE
from base_model.training.dropout import draw_dropped, without_control, without_text
from base_model.training.flow_matching import TEXT_DROPOUT, flow_matching_loss
from base_model.training.input_channels import with_input_channels
from base_model.training.loop import (
    ReportFn,
    Schedule,
    python_random,
    step_generator,
    train,
)

SCHEDULE = Schedule(
    steps=4000, learning_rate=1e-3, optimiser="muon", warmup=50, weight_decay=0.0, ema_decay=0.998
)
CONDITION_STAGES = tuple(DRAWS)
"""Names of the stages: `inpaint`, `control`, `camera`."""

CLIPS = 10000


class ConditionTraining:
    """The training of one kind of checkpoint, in one folder.

    Attributes:
        kind: Kind of the checkpoint.
        folder: Folder of checkpoints, log and cache.
        base: Shipped text-to-video checkpoint that the training starts from.
        seed: Seed of every random draw.
        report: Callback, called every few steps.
    """

    def __init__(self, stage: str, folder: Path, *, base: str, seed: int, report: ReportFn) -> None:
        self.kind = kind_named(stage)
        self.folder = folder
        self.base = base
        self.seed = seed
        self.report = report

    def run(self) -> Generator:
        """Train, from a checkpoint if there is one.

        Returns:
            The generator with the trained transformer.
        """
        cache = self.cache()
        model = load_generator(self.base, text_encoder=False)
        transformer = with_input_channels(model.transformer, self.kind.channels)
        transformer.requires_grad_(True).train()

        def loss(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
            rows = torch.randint(0, len(cache["latents"]), (LATENT_BATCH,), generator=generator)
            language = torch.randint(0, len(LANGUAGES), (LATENT_BATCH,), generator=generator)
            dropped = draw_dropped(LATENT_BATCH, TEXT_DROPOUT, generator)
            text = without_text(cache["text"][rows, language].float(), cache["empty"], dropped)
            channels = cache["condition"][rows].float()
            if self.kind.controlled:
                channels = without_control(channels, self.kind, generator)
            given: Any = {self.kind.field: channels}
            condition = Condition(text, **given)
            # At 84 tokens the backward pass takes a quarter less time with plain products than with
            # flash attention.
            with torch.autocast("cpu", torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
                return flow_matching_loss(
                    model, cache["latents"][rows].float(), condition, generator, mu=MU
                )

        train(
            self.kind.name,
            transformer,
            loss,
            SCHEDULE,
            folder=self.folder,
            seed=self.seed,
            report=self.report,
        )
        transformer.requires_grad_(False).eval()
        return model

    def cache(self) -> dict[str, Tensor]:
        """Return clips, conditions and text states, drawn and encoded on the first call.

        `latents` (n, 16, 3, 8, 8) in float32; `condition` (n, c, 3, 8, 8) and `text` (n, 2, l, d)
        in English and Chinese, both in bf16; `empty` (l, d).
        """
        path = self.folder / f"{self.kind.name}-clips.safetensors"
        if not path.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            write_cache(self._encode_clips(), path)
        return load_file(path)

    def _encode_clips(self) -> dict[str, Tensor]:
        model = load_generator(self.base)
        encoder = model.prompt_encoder
        assert encoder is not None
        parts: dict[str, list[Tensor]] = {"latents": [], "condition": [], "text": []}
        for start in range(0, CLIPS, ENCODED_AT_ONCE):
            draw = step_generator(self.seed, f"{self.kind.name}-clips", start)
            found = DRAWS[self.kind.name](model.vae, ENCODED_AT_ONCE, draw)
            rng = python_random(draw)
            captions = [draw_caption(s, rng, lang) for s in found.scenes for lang in LANGUAGES]
            text = encoder(captions).unflatten(0, (len(found.scenes), len(LANGUAGES)))
            parts["latents"].append(found.latents)
            parts["condition"].append(found.condition.to(torch.bfloat16))
            parts["text"].append(text.to(torch.bfloat16))
            self.report(f"{self.kind.name}-clips", start + ENCODED_AT_ONCE, CLIPS, {})
        return {name: torch.cat(found) for name, found in parts.items()} | {
            "empty": encoder([""])[0]
        }

    def write_checkpoint(self, target: Path, *, command: str) -> None:
        """Write the trained transformer as a delta from the base (`base_model.loading.delta`).

        Args:
            target: Folder of the checkpoint.
            command: Command that made the weights, for the file's metadata.
        """
        transformer = self.run().transformer
        folder = resolve_checkpoint(self.base)
        assert isinstance(folder, Path)
        transformer.save_config(target / "transformer")
        takes = ", ".join(name.replace("_", " ") for name in self.kind.takes)
        description = f"{self.kind.name} ({self.kind.channels} channels: {takes}), from {self.base}"
        about = {"command": command, "description": description}
        write_delta(target, transformer.state_dict(), folder, name=self.base, about=about)
