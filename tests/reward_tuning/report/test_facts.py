import json
from pathlib import Path

import pytest

from reward_tuning.errors import TuningError
from reward_tuning.report.facts import duration, read_facts

ROWS = [{"step": 1, "seconds": {"step": 900.0}}, {"step": 2, "seconds": {"step": 2700.0}}]


def test_recipe_versions_hashes_and_hours_are_read(tmp_path: Path) -> None:
    folder = tmp_path / "a run"
    folder.mkdir()
    text = "# torch 2.0\n# text encoder sha256:ab\n# processes 4\nseed: 0\n"
    (folder / "recipe.yaml").write_text(text)
    starts = [
        {"device": "cpu", "gpu": False, "processes": 4, "memory": 8 * 10**9, "begun": "a"},
        {"device": "NVIDIA H200", "gpu": True, "processes": 4, "begun": "b"},
    ]
    lines = [json.dumps(row) for row in starts]
    (folder / "machine.jsonl").write_text("\n".join([*lines, '{"half']))
    found = read_facts(folder, ROWS)
    assert found.recipe == {"seed": 0}
    assert found.text == "seed: 0\n"
    assert found.versions == [("torch", "2.0"), ("processes", "4")]
    assert found.hashes == [("text encoder", "sha256:ab")]
    assert dict(found.machine) == {
        "device": "cpu, then NVIDIA H200",
        "processes": "4",
        "memory": "8 GB",
        "begun": "a, then b",
        "training time": "60 min for 2 steps",
        "GPU hours of training": "4",
    }
    place = f"'{folder}/recipe.yaml'"
    assert found.command == f"reward-tuning run {place} output='{folder}-again'"
    assert found.missing == []


def test_an_older_run_says_that_the_machine_is_missing(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("seed: 0\n")
    assert read_facts(tmp_path, []).missing == ["The machine was not recorded."]
    assert dict(read_facts(tmp_path, ROWS).machine)["device hours of training"] == "1"


def test_a_folder_of_evaluate_has_no_recipe(tmp_path: Path) -> None:
    found = read_facts(tmp_path, [])
    assert (found.text, found.command, found.missing) == ("", "", ())


def test_a_damaged_recipe_is_refused(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("seed: [")
    with pytest.raises(TuningError, match=r"recipe.yaml cannot be read"):
        read_facts(tmp_path, [])


@pytest.mark.parametrize(
    ("seconds", "text"), [(12.4, "12 s"), (600, "10 min"), (3900, "65 min"), (7500, "2 h 05 min")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize("value", [None, "x", [], {}, float("nan"), float("inf"), 10**400])
def test_a_damaged_machine_file_leaves_the_hours(tmp_path: Path, value: object) -> None:
    line = json.dumps({"processes": value, "memory": value})
    (tmp_path / "machine.jsonl").write_text(f"{line}\n{'[' * 100_000}\n")
    assert dict(read_facts(tmp_path, ROWS).machine)["CPU hours of training"] == "1"
