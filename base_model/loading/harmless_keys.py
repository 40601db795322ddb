"""Keys of published configs that our classes do not take, and when they do nothing.

A key that the original class ignores in this configuration is harmless; everything else is refused
by name. The sources are EasyAnimate's own classes and pipelines (commit c2a70d1) and, for the VAE,
a
measurement: a small random `AutoencoderKLMagvit`, 17 frames, float64, one key changed at a time.
"(0.0)" is the largest difference of latents and frames that this gave.

Each table maps a name to the condition and the reason. A key that the class does not take and whose
value is null counts as unset, whatever its name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from base_model.core.family import FAMILY
from base_model.core.kinds import INPAINT, kind_named

Config = Mapping[str, Any]


@dataclass(frozen=True)
class Harmless:
    """Condition under which a key changes nothing, and the reason.

    Attributes:
        when: Function of the config; true if the key does nothing.
        allowed: Harmless values, as text for messages.
        reason: Reason, as text for messages.
    """

    when: Callable[[Config], bool]
    allowed: str
    reason: str


def _always(reason: str) -> Harmless:
    return Harmless(lambda config: True, "anything", reason)


def _among(key: str, values: tuple[Any, ...], reason: str) -> Harmless:
    return Harmless(lambda config: _is_one_of(config[key], values), str(values), reason)


def _among_or(
    key: str, values: tuple[Any, ...], when: Callable[[Config], bool], where: str, reason: str
) -> Harmless:
    """Allow these values, and any value in a config for which `when` holds."""
    return Harmless(
        lambda config: _is_one_of(config[key], values) or when(config),
        f"{values}, or anything {where}",
        reason,
    )


def _unset(key: str, reason: str) -> Harmless:
    return Harmless(lambda config: config[key] is None, "null", reason)


def _is_one_of(value: Any, values: tuple[Any, ...]) -> bool:
    """Compare without taking 0 for False or 1 for True."""
    return any(type(value) is type(allowed) and value == allowed for allowed in values)


def _while(when: Callable[[Config], bool], where: str, reason: str) -> Harmless:
    return Harmless(when, f"anything {where}", reason)


def _not_inpaint(config: Config) -> bool:
    return config.get("in_channels") != kind_named(INPAINT).channels


def _no_clip(config: Config) -> bool:
    return config.get("clip_channels") is None


def _cached(config: Config) -> bool:
    return config.get("cache_mag_vae") is True


def _untiled(config: Config) -> bool:
    return not any(config.get(key) for key in _TILING)


def _without_attention(config: Config) -> bool:
    return not config.get("mid_block_use_attention")


def _mini_batches(config: Config) -> bool:
    """Check that the encoder takes whole latents and the decoder as many latents per batch."""
    encoder = config.get("mini_batch_encoder", FAMILY.time_stride)
    decoder = config.get("mini_batch_decoder", 1)
    return (
        type(encoder) is type(decoder) is int
        and decoder >= 1
        and encoder == FAMILY.time_stride * decoder
        and (decoder == 1 or config.get("spatial_group_norm") is True)
    )


_TILING = ("use_tiling", "use_tiling_encoder", "use_tiling_decoder")
_SAVED = "describes how the weights were saved; each tensor has its own dtype"
_AVERAGE = "a setting of diffusers' EMAModel, which save_pretrained writes with the network's"

# Keys that any tool may add. Keys that begin with an underscore are notes of the library that wrote
# the file (_diffusers_version, _name_or_path, _use_default_values); of these only _class_name is
# read.
COMMON: Mapping[str, Harmless] = {
    "torch_dtype": _always(_SAVED),
    "dtype": _always(_SAVED),
    "transformers_version": _always("names the library that wrote the file"),
} | dict.fromkeys(
    (
        "decay",
        "inv_gamma",
        "min_decay",
        "optimization_step",
        "power",
        "update_after_step",
        "use_ema_warmup",
    ),
    _always(_AVERAGE),
)

TRANSFORMER: Mapping[str, Harmless] = {
    "transformer_type": _among(
        "transformer_type",
        ("EasyAnimateTransformer3DModel",),
        "names the class, as in EasyAnimate's yaml",
    ),
    "after_norm": _among("after_norm", (False,), "no norm after the feed-forward layers"),
    "swa_layers": _unset("swa_layers", "no block attends within windows"),
    "ref_channels": _unset("ref_channels", "no projection of reference images"),
    "clip_channels": _unset("clip_channels", "no projection of CLIP states"),
    "enable_clip_in_inpaint": _among_or(
        "enable_clip_in_inpaint",
        (False,),
        _no_clip,
        "while clip_channels is null",
        "without clip_channels the transformer takes no CLIP states",
    ),
    "position_of_clip_embedding": _while(
        _no_clip,
        "while clip_channels is null",
        "places CLIP states, and without clip_channels there are none",
    ),
    "add_ref_latent_in_control_model": _always(
        "in_channels implies it: 48 and 38 include the 16 channels of a reference image, 32 not"
    ),
    "enable_zero_in_inpaint": _among_or(
        "enable_zero_in_inpaint",
        (True,),
        _not_inpaint,
        "unless in_channels is 33",
        "all inpaint channels are zero where nothing is kept",
    ),
    # Our class takes these as arguments, but their effect is implemented outside of it.
    "time_position_encoding_type": _among(
        "time_position_encoding_type", ("3d_rope",), "the rotary table of frame, row and column"
    ),
    "resize_inpaint_mask_directly": _among_or(
        "resize_inpaint_mask_directly",
        (True,),
        _not_inpaint,
        "unless in_channels is 33",
        "the mask is scaled to the grid of the latents and not encoded by the VAE",
    ),
    "enable_text_attention_mask": _among(
        "enable_text_attention_mask", (True,), "the text encoder does not attend to padding"
    ),
}

VAE: Mapping[str, Harmless] = {
    "vae_type": _among("vae_type", ("AutoencoderKLMagvit",), "names the class, as in the yaml"),
    "force_upcast": _always("an argument of the original class that no code reads (0.0)"),
    "sample_size": _always("no argument of the original class (0.0)"),
    "norm_type": _unset("norm_type", "no argument of the original class (0.0)"),
    "cache_mag_vae": _among(
        "cache_mag_vae",
        (True,),
        "the caches of the causal convolutions, which encode and decode here, too; without them "
        "the published pipelines smooth the frames and place masks differently",
    ),
    **{
        key: _among_or(
            key,
            (False,),
            _cached,
            "while cache_mag_vae is true",
            "read only without cache_mag_vae (0.0)",
        )
        for key in ("slice_mag_vae", "slice_compression_vae", "cache_compression_vae")
    },
    **{
        key: Harmless(
            _mini_batches,
            "4 and 1 for mini_batch_encoder and mini_batch_decoder, or equal multiples of both "
            "while spatial_group_norm is true",
            "number of frames and latents per call: the caches carry over (0.0)",
        )
        for key in ("mini_batch_encoder", "mini_batch_decoder")
    },
    **{
        key: _among(
            key,
            (False,),
            "large frames are encoded and decoded in one piece; --tiled-decode turns tiles on",
        )
        for key in _TILING
    },
    **{
        key: _while(
            _untiled,
            "while use_tiling, use_tiling_encoder and use_tiling_decoder are false",
            "the size of tiles, and there are none (0.0)",
        )
        for key in ("tile_sample_min_size", "tile_overlap_factor")
    },
    "upcast_vae": _among(
        "upcast_vae", (False,), "the VAE computes in the requested dtype, not in float32"
    ),
    "mid_block_type": _among("mid_block_type", ("MidBlock3D",), "the only type of middle block"),
    "mid_block_use_attention": _among(
        "mid_block_use_attention", (False,), "the middle block has no attention"
    ),
    **{
        key: _while(
            _without_attention,
            "while mid_block_use_attention is false",
            "belongs to attention in the middle block, which has none (0.0)",
        )
        for key in ("mid_block_attention_type", "mid_block_num_attention_heads")
    },
    "num_attention_heads": _always(
        "belongs to blocks with attention, which down_block_types and up_block_types may not name "
        "(0.0)"
    ),
    "use_gc_blocks": Harmless(
        lambda config: not _any_true(config["use_gc_blocks"]),
        "null, false or a list of false",
        "no block adds global context (0.0)",
    ),
    **dict.fromkeys(
        ("ch", "ch_mult"),
        _always("read only if block_out_channels, which gives the widths, is null (0.0)"),
    ),
}

# For diffusers' FlowMatchEulerDiscreteScheduler. V5.1's table (sigmas.py): mu = 1, exponential.
SCHEDULER: Mapping[str, Harmless] = {
    "shift": _always("used only without dynamic shifting, which is refused"),
    **dict.fromkeys(
        ("base_shift", "max_shift", "base_image_seq_len", "max_image_seq_len"),
        _always("used only to compute mu from the size of a clip; V5.1's pipelines set mu = 1"),
    ),
    "time_shift_type": _among("time_shift_type", ("exponential",), "the table that V5.1 uses"),
    "shift_terminal": _unset("shift_terminal", "the table ends at 0.0027 and 0, not stretched"),
    "invert_sigmas": _among("invert_sigmas", (False,), "sigmas run from 1 to 0"),
    "stochastic_sampling": _among("stochastic_sampling", (False,), "Euler steps without noise"),
    **{
        key: _among(key, (False,), "V5.1's own table")
        for key in ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas")
    },
}


def _any_true(value: Any) -> bool:
    return any(value) if isinstance(value, (list, tuple)) else bool(value)
