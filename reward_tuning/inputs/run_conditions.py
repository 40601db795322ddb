"""The conditions of a run's clips: check them early, encode each once, fingerprint them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence

from base_model.core.kinds import Kind
from base_model.errors import GeneratorError
from base_model.generator import Generator
from reward_tuning.errors import TuningError, first_lines
from reward_tuning.files.hashes import file_sha256, sampled_bytes
from reward_tuning.inputs.condition_files import NO_CONDITION, ConditionFiles
from reward_tuning.inputs.condition_pixels import check_kind, read_condition_pixels
from reward_tuning.inputs.encoded_condition import EncodedCondition, encode_condition
from reward_tuning.inputs.prompts import Prompt
from reward_tuning.progress import ProgressEvent, ProgressFn, silent
from reward_tuning.seeds import derive_seed

STAGE = "conditions"
MAX_REPORTED = 10  # prompts in one message


def distinct_conditions(prompts: Iterable[Prompt]) -> list[ConditionFiles]:
    """Return the conditions of prompts, each once, in order."""
    return [files for files in dict.fromkeys(one.files for one in prompts) if files != NO_CONDITION]


def check_conditions(
    prompts: Sequence[Prompt],
    size: tuple[int, int, int],
    *,
    strength: float,
    kind: Kind | None,
    progress: ProgressFn = silent,
) -> None:
    """Read every file of the prompts' conditions once, before anything heavy is loaded.

    Args:
        prompts: Prompts that the run will draw.
        size: Frames, height and width of a clip.
        strength: The recipe's strength.
        kind: Kind of the checkpoint; None if it is not known yet.
        progress: Called after each condition.

    Raises:
        TuningError: Conditions do not fit; the message lists their prompts.
    """
    bad: list[str] = []
    whose: dict[ConditionFiles, Prompt] = {}
    for prompt in prompts:
        whose.setdefault(prompt.files, prompt)
    if strength == 1.0:  # below 1, every prompt needs a video to start from
        whose.pop(NO_CONDITION, None)
    for number, (files, prompt) in enumerate(whose.items(), 1):
        try:
            files.check(strength)
            if kind is not None:
                check_kind(files, kind)
            for note in read_condition_pixels(files, size).notes:
                progress(ProgressEvent(STAGE, number - 1, len(whose), "reading", note=note))
        except (TuningError, GeneratorError) as error:
            bad.append(f"{prompt.text!r}: {error}")
        progress(ProgressEvent(STAGE, number, len(whose), "reading"))
    _refuse(bad)


def check_kinds(prompts: Sequence[Prompt], kind: Kind) -> None:
    """Check that a kind of checkpoint takes the prompts' conditions, without reading files.

    Raises:
        TuningError: It does not take some conditions; the message lists their prompts.
    """
    bad: dict[ConditionFiles, str] = {}
    for prompt in prompts:
        try:
            check_kind(prompt.files, kind)
        except (TuningError, GeneratorError) as error:
            bad.setdefault(prompt.files, f"{prompt.text!r}: {error}")
    _refuse(list(bad.values()))


def _refuse(bad: Sequence[str]) -> None:
    if bad:
        lines = (f"  {line}" for line in first_lines(bad, MAX_REPORTED))
        raise TuningError("\n".join(["conditions of prompts:", *lines]))


def encode_conditions(
    generator: Generator,
    prompts: Sequence[Prompt],
    size: tuple[int, int, int],
    *,
    strength: float,
    seed: int,
    progress: ProgressFn = silent,
) -> dict[ConditionFiles, EncodedCondition]:
    """Encode the conditions of a run's prompts, each once; kept on the CPU.

    The noise on kept pixels is drawn once, from the run's seed and the content of the files: the
    same clip gets the same noise wherever it lies.

    Args:
        generator: Generator whose VAE encodes.
        prompts: Prompts that the run will draw, as `check_conditions` has accepted them.
        size: Frames, height and width of a clip.
        strength: The recipe's strength.
        seed: Seed of the run.
        progress: Called after each condition.
    """
    conditions = distinct_conditions(prompts)
    found = {}
    for number, files in enumerate(conditions, 1):
        found[files] = encode_condition(
            generator,
            files,
            read_condition_pixels(files, size),
            strength=strength,
            noise_seed=derive_seed(seed, "kept pixels", conditions_hash([files])),
        )
        progress(ProgressEvent(STAGE, number, len(conditions), "encoding"))
    return found


def conditions_hash(conditions: Iterable[ConditionFiles]) -> str:
    """Hash conditions by the content of their files and their words, wherever the files lie.

    Raises:
        TuningError: A file cannot be read.
    """
    digest = hashlib.sha256()
    for files in conditions:
        digest.update(_words(files))
        for name, paths in files.paths.items():
            for path in paths:
                digest.update(f"{name} {file_sha256(path)}".encode())
    return "sha256:" + digest.hexdigest()


WHOLE, SAMPLES = 4 * 2**20, 16  # bytes up to which a file is hashed whole; samples of a larger one


def conditions_fingerprint(prompts: Iterable[Prompt]) -> str:
    """Hash the conditions of all prompts of a run, however many: large files in samples only.

    Raises:
        TuningError: A file cannot be read.
    """
    digest = hashlib.sha256()
    for files in distinct_conditions(prompts):
        digest.update(_words(files))
        for name, paths in files.paths.items():
            for path in paths:
                try:
                    digest.update(f"\n{name} {path.stat().st_size} ".encode())
                    for content in sampled_bytes(path, whole=WHOLE, samples=SAMPLES):
                        digest.update(content)
                except OSError as error:
                    raise TuningError(f"{path}: cannot be read ({error.strerror})") from error
    return "sha256:" + digest.hexdigest()


def _words(files: ConditionFiles) -> bytes:
    """Return the parts of a condition that are not files."""
    words = {key: value for key, value in files.given.items() if key not in files.paths}
    return json.dumps(words, sort_keys=True).encode()
