"""What an evaluation compares with the base: runs, checkpoints of runs, and LoRA files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from reward_tuning.errors import TuningError
from reward_tuning.evidence.adapters import adapter_path
from reward_tuning.files.hashes import file_sha256
from reward_tuning.files.json_text import parsed_json
from reward_tuning.lora.adapter import LoraWeights
from reward_tuning.lora.combining import has_no_effect, no_effect_warning
from reward_tuning.lora.export import import_adapter
from reward_tuning.lora.formats.adapter_files import ADAPTER_FILE, EMA_FILE, STATE_FILE
from reward_tuning.lora.identity import adapter_sha256
from reward_tuning.progress import ProgressEvent, ProgressFn, silent
from reward_tuning.runs.checkpoints import complete_checkpoints
from reward_tuning.runs.folder import RunFolder


@dataclass(frozen=True)
class NamedAdapter:
    """An adapter by its place, not read yet.

    Attributes:
        name: Name in tables, unique in an evaluation.
        path: File or folder that it is read from.
        step: Step of the checkpoint; None for an exported adapter.
    """

    name: str
    path: Path
    step: int | None = None


@dataclass(frozen=True)
class ReadAdapter:
    """An adapter in memory.

    Attributes:
        named: Its name and place.
        weights: The adapter.
        sha256: Hash of its content.
    """

    named: NamedAdapter
    weights: LoraWeights
    sha256: str


def named_adapters(sources: Sequence[Path], *, checkpoints: bool = False) -> list[NamedAdapter]:
    """List the adapters of some paths.

    Args:
        sources: Run folders, LoRA files and LoRA folders.
        checkpoints: Also the kept checkpoints of each run: the moving average where there is one,
            as a run exports it.

    Raises:
        TuningError: A path does not exist or is given twice, a run is unfinished and
            `checkpoints` is off, or `checkpoints` is on and a source has none.
    """
    names = _names(sources)
    found: list[NamedAdapter] = []
    for source, name in zip(sources, names, strict=True):
        kept = complete_checkpoints(RunFolder(source).checkpoints) if checkpoints else []
        if checkpoints and not kept:
            raise TuningError(
                f"--checkpoints: {source} has no checkpoints; give a run folder that keeps some "
                "(train.checkpoint_every, train.keep_checkpoints), or leave the option out"
            )
        for folder in kept:
            step = int(folder.name.removeprefix("step-"))
            average = folder / EMA_FILE
            path = average if average.is_file() else folder / ADAPTER_FILE
            found.append(NamedAdapter(f"{name} step {step}", path, step))
        if not kept or (source / "lora").is_dir():
            found.append(NamedAdapter(name, adapter_path(source)))
    return found


def read_named_adapters(
    adapters: Sequence[NamedAdapter], transformer: nn.Module, progress: ProgressFn = silent
) -> list[ReadAdapter]:
    """Read adapters and check them against their model.

    Args:
        adapters: The adapters.
        transformer: Their model, which may be on the meta device.
        progress: Receives a note on each adapter without an effect, and on each that is left out.

    Returns:
        The adapters; of equal ones only the first, since it would count twice in all comparisons.

    Raises:
        TuningError: One cannot be read, is damaged, or is for another model.
    """
    found: list[ReadAdapter] = []
    for one in adapters:
        if one.step is not None:
            _check_checksum(one.path)
        weights = import_adapter(one.path, transformer)
        if has_no_effect(weights):
            progress(ProgressEvent("loading", note=no_effect_warning(one.path)))
        read = ReadAdapter(one, weights, adapter_sha256(weights))
        twin = next((other for other in found if other.sha256 == read.sha256), None)
        if twin is not None:
            note = f"{one.name} is left out: it is the same adapter as {twin.named.name}"
            progress(ProgressEvent("loading", note=note))
        else:
            found.append(read)
    return found


def _names(sources: Sequence[Path]) -> list[str]:
    """Name each source by the end of its path, as much of it as tells them apart.

    Raises:
        TuningError: There is none, or one is given twice.
    """
    if not sources:
        raise TuningError("nothing to evaluate; give a run folder, a LoRA file or a LoRA folder")
    whole = [source.resolve() for source in sources]
    twice = [str(sources[i]) for i, path in enumerate(whole) if path in whole[:i]]
    if twice:
        raise TuningError(f"{', '.join(twice)} is given twice; give each once")
    parts = [(*path.parts[:-1], path.stem if path.is_file() else path.name) for path in whole]
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(one[-depth:]) for one in parts]
        if len({*names, "base"}) == len(names) + 1:
            return names
    return [str(source) for source in sources]  # a.pt and a.safetensors of one folder


def _check_checksum(path: Path) -> None:
    """Compare an adapter of a checkpoint with its checksum.

    Raises:
        TuningError: They differ, or there is none.
    """
    try:
        state = parsed_json(path.with_name(STATE_FILE).read_text(encoding="utf-8"))
        expected = state["files"][path.name]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise TuningError(
            f"the checkpoint {path.parent} is damaged, or an older reward-tuning wrote it "
            f"({STATE_FILE}: {error}); name the exported LoRA instead"
        ) from error
    if file_sha256(path) != expected:
        raise TuningError(
            f"the checkpoint {path.parent} is damaged: {path.name} does not fit its checksum; "
            "delete it, or leave --checkpoints out"
        )
