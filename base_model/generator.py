"""The generator as the rest of the project sees it: text, noise, velocity, frames.

Latents are `(b, 16, t, h/8, w/8)` with t = (frames - 1)/4 + 1, scaled by the VAE's factor. The
state between sampling steps is float32 whatever the weights are (float64 for float64 weights).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from base_model.conditions.condition_latents import condition_latents
from base_model.conditions.conditions import (
    Condition,
    ConditionInputs,
    GuidedCondition,
    TextCondition,
)
from base_model.conditions.inpainting import KEPT_NOISE
from base_model.conditions.model_inputs import model_channels, with_channels
from base_model.core.family import FAMILY
from base_model.core.kinds import Kind, kind_of
from base_model.errors import GeneratorError
from base_model.files.shipped import resolve_checkpoint
from base_model.loading.checkpoint import (
    load_text_encoder,
    load_transformer,
    load_vae,
    local_folder,
)
from base_model.loading.clip_size import check_clip_size
from base_model.memory.modes import MODES, Memory
from base_model.memory.quantise import Quantise
from base_model.memory.resting import Resting
from base_model.networks import magvit
from base_model.networks.attention_processor import use_published_attention
from base_model.networks.corrections import correct
from base_model.networks.magvit_clip import Checkpointing
from base_model.networks.prompt_encoder import PromptEncoder
from base_model.networks.small_decoder import DecodedBy, SmallDecoder, decode_small

__all__ = ["Condition", "Generator", "GuidedCondition", "TextCondition", "load_generator"]


class Generator:
    """EasyAnimateV5.1: a transformer, a VAE and, where prompts are encoded, a text encoder.

    The constructor corrects the transformer in place (`base_model.networks.corrections.correct`),
    gives it the faster attention of `base_model.networks.attention_processor`, and changes nothing
    else: gradients, dtype, device and training mode stay as they are.

    Attributes:
        transformer: `EasyAnimateTransformer3DModel`.
        vae: `AutoencoderKLMagvit`.
        prompt_encoder: Text encoder with its tokenizer; None where text states come from a cache.
        fp32_timesteps: Feed the time embedding 1000 * sigma in float32. The published code rounds
            it to the weights' dtype first (up to 1.9 of 1000 in bfloat16), which is the default.
        resting: Parts that rest on the CPU while unused (`base_model.memory.resting`).
        small_decoder: Stands in for the VAE's decoder where `decode` is asked to use it; None until
            one is set (`base_model.loading.small_decoder`).
    """

    def __init__(
        self,
        transformer: Any,
        vae: Any,
        prompt_encoder: PromptEncoder | None = None,
        *,
        fp32_timesteps: bool = False,
        resting: Resting | None = None,
    ) -> None:
        kind_of(transformer.config.in_channels)  # refuses a number that no kind has
        if transformer.config.out_channels != vae.config.latent_channels:
            raise GeneratorError(
                f"The transformer makes {transformer.config.out_channels} latent channels and the "
                f"VAE takes {vae.config.latent_channels}. Use the VAE of the same checkpoint."
            )
        self.transformer = use_published_attention(correct(transformer))
        self.vae = vae
        self.prompt_encoder = prompt_encoder
        self.fp32_timesteps = fp32_timesteps
        self.resting = resting or Resting.nothing()
        self.small_decoder: SmallDecoder | None = None

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the transformer's weights (not of adapters on it)."""
        return self.transformer.proj.weight.dtype

    @property
    def device(self) -> torch.device:
        """Device of the transformer."""
        return self.transformer.proj.weight.device

    @property
    def state_dtype(self) -> torch.dtype:
        """Dtype of latents and velocities: float32, or float64 when the weights are float64."""
        return torch.promote_types(self.dtype, torch.float32)

    @property
    def kind(self) -> Kind:
        """Kind of the checkpoint, which decides the conditions it takes."""
        return kind_of(self.transformer.config.in_channels)

    def encode_prompts(self, prompts: list[str], negatives: list[str]) -> TextCondition:
        """Encode prompts and negative prompts.

        Args:
            prompts: b prompts.
            negatives: b negative prompts; `""` is allowed.

        Returns:
            States `(b, l, d)` for both branches, without gradient.

        Raises:
            GeneratorError: There is no text encoder, or the lists differ in length.
        """
        if self.prompt_encoder is None:
            raise GeneratorError(
                "This generator was loaded without its text encoder. Load it with "
                "text_encoder=True, or give it text states from the cache."
            )
        if len(prompts) != len(negatives):
            raise GeneratorError(
                f"Got {len(prompts)} prompts and {len(negatives)} negative prompts. "
                'Give one negative prompt for each prompt ("" for none).'
            )
        with self.resting.text_encoder.at_work():
            return TextCondition(self.prompt_encoder(prompts), self.prompt_encoder(negatives))

    def condition(
        self,
        text: TextCondition,
        *,
        image: Tensor | None = None,
        end_image: Tensor | None = None,
        video: Tensor | None = None,
        mask: Tensor | None = None,
        control: Tensor | None = None,
        reference: Tensor | None = None,
        camera: Tensor | None = None,
        frames: int | None = None,
        noise_seeds: Sequence[int] | None = None,
    ) -> GuidedCondition:
        """Combine text states with the inputs that the clip follows, for both guidance branches.

        Without any input, all further channels of the model are zero: for an inpaint model that is
        the published text-to-video mode, for control and camera models no control and no reference
        image. The many parameters are the fields of `ConditionInputs`, for callers with pixels.

        Args:
            text: Text states of b samples.
            image: First frame; see `base_model.conditions.conditions.ConditionInputs` for all
                inputs. A batch of 1 serves all samples.
            end_image: Last frame.
            video: Clip of which the mask keeps a part. Without a mask it is no condition: sampling
                starts from it.
            mask: Pixels to generate.
            control: Control clip.
            reference: Reference image.
            camera: Plücker rays.
            frames: Frames of the clip, where only single images are given.
            noise_seeds: See `encode_condition`.

        Raises:
            GeneratorError: The checkpoint does not take an input, or shapes differ.
        """
        inputs = ConditionInputs(image, end_image, video, mask, control, reference, camera, frames)
        if not inputs.given:
            return self.conditioned(text, None)
        return self.conditioned(text, self.encode_condition(inputs, noise_seeds=noise_seeds))

    def encode_condition(
        self,
        inputs: ConditionInputs,
        *,
        noise_seeds: Sequence[int] | None = None,
        noise_strength: float = KEPT_NOISE,
    ) -> Tensor | None:
        """Encode pixels to the channels that are concatenated to the noisy latents.

        Args:
            inputs: Inputs that this kind of checkpoint takes.
            noise_seeds: One seed per sample, for the noise on the kept pixels of an inpaint model
                that was trained with it (its config says so). None adds no noise.
            noise_strength: Standard deviation of that noise, on pixels in [-1, 1]; the default is
                the published pipeline's.

        Returns:
            `(b, 17, 32 or 22, t, h/8, w/8)`, float32 (float64 for a float64 VAE), differentiable
            in the pixels; None where the inputs need no channel.

        Raises:
            GeneratorError: The checkpoint does not take an input, or shapes differ.
        """
        self.kind.require(inputs.given)
        if not self.transformer.config.add_noise_in_inpaint_model:
            noise_seeds = None
        shape = self.latent_shape(*inputs.size())
        # One of the inputs stands for all: the VAE must stay if any of them needs a gradient.
        pixels = max(inputs.given.values(), key=lambda value: value.requires_grad)
        with self.resting.vae_for(pixels):
            return condition_latents(
                self.vae,
                self.kind,
                inputs,
                shape,
                noise_seeds=noise_seeds,
                noise_strength=noise_strength,
            )

    def conditioned(self, text: TextCondition, latents: Tensor | None) -> GuidedCondition:
        """Combine text states with the channels of `encode_condition`, for both guidance branches.

        Args:
            text: Text states of b samples.
            latents: Channels of b samples, or of 1 for all; None stands for zeros.
        """
        return with_channels(text, latents, self.kind)

    def latent_shape(
        self, batch: int, frames: int, height: int, width: int
    ) -> tuple[int, int, int, int, int]:
        """Return the shape of the latents of `batch` clips.

        Args:
            batch: Number of clips.
            frames: Frames of a clip, 4k + 1.
            height: Pixels, a multiple of 16.
            width: Pixels, a multiple of 16.

        Returns:
            `(batch, 16, (frames - 1)/4 + 1, height/8, width/8)`.

        Raises:
            GeneratorError: The frames or the size are none of these.
        """
        ratio, space = self.vae.temporal_compression_ratio, self.vae.spatial_compression_ratio
        unit = space * self.transformer.config.patch_size
        check_clip_size(frames, height, width, ratio=ratio, unit=unit)
        return (
            batch,
            self.vae.config.latent_channels,
            (frames - 1) // ratio + 1,
            height // space,
            width // space,
        )

    def initial_noise(self, shape: Sequence[int], seeds: Sequence[int]) -> Tensor:
        """Draw standard normal latents, with one CPU random generator per sample.

        A sample's noise depends on its seed alone, not on batch size or device.

        Args:
            shape: `(b, 16, t, h/8, w/8)`.
            seeds: b seeds.

        Returns:
            Latents of that shape on the generator's device, in `state_dtype`.

        Raises:
            GeneratorError: There is not one seed per sample.
        """
        batch, *rest = shape
        if len(seeds) != batch:
            raise GeneratorError(
                f"Got {len(seeds)} seeds for a batch of {batch}. Give one seed for each sample."
            )
        samples = [
            torch.randn(
                rest, generator=torch.Generator("cpu").manual_seed(seed), dtype=torch.float32
            )
            for seed in seeds
        ]
        return torch.stack(samples).to(self.device, self.state_dtype)

    def velocity(self, latents: Tensor, sigma: Tensor | float, condition: Condition) -> Tensor:
        """Call the model once: d(latents)/d(sigma).

        Args:
            latents: `(b, 16, t, h/8, w/8)`, any float dtype.
            sigma: Noise level in [0, 1]: a number, a scalar tensor or `(b,)`.
            condition: One guidance branch.

        Returns:
            Velocity, shape of `latents`, in `state_dtype`, differentiable.

        Raises:
            GeneratorError: The condition fits neither the model nor the latents.
        """
        device, dtype = self.device, self.dtype
        batch = latents.shape[0]
        text = condition.text
        if text.shape[0] not in {1, batch}:
            raise GeneratorError(
                f"Got text states for {text.shape[0]} samples and latents for {batch}. "
                "Encode one prompt for each sample."
            )
        if text.shape[0] != batch:
            text = text.expand(batch, -1, -1)
        channels = model_channels(
            condition, self.kind, tuple(latents.shape), device=device, dtype=dtype
        )
        velocity = self.transformer(
            latents.to(device, dtype),
            self._timesteps(sigma, batch),
            encoder_hidden_states=text.to(device, dtype),
            return_dict=False,
            **channels,
        )[0]
        return velocity.to(self.state_dtype)

    def _timesteps(self, sigma: Tensor | float, batch: int) -> Tensor:
        """Return `(b,)`: 1000 * sigma, rounded to the weights' dtype as the published code does."""
        steps = torch.as_tensor(sigma, device=self.device).to(self.state_dtype)
        steps = steps * FAMILY.timesteps
        if not self.fp32_timesteps:
            steps = steps.to(self.dtype)
        return steps.expand(batch)

    def decode(
        self,
        latents: Tensor,
        frames: slice | None = None,
        *,
        detach_context: bool = False,
        checkpointing: Checkpointing = True,
        by: DecodedBy = "vae",
    ) -> Tensor:
        """Decode latents to frames, differentiable.

        Args:
            latents: `(b, 16, t, h/8, w/8)`, scaled.
            frames: Frames to decode; None decodes all. Later latents than needed are not decoded.
            detach_context: Stop the gradient at the latents before the first of these frames.
            checkpointing: What the backward pass computes again: True each latent frame, "segments"
                also what lies between them, False nothing (`base_model.networks.magvit.decode`).
            by: The VAE, the small decoder, or frames of the one with the gradient of the other.

        Returns:
            `(b, f, 3, H, W)` in [0, 1], float32 (float64 for a float64 VAE).

        Raises:
            GeneratorError: The slice is empty or has a step, the call needs a gradient through a
                VAE that rests on the CPU, or there is no small decoder.
        """
        if by == "vae":
            return self._decode_true(latents, frames, detach_context, checkpointing)
        if self.small_decoder is None:
            raise GeneratorError(
                "This generator has no small decoder. Set its attribute small_decoder "
                "(base_model.loading.small_decoder), or decode with the VAE."
            )
        near = decode_small(
            self.small_decoder,
            latents,
            frames,
            detach_context=detach_context,
            checkpointing=bool(checkpointing),
        )
        if by == "small":
            return near
        with torch.no_grad():
            true = self._decode_true(latents, frames, detach_context, checkpointing)
        return _values_of(true.to(near), near)

    def _decode_true(
        self,
        latents: Tensor,
        frames: slice | None,
        detach_context: bool,
        checkpointing: Checkpointing,
    ) -> Tensor:
        with self.resting.vae_for(latents):
            decoded = magvit.decode(
                self.vae,
                latents,
                frames,
                detach_context=detach_context,
                checkpointing=checkpointing,
            )
        return decoded.to(self.device)  # the VAE may be on another

    def encode(self, frames: Tensor) -> Tensor:
        """Encode frames to latents: the mode of the posterior, scaled.

        Args:
            frames: `(b, f, 3, H, W)` in [0, 1], f = 4k + 1, H and W multiples of 8.

        Returns:
            `(b, 16, (f - 1)/4 + 1, H/8, W/8)`, float32 (float64 for a float64 VAE).

        Raises:
            GeneratorError: The number of frames or the size is none of these.
        """
        with self.resting.vae_for(frames):
            return magvit.encode(self.vae, frames).to(self.device)


