"""Parse the names of a LoRA's tensors as other tools write them.

A key is the name of a module and of a part: the factor down (r, in), the factor up (out, r), or
alpha. The module's name may have a prefix of the tool (`transformer.`, `base_model.model.`,
`lora_unet__`), wrappers anywhere in it (`_orig_mod`), or `_` for its dots, and may be the original
checkpoint's or diffusers'.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

from torch import nn

from base_model.loading.key_map import to_original
from reward_tuning.errors import TuningError, short_repr
from reward_tuning.lora.adapter import linear_modules

Part = Literal["down", "up", "alpha"]

# lora_A.weight, lora_A.default.weight, lora.down.weight, lora_down.weight; to_q_lora.down.weight
_FACTOR = re.compile(
    r"(?P<stem>.+?)[._](?:lora_(?P<peft>[AB])|lora[._](?P<other>down|up)"
    r"|lora_linear_layer\.(?P<layer>down|up))(?:\.[^.]+)?\.weight",
    re.DOTALL,
)
_ALPHA = re.compile(r"(?P<stem>.+?)(?:\.lora)?\.(?:lora_|network_)?alpha", re.DOTALL)

WRAPPERS = frozenset(
    [
        "module",
        "_orig_mod",
        "_fsdp_wrapped_module",
        "_checkpoint_wrapped_module",
        "_forward_module",
        "processor",
    ]
)
_FLAT_WRAPPERS = re.compile(
    r"(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|_forward_module)_"
)
# Words of a prefix that mean this model in any file.
_KNOWN = frozenset(
    ["transformer", "diffusion_model", "base_model", "model", "pipe", "dit", "unet", "net"]
)
_KNOWN_FLAT = re.compile(
    r"(?:(?:lora|lycoris|locon|unet|transformer|dit|diffusion|model|base|pipe|net|module)_+)+"
)

# Keys that are not those of a plain LoRA: (pattern, kind, advice).
_PLAIN = (
    "only plain LoRA is read; merge it into weights, or extract a plain LoRA, where it was made"
)
_ALONE = "only the transformer is tuned here; save the transformer's LoRA alone"
_FOREIGN: tuple[tuple[re.Pattern[str], str, str], ...] = tuple(
    (re.compile(pattern), what, advice)
    for pattern, what, advice in (
        (
            r"(?:^|[._])(?:lora_te\d?|text_encoder(?:_?\d)?|text_model|clip_[lg]|cond_stage_model"
            r"|language_model|t5xxl|llm)[._]|^te\d?[._]",
            "a text encoder",
            _ALONE,
        ),
        (r"(?:^|[._])(?:vae|first_stage_model)[._]", "a VAE", _ALONE),
        (
            r"(?:^|[._])(?:image_encoder|visual|controlnet)[._]",
            "another part of a pipeline",
            _ALONE,
        ),
        (r"\.(?:dora_scale|lora_magnitude_vector)(?:\.|$)", "DoRA (magnitudes)", _PLAIN),
        (r"\.lokr_", "LoKr (Kronecker products)", _PLAIN),
        (r"\.hada_", "LoHa (Hadamard products)", _PLAIN),
        (r"\.(?:oft_|boft_|oft_blocks)", "OFT (rotations)", _PLAIN),
        (r"\.(?:ia3_|on_input$)", "IA3 (scales)", _PLAIN),
        (r"\.[ab][12]\.weight$", "GLoRA", _PLAIN),
        (r"\.(?:vera_|lora_E$|ranknum$|lora_xs)", "VeRA, AdaLoRA or another relative", _PLAIN),
        (r"\.lora_mid\.weight$", "LoCon with a core (lora_mid)", _PLAIN),
        (r"\.lora_embedding_[AB]", "an embedding layer", _PLAIN),
        (r"\.(?:diff_b|b_norm)$", "a changed bias (diff_b)", _PLAIN),
        (r"\.(?:diff|w_norm|set_weight)$", "a changed weight (diff)", _PLAIN),
        (
            r"\.lora_(?:[AB]|down|up)(?:\.[^.]+)?\.bias$",
            "a LoRA's own bias (lora_bias)",
            _PLAIN,
        ),
        (r"\.modules_to_save\.", "whole modules (modules_to_save)", _PLAIN),
    )
)


class LoraKey(NamedTuple):
    """A parsed key.

    Attributes:
        key: Key in the file.
        stem: Its module with the prefix.
        part: Its tensor: `down`, `up` or `alpha`.
    """

    key: str
    stem: str
    part: Part


def lora_keys(keys: Iterable[str], where: str) -> list[LoraKey]:
    """Parse the keys of a file.

    Args:
        keys: All keys of the file.
        where: The file, for messages.

    Raises:
        TuningError: No key is a LoRA's, or some belong to something else, which the message names.
    """
    every = list(keys)
    for pattern, what, advice in _FOREIGN:
        if found := [key for key in every if pattern.search(key)]:
            raise TuningError(
                f"{where}: {len(found)} of {len(every)} keys belong to {what}, the first "
                f"{short_repr(found[0])}; {advice}"
            )
    parsed = [_parsed(key) for key in every]
    if not any(one and one.part != "alpha" for one in parsed):
        first = f"its first key is {short_repr(min(every))}" if every else "it has no tensors"
        raise TuningError(
            f"{where}: no known adapter layout ({first}); expected keys such as "
            "<module>.lora_A.weight, <module>.lora_down.weight"
        )
    for key, one in zip(every, parsed, strict=True):
        if one is None:
            raise TuningError(
                f"{where}: key {short_repr(key)} does not belong to a LoRA; expected: "
                "<module>.lora_A.weight and .lora_B.weight, <module>.lora_down.weight and "
                ".lora_up.weight, <module>.alpha; "
                f"{_PLAIN}"
            )
    return [one for one in parsed if one is not None]


def _parsed(key: str) -> LoraKey | None:
    if found := _FACTOR.fullmatch(key):
        half = found["peft"] or found["other"] or found["layer"]
        return LoraKey(key, found["stem"], "down" if half in ("A", "down") else "up")
    if found := _ALPHA.fullmatch(key):
        return LoraKey(key, found["stem"], "alpha")
    return None


def module_paths(stems: Iterable[str], transformer: nn.Module, where: str) -> dict[str, str]:
    """Find the module of each stem.

    Args:
        stems: Stems of a file's keys.
        transformer: Model, of which only the names of modules are read.
        where: The file, for messages.

    Returns:
        Stem to diffusers module path.

    Raises:
        TuningError: A module that the transformer does not have or that is not a linear layer, or
            two names of one module.
    """
    table: dict[str, str] = {}
    for path in linear_modules(transformer):
        table |= {path: path, to_original(path): path}
    for name, path in list(
        table.items()
    ):  # diffusers' attention processors drop the 0: to_out_lora
        table.setdefault(name.removesuffix(".0"), path)
    flat = {name.replace(".", "_"): path for name, path in table.items()}
    found: dict[str, tuple[str, str]] = {}  # stem -> prefix, path
    lacking: list[str] = []
    for stem in dict.fromkeys(stems):
        if (one := _dotted(stem, table) or _flat(stem, flat)) is None:
            lacking.append(stem)
        else:
            found[stem] = one
    # An unknown prefix is accepted only if the whole file has it: a part of another model, such as
    # `refiner.transformer_blocks.0.attn1.to_q`, may end in the name of a module of this one.
    if len({before for before, _ in found.values()}) > 1:
        lacking += [stem for stem, (before, _) in found.items() if not _is_known(before)]
    if lacking:
        raise TuningError(_lacking(lacking, len(found) + len(lacking), transformer, where))
    stem_of: dict[str, str] = {}
    for stem, (_, path) in found.items():
        if path in stem_of:
            raise TuningError(
                f"{where}: {short_repr(stem_of[path])} and {short_repr(stem)} are one module, "
                f"{path}; save each adapter in a file of its own"
            )
        stem_of[path] = stem
    return {stem: path for stem, (_, path) in found.items()}


def _dotted(stem: str, table: Mapping[str, str]) -> tuple[str, str] | None:
    words = [word for word in stem.split(".") if word not in WRAPPERS]
    for i in range(len(words)):
        if path := table.get(".".join(words[i:])):
            before = words[:i]
            return None if any(map(str.isdigit, before)) else (".".join(before), path)
    return None


def _flat(stem: str, flat: Mapping[str, str]) -> tuple[str, str] | None:
    if "." in stem:
        return None
    text = _FLAT_WRAPPERS.sub("", stem)
    starts = [0, *(i + 1 for i, letter in enumerate(text) if letter == "_")]
    for i in starts[:50]:  # the longest name first
        if path := flat.get(text[i:]):
            before = text[:i]
            return None if any(map(str.isdigit, before.split("_"))) else (before, path)
    return None


def _is_known(before: str) -> bool:
    return all(w in _KNOWN for w in before.split(".") if w) or bool(_KNOWN_FLAT.fullmatch(before))


def _lacking(stems: list[str], of: int, transformer: nn.Module, where: str) -> str:
    linear = linear_modules(transformer)
    kinds = {
        name: type(module).__name__
        for name, module in transformer.named_modules()
        if name and name not in linear
    }
    dotted = {name: name for name in kinds}
    flat = {name.replace(".", "_"): name for name in kinds}
    for stem in stems:
        found = _dotted(stem, dotted) or _flat(stem, flat)
        if found and _is_known(found[0]):
            return (
                f"{where}: module {found[1]} is a {kinds[found[1]]} in this transformer; only "
                "linear layers take an adapter here: leave it out when you train the LoRA"
            )
    return (
        f"{where}: {len(stems)} of {of} modules are not in this transformer, first "
        f"{short_repr(min(stems))}; the adapter is for another model (compare the number of blocks)"
    )
