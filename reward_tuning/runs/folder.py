"""The run folder: where everything lies, begun once, written whole or not at all.

Layout (docs/runs.md, "The run folder"): recipe.yaml, metrics.jsonl, events.out.*, samples/,
checkpoints/, lora/, evaluation.json.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from reward_tuning.errors import TuningError
from reward_tuning.files.atomic_write import ANOTHER_OUTPUT, RESUME, atomic_write, not_written
from reward_tuning.schema.loading import dump_recipe, load_recipe
from reward_tuning.schema.values import Section

MAY_CHANGE = (
    "steps",
    "checkpoint_every",
    "keep_checkpoints",
    "log_every",
    "sample_every",
    "max_bad_steps",
)
"""Keys of train that a resumed run may have otherwise: no step of either is another for them.

`steps` only where the learning rate does not depend on it."""
PACKAGES = ("reward-tuning", "torch", "diffusers", "transformers", "peft", "open_clip_torch")


class RunFolder:
    """Paths of a run and its small files.

    Args:
        root: The recipe's `output`.
        load: Reads the recipe that is kept in it, without looking for the files it names.
    """

    def __init__(self, root: str | Path, load: Callable[[Path], Section] | None = None) -> None:
        self.root = Path(root)
        self._seen: tuple[int, int] | None = None
        self._load = load or (lambda path: load_recipe(path, check_files=False))

    @property
    def recipe(self) -> Path:
        """The resolved recipe; there from the moment a run has begun."""
        return self.root / "recipe.yaml"

    @property
    def metrics(self) -> Path:
        """One JSON object a step."""
        return self.root / "metrics.jsonl"

    @property
    def checkpoints(self) -> Path:
        """A folder for each kept checkpoint."""
        return self.root / "checkpoints"

    @property
    def lora(self) -> Path:
        """The exported adapter."""
        return self.root / "lora"

    @property
    def replay(self) -> Path:
        """The latents of the replay's clips, where it is on."""
        return self.root / "replay.safetensors"

    @property
    def evaluation(self) -> Path:
        """Base against tuned; written last, so it is the mark of a finished run."""
        return self.root / "evaluation.json"

    @property
    def written(self) -> tuple[Path, ...]:
        """What a run writes into it, beside its recipe."""
        samples = self.root / "samples"
        named = (self.checkpoints, self.lora, self.replay, self.evaluation, self.metrics)
        return (*named, samples)

    def samples(self, step: int) -> Path:
        """Clips of the fixed prompts after so many steps."""
        return self.root / "samples" / f"step-{step:06d}"

    def open(self, recipe: Section, *, resume: bool) -> dict[str, Any] | None:
        """Check that a run may begin here, or go on.

        Returns:
            evaluation.json where the run to resume is finished, and no more steps are wanted; else
            None.

        Raises:
            TuningError: See `refuse_a_second_run` and `check_recipe`.
        """
        if not resume:
            self.refuse_a_second_run()
            return None
        self.check_recipe(recipe)
        return self.read_evaluation() if self._steps() == _steps(recipe) else None

    @contextmanager
    def alone(self) -> Iterator[str | None]:
        """Keep every other process out of the folder while this one works in it.

        The lock goes with the process, however that ends. A folder in which nothing was begun is
        removed again.

        Yields:
            What to tell where the file system knows no locks, else None.

        Raises:
            TuningError: Another process works in it, or it cannot be written.
        """
        file, warning = self.root / ".lock", None
        lock = FileLock(file)
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            lock.acquire(blocking=False)
            self._seen = self._identity()
        except Timeout as error:
            raise TuningError(
                f"{self.root} is in use: another process runs or resumes there. Wait for it or "
                "stop it, or choose another folder with output=DIR"
            ) from error
        except NotImplementedError:
            warning = (
                f"{self.root} lies on a file system without locks: start no second `resume` there"
            )
        except OSError as error:
            raise not_written(self.root, error, advice=self._advice()) from error
        try:
            yield warning
        finally:
            lock.release()
            there = self.root.iterdir() if self.root.is_dir() else iter([self.root])
            if [path.name for path in there] in ([], [file.name]):
                file.unlink(missing_ok=True)
                self.root.rmdir()

    def check_there(self) -> None:
        """Look whether this is still the folder that `alone` keeps.

        Whatever is written makes the folders that it needs, so a run whose folder is gone would
        begin another in its place.

        Raises:
            TuningError: It was moved or removed.
        """
        if self._identity() != self._seen:
            raise TuningError(
                f"{self.root} was moved or removed while the run worked in it, so the run has "
                "stopped and writes nothing more. If it was moved, go on with `reward-tuning "
                "resume` on it where it is now"
            )

    def _identity(self) -> tuple[int, int] | None:
        try:
            found = self.root.stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return found.st_dev, found.st_ino

    def _advice(self) -> str:
        return RESUME if self.recipe.is_file() else ANOTHER_OUTPUT

    def refuse_a_second_run(self) -> None:
        """Check that no run has begun here.

        Raises:
            TuningError: One has.
        """
        if self.recipe.exists():
            raise TuningError(
                f"output: {self.root} holds a run already; go on with it by `reward-tuning resume "
                f"{self.root}`, or choose another folder with output=DIR"
            )
        for path in self.written:
            if path.exists():
                raise TuningError(
                    f"output: {self.root} holds {path.name} of something else and no recipe.yaml; "
                    "choose another folder with output=DIR, or move it away yourself"
                )

    def begin(self, recipe: Section, fingerprints: Mapping[str, str]) -> None:
        """Write recipe.yaml, with versions and checkpoint hashes in its head.

        Raises:
            TuningError: The folder cannot be written.
        """
        head = [f"{name} {found}" for name, found in versions().items()]
        head += [f"{name} {digest}" for name, digest in fingerprints.items()]
        atomic_write(self.recipe, dump_recipe(recipe, head).encode(), advice=self._advice())

    def continue_with(self, recipe: Section, fingerprints: Mapping[str, str]) -> None:
        """Keep the recipe that a run is resumed with, where it is another than it began with.

        The evaluation of fewer steps is kept beside the one to come, such as
        `evaluation-step-000100.json`.

        Raises:
            TuningError: The folder cannot be written.
        """
        kept = self._load(self.recipe).model_dump(mode="json", exclude={"output"})
        if kept == recipe.model_dump(mode="json", exclude={"output"}):
            return
        # First, so that a run that is killed in between is an unfinished one of fewer steps.
        if self._steps() != _steps(recipe) and self.evaluation.exists():
            old = self.evaluation
            try:
                old.replace(old.with_stem(f"{old.stem}-step-{self._steps():06d}"))
            except OSError as error:
                raise not_written(old, error) from error
        self.begin(recipe, fingerprints)

    def _steps(self) -> int:
        return _steps(self._load(self.recipe))

    def initial_versions(self) -> dict[str, str]:
        """The versions in the head of recipe.yaml, by package."""
        lines = self.recipe.read_text(encoding="utf-8").splitlines()
        heads = [line[2:].split(" ") for line in lines if line.startswith("# ")]
        return {head[0]: head[1] for head in heads if len(head) == 2 and head[0] in PACKAGES}

    def initial_fingerprints(self) -> dict[str, str]:
        """The checkpoint hashes in the head of recipe.yaml, by name."""
        found = {}
        for line in self.recipe.read_text(encoding="utf-8").splitlines():
            if not line.startswith("# "):
                break
            name, _, value = line[2:].rpartition(" ")
            if value.startswith("sha256:"):
                found[name] = value
        return found

    def check_recipe(self, recipe: Section) -> None:
        """Check that a run has begun here, and with this recipe.

        Raises:
            TuningError: There is no run, or its recipe.yaml says otherwise; tells what differs.
        """
        if not self.recipe.is_file():
            raise TuningError(
                f"{self.root} is no run folder: it has no recipe.yaml. Give the folder that a run "
                "wrote to (its `output`), or start it with `reward-tuning run`"
            )
        kept = self._load(self.recipe)
        differences = recipe_differences(comparable(kept), comparable(recipe))
        if differences:
            raise TuningError(changed_recipe(self.recipe, differences))

    def read_evaluation(self) -> dict[str, Any] | None:
        """evaluation.json, or None while the run is not finished.

        Raises:
            TuningError: The file is damaged.
        """
        try:
            found: dict[str, Any] = json.loads(self.evaluation.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise TuningError(
                f"{self.evaluation} is damaged ({error}); delete it and resume the run"
            ) from error
        return found


def comparable(recipe: Section) -> dict[str, Any]:
    """What must not change between run and resume: all but the place and `MAY_CHANGE`."""
    data = recipe.model_dump(mode="json")
    del data["output"]
    free: tuple[str, ...] = MAY_CHANGE
    if data["train"]["lr_schedule"] != "constant":
        free = tuple(key for key in free if key != "steps")
    data["train"] = {k: v for k, v in data["train"].items() if k not in free}
    return data


def _steps(recipe: Section) -> int:
    steps: int = recipe.model_dump(include={"train": {"steps"}})["train"]["steps"]
    return steps


def recipe_differences(kept: Any, given: Any, path: str = "") -> list[str]:
    """List the keys whose values differ, as `key: was A, is B`."""
    if isinstance(kept, dict) and isinstance(given, dict):
        lines = []
        for key in dict.fromkeys([*kept, *given]):
            where = f"{path}.{key}" if path else str(key)
            lines += recipe_differences(kept.get(key), given.get(key), where)
        return lines
    if isinstance(kept, list) and isinstance(given, list) and len(kept) == len(given):
        lines = []
        for i, (a, b) in enumerate(zip(kept, given, strict=True)):
            lines += recipe_differences(a, b, f"{path}.{i}")
        return lines
    return [] if kept == given else [f"{path}: was {kept}, is {given}"]


def changed_recipe(place: Path, differences: list[str]) -> str:
    """The text of the refusal to resume with another recipe."""
    told = "\n".join(f"  {line}" for line in differences)
    return (
        f"{place}: the recipe has changed since the run began, so it would not end as it began:\n"
        f"{told}\nPut the old values back and resume, or start a new run with another output"
    )


def versions() -> dict[str, str]:
    """Installed versions of what decides a run's numbers."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed as a package"
    return found
