import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from plotly import graph_objects as go

from reward_tuning.errors import TuningError
from reward_tuning.report import write_report
from reward_tuning.report.report_page import report_page
from tests.reward_tuning.browser import Opened, Pages
from tests.reward_tuning.full_disk import largest_file
from tests.reward_tuning.report.evaluation_folder import (
    EVIL,
    write_clip_file,
    write_evaluation,
    write_run,
)

RECIPE = """\
sampling: {steps: 6, shift: 1.0, strength: 1.0}
rewards: [{kind: hps, name: null}]
evaluation: {held_out_rewards: [{kind: clip, name: clip_held_out}]}
guards: {motion: {action: warn, low: 0.8, high: 1.25}, drift: {action: stop, high: 0.3}}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(write_run(tmp_path_factory.mktemp("a run") / "<b>run", RECIPE))


def cards(opened: Opened) -> list[str]:
    return opened.page.locator("#gallery article").evaluate_all("all => all.map(one => one.id)")


def drift_in_frames(opened: Opened) -> float:
    """Largest distance of the two clips of a pair on screen, in frames of 1/8 s."""
    return float(
        opened.page.evaluate(
            """() => Math.max(...[...document.querySelectorAll("#gallery .pair")].map((pair) => {
                const [a, b] = pair.querySelectorAll("video.ready");
                return a && b ? 8 * Math.abs(a.currentTime - b.currentTime) : 0; }))"""
        )
    )


def test_nothing_is_asked_of_the_network_and_no_markup_of_a_prompt_runs(
    run: Path, open_page: Pages
) -> None:
    opened = open_page(run)
    opened.page.locator("#prompt-0").scroll_into_view_if_needed()
    opened.page.wait_for_selector("video.ready")
    assert opened.page.locator("#prompt-1-head").text_content() == EVIL
    assert opened.page.locator(".prompt b, .prompt-cell b, .prompt img, .eyebrow b").count() == 0
    assert opened.page.title() == "<b>run – report"
    for plot in opened.page.locator(".plot").all():
        plot.scroll_into_view_if_needed()
    opened.wait_until(
        "[...document.querySelectorAll('.plot')].every((one) => one.querySelector('svg'))"
    )
    opened.check_quiet()


def test_names_of_judges_and_adapters_are_text(tmp_path: Path, open_page: Pages) -> None:
    """In tables, tooltips, filters and charts, of the folder of an evaluation."""
    folder = write_evaluation(tmp_path / "evaluation")
    path = folder / "evaluation.json"
    text = path.read_text().replace('"hps"', json.dumps(f"judge {EVIL}"))
    found = json.loads(text)
    found["sides"][1]["name"] = f"adapter {EVIL}"
    path.write_text(json.dumps(found))
    opened = open_page(write_report(folder))
    for plot in opened.page.locator(".plot").all():
        plot.scroll_into_view_if_needed()
    opened.wait_until(
        "[...document.querySelectorAll('.plot')].every((one) => one.querySelector('svg'))"
    )
    body = opened.page.evaluate("document.body.textContent")
    assert f"judge {EVIL}" in body
    assert f"adapter {EVIL}" in body
    assert opened.page.locator("img[onerror], [src=x]").count() == 0
    assert "run" not in opened.page.title().split()
    opened.check_quiet()


def test_clips_play_in_step_and_only_those_on_screen(run: Path, open_page: Pages) -> None:
    opened = open_page(run, viewport={"width": 500, "height": 700})
    assert opened.page.locator("video").count() <= 4
    opened.page.locator("#prompt-0").scroll_into_view_if_needed()
    opened.wait_until("document.querySelectorAll('.pair video.ready').length >= 2")
    seen, moved = [], set()
    for _ in range(25):
        opened.page.wait_for_timeout(60)
        seen.append(drift_in_frames(opened))
        moved.add(opened.page.evaluate("document.querySelector('video.ready').currentTime"))
    assert max(seen) < 1
    assert len(moved) > 5
    assert 2 <= opened.page.locator("video").count() < 12
    # one that falls behind catches up at once
    pair = "document.querySelectorAll('#prompt-0 video.ready')"
    opened.wait_until(f"{pair}[0].currentTime > 0.3 && {pair}[0].currentTime < 0.6")
    opened.page.evaluate(f"{pair}[1].currentTime = 0")
    opened.page.wait_for_timeout(150)
    assert drift_in_frames(opened) < 1


def test_frames_are_stepped_one_by_one_on_both_sides(run: Path, open_page: Pages) -> None:
    opened = open_page(run, reduced_motion="reduce")
    assert opened.page.get_by_role("button", name="Play").first.is_visible()
    opened.page.locator("#prompt-0").scroll_into_view_if_needed()
    opened.page.wait_for_selector("video.ready")
    middles = []
    for key in (".", ".", ".", ","):
        opened.page.keyboard.press(key)
        opened.page.wait_for_timeout(250)
        times = opened.page.locator("#prompt-0 video.ready").evaluate_all(
            "all => all.map((video) => 8 * video.currentTime)"
        )
        middles.append(times)
    assert [[round(t, 1) for t in times] for times in middles] == [
        [1.5, 1.5],
        [2.5, 2.5],
        [3.5, 3.5],
        [2.5, 2.5],
    ]


def test_the_slider_changes_the_tuned_clips_and_their_numbers(run: Path, open_page: Pages) -> None:
    opened = open_page(run)
    place = opened.page.locator("#prompt-0 .screen")
    before = place.evaluate_all("all => all.map((one) => one.dataset.clip)")
    assert opened.page.locator("#prompt-0 .badge").first.text_content() == "clip_held_out +0.0050"
    slider = opened.page.get_by_role("slider", name="Strength")
    assert slider.get_attribute("aria-valuetext") == "strength 1"
    slider.press("ArrowRight")
    assert slider.get_attribute("aria-valuetext") == "strength 1.5"
    after = place.evaluate_all("all => all.map((one) => one.dataset.clip)")
    assert after[0] == before[0]
    assert after[1] != before[1]
    # 0.5 * 0.01 * 1.5, see scores_of
    assert opened.page.locator("#prompt-0 .badge").first.text_content() == "clip_held_out +0.0075"
    opened.wait_until("document.getElementById('metrics-lead').textContent.includes('1.5')")


def test_means_of_a_side_and_its_base_are_of_the_same_prompts(
    tmp_path: Path, open_page: Pages
) -> None:
    file = write_evaluation(tmp_path, prompts=4, strengths=(1.0, 1.5)) / "evaluation.json"
    found = json.loads(file.read_text())
    motion = found["sides"][0]["scores"]["motion"]
    motion[2:] = [0.05, 0.05]  # prompts that the strength 1.5 did not answer
    fewer = found["sides"][2]
    fewer["scores"]["motion"] = [0.02, 0.03, None, None]
    fewer["means"]["motion"] = 0.025
    for change in fewer["difference"].values():
        change["prompts"] = 2
    file.write_text(json.dumps(found))
    opened = open_page(write_report(tmp_path))
    opened.page.get_by_role("slider", name="Strength").press("ArrowRight")
    opened.wait_until("document.getElementById('metrics-lead').textContent.includes('2 prompts')")
    row = opened.page.locator("#overview tr", has_text="motion")
    assert row.locator("td").all_text_contents()[:2] == ["0.0100", "0.0250"]


def test_an_evaluation_in_a_run_is_named_after_it_and_has_no_empty_recipe(
    tmp_path: Path, open_page: Pages
) -> None:
    folder = write_evaluation(write_run(tmp_path / "mine", RECIPE) / "evaluate", prompts=2)
    opened = open_page(write_report(folder))
    assert opened.page.locator(".eyebrow").text_content() == "Evaluation of mine"
    assert opened.page.locator("#recipe, [href='#recipe']").count() == 0


def test_clips_of_the_base_alone_are_not_called_tuned_at_strength_0(
    tmp_path: Path, open_page: Pages
) -> None:
    write_clip_file(tmp_path / "samples/step-000000/00.mp4", 50)
    rows = [{"file": "00.mp4", "prompt": "a fox"}]
    (tmp_path / "samples/prompts.json").write_text(json.dumps(rows))
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    opened = open_page(write_report(tmp_path))
    caption = opened.page.locator("#prompt-0 figcaption").nth(1)
    assert caption.text_content() == "tuned, before its first step"


def test_only_changes_with_a_good_direction_are_coloured(run: Path, open_page: Pages) -> None:
    opened = open_page(run)
    badges = [opened.page.locator(f"#prompt-{i} .badge").first for i in (0, 1)]
    assert [badge.get_attribute("class") for badge in badges] == ["badge gain", "badge loss"]
    # motion is best near the base: neither more nor less of it is a gain
    opened.page.get_by_label("By", exact=True).select_option("motion")
    assert [badge.get_attribute("class") for badge in badges] == ["badge ", "badge "]


def test_worst_first_filter_and_search(run: Path, open_page: Pages) -> None:
    opened = open_page(run)
    assert cards(opened) == [f"prompt-{i}" for i in range(6)]
    opened.page.get_by_label("Order", exact=True).select_option("worst")
    # changes are 0.005 * (1, -2, 3, -4, 5, -6)
    assert cards(opened) == [f"prompt-{i}" for i in (5, 3, 1, 0, 2, 4)]
    opened.page.get_by_label("Order", exact=True).select_option("best")
    assert cards(opened) == [f"prompt-{i}" for i in (4, 2, 0, 1, 3, 5)]
    opened.page.get_by_label("Category", exact=True).select_option("people")
    assert cards(opened) == [f"prompt-{i}" for i in (1, 3, 5)]
    opened.page.get_by_label("Search").fill("NUMBER 3")
    assert cards(opened) == ["prompt-3"]
    assert opened.page.locator("#count").text_content() == "1 of 6 prompts shown"


def test_the_table_sorts_and_leads_to_clips_that_a_filter_hides(
    run: Path, open_page: Pages
) -> None:
    opened = open_page(run)
    opened.page.get_by_label("Search").fill("number 3")
    rows = opened.page.locator("#table tbody th")
    opened.page.locator("#table").get_by_role("button", name="hps").click()
    assert opened.page.locator("#table th[aria-sort=descending]").text_content() == "hps"
    assert [text.split()[0] for text in rows.all_text_contents()] == ["5", "3", "1", "2", "4", "6"]
    opened.page.locator("#table").get_by_role("button", name="hps").click()
    assert [text.split()[0] for text in rows.all_text_contents()] == ["6", "4", "2", "1", "3", "5"]
    tip = opened.page.locator("#tip")
    opened.page.locator("#table").get_by_role("button", name="motion").focus()
    assert tip.is_visible()
    opened.page.keyboard.press("Escape")
    assert not tip.is_visible()
    opened.page.locator("#table a").first.click()
    assert opened.page.evaluate("document.activeElement.id") == "prompt-5"


def test_a_prompt_enlarged_is_driven_by_keys(run: Path, open_page: Pages) -> None:
    opened = open_page(run)
    opened.page.get_by_role("button", name="Enlarge prompt 1", exact=True).click()
    dialog = opened.page.get_by_role("dialog")
    assert dialog.get_by_role("heading").text_content() == "a fox number 0"
    opened.wait_until("document.querySelectorAll('dialog video.ready').length === 2")
    dialog.get_by_role("button", name="Close").focus()
    opened.page.keyboard.press("ArrowRight")
    assert dialog.get_by_role("heading").text_content() == EVIL
    opened.page.keyboard.press("ArrowUp")
    assert "strength 1.5" in dialog.locator("figcaption").all_text_contents()[1]
    opened.page.keyboard.press("Escape")
    assert not dialog.is_visible()
    opened.wait_until("document.activeElement.id === 'prompt-1'")
    opened.check_quiet()


def test_without_h264_stills_are_shown_and_said(run: Path, open_page: Pages) -> None:
    deaf = "HTMLMediaElement.prototype.canPlayType = () => '';"
    opened = open_page(run, script=deaf)
    assert opened.page.locator("#no-h264").is_visible()
    assert opened.page.locator("video").count() == 0
    still = opened.page.locator("#prompt-0 img").first
    assert still.evaluate("image => image.decode().then(() => image.naturalWidth)") == 32


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(run: Path, open_page: Pages, scheme: str) -> None:
    opened = open_page(run, color_scheme=scheme, viewport={"width": 1000, "height": 800})
    for plot in opened.page.locator(".plot").all():
        plot.scroll_into_view_if_needed()
    assert violations(opened) == []
    opened.page.get_by_role("button", name="Enlarge prompt 1", exact=True).click()
    assert violations(opened) == []


def violations(opened: Opened) -> list[str]:
    found: list[dict[str, Any]] = Axe().run(opened.page).response["violations"]
    return [f"{one['id']}: {node['html'][:200]}" for one in found for node in one["nodes"]]


@pytest.mark.parametrize("width", [360, 820])
def test_no_page_is_wider_than_its_screen(run: Path, open_page: Pages, width: int) -> None:
    opened = open_page(run, viewport={"width": width, "height": 800})
    for plot in opened.page.locator(".plot").all():
        plot.scroll_into_view_if_needed()
    overflow = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert opened.page.evaluate(overflow) == 0
    opened.page.get_by_role("button", name="Enlarge prompt 2", exact=True).click()
    wider = "document.querySelector('dialog').scrollWidth - innerWidth"
    assert opened.page.evaluate(wider) <= 0


@pytest.mark.slow
def test_two_hundred_clips_react_to_the_slider_within_100_ms(
    tmp_path: Path, open_page: Pages
) -> None:
    strengths = (0.5, 0.7, 1.0, 1.25, 1.5)
    write_evaluation(tmp_path, prompts=20, strengths=strengths, size=256)
    path = write_report(tmp_path)
    assert path.stat().st_size < 30e6
    opened = open_page(path)
    opened.page.locator("#prompt-0").scroll_into_view_if_needed()
    opened.page.wait_for_selector("video.ready")
    # From the event to the frame that shows the new numbers; again where others used the cores.
    median = min(sorted(slider_times(opened))[2] for _ in range(3))
    assert median < 100
    opened.check_quiet()


def slider_times(opened: Opened) -> list[float]:
    found: list[float] = opened.page.evaluate(
        """async () => {
            const slider = document.getElementById("strength"), times = [];
            for (const value of [0, 4, 1, 3, 2]) {
                const start = performance.now();
                slider.value = value;
                slider.dispatchEvent(new Event("input"));
                await new Promise(requestAnimationFrame);
                await new Promise((done) => setTimeout(done));
                times.push(performance.now() - start);
                await new Promise((done) => setTimeout(done, 200));
            }
            return times; }"""
    )
    return found


def test_every_figure_is_one_that_plotly_accepts(run: Path) -> None:
    figures = report_page(run.parent).data["figures"]
    groups = {figure["group"] for figure in figures}
    assert len(groups) == 6
    for figure in figures:
        text = json.dumps([figure["traces"], figure["layout"]])
        for name in ("accent", "accent-soft", "loss", "third", "fourth", "muted", "strong-line"):
            text = text.replace(f"var(--{name})", "#123456")
        assert "var(" not in text
        traces, layout = json.loads(text)
        go.Figure(data=traces, layout=layout)  # raises on a key that is not Plotly's


def test_a_phone_shows_every_number_of_a_metric(run: Path, open_page: Pages) -> None:
    opened = open_page(run, viewport={"width": 360, "height": 800})
    cells = opened.page.locator("#overview tbody td")
    assert cells.count() == 15  # base, tuned, change, interval, verdict of three metrics
    for box in cells.evaluate_all("all => all.map((one) => one.getBoundingClientRect().toJSON())"):
        assert box["width"] > 0
        assert box["left"] >= 0
        assert box["right"] <= 360
    heads = "all => all.map((one) => getComputedStyle(one, '::before').content)"
    assert cells.evaluate_all(heads)[3:5] == ['"95 % interval"', '"verdict"']
    assert violations(opened) == []


def test_names_in_explanations_are_code(run: Path, open_page: Pages) -> None:
    opened = open_page(run)
    name = opened.page.locator("#overview .hint", has_text="motion")
    name.focus()
    assert opened.page.locator("#tip code").text_content() == "train.motion"
    assert "`" not in (opened.page.locator("#tip").text_content() or "`")
    assert "`" not in (name.get_attribute("aria-description") or "`")
    assert "`" not in (opened.page.locator("#glossary").text_content() or "`")


def test_ticks_of_small_changes_have_no_prefix(tmp_path: Path, open_page: Pages) -> None:
    file = write_evaluation(tmp_path, prompts=2) / "evaluation.json"
    found = json.loads(file.read_text())
    for side in found["sides"][1:]:
        side["difference"]["motion"] |= {"mean": -1e-4, "low": -2e-4, "high": 1e-4}
    file.write_text(json.dumps(found))
    opened = open_page(write_report(tmp_path))
    plot = opened.page.locator("#dial-charts figure", has_text="motion").locator(".plot")
    plot.scroll_into_view_if_needed()
    plot.locator(".ytick text").first.wait_for()
    ticks = plot.locator(".ytick text").all_text_contents()
    assert "\N{MINUS SIGN}0.0001" in ticks, ticks


def test_all_adapters_stand_next_to_the_base(tmp_path: Path, open_page: Pages) -> None:
    file = write_evaluation(tmp_path, prompts=2, strengths=(1.0, 1.5)) / "evaluation.json"
    found = json.loads(file.read_text())
    for side, name in zip(found["sides"][1:], ("first", "<b>second"), strict=True):
        side["adapter"] = name
    file.write_text(json.dumps(found))
    opened = open_page(write_report(tmp_path))
    shown = opened.page.locator("#prompt-0 figure:visible")
    assert shown.locator("figcaption").all_text_contents() == ["base", "tuned, strength 1"]
    both = opened.page.get_by_role("button", name="Show all")
    both.click()
    assert both.get_attribute("aria-pressed") == "true"
    # changes are 0.005 and 0.0075, see scores_of
    assert shown.locator("figcaption").all_text_contents() == [
        "base",
        "first, strength 1: clip_held_out +0.0050",
        "<b>second, strength 1.5: clip_held_out +0.0075",
    ]
    clips = shown.locator(".screen").evaluate_all("all => all.map((one) => one.dataset.clip)")
    assert len(set(clips) - {""}) == 3
    opened.page.locator("#prompt-0").scroll_into_view_if_needed()
    opened.wait_until("document.querySelectorAll('#prompt-0 video.ready').length === 3")
    assert violations(opened) == []
    both.click()
    assert shown.locator("figcaption").all_text_contents() == ["base", "tuned, strength 1"]
    opened.check_quiet()


def test_prompts_without_clips_are_counted_apart(tmp_path: Path, open_page: Pages) -> None:
    file = write_evaluation(tmp_path, prompts=6, strengths=(1.0,)) / "evaluation.json"
    found = json.loads(file.read_text())
    for side in found["sides"]:
        side["clips"] = {key: side["clips"][key] for key in ("0", "1", "2", "3")}
    file.write_text(json.dumps(found))
    opened = open_page(write_report(tmp_path))
    count = opened.page.locator("#count")
    assert count.text_content() == "4 of 6 prompts have clips"
    opened.page.get_by_label("Category", exact=True).select_option("people")
    assert count.text_content() == "4 of 6 prompts have clips; 2 of these 4 shown"
    assert opened.page.locator("#table a").count() == 4


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TuningError, match=r"neither recipe.yaml nor evaluation.json"):
        write_report(tmp_path)


def test_a_full_disk_leaves_the_earlier_report(tmp_path: Path) -> None:
    path = write_report(write_evaluation(tmp_path, prompts=2, strengths=(1.0,)))
    before = path.read_bytes()
    with largest_file(2**20), pytest.raises(TuningError, match=r"report.html could not be written"):
        write_report(tmp_path)
    assert path.read_bytes() == before


def test_the_same_folder_gives_the_same_bytes(run: Path, tmp_path: Path) -> None:
    assert write_report(run.parent, tmp_path / "again.html").read_bytes() == run.read_bytes()


def test_a_report_needs_no_torch() -> None:
    code = "import sys, reward_tuning.report; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
