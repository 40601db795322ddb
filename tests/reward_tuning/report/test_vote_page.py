"""The blind vote in a real browser: what it keeps and hides, and that its numbers are right."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Locator, expect

from reward_tuning.report import write_report
from reward_tuning.statistics.vote_table import add_up
from reward_tuning.statistics.votes import CHOICES, read_vote_file, read_votes
from tests.reward_tuning.browser import Opened, Pages
from tests.reward_tuning.report.evaluation_folder import EVIL, write_evaluation

KEYS = {"left": "ArrowLeft", "right": "ArrowRight", "tie": "ArrowUp", "bad": "ArrowDown"}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(write_evaluation(tmp_path_factory.mktemp("reports") / "a run", prompts=8))


@pytest.fixture
def opened(report: Path, open_page: Pages) -> Opened:
    return open_page(report)


def begin(opened: Opened) -> None:
    opened.page.locator("#vote-start").click()
    expect(opened.page.locator("#vote-booth")).to_be_visible()


def shown_prompt(opened: Opened) -> str:
    return opened.page.locator("#vote-prompt").inner_text()


def votes_in(opened: Opened) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = opened.page.evaluate("report.voteBox.votes")
    return found


def vote_to_the_end(opened: Opened, choices: list[str]) -> None:
    """Vote with keys, in turn, until the result is there."""
    page = opened.page
    for number in range(40):
        if page.locator("#vote-result").is_visible():
            return
        page.keyboard.press(KEYS[choices[number % len(choices)]])
        page.wait_for_timeout(20)
    raise AssertionError("no end")


def saved(opened: Opened, folder: Path) -> Path:
    with opened.page.expect_download() as download:
        opened.page.locator("#vote-save").click()
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    return path


def test_every_key_and_button_is_a_vote_that_can_be_undone(opened: Opened) -> None:
    page = opened.page
    begin(opened)
    for number, key in enumerate(["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "t", "b"], 1):
        page.keyboard.press(key)
        assert len(votes_in(opened)) == number
    assert [vote["choice"] for vote in votes_in(opened)] == ["left", "right", *["tie", "bad"] * 2]
    before, last = shown_prompt(opened), votes_in(opened)[-1]
    page.keyboard.press("u")
    assert shown_prompt(opened) == page.evaluate(f"report.data.questions[{last['prompt']}].prompt")
    assert len(votes_in(opened)) == 5
    page.get_by_role("button", name="Left is better").click()
    again = votes_in(opened)[-1]
    assert again == {**last, "choice": "left", "at": again["at"]}  # with the same sides
    assert shown_prompt(opened) == before
    page.keyboard.press("Control+ArrowLeft")  # the browser's own keys are left alone
    assert len(votes_in(opened)) == 6
    opened.check_quiet()


def test_votes_survive_a_reload_and_the_rest_is_asked(opened: Opened) -> None:
    page = opened.page
    page.locator("#vote-voter").fill("Ann <b>")
    begin(opened)
    for choice in ("left", "tie", "right"):
        page.keyboard.press(KEYS[choice])
    before = votes_in(opened)
    page.reload()
    assert votes_in(opened) == before
    expect(page.locator("#vote-kept")).to_have_text("3 votes so far.")
    expect(page.locator("#vote-voter")).to_have_value("Ann <b>")
    page.get_by_role("button", name="Continue").click()
    vote_to_the_end(opened, ["left"])
    real = [vote["prompt"] for vote in votes_in(opened) if not vote["control"]]
    assert sorted(real) == list(range(8))
    opened.check_quiet()


def test_a_saved_file_gives_python_the_same_numbers(opened: Opened, tmp_path: Path) -> None:
    opened.page.locator("#vote-voter").fill("Ann")
    begin(opened)
    vote_to_the_end(opened, ["left", "right", "left", "tie", "left", "bad", "right"])
    path = saved(opened, tmp_path)
    assert path.name == "votes-a-run-Ann.json"
    found = add_up(read_votes([path]))
    assert found.voters[0].name == "Ann"
    (side,) = found.sides
    assert side.win_rate is not None
    assert side.score is not None
    table = opened.page.evaluate("voteTable(report.voteBox.votes)")
    assert [one["name"] for one in table["sides"]] == [side.name]
    (own,) = table["sides"]
    assert (own["wins"], own["losses"], own["ties"], own["bad"]) == (
        side.wins,
        side.losses,
        side.ties,
        side.bad,
    )
    assert [own["rate"][key] for key in ("share", "low", "high", "p")] == pytest.approx(
        [side.win_rate.share, side.win_rate.low, side.win_rate.high, side.win_rate.p], rel=1e-6
    )
    assert own["verdict"] == side.verdict
    assert table["control"]["votes"] == found.control.votes
    assert found.control.votes in (1, 2)  # one in eight pairs, and perhaps one in the next eight
    percent = f"{100 * side.win_rate.share:.0f} %"
    expect(opened.page.locator("#vote-result")).to_contain_text(f"Win rate {percent}")
    expect(opened.page.locator("#people")).to_contain_text(f"Win rate {percent}")
    opened.check_quiet()


def random_votes(rng: random.Random) -> list[dict[str, Any]]:
    sides = ["base", "tuned at 0.5", "tuned at 1", "tuned at 1.5"][: rng.randint(2, 4)]
    votes, strength = [], rng.random()
    for prompt in range(rng.randint(1, 12)):
        for side in sides[1:]:
            if rng.random() < 0.2:
                continue
            pair = rng.sample(["base", side], 2)
            weights = [1.0, 1.0, 0.4, 0.2]
            weights[pair.index(side)] += 3 * strength
            (choice,) = rng.choices(CHOICES, weights)
            votes.append({"prompt": prompt, "left": pair[0], "right": pair[1], "choice": choice})
            votes[-1] |= {"control": False, "at": "2026-11-30T12:00:00.000Z"}
    return votes


def test_the_statistics_are_those_of_python(report: Path, opened: Opened, tmp_path: Path) -> None:
    """Scores, intervals and p of fifty voters, several sides on the same prompts among them."""
    rng = random.Random(0)
    identity = opened.page.evaluate("report.data.report")
    path = tmp_path / "votes.json"
    compared = 0
    for _ in range(50):
        votes = random_votes(rng)
        content = {"format": "reward-tuning-votes", "version": 1, "report": identity, "voter": "a"}
        path.write_text(json.dumps({**content, "votes": votes}))
        expected = add_up(read_votes([path]))
        found = opened.page.evaluate("votes => voteTable(votes)", votes)
        assert [one["name"] for one in found["sides"]] == [one.name for one in expected.sides]
        for own, side in zip(found["sides"], expected.sides, strict=True):
            assert own["verdict"] == side.verdict
            assert own["p"] == (None if side.p_adjusted is None else pytest.approx(side.p_adjusted))
            for mine, theirs in ((own["rate"], side.win_rate), (own["score"], side.score)):
                assert (mine is None) == (theirs is None)
                for name in ("share", "score", "low", "high") if theirs else ():
                    if hasattr(theirs, name):
                        assert mine[name] == pytest.approx(
                            getattr(theirs, name), rel=1e-5, abs=1e-8
                        )
                        compared += 1
    assert compared > 500


def test_a_file_that_is_loaded_shows_its_votes(
    report: Path, opened: Opened, open_page: Pages, tmp_path: Path
) -> None:
    begin(opened)
    for choice in ("left", "tie", "right", "bad"):
        opened.page.keyboard.press(KEYS[choice])
    path = saved(opened, tmp_path)
    other = open_page(report)  # another person's browser
    assert votes_in(other) == []
    other.page.locator("#vote-file").set_input_files(path)
    expect(other.page.locator("#vote-kept")).to_have_text("4 votes so far.")
    assert votes_in(other) == votes_in(opened)
    other.page.locator("#vote-file").set_input_files(path)  # twice is once
    assert len(votes_in(other)) == 4
    assert read_vote_file(saved(other, tmp_path / "again")).votes == read_vote_file(path).votes


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("{half", "no JSON"),
        ("[]", "holds no votes"),
        ({"version": 2}, "of version 2; this page reads version 1"),
        ({"report": {"id": "x", "title": "<b>"}}, "on another report (<b>)"),
        ({"votes": [{"prompt": 99}]}, "damaged, so none of them were loaded"),
        ({"voter": None}, "damaged, so none of them were loaded"),
    ],
)
def test_a_file_that_is_wrong_is_refused_and_votes_stay(
    opened: Opened, tmp_path: Path, change: Any, message: str
) -> None:
    begin(opened)
    opened.page.keyboard.press("ArrowLeft")
    path = saved(opened, tmp_path)
    if isinstance(change, str):
        path.write_text(change)
    else:
        path.write_text(json.dumps(json.loads(path.read_text()) | change))
    opened.page.locator("#vote-file").set_input_files(path)
    expect(opened.page.locator("#vote-trouble")).to_contain_text(message)
    assert len(votes_in(opened)) == 1
    opened.check_quiet()


def test_votes_of_another_person_are_not_mixed_in(opened: Opened, tmp_path: Path) -> None:
    opened.page.locator("#vote-voter").fill("Ann")
    begin(opened)
    opened.page.keyboard.press("ArrowLeft")
    path = saved(opened, tmp_path)
    path.write_text(path.read_text().replace('"Ann"', '"Ben"'))
    opened.page.locator("#vote-file").set_input_files(path)
    expect(opened.page.locator("#vote-trouble")).to_contain_text("These votes are of Ben")
    assert opened.page.evaluate("report.voteBox.voter") == "Ann"


@pytest.mark.slow
def test_sides_are_drawn_by_chance_and_control_pairs_are_one_in_eight(opened: Opened) -> None:
    """Six times eight prompts: each has a control among its first eight pairs, and a coin decides
    which side is left."""
    begin(opened)
    page = opened.page
    lefts, controls = 0, 0
    for _ in range(6):
        vote_to_the_end(opened, ["tie"])
        found = votes_in(opened)
        controls += sum(vote["control"] for vote in found)
        real = [vote for vote in found if not vote["control"]]
        assert len(real) == 8
        lefts += sum(vote["left"] == "base" for vote in real)
        page.evaluate("report.voteBox.clear()")
        page.reload()
        begin(opened)
    assert 8 <= lefts <= 40  # of 48: outside twice in a million times
    assert 6 <= controls <= 12  # one in the first eight pairs, perhaps one in the next


def what_is_there(booth: Locator) -> str:
    """The booth as the document holds it, without what must differ: addresses and texts."""
    text: str = booth.evaluate("one => one.outerHTML")
    text = re.sub(r"blob:null/[0-9a-f-]{36}", "ADDRESS", text)
    text = re.sub(r"(<h3[^>]*>).*?(</h3>)", r"\1\2", text, flags=re.DOTALL)
    text = re.sub(r"Pair \d+ of about \d+", "", text)
    return re.sub(r' value="[0-9.]+"', "", text).replace(' disabled=""', "")


def test_nothing_tells_which_side_is_which(opened: Opened) -> None:
    """The booth is the same document whatever stands where, also for control pairs."""
    page = opened.page
    begin(opened)
    seen, orders = set(), set()
    for _ in range(9):
        if page.locator("#vote-result").is_visible():
            break
        expect(page.locator("#vote-screens")).to_have_class("vote-screens ready")
        seen.add(what_is_there(page.locator("#vote-booth")))
        addresses = page.locator("#vote-screens video").evaluate_all("all => all.map((v) => v.src)")
        assert len(set(addresses)) == 2  # copies of their own, a control pair's too
        labels = page.locator("#vote-screens video").evaluate_all(
            "all => all.map((v) => v.getAttribute('aria-label'))"
        )
        assert labels == ["Left clip", "Right clip"]
        page.keyboard.press("ArrowUp")
        last = votes_in(opened)[-1]
        orders.add((last["left"] == "base", last["control"]))
    assert len(orders) >= 2
    assert len(seen) == 1, seen
    (text,) = seen
    assert not re.search(r"tuned|base(?!line)|strength|[0-9a-f]{12}", text)


def test_both_clips_are_shown_at_the_same_moment_and_play_in_step(opened: Opened) -> None:
    page = opened.page
    begin(opened)
    expect(page.locator("#vote-screens")).to_have_class("vote-screens ready")
    page.locator("#vote-booth").scroll_into_view_if_needed()
    gaps = []
    for _ in range(8):
        page.wait_for_timeout(90)
        gaps.append(
            page.evaluate(
                "(([a, b]) => Math.abs(a.currentTime - b.currentTime))"
                "([...document.querySelectorAll('#vote-screens video')])"
            )
        )
    assert max(gaps) <= 1 / 8  # a frame


def test_a_prompt_is_text(opened: Opened) -> None:
    begin(opened)
    vote_to_the_end(opened, ["left"])
    opened.page.locator("#vote-result summary").click()
    expect(opened.page.locator("#vote-result")).to_contain_text(EVIL)
    assert opened.page.locator("#vote img, #vote b").count() == 0
    opened.check_quiet()


def test_a_browser_that_keeps_nothing_says_so_and_votes_can_be_saved(
    report: Path, browser: Any, tmp_path: Path
) -> None:
    context = browser.new_context()
    try:
        context.add_init_script(
            "Object.defineProperty(window, 'localStorage', { get() { throw new Error('off'); } });"
        )
        page = context.new_page()
        page.goto(report.resolve().as_uri())
        expect(page.locator("#vote-storage")).to_contain_text("does not keep votes")
        opened = Opened(page)
        begin(opened)
        page.keyboard.press("ArrowLeft")
        assert len(read_vote_file(saved(opened, tmp_path)).votes) == 1
    finally:
        context.close()


def test_votes_are_deleted_only_after_a_question(opened: Opened) -> None:
    page = opened.page
    begin(opened)
    page.keyboard.press("ArrowLeft")
    page.once("dialog", lambda dialog: dialog.dismiss())
    page.locator("#vote-clear").click()
    assert len(votes_in(opened)) == 1
    page.once("dialog", lambda dialog: dialog.accept())
    page.locator("#vote-clear").click()
    page.reload()
    assert votes_in(opened) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1440])
def test_everyone_can_vote(report: Path, open_page: Pages, scheme: str, width: int) -> None:
    opened = open_page(report, color_scheme=scheme, viewport={"width": width, "height": 900})
    axe = Axe()

    def check() -> None:
        assert opened.page.evaluate("document.documentElement.scrollWidth") == width
        found = axe.run(opened.page, context="#vote").response["violations"]
        assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in found] == []

    check()
    begin(opened)
    expect(opened.page.locator("#vote-screens")).to_have_class("vote-screens ready")
    check()
    vote_to_the_end(opened, ["left", "tie"])
    check()
    assert opened.page.evaluate("document.activeElement.id") == "vote-result"
