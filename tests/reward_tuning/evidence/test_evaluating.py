"""Whole evaluations: cached, stopped and continued, refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock

from reward_tuning.errors import TuningError
from reward_tuning.evidence.evaluating import (
    default_output,
    evaluate_adapters,
    plain_name,
)
from reward_tuning.evidence.request import EvaluationRequest
from reward_tuning.files.clips import read_clip
from reward_tuning.progress import ProgressEvent, silent
from reward_tuning.sampling import sampler as sampling
from reward_tuning.schema.judge_roles import HELD_OUT
from tests.reward_tuning.full_disk import largest_file

CPU = torch.device("cpu")


class Killed(BaseException):
    pass


@pytest.fixture
def sampled(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Number of clips of each call of the sampler; a call beyond `limit` is killed."""
    calls: list[int] = []
    real = sampling.euler_sample

    def counted(
        generator: Any, condition: Any, state: torch.Tensor, *rest: Any, **named: Any
    ) -> torch.Tensor:
        if calls and calls[0] < 0 and len(calls) > -calls[0]:
            raise Killed
        calls.append(len(state))
        return real(generator, condition, state, *rest, **named)

    monkeypatch.setattr(sampling, "euler_sample", counted)
    yield calls


@pytest.fixture(scope="module")
def request_of(finished: Path) -> EvaluationRequest:
    return EvaluationRequest([finished], strengths=(0.5, 1.0), seeds=1, clips=1, steps=(4, 2))


def test_an_evaluation_from_first_to_last(
    finished: Path, request_of: EvaluationRequest, sampled: list[int], tmp_path: Path
) -> None:
    output = tmp_path / "out"
    found = evaluate_adapters(request_of, output, CPU)
    assert json.loads((output / "evaluation.json").read_text()) == found
    assert [one["name"] for one in found["sides"]] == [
        "base",
        "first x0.5",
        "first",
        "base, 2 steps",
        "first, 2 steps",
    ]
    assert sum(sampled) == 5 * 3
    for number, side in enumerate(found["sides"]):
        (path,) = side["clips"].values()
        assert path.startswith(f"clips/{number:02d}-")
        assert read_clip(output / path).shape == (5, 3, 256, 256)
    report = (output / "report.html").read_text(encoding="utf-8")
    assert "first x0.5" in report
    own = json.loads((finished / "evaluation.json").read_text())
    assert found["sides"][2]["adapter_sha256"] == own["sides"][1]["adapter_sha256"]

    # the same again, and with another judge, strength 2 and more clips: one side is sampled
    sampled.clear()
    assert evaluate_adapters(request_of, output, CPU) == found
    assert sampled == []
    flicker = HELD_OUT["flicker"].model_validate({"kind": "flicker"})
    other = replace(request_of, judges=[flicker], strengths=(0.5, 2.0), steps=(), clips=2)
    again = evaluate_adapters(other, output, CPU)
    assert sum(sampled) == 3
    assert again["sides"][1]["scores"]["motion"] == found["sides"][1]["scores"]["motion"]
    assert set(again["sides"][0]["scores"]) >= {flicker.label, "motion"}
    assert not (output / "clips" / "04-first-2-steps").exists()  # of the evaluation before

    # damaged files of the cache are named, and only these clips are sampled again
    sampled.clear()
    events: list[ProgressEvent] = []
    clip, *_ = sorted((output / "cache/clips").iterdir())
    clip.write_bytes(clip.read_bytes()[:-4])
    for path in (output / "cache/scores").iterdir():
        path.write_text("{")
    mended = evaluate_adapters(
        replace(request_of, strengths=(0.5, 1.0, 2.0)), output, CPU, events.append
    )
    assert sum(sampled) == 1
    notes = "\n".join(event.note for event in events)
    assert f"{clip} is damaged" in notes
    assert "score cache" in notes
    for before, after in zip(found["sides"][:3], mended["sides"][:3], strict=True):
        for name, scores in before["scores"].items():  # alone in its batch: equal to rounding
            assert after["scores"][name] == pytest.approx(scores, abs=1e-6)


