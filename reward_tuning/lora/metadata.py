"""Metadata in the header of an adapter's files: what managers show, and how it was made.

* `modelspec.*`: the SAI model specification 1.0.0 (github.com/Stability-AI/ModelSpec).
* `ss_*`, `sshs_*`: what kohya's trainers write, by which managers list, group and find files.
* `reward_tuning.*`: recipe, judges, evaluation and base, as JSON.

The bytes of a file depend on its content alone, so there is no date.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from base_model.core.family import FAMILY
from base_model.files.reproducible import safetensors_bytes
from reward_tuning.files.public_paths import without_folders
from reward_tuning.lora.adapter import LoraWeights
from reward_tuning.section import Section

ARCHITECTURE = "easyanimate-v5.1"
"""Our identifier of the architecture; the specification lists none for EasyAnimate."""
DIFFUSERS = "diffusers"
ORIGINAL = "https://github.com/aigc-apps/EasyAnimate"
"""Code bases whose names the tensors have, as `modelspec.implementation`."""
OWN = "reward_tuning."
EVALUATION, STRENGTH, TRUNCATION = f"{OWN}evaluation", f"{OWN}strength", f"{OWN}truncation"
BASE = f"{OWN}base"
TITLE = "modelspec.title"

_CARRIED = ("modelspec.", "ss_", OWN)
_HASH = "modelspec.hash_"  # of the tensors, which another format or dtype changes
# The keys of evaluation.json that are its result; the others are rows and scores of each prompt.
_EVALUATED = (
    *("primary", "start", "prompts", "seeds", "trained_on", "never_trained_on"),
    *("base", "tuned", "difference", "checkpoint"),
)


def adapter_bytes(
    tensors: Mapping[str, Tensor],
    weights: LoraWeights,
    *,
    alpha: float,
    implementation: str,
    about: Mapping[str, str],
    more: Mapping[str, str],
) -> bytes:
    """Return an adapter's safetensors file with its metadata, the same bytes for the same content.

    Args:
        tensors: Tensors of the file, in their final dtype.
        weights: The adapter.
        alpha: Alpha by which a reader of the file multiplies: the rank where alpha / rank is in the
            factors already.
        implementation: Code base whose names the tensors have.
        about: Entries on the origin of the adapter (`training_metadata`, `carried`).
        more: Further entries that the format needs.
    """
    entries = {
        TITLE: f"{FAMILY.name} LoRA",
        "modelspec.usage_hint": "No trigger word. Strength 1 is as trained, 0 is the base",
        **about,
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": f"{ARCHITECTURE}/lora",
        "modelspec.implementation": implementation,
        "ss_base_model_version": ARCHITECTURE,
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(weights.rank),
        "ss_network_alpha": f"{alpha:g}",
        **more,
    }
    return safetensors_bytes(tensors, {**entries, **_hashes(tensors, entries)})


def _hashes(tensors: Mapping[str, Tensor], entries: Mapping[str, str]) -> dict[str, str]:
    """Return the digests by which managers index files.

    The new ones are the SHA-256 of the data after the header. The old one, of
    sd-webui-additional-networks, is the first eight digits of the SHA-256 of 64 KiB from 1 MiB on,
    of the file whose header has the `ss_` entries alone (kohya-ss/sd-scripts,
    `precalculate_safetensors_hashes`).
    """
    training = {name: text for name, text in entries.items() if name.startswith("ss_")}
    file = safetensors_bytes(tensors, training)
    data = 8 + int.from_bytes(file[:8], "little")
    digest = hashlib.sha256(memoryview(file)[data:]).hexdigest()
    return {
        f"{_HASH}sha256": f"0x{digest}",
        "sshs_model_hash": digest,
        "sshs_legacy_hash": hashlib.sha256(file[0x100000:0x110000]).hexdigest()[:8],
    }


def carried(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return the entries of a file's header that stay true in another format or dtype.

    Such as the licence, the author and the trigger words of a LoRA of another tool.
    """
    return {
        name: text
        for name, text in metadata.items()
        if name.startswith(_CARRIED) and not name.startswith(_HASH)
    }


def training_metadata(recipe: Section, fingerprints: Mapping[str, str]) -> dict[str, str]:
    """Describe a run: entries for the header of its adapter.

    Folders are left out of file names, and the run folder altogether: they are the user's own, and
    the same recipe gives the same bytes wherever it runs.

    Args:
        recipe: Resolved recipe of a reward tuning, of a distillation, or of a fine-tuning with an
            adapter.
        fingerprints: Hashes of the run's checkpoints, by part.
    """
    values = without_folders(recipe.model_dump(mode="json", exclude={"output"}))
    generator, train = values["generator"], values["train"]
    base = " with another ".join(
        [generator["checkpoint"], *(p for p in ("transformer", "vae") if generator.get(p))]
    )
    steps = train.get("steps")
    judges = {
        "trained_on": [judge.label for judge in getattr(recipe, "rewards", ())],
        "never_trained_on": [
            judge.label
            for judge in getattr(getattr(recipe, "evaluation", None), "held_out_rewards", ())
        ],
    }
    if judges["trained_on"]:
        kind = values["method"]["kind"]
        title = f"{base} tuned on {', '.join(judges['trained_on'])}"
        how = f"by {kind} on the judges {', '.join(judges['trained_on'])}"
    elif student := values.get("student"):
        title = f"{base} distilled to {student['steps']} steps"
        how = "by PeRFlow (arXiv:2405.07510) on its own guided samples"
    else:
        title, how = f"{base} fine-tuned on clips", "by flow matching on clips"
    description = f"LoRA for {base} ({FAMILY.name}), trained for {steps} steps {how}."
    entries = {
        TITLE: title,
        "modelspec.description": description,
        "ss_training_comment": description,
        "ss_sd_model_name": base,
        "ss_seed": values["seed"],
        "ss_steps": steps,
        "ss_learning_rate": train.get("learning_rate"),
        **_resolution(values.get("sampling") or values.get("student")),
        f"{OWN}recipe": values,
        BASE: {"checkpoint": base, "fingerprint": fingerprints.get("generator")},
    }
    if judges["trained_on"]:
        entries[f"{OWN}judges"] = judges
    if "student" in values:
        hint = f"No trigger word. Sample with {values['student']['steps']} steps and no guidance"
        entries["modelspec.usage_hint"] = hint
    return {name: _text(value) for name, value in entries.items() if value is not None}


def evaluation_metadata(evaluation: Mapping[str, Any]) -> dict[str, str]:
    """Return the entry of an evaluation.json: the means and differences, without rows."""
    found = {key: evaluation[key] for key in _EVALUATED if evaluation.get(key) is not None}
    return {EVALUATION: _text(found)} if found else {}


def _resolution(sampling: Mapping[str, Any] | None) -> dict[str, str]:
    if sampling is None:  # clips of a fine-tuning have sizes of their own
        return {}
    width, height = sampling["width"], sampling["height"]
    return {"modelspec.resolution": f"{width}x{height}", "ss_resolution": f"({width}, {height})"}


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
