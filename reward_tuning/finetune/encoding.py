"""Encode a batch's files to what one training step reads: latents, text states, channels.

Every draw comes from generators named by the seed, its purpose and the batch's number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from base_model.conditions.control_latents import RAY_SCALE, reference_latents
from base_model.conditions.inpainting import inpaint_latents
from base_model.core.latent_grid import to_latent_grid
from base_model.generator import Condition, Generator
from base_model.networks import magvit
from base_model.training.dropout import draw_dropped, without_control, without_text
from base_model.training.mask_sampling import draw_kept_noise, draw_masks
from reward_tuning.finetune.batches import ClipBatch
from reward_tuning.finetune.pixels import ClipReader, reference_frame
from reward_tuning.finetune.posterior_cache import PosteriorCache
from reward_tuning.finetune.sections import DataSection, DropoutSection, MasksSection
from reward_tuning.seeds import derive_generator

EMPTY = ""  # prompt of samples whose text is dropped, and of the negative guidance branch


@dataclass(frozen=True)
class EncodedBatch:
    """The inputs of one training step.

    Attributes:
        latents: Clean, scaled latents `(b, 16, t, h/8, w/8)`, float32.
        condition: Text states and channels of b samples.
    """

    latents: Tensor
    condition: Condition


@dataclass(frozen=True)
class BatchEncoder:
    """Encodes batches.

    Attributes:
        generator: The generator whose VAE encodes.
        reader: Reads the clips of the training set.
        states: Text states `(l, d)` of every caption and of `EMPTY`, on the CPU.
        cache: Posteriors that are already encoded.
        data: Section of the recipe.
        dropout: Probabilities of dropped conditions.
        masks: Probabilities of the masks of an inpaint model.
        seed: Seed of every draw.
    """

    generator: Generator
    reader: ClipReader
    states: Mapping[str, Tensor]
    cache: PosteriorCache
    data: DataSection
    dropout: DropoutSection
    masks: MasksSection
    seed: int

    @torch.no_grad()
    def __call__(self, batch: ClipBatch) -> EncodedBatch:
        """Read and encode a batch; its copies share masks and differ in dropout and posterior.

        Raises:
            TuningError: A file has changed since it was checked, or the cache cannot be written.
        """
        count = len(batch.clips)
        moments = torch.stack(
            [
                self._moments(batch, i, lambda i=i: self.reader.frames(batch, i))  # type: ignore[misc]
                for i in range(count)
            ]
        ).repeat(batch.copies, 1, 1, 1, 1)
        latents = self._latents(moments, self._draw("posterior", batch))
        return EncodedBatch(latents.to(self.generator.device), self.condition(batch))

    @torch.no_grad()
    def condition(self, batch: ClipBatch) -> Condition:
        """Return text states and channels of a batch with its copies, without its latents.

        Raises:
            TuningError: A file has changed since it was checked.
        """
        device = self.generator.device
        text = self._text(batch).to(device)
        channels = self._channels(batch)
        if channels is None:
            return Condition(text)
        channels = channels.repeat(batch.copies, 1, 1, 1, 1)
        if self.generator.kind.field == "control_latents":
            channels = without_control(
                channels,
                self.generator.kind,
                self._draw("control dropout", batch),
                control=self.dropout.control,
                reference=self.dropout.reference,
            )
        assert self.generator.kind.field is not None
        return Condition(text, **{self.generator.kind.field: channels.to(device)})

    def _draw(self, purpose: str, batch: ClipBatch) -> torch.Generator:
        return derive_generator(self.seed, purpose, batch.number)

    def _text(self, batch: ClipBatch) -> Tensor:
        texts = [self.reader.clips[place].row.text for place in batch.clips] * batch.copies
        states = torch.stack([self.states[text] for text in texts])
        dropped = draw_dropped(len(texts), self.dropout.text, self._draw("text dropout", batch))
        return without_text(states, self.states[EMPTY], dropped)

    def _moments(
        self, batch: ClipBatch, index: int, pixels: Callable[[], Tensor], *, control: bool = False
    ) -> Tensor:
        def compute() -> Tensor:
            vae, video = self.generator.vae, pixels()[None].transpose(1, 2) * 2 - 1
            with self.generator.resting.vae.at_work():
                weight = vae.quant_conv.weight
                return magvit.encode_moments(vae, video.to(weight.device, weight.dtype))[0]

        return self.cache.get(lambda: self.reader.identity(batch, index, control=control), compute)

    def _latents(self, moments: Tensor, draw: torch.Generator) -> Tensor:
        """Return scaled latents of posteriors: a sample or the mode, as the recipe says."""
        mean, log_variance = moments.chunk(2, dim=1)
        if self.data.latents == "sample":
            deviation = (0.5 * log_variance.clamp(-30.0, 20.0)).exp()  # diffusers' bounds
            mean = mean + deviation * torch.randn(mean.shape, generator=draw)
        scaled: Tensor = mean * self.generator.vae.config.scaling_factor
        return scaled

    def _channels(self, batch: ClipBatch) -> Tensor | None:
        match self.generator.kind.name:
            case "inpaint":
                return self._kept(batch)
            case "control" | "camera":
                return self._controlled(batch)
            case _:
                return None

    def _kept(self, batch: ClipBatch) -> Tensor:
        """Return the 17 channels of drawn masks."""
        count, draw = len(batch.clips), self._draw("masks", batch)
        size = (batch.frames, batch.height, batch.width)
        shares = self.masks.image if batch.frames == 1 else self.masks.video
        masks = draw_masks(count, size, draw, shares)
        noise = None
        if self.generator.transformer.config.add_noise_in_inpaint_model:
            noise = draw_kept_noise(count, size, self._draw("kept noise", batch))
        zeroed = draw_dropped(count, self.dropout.zeroed, self._draw("zeroed", batch))
        frames = torch.stack([self.reader.frames(batch, i) for i in range(count)])
        with self.generator.resting.vae.at_work():
            device = self.generator.vae.quant_conv.weight.device
            return inpaint_latents(
                self.generator.vae,
                frames.to(device),
                masks.to(device),
                None if noise is None else noise.to(device),
                zeroed=zeroed,
            )

    def _controlled(self, batch: ClipBatch) -> Tensor:
        """Return the 32 or 22 channels of control or camera; zero where a row has no control."""
        generator, draw = self.generator, self._draw("reference", batch)
        shape = generator.latent_shape(1, batch.frames, batch.height, batch.width)
        found = []
        for i in range(len(batch.clips)):
            image = None
            if self.data.reference != "none":
                image = reference_frame(self.reader.frames(batch, i), self.data.reference, draw)
            with generator.resting.vae.at_work():
                reference = reference_latents(
                    generator.vae, None if image is None else image[None], shape
                ).cpu()
            found.append(torch.cat([self._control(batch, i, shape), reference], dim=1))
        return torch.cat(found)

    def _control(self, batch: ClipBatch, index: int, shape: tuple[int, ...]) -> Tensor:
        if self.generator.kind.name == "camera":
            rays = self.reader.rays(batch, index)
            if rays is None:
                return torch.zeros(1, 6, *shape[2:])
            return to_latent_grid(rays[None].float(), (shape[2], shape[3], shape[4])) * RAY_SCALE
        pixels = self.reader.control(batch, index)
        if pixels is None:
            return torch.zeros(shape)
        moments = self._moments(batch, index, lambda: pixels, control=True)
        mode: Tensor = moments[None].chunk(2, dim=1)[0] * self.generator.vae.config.scaling_factor
        return mode
