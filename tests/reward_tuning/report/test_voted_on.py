"""A report's identity, which its vote files repeat."""

import json
from pathlib import Path

from reward_tuning.report.evaluations import Evaluation, read_evaluation
from reward_tuning.report.voted_on import MOST_TITLE, voted_on
from reward_tuning.statistics.votes import checked_votes
from tests.reward_tuning.report.evaluation_folder import write_evaluation

NAMES = [{0: "aa", 1: "bb"}, {0: "cc", 1: "dd"}]


def evaluation(folder: Path) -> Evaluation:
    found = read_evaluation(write_evaluation(folder, prompts=2, strengths=(1.0,)))
    assert found is not None
    return found


def test_an_id_is_that_of_prompts_sides_and_clips(tmp_path: Path) -> None:
    here = evaluation(tmp_path / "one")
    first = voted_on(tmp_path / "one", here, NAMES)
    moved = voted_on(tmp_path / "two", here, NAMES)
    assert (first["title"], moved["title"]) == ("one", "two")
    assert first["id"] == moved["id"]
    assert len(first["id"]) == 24
    other_clip = voted_on(tmp_path / "one", here, [NAMES[0], {**NAMES[1], 1: "ee"}])
    prompts = here.model_copy(update={"questions": here.questions[::-1]})
    other_prompts = voted_on(tmp_path / "one", prompts, NAMES)
    assert len({first["id"], other_clip["id"], other_prompts["id"]}) == 3


def test_a_vote_file_takes_any_title(tmp_path: Path) -> None:
    for name in ("a" * 250, "<b>\udcff", "报告"):
        report = voted_on(Path("/") / name, evaluation(tmp_path), NAMES)
        assert len(report["title"]) <= MOST_TITLE
        content = {"format": "reward-tuning-votes", "version": 1, "report": report, "voter": ""}
        assert (
            checked_votes({**json.loads(json.dumps(content)), "votes": []}).report == report["id"]
        )