class _Values(torch.autograd.Function):
    """The values of one tensor with the gradient of another; exact, unlike a sum and difference."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, near: Tensor) -> Tensor:
        """Return the values."""
        del ctx, near
        return values.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor]:
        """Pass the gradient on to the other tensor."""
        del ctx
        return None, gradients[0]


def _values_of(values: Tensor, near: Tensor) -> Tensor:
    """Return `values`, differentiated as `near`."""
    found: Tensor = _Values.apply(values, near)
    return found


def load_generator(
    checkpoint: str | Path,
    *,
    dtype: torch.dtype = torch.float32,
    vae_dtype: torch.dtype | None = None,
    vae_device: str | torch.device | None = None,
    device: str | torch.device = "cpu",
    text_encoder: bool = True,
    fp32_timesteps: bool = False,
    memory: Memory = "resident",
    quantise: Quantise | None = None,
) -> Generator:
    """Load a generator in either checkpoint layout, frozen and in eval mode.

    9 parameters: where each part comes from, where it lies and in which form, as a recipe says.

    Args:
        checkpoint: A shipped name ("tiny"), a folder, or a hub id ("org/name").
        dtype: Dtype of all weights.
        vae_dtype: Dtype of the VAE's weights, in which it also computes; None takes `dtype`.
        vae_device: Device on which the VAE works and stays, in every memory mode; None takes
            `device`. Latents are moved there, and frames back.
        device: Device of all other weights.
        text_encoder: Load the text encoder; False neither loads nor downloads it.
        fp32_timesteps: See `Generator`.
        memory: Memory mode (`base_model.memory.modes`). The weights of `sharded` are spread later,
            by `base_model.memory.sharded.share_blocks`; until then they are resident.
        quantise: Storage of the linear layers in the transformer's blocks
            (`base_model.memory.quantise`); None stores them in `dtype`.

    Returns:
        The generator, with its transformer corrected.

    Raises:
        GeneratorError: The checkpoint is missing or is no complete EasyAnimateV5.1, or its weights
            cannot be quantised here.
    """
    folder = local_folder(resolve_checkpoint(checkpoint), text_encoder=text_encoder)
    transformer = load_transformer(
        folder, dtype=dtype, device=device, memory=memory, quantise=quantise
    )
    home = "cpu" if MODES[memory].parts_rest else device
    vae = load_vae(folder, dtype=vae_dtype or dtype, device=vae_device or home)
    encoder = load_text_encoder(folder, dtype=dtype, device=home) if text_encoder else None
    if encoder is not None and encoder.width != transformer.config.text_embed_dim:
        raise GeneratorError(
            f"{folder}: the text encoder's states have {encoder.width} channels, the transformer "
            f"takes {transformer.config.text_embed_dim}. The folders are of different checkpoints."
        )
    resting = None
    if MODES[memory].parts_rest:
        texts = None if encoder is None else encoder.text_encoder
        moved = vae if vae_device is None else None
        resting = Resting.parts(moved, texts, torch.device(device))
    return Generator(transformer, vae, encoder, fp32_timesteps=fp32_timesteps, resting=resting)
