"""The model card: front matter that a hub reads, a table of evaluation.json, texts as texts."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from reward_tuning.errors import TuningError
from reward_tuning.files.yaml_text import read_yaml, write_yaml
from reward_tuning.report.metric_groups import label_of
from reward_tuning.sharing.card import as_text, is_hub_id, model_card, public_name
from tests.reward_tuning.sharing.finished_run import finished

__all__ = ["finished"]
HOSTILE = "a star | <img src=x onerror=alert(1)> `code` [link](http://x)\n# head"


@pytest.mark.slow
def test_front_matter_is_read_by_the_hubs_own_reader(finished: Path) -> None:
    card = ModelCard(model_card(finished, licence="mit"))
    data = card.data.to_dict()
    assert data["license"] == "mit"
    assert data["pipeline_tag"] == "text-to-video"
    assert "lora" in data["tags"]
    assert "base_model" not in data  # tiny is on no hub
    shown = json.loads((finished / "samples" / "prompts.json").read_text(encoding="utf-8"))
    kept = [one for one in shown if (finished / "samples/before-after" / one["file"]).is_file()]
    assert [one["text"] for one in data["widget"]] == [one["prompt"] for one in kept]
    assert data["widget"][0]["output"]["url"] == "clips/00.mp4"


@pytest.mark.slow
def test_numbers_are_those_of_the_evaluation(finished: Path) -> None:
    evaluation = json.loads((finished / "evaluation.json").read_text(encoding="utf-8"))
    text = model_card(finished)
    for measure, change in evaluation["difference"].items():
        name = re.escape(label_of(measure).replace("_", r"\_"))
        row = re.search(rf"^\| {name} \| (.*) \|$", text, flags=re.MULTILINE)
        assert row, measure
        role, base, tuned, interval, _ = row[1].split(" | ")
        share = 100 if base.endswith("%") else 1
        half = 0.051 if share == 100 else 0.000051  # of the last digit that is shown
        for side, shown in (("base", base), ("tuned", tuned)):
            assert abs(float(shown.rstrip(" %")) - share * evaluation[side][measure]) <= half
        low, high = map(float, re.findall(r"[-+][\d.]+", interval)[1:])
        assert (
            abs(high - low - share * (change["high"] - change["low"])) <= 0.1 * (high - low) + 1e-8
        )
        assert (role == "training judge") is (measure in evaluation["trained_on"])
        assert (role == "held-out judge") is (measure in evaluation["never_trained_on"])
    assert "Too few prompts for a verdict: the held-out judge clip\\_held\\_out changed by" in text
    assert "clip\\_held\\_out decides (named beforehand)" in text


@pytest.mark.slow
def test_prompts_stay_texts(finished: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    about = run / "samples" / "prompts.json"
    rows = json.loads(about.read_text(encoding="utf-8"))
    rows[0]["prompt"] = HOSTILE
    about.write_text(json.dumps(rows), encoding="utf-8")
    card = ModelCard(model_card(run, title="<b>bold</b>"))
    assert card.data.to_dict()["widget"][0]["text"] == HOSTILE
    body = card.text
    assert r"\<img" in body
    assert not re.search(r"(?<!\\)<(img|b)\b", body)
    assert "\n# head" not in body
    assert r"\|" in body


@pytest.mark.slow
def test_paths_of_the_machine_are_not_shown(finished: Path) -> None:
    assert "home of someone" not in model_card(finished)


@pytest.mark.slow
def test_title_and_licence_may_be_left_out(finished: Path) -> None:
    text = model_card(finished)
    assert "# tiny, tuned on hps and image\\_reward" in text
    assert "states none" in text
    assert "license" not in ModelCard(text).data.to_dict()


@pytest.mark.slow
def test_a_judge_that_only_compares_clips_is_named_too(finished: Path, tmp_path: Path) -> None:
    """It has no score of a side, so evaluation.json does not list it."""
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    written = (run / "recipe.yaml").read_text(encoding="utf-8")
    head = [line for line in written.splitlines(keepends=True) if line.startswith("# ")]
    recipe = read_yaml(written)
    url, gradient = "http://localhost:9/", "paired"
    recipe["rewards"] = [{"kind": "http", "url": url, "pairwise": True, "gradient": gradient}]
    (run / "recipe.yaml").write_text("".join(head) + write_yaml(recipe), encoding="utf-8")
    evaluation = json.loads((run / "evaluation.json").read_text(encoding="utf-8"))
    evaluation["trained_on"] = []
    (run / "evaluation.json").write_text(json.dumps(evaluation), encoding="utf-8")
    text = model_card(run)
    assert "# tiny, tuned on http" in text
    assert "\n| trained on | http |\n" in text


@pytest.mark.parametrize(
    ("name", "hub", "public"),
    [
        ("alibaba-pai/EasyAnimateV5.1-12b-zh", True, "alibaba-pai/EasyAnimateV5.1-12b-zh"),
        ("tiny", False, "tiny"),
        ("/home/me/models/7b", False, "7b"),
        ("a/b/c", False, "c"),
    ],
)
def test_names_of_checkpoints(name: str, hub: bool, public: str) -> None:
    assert is_hub_id(name) is hub
    assert public_name(name) == public


def test_text_escapes_what_markdown_and_html_read() -> None:
    assert as_text("a*b\n<c> & d|e") == r"a\*b \<c\> \& d\|e"


@pytest.mark.slow
def test_an_interval_of_guidance_is_told(finished: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    assert "at noise levels" not in model_card(run)
    text = (run / "recipe.yaml").read_text(encoding="utf-8")
    before, after = text.split("guidance_steps: null", 1)  # of `sampling`, which comes first
    (run / "recipe.yaml").write_text(f"{before}guidance_steps: [0.2, 0.9]{after}")
    (line,) = (line for line in model_card(run).splitlines() if "at noise levels" in line)
    assert line.startswith("| sampler in training |")
    assert line.endswith(" at noise levels 0.2 to 0.9 |")


@pytest.mark.slow
def test_unfinished_and_foreign_folders_are_refused(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(TuningError, match="is not a run folder"):
        model_card(tmp_path)
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    (run / "evaluation.json").unlink()
    with pytest.raises(TuningError, match="is not finished"):
        model_card(run)
    (run / "finetune.json").write_text("{}", encoding="utf-8")
    with pytest.raises(TuningError, match="is a fine-tuning"):
        model_card(run)


@pytest.mark.slow
def test_damaged_list_of_clips_is_named(finished: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    (run / "samples" / "prompts.json").write_text("[{]", encoding="utf-8")
    with pytest.raises(TuningError, match=r"prompts\.json is damaged"):
        model_card(run)
