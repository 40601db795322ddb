"""The run folder: begun once, resumed only with its own recipe."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from reward_tuning.errors import TuningError
from reward_tuning.files.atomic_write import atomic_write
from reward_tuning.runs.folder import RunFolder
from reward_tuning.runs.resumable import versions
from reward_tuning.schema.loading import load_recipe
from reward_tuning.schema.recipe import Recipe
from tests.reward_tuning.recipes_for_tests import write_recipe


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    return load_recipe(write_recipe(tmp_path / "recipe"), [f"output={tmp_path / 'run'}"])


def test_the_kept_recipe_is_the_recipe(recipe: Recipe) -> None:
    folder = RunFolder(recipe.output)
    folder.begin(recipe, {"generator": "sha256:ab"})
    assert load_recipe(folder.recipe) == recipe
    head = folder.recipe.read_text().splitlines()
    assert "# generator sha256:ab" in head
    assert any(line.startswith("# torch 2.") for line in head)


def test_a_folder_with_a_run_is_refused(recipe: Recipe) -> None:
    folder = RunFolder(recipe.output)
    assert folder.open(recipe, resume=False) is None
    folder.begin(recipe, {})
    with pytest.raises(TuningError, match=r"holds a run already.*reward-tuning resume"):
        folder.open(recipe, resume=False)


REMAINS = (
    "checkpoints",
    "lora",
    "replay.safetensors",
    "evaluation.json",
    "metrics.jsonl",
    "guards.jsonl",
    "guards-base.safetensors",
    "samples",
)


@pytest.mark.parametrize("name", REMAINS)
def test_remains_of_something_else_are_refused(recipe: Recipe, name: str) -> None:
    (Path(recipe.output) / name).mkdir(parents=True)
    with pytest.raises(TuningError, match=f"holds {name} of something else"):
        RunFolder(recipe.output).open(recipe, resume=False)


def test_resume_wants_a_run(recipe: Recipe) -> None:
    with pytest.raises(TuningError, match="is no run folder"):
        RunFolder(recipe.output).open(recipe, resume=True)


def test_resume_refuses_another_recipe_and_says_what_differs(recipe: Recipe) -> None:
    folder = RunFolder(recipe.output)
    folder.begin(recipe, {})
    judge = recipe.rewards[0].model_copy(update={"weight": 5.0})
    train = recipe.train.model_copy(update={"learning_rate": 1.0, "steps": 99})
    other = recipe.model_copy(update={"rewards": [judge], "train": train})
    with pytest.raises(TuningError) as caught:
        folder.open(other, resume=True)
    text = str(caught.value)
    assert "rewards.0.weight: was 2.0, is 5.0" in text
    assert "train.learning_rate: was 0.0003, is 1.0" in text
    assert text.count(": was ") == 2


def test_resume_does_not_mind_the_place(recipe: Recipe, tmp_path: Path) -> None:
    RunFolder(recipe.output).begin(recipe, {})
    moved = tmp_path / "moved"
    Path(recipe.output).rename(moved)
    folder = RunFolder(moved)
    assert folder.open(recipe.model_copy(update={"output": str(moved)}), resume=True) is None


def test_resume_of_a_finished_run_gives_its_result(recipe: Recipe) -> None:
    folder = RunFolder(recipe.output)
    folder.begin(recipe, {})
    atomic_write(folder.evaluation, b'{"prompts": 2}')
    assert folder.open(recipe, resume=True) == {"prompts": 2}
    folder.evaluation.write_text('{"prom')
    with pytest.raises(TuningError, match="delete it and resume"):
        folder.open(recipe, resume=True)


def test_a_run_that_a_guard_ended_is_finished(recipe: Recipe) -> None:
    """Until its guards change; more steps alone would end at the same step."""
    folder = RunFolder(recipe.output)
    folder.begin(recipe, {})
    found = {"checkpoint": {"stopped_at": 4, "rule": "motion"}}
    folder.evaluation.write_text(json.dumps(found))
    assert folder.open(recipe, resume=True) == found
    train = recipe.train.model_copy(update={"steps": 99})
    with pytest.raises(
        TuningError, match=r"the guard motion ended .* at step 4.*guards\.motion=warn"
    ):
        folder.open(recipe.model_copy(update={"train": train}), resume=True)
    guards = recipe.guards.model_copy(update={"every": 7})
    other = recipe.model_copy(update={"guards": guards})
    assert folder.open(other, resume=True) is None
    folder.continue_with(other, {})
    assert json.loads((folder.root / "evaluation-step-000004.json").read_text()) == found
    assert folder.read_evaluation() is None
    assert load_recipe(folder.recipe).guards.every == 7


def test_other_guards_do_not_reopen_a_run_that_made_its_steps(recipe: Recipe) -> None:
    folder = RunFolder(recipe.output)
    folder.begin(recipe, {})
    folder.evaluation.write_text('{"checkpoint": {"stopped_at": null}}')
    guards = recipe.guards.model_copy(update={"every": 7})
    assert folder.open(recipe.model_copy(update={"guards": guards}), resume=True) is not None


def test_two_processes_do_not_work_in_one_folder(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    code = (
        "import sys; from reward_tuning.runs.folder import RunFolder\n"
        "with RunFolder(sys.argv[1]).locked(): print('in', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(folder.root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "in\n"
        with (
            pytest.raises(TuningError, match=r"run is in use: .* or choose another folder"),
            folder.locked(),
        ):
            pytest.fail("got in")
        other.kill()  # the lock goes with the process
        other.wait()
    with folder.locked() as warning:
        assert warning is None
        atomic_write(folder.evaluation, b"{}")
    assert {p.name for p in folder.root.iterdir()} >= {"evaluation.json"}


def test_what_killed_processes_have_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    left = (
        ".recipe.yaml.tmp-12",
        "samples/step-000000/.01.part.mp4",
        "checkpoints/.best-000001.safetensors.tmp-7",
        ".lora.old-3/original.safetensors",
    )
    kept = (
        ".lock",
        "recipe.yaml",
        "tracking/wandb/.data.tmp-5",
        "samples/step-000000/01.mp4",
        ".mine/notes.tmp-9",
        "lora/adapter.tmp",
    )
    for name in (*left, *kept):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    RunFolder(tmp_path).remove_leftovers()
    found = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()}
    assert found == {*kept}


def test_a_folder_in_which_nothing_began_is_removed(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    with pytest.raises(RuntimeError), folder.locked():
        raise RuntimeError
    assert not folder.root.exists()


def test_a_file_system_without_locks_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: object, **__: object) -> None:
        raise NotImplementedError

    monkeypatch.setattr("reward_tuning.runs.folder.FileLock.acquire", no_locks)
    with RunFolder(tmp_path / "run").locked() as warning:
        assert warning is not None
        assert "without locks" in warning


@pytest.mark.parametrize("removed", [False, True])
def test_a_folder_that_is_gone_is_told(tmp_path: Path, removed: bool) -> None:
    folder = RunFolder(tmp_path / "run")
    with folder.locked():
        atomic_write(folder.metrics, b"")
        folder.check_in_place()
        if removed:
            shutil.rmtree(folder.root)
        else:
            folder.root.rename(tmp_path / "elsewhere")
        with pytest.raises(TuningError, match=r"was moved or removed.*where it is now"):
            folder.check_in_place()
        folder.root.mkdir()  # another of the name is not it
        with pytest.raises(TuningError, match="was moved or removed"):
            folder.check_in_place()


def test_the_head_of_the_recipe_keeps_what_the_run_began_with(recipe: Recipe) -> None:
    folder = RunFolder(recipe.output)
    hashes = {"prompts.train": "sha256:12", "judge hps 2": "sha256:34"}  # names may have spaces
    folder.begin(recipe, hashes, processes=2)
    assert folder.initial_fingerprints() == hashes
    assert folder.initial_processes() == 2
    assert folder.initial_versions().items() <= versions().items()
    assert "torch" in folder.initial_versions()
    folder.begin(recipe, hashes)
    assert folder.initial_processes() == 1
    assert "processes" not in folder.recipe.read_text()  # as older versions wrote it
