"""Convert the config.json of a transformer or VAE to the other layout, and back to the byte.

The two classes have different arguments and, for the same arguments, different defaults, so every
value is written out. What the other layout cannot express (a key that only one class has, the order
of lines) is kept in a second file, `config.original.json` or `config.diffusers.json`, from which a
conversion back restores the text.
"""

import inspect
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, cast

from base_model.core.kinds import kind_of
from base_model.files.weight_files import json_object
from base_model.loading.key_map import Layout
from base_model.loading.model_configs import transformer_arguments_of, vae_arguments_of

Part = Literal["transformer", "vae"]

_OTHER: Mapping[Layout, Layout] = {"original": "diffusers", "diffusers": "original"}

# Arguments that only the original classes take, with the values of V5.1.
_ORIGINAL_TRANSFORMER: Mapping[str, Any] = {
    "add_ref_latent_in_control_model": True,
    "clip_channels": None,
    "enable_clip_in_inpaint": False,
    "ref_channels": None,
    "swa_layers": None,
}
_ORIGINAL_VAE: Mapping[str, Any] = {
    "cache_mag_vae": True,
    "mid_block_type": "MidBlock3D",
    "mid_block_use_attention": False,
    "mini_batch_decoder": 1,
    "mini_batch_encoder": 4,
    "slice_mag_vae": False,
}

# diffusers' inpaint pipeline reads this key from the VAE's config, although its VAE class does not
# take it.
_READ_BY_PIPELINES: Mapping[str, Any] = {"cache_mag_vae": True}


def kept_name(name: str, layout: Layout) -> str:
    """Return the file that keeps a layout's text: config.json -> config.original.json."""
    return f"{name.removesuffix('.json')}.{layout}.json"


def converted_config(part: Part, path: Path, text: str, layout: Layout) -> str:
    """Convert the config of a component to a layout, with every value written out.

    Args:
        part: Component.
        path: Path of the text, for messages.
        text: JSON in either layout.
        layout: Layout of the result.

    Returns:
        JSON as diffusers writes it (sorted, indented by 2).

    Raises:
        GeneratorError: It is no config of V5.1, or no JSON object.
    """
    import diffusers

    reads: Callable[[Path, Mapping[str, Any], Any], dict[str, Any]]
    if part == "transformer":
        name, reads = "EasyAnimateTransformer3DModel", transformer_arguments_of
    else:
        name, reads = "AutoencoderKLMagvit", vae_arguments_of
    model_class = getattr(diffusers, name)
    parameters = inspect.signature(model_class.__init__).parameters
    defaults: dict[str, Any] = {key: p.default for key, p in parameters.items() if key != "self"}
    config = {**defaults, **reads(path, json_object(path, text), model_class)}
    if layout == "diffusers":
        about = {"_class_name": name, "_diffusers_version": diffusers.__version__}
        return written({**about, **config, **(_READ_BY_PIPELINES if part == "vae" else {})})
    if part == "transformer":
        return written({"_class_name": name, **config, **_ORIGINAL_TRANSFORMER})
    return written({"_class_name": name, **config, **_ORIGINAL_VAE, **_widths(config)})


def translated(
    text: str, kept: str | None, layout: Layout, convert: Callable[[str, Layout], str]
) -> tuple[str, str | None]:
    """Convert a text to a layout, and return what must be kept to restore it to the byte.

    Args:
        text: Text in the other layout.
        kept: Text of the result's layout that an earlier conversion kept. It is used only if it
            still means the same as `text`, which may have been edited since.
        layout: Layout of the result.
        convert: Function from a text in any layout to a text in a layout.

    Returns:
        The new text, and the old one if converting the new one back does not restore it.
    """
    before = _OTHER[layout]
    restored = kept is not None and (
        convert(kept, before) == text or convert(text, layout) == convert(kept, layout)
    )
    new = kept if restored and kept is not None else convert(text, layout)
    return new, None if convert(new, before) == text else text


def model_index(in_channels: int) -> str:
    """Return model_index.json of diffusers' pipeline for a transformer.

    Raises:
        GeneratorError: No V5.1 checkpoint has this number of input channels.
    """
    kind = kind_of(in_channels)
    import diffusers

    return written(
        {
            "_class_name": kind.pipeline,
            "_diffusers_version": diffusers.__version__,
            "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
            "text_encoder": ["transformers", "Qwen2VLForConditionalGeneration"],
            "tokenizer": ["transformers", "Qwen2Tokenizer"],
            "transformer": ["diffusers", "EasyAnimateTransformer3DModel"],
            "vae": ["diffusers", "AutoencoderKLMagvit"],
        }
    )


def converted_texts(
    folder: Path, before: Layout, layout: Layout, in_channels: int
) -> dict[str, str]:
    """Convert the configs of a checkpoint to a layout.

    Args:
        folder: Folder of the checkpoint.
        before: Its layout.
        layout: Layout of the result.
        in_channels: Input channels of its transformer, which decide diffusers' pipeline.

    Returns:
        Contents by file name, with the files that keep the source's texts.

    Raises:
        GeneratorError: A config is not of V5.1.
    """
    texts: dict[str, str] = {}
    for part in cast("tuple[Part, ...]", ("transformer", "vae")):
        path = folder / part / "config.json"
        new, kept = path.read_bytes().decode(), None
        if before != layout:

            def convert(text: str, wanted: Layout, part: Part = part, path: Path = path) -> str:
                return converted_config(part, path, text, wanted)

            new, kept = translated(new, _read(path.with_name(kept_name(path.name, layout))),
                                   layout, convert)  # fmt: skip
        texts[f"{part}/config.json"] = new
        if kept is not None:
            texts[f"{part}/{kept_name('config.json', before)}"] = kept
    return texts | _index_texts(folder, before, layout, in_channels)


def _index_texts(folder: Path, before: Layout, layout: Layout, in_channels: int) -> dict[str, str]:
    """Return model_index.json: diffusers needs its own; the original layout keeps what it had."""
    name = "model_index.json"
    here = _read(folder / name)
    generated = model_index(in_channels)
    if before == layout:
        text = generated if here is None and layout == "diffusers" else here
        return {} if text is None else {name: text}
    restored = _read(folder / kept_name(name, layout))
    new = restored or (generated if layout == "diffusers" else None)
    texts = {} if new is None else {name: new}
    regained = generated if before == "diffusers" else None
    if here is not None and here != regained:
        texts[kept_name(name, before)] = here
    return texts


def _read(path: Path) -> str | None:
    return path.read_bytes().decode() if path.is_file() else None


def written(content: Mapping[str, Any]) -> str:
    """Return JSON as diffusers writes its files."""
    return json.dumps(content, indent=2, sort_keys=True) + "\n"


def _widths(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the original VAE's `ch` and `ch_mult` if the widths are multiples of the first."""
    first, *_ = widths = config["block_out_channels"]
    if any(width % first for width in widths):
        return {}
    return {"ch": first, "ch_mult": [width // first for width in widths]}
