"""Hashes of everything a run reads: recorded in its folder, compared when it is resumed."""

from __future__ import annotations

import json
from pathlib import Path

from reward_tuning.files.hashes import file_sha256, text_sha256
from reward_tuning.inputs.text_cache import checkpoint_fingerprint
from reward_tuning.judges.shared_encoder import encoder_folder
from reward_tuning.lora.frozen import frozen_sha256
from reward_tuning.lora.init import adapter_file
from reward_tuning.progress import ProgressEvent, ProgressFn, silent
from reward_tuning.sampling.generator_parts import generator_folder
from reward_tuning.schema.recipe import Recipe
from reward_tuning.tuning.prompt_sets import held_out_prompts, training_prompts
from rewards.core.locate import resolve_file
from rewards.qwen.files import resolve_folder


def fingerprints_of(recipe: Recipe, progress: ProgressFn = silent) -> dict[str, str]:
    """Hash every checkpoint that a recipe names, and the prompts.

    Generators and folders of judges are hashed by `checkpoint_fingerprint`, judges' files whole,
    prompts by their texts.

    Args:
        recipe: Resolved.
        progress: Called once, before the hashing: large checkpoints take seconds.

    Returns:
        Name of a part of the run to `sha256:` and 64 hexadecimal digits.

    Raises:
        GeneratorError: A part of the generator is missing.
        RewardError: A judge is missing.
    """
    root = generator_folder(recipe.generator, text_encoder=False)
    progress(ProgressEvent("loading", phase="checkpoint hashes"))
    folders = [root / "transformer", root / "vae"]
    found = {"generator": _sha256(checkpoint_fingerprint(folders))}
    parts = [encoder_folder(recipe) / name for name in ("text_encoder", "tokenizer")]
    found["text encoder"] = _sha256(checkpoint_fingerprint(parts))
    for name, prompts in (
        ("prompts.train", training_prompts(recipe).prompts),
        ("prompts.held_out", held_out_prompts(recipe)),
    ):
        texts = json.dumps([[prompt.text, prompt.reward_text] for prompt in prompts])
        found[name] = _sha256(text_sha256(texts))
    if recipe.generator.adapter is not None:
        found["generator.adapter"] = _sha256(frozen_sha256(recipe.generator))
    if recipe.lora.init is not None:
        found["lora.init"] = _sha256(file_sha256(adapter_file(Path(recipe.lora.init))))
    for judge in [*recipe.rewards, *recipe.evaluation.held_out_rewards]:
        for key, name in judge.files.items():
            label = judge.label if key == "checkpoint" else f"{judge.label}.{key}"
            found[label] = _sha256(file_sha256(resolve_file(name)))
        for key, name in judge.folders.items():
            label = judge.label if key == "checkpoint" else f"{judge.label}.{key}"
            found[label] = _sha256(checkpoint_fingerprint([resolve_folder(name)]))
        if judge.of_generator:
            found[judge.label] = found["text encoder"]
    return found


def _sha256(digits: str) -> str:
    return f"sha256:{digits}"