def test_a_killed_evaluation_continues_and_ends_the_same(
    request_of: EvaluationRequest, sampled: list[int], tmp_path: Path
) -> None:
    whole = evaluate_adapters(request_of, tmp_path / "whole", CPU)
    count = sum(sampled)
    sampled[:] = [-3]  # killed in the fourth call
    output = tmp_path / "killed"
    with pytest.raises(Killed):
        evaluate_adapters(request_of, output, CPU)
    done = sum(sampled[1:])
    assert 0 < done < count
    assert not (output / "evaluation.json").exists()
    assert not (output / "evaluation.csv").exists()
    left = [path.name for path in output.rglob("*") if path.is_file()]
    assert not [name for name in left if "tmp" in name or "part" in name]
    half = output / "cache" / "clips" / ".abc.safetensors.tmp-123"  # killed in the middle of it
    half.touch()
    sampled.clear()
    assert evaluate_adapters(request_of, output, CPU) == whole
    assert not half.exists()
    assert sum(sampled) == count - done


def test_what_was_there_before_goes_once_the_work_begins(
    request_of: EvaluationRequest, sampled: list[int], tmp_path: Path
) -> None:
    """A stopped evaluation leaves no evaluation.json, not even one of another request."""
    request = replace(request_of, strengths=(1.0,), steps=())
    evaluate_adapters(request, tmp_path, CPU)
    with pytest.raises(ValueError, match="--primary"):
        evaluate_adapters(replace(request, primary="nothing"), tmp_path, CPU)
    assert (tmp_path / "evaluation.json").is_file()  # a mistake costs nothing
    sampled[:] = [-1, 0]
    with pytest.raises(Killed):
        evaluate_adapters(replace(request, strengths=(0.7,)), tmp_path, CPU)
    assert not (tmp_path / "evaluation.json").exists()


def test_vbench_folder(request_of: EvaluationRequest, tmp_path: Path) -> None:
    request = replace(
        request_of, strengths=(1.0,), steps=(), seeds=2, vbench_folder=tmp_path / "vbench"
    )
    events: list[ProgressEvent] = []
    evaluate_adapters(request, tmp_path / "out", CPU, events.append)
    names = {path.relative_to(tmp_path / "vbench").as_posix() for path in tmp_path.rglob("*-?.mp4")}
    assert names == {
        f"{side}/{prompt}-{clip}.mp4"
        for side in ("00-base", "01-first")
        for prompt in ("a yellow ball", "a cat", "一个红色的球")
        for clip in range(2)
    }
    assert any("--seeds 5 writes all" in event.note for event in events)


def test_full_disk(request_of: EvaluationRequest, tmp_path: Path) -> None:
    with largest_file(600), pytest.raises(TuningError, match="same command then continues"):
        evaluate_adapters(request_of, tmp_path / "out", CPU)
    assert not (tmp_path / "out" / "evaluation.json").exists()


@pytest.mark.parametrize(
    ("prepare", "text"),
    [
        (lambda out: (out / "recipe.yaml").touch(), "is a run folder"),
        (lambda out: (out / "holiday.jpg").touch(), "holds holiday.jpg and no evaluation"),
    ],
)
def test_folders_of_something_else(
    request_of: EvaluationRequest, tmp_path: Path, prepare: Callable[[Path], None], text: str
) -> None:
    prepare(tmp_path)
    with pytest.raises(TuningError, match=text):
        evaluate_adapters(request_of, tmp_path, CPU)


def test_two_at_once(request_of: EvaluationRequest, tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    with FileLock(tmp_path / ".lock"), pytest.raises(TuningError, match="is in use"):
        evaluate_adapters(request_of, tmp_path, CPU, silent)


def test_default_folder_and_names(finished: Path, tmp_path: Path) -> None:
    assert default_output([finished]) == finished / "evaluate"
    assert default_output([finished, finished]) == Path("evaluate")
    assert default_output([tmp_path]) == Path("evaluate")
    assert plain_name("run/../x<y>, 8 steps") == "run-..-x-y-8-steps"
    assert plain_name("一只猫") == "side"
    assert len(plain_name("a" * 300)) == 60
    shutil.rmtree(tmp_path)
