"""The run folder: where everything lies, begun once, written whole or not at all.

Layout (docs/runs.md, "The run folder"): recipe.yaml, metrics.jsonl, guards.jsonl, events.out.*,
samples/, checkpoints/, answers/, lora/, evaluation/, evaluation.json.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from reward_tuning.errors import TuningError
from reward_tuning.files.atomic_write import (
    ANOTHER_OUTPUT,
    RESUME,
    atomic_write,
    is_leftover,
    not_written,
)
from reward_tuning.runs.evaluation_file import read_evaluation_file
from reward_tuning.runs.resumable import (
    PACKAGES,
    changed_recipe,
    comparable,
    memory_keys,
    recipe_differences,
    rounding_changes,
    versions,
)
from reward_tuning.schema.loading import dump_recipe, load_recipe
from reward_tuning.section import Section

PROCESSES = "processes"
TRACKING = "tracking"
OTHERS = {TRACKING, "evaluate"}
"""Folders in a run's that others write to: trackers, and `reward-tuning evaluate`."""
LOCK_FILE = ".lock"


class RunFolder:
    """Paths of a run, and its small files.

    Args:
        root: The recipe's `output`.
        load: Read the recipe that is kept in the folder, without looking for the files it names.
    """

    def __init__(self, root: str | Path, load: Callable[[Path], Section] | None = None) -> None:
        self.root = Path(root)
        self._seen: tuple[int, int] | None = None
        self._load = load or (lambda path: load_recipe(path, check_files=False))

    @property
    def recipe(self) -> Path:
        """The resolved recipe; exists from the moment a run has begun."""
        return self.root / "recipe.yaml"

    @property
    def metrics(self) -> Path:
        """One JSON object a step."""
        return self.root / "metrics.jsonl"

    @property
    def guards(self) -> Path:
        """One JSON object a guard evaluation."""
        return self.root / "guards.jsonl"

    @property
    def guards_base(self) -> Path:
        """What the guard evaluations found on the base."""
        return self.root / "guards-base.safetensors"

    @property
    def checkpoints(self) -> Path:
        """One folder for each kept checkpoint."""
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
    def answers(self) -> Path:
        """What judges outside this process have answered, one file for each judge and process."""
        return self.root / "answers"

    @property
    def evaluation(self) -> Path:
        """Base against tuned; written last, so its existence marks a finished run."""
        return self.root / "evaluation.json"

    @property
    def evaluation_clips(self) -> Path:
        """Clips of the evaluation: `step-NNNNNN/SIDE/NN.mp4`."""
        return self.root / "evaluation"

    @property
    def written(self) -> tuple[Path, ...]:
        """Everything that a run writes here besides its recipe."""
        folders = (
            self.root / "samples",
            self.evaluation_clips,
            self.root / TRACKING,
            self.answers,
        )
        named = (self.checkpoints, self.lora, self.replay, self.evaluation, self.metrics)
        return (*named, self.guards, self.guards_base, *folders)

    def samples(self, step: int) -> Path:
        """Return the folder of the sample clips of a step."""
        return self.root / "samples" / f"step-{step:06d}"

    def open(self, recipe: Section, *, resume: bool) -> dict[str, Any] | None:
        """Check that a run may begin here, or continue.

        Returns:
            evaluation.json where the run to resume is finished and the recipe has no more steps, or
            a guard ended it and the recipe has the same guards; else None.

        Raises:
            TuningError: See `refuse_existing_run` and `check_recipe`; or a guard ended the run and
                the recipe has more steps, but the same guards.
        """
        if not resume:
            self.refuse_existing_run()
            return None
        self.check_recipe(recipe)
        found, same_steps = self.read_evaluation(), self._steps() == _steps(recipe)
        chosen = (found or {}).get("checkpoint") or {}
        if chosen.get("stopped_at") is None:
            return found if same_steps else None
        if self._guards_change(recipe):
            return None
        if not same_steps:
            raise TuningError(
                f"train.steps: the guard {chosen['rule']} ended {self.root} at step "
                f"{chosen['stopped_at']}, and would end it there again. To go on in spite of it, "
                f"make it a warning: guards.{chosen['rule']}=warn"
            )
        return found

    @contextmanager
    def locked(self) -> Iterator[str | None]:
        """Keep every other process out of the folder while this one works in it.

        The operating system releases the lock when the process ends, however it ends. A folder in
        which no run began is removed again.

        Yields:
            A warning where the file system has no locks, else None.

        Raises:
            TuningError: Another process works in the folder, or it cannot be written.
        """
        file, warning = self.root / LOCK_FILE, None
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
                f"{self.root} is on a file system without locks: do not start a second `resume` "
                "there"
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

    def remove_leftovers(self) -> None:
        """Delete what killed processes have left half written, under its temporary name.

        Only while the folder is `locked`. A checkpoint that has made place for another of its step,
        which is not there, is put back.
        """
        from reward_tuning.runs import checkpoints  # needs torch, unlike those who only read a run

        checkpoints.remove_leftovers(self.checkpoints)
        for path in [*self.root.rglob(".*")]:
            inside = path.relative_to(self.root).parts
            if OTHERS.intersection(inside) or not is_leftover(path):
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                with suppress(OSError):  # harmless litter, which the next start tries again
                    path.unlink(missing_ok=True)

    def check_in_place(self) -> None:
        """Check that the path still leads to the folder that `locked` keeps.

        Every write creates the folders that it needs, so a run whose folder is gone would otherwise
        begin another one in its place.

        Raises:
            TuningError: The folder was moved or removed.
        """
        if self._identity() != self._seen:
            raise TuningError(
                f"{self.root} was moved or removed while the run worked in it, so the run has "
                "stopped and writes nothing more. If it was moved, continue with `reward-tuning "
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

    def refuse_existing_run(self) -> None:
        """Check that no run has begun here.

        Raises:
            TuningError: One has, or files of something else would be mixed with those of the run.
        """
        if self.recipe.exists():
            raise TuningError(
                f"output: {self.root} holds a run already; continue it with `reward-tuning resume "
                f"{self.root}`, or choose another folder with output=DIR"
            )
        for path in self.written:
            if path.exists():
                raise TuningError(
                    f"output: {self.root} holds {path.name} of something else and no recipe.yaml; "
                    "choose another folder with output=DIR, or move it away yourself"
                )

    def begin(
        self, recipe: Section, fingerprints: Mapping[str, str], *, processes: int = 1
    ) -> None:
        """Write recipe.yaml, with versions, checkpoint hashes and processes in its head.

        Raises:
            TuningError: The folder cannot be written.
        """
        head = [f"{name} {found}" for name, found in versions().items()]
        head += [f"{name} {digest}" for name, digest in fingerprints.items()]
        head += [f"{PROCESSES} {processes}"] if processes > 1 else []
        atomic_write(self.recipe, dump_recipe(recipe, head).encode(), advice=self._advice())

    def continue_with(
        self, recipe: Section, fingerprints: Mapping[str, str], *, processes: int = 1
    ) -> None:
        """Keep the recipe of a resume, where it differs from the one that the run began with.

        The evaluation of fewer steps is kept next to the one to come, such as
        `evaluation-step-000100.json`; so is that of a run that a guard ended.

        Raises:
            TuningError: The folder cannot be written.
        """
        kept = self._load(self.recipe).model_dump(mode="json", exclude={"output"})
        if kept == recipe.model_dump(mode="json", exclude={"output"}):
            return
        # First, so that a run that is killed in between is an unfinished one of fewer steps.
        made = self._steps()
        if self._guards_change(recipe):
            chosen = (self.read_evaluation() or {}).get("checkpoint") or {}
            made = chosen.get("stopped_at") or made
        if made != _steps(recipe) and self.evaluation.exists():
            old = self.evaluation
            try:
                old.replace(old.with_stem(f"{old.stem}-step-{made:06d}"))
            except OSError as error:
                raise not_written(old, error) from error
        self.begin(recipe, fingerprints, processes=processes)

    def changed_memory(self, recipe: Section) -> str:
        """Say which keys of memory a resume changes, and what that does; empty for none."""
        kept = memory_keys(self._load(self.recipe).model_dump(mode="json"))
        given = memory_keys(recipe.model_dump(mode="json"))
        other = [key for key in kept if kept[key] != given.get(key)]
        if not other:
            return ""
        changed = [f"{key}: {kept[key]} -> {given.get(key)}" for key in other]
        values = recipe.model_dump(mode="json")
        exact = not any(rounding_changes(values, key) for key in other)
        same = "the numbers stay the same" if exact else "the numbers stay the same to rounding"
        return f"changed since the run began: {', '.join(changed)}; {same}"

    def _steps(self) -> int:
        return _steps(self._load(self.recipe))

    def _guards_change(self, recipe: Section) -> bool:
        """Return whether the recipe has other guards than the run so far."""
        kept, given = (
            one.model_dump(mode="json", include={"guards"})
            for one in (self._load(self.recipe), recipe)
        )
        return kept != given

    def _head(self) -> Iterator[tuple[str, str]]:
        """Yield name and value of each line in the head of recipe.yaml; names may have spaces."""
        for line in self.recipe.read_text(encoding="utf-8").splitlines():
            if not line.startswith("# "):
                return
            name, _, value = line[2:].rpartition(" ")
            yield name, value

    def initial_versions(self) -> dict[str, str]:
        """Return the library versions that the run began with."""
        return {name: value for name, value in self._head() if name in PACKAGES}

    def initial_fingerprints(self) -> dict[str, str]:
        """Return the hashes of the checkpoints and prompts that the run began with."""
        return {name: value for name, value in self._head() if value.startswith("sha256:")}

    def initial_processes(self) -> int:
        """Return the number of processes that the run began with."""
        return int(dict(self._head()).get(PROCESSES, 1))

    def check_recipe(self, recipe: Section) -> None:
        """Check that a run has begun here, with this recipe.

        Raises:
            TuningError: There is no run, or its recipe differs; the message lists the differences.
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
        """Read evaluation.json; None while the run is not finished.

        Raises:
            TuningError: The file is damaged.
        """
        return read_evaluation_file(self.evaluation)


def _steps(recipe: Section) -> int:
    steps: int = recipe.model_dump(include={"train": {"steps"}})["train"]["steps"]
    return steps
