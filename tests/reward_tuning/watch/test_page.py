"""The live page in a real browser: rows, clips and orders while it is open."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from reward_tuning.files.clips import write_clip
from tests.reward_tuning.browser import Opened, Pages
from tests.reward_tuning.watch.run_files import append, metrics_row, write_run, write_status

Serve = Callable[[Path], str]
HAS_CURVE = """document.querySelector('.plot[data-key="reward/hps"]')?.data?.length > 0"""
EVIL = "<img src=x onerror=document.title='run'> <b>a red ball</b>"


def moving_clip(path: Path) -> None:
    frames = torch.rand(9, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    write_clip(frames, path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "runs"
    for name in ("one", "two"):
        write_run(root / name, prompt=EVIL)
        moving_clip(root / name / "samples/step-000000/00.mp4")
    return root


@pytest.fixture
def opened(root: Path, serve: Serve, open_page: Pages) -> Opened:
    found = open_page(serve(root))
    expect(found.page.locator("#connection")).to_have_text("live")
    return found


def check_quiet(opened: Opened) -> None:
    """As for a report, but the page may ask its own server."""
    address = opened.page.url
    opened.requests = [one for one in opened.requests if not one.startswith(address)]
    opened.check_quiet()


def points(page: Page, key: str) -> list[list[float]]:
    """Values of the last line of each run in a chart, as Plotly has them."""
    found: list[list[float]] = page.evaluate(
        """key => {
            const plot = document.querySelector(`.plot[data-key="${key}"]`);
            const lines = plot.data.filter((trace) => trace.showlegend !== false);
            return lines.map((trace) => [...trace.y]);
        }""",
        key,
    )
    return found


def wait_until(page: Page, condition: str) -> None:
    """Wait for a condition; Playwright's own way needs eval, which the policy forbids."""
    deadline = time.monotonic() + 20
    while not page.evaluate(condition):
        assert time.monotonic() < deadline, condition
        page.wait_for_timeout(50)


def card(page: Page, name: str) -> Any:
    return page.locator(f'.run-card[data-run="{name}"]')


def test_a_step_that_is_appended_while_the_page_is_open_appears(opened: Opened, root: Path) -> None:
    page = opened.page
    page.locator("#curves").scroll_into_view_if_needed()
    wait_until(page, HAS_CURVE)
    page.evaluate("document.getElementById('smoothing').value = 0")
    append(root / "one/metrics.jsonl", metrics_row(3, 0.875))
    write_status(root / "one", step=3, phase="rollout", left=3725.0)
    expect(card(page, "one")).to_contain_text("step 3 of 9 · training (rollout)")
    expect(card(page, "one")).to_contain_text("1:02:05 left")
    expect(card(page, "one")).to_contain_text("hps 0.875")
    assert points(page, "reward/hps") == [[0.5, 0.5, 0.875], [0.5, 0.5]]
    append(root / "one/metrics.jsonl", '{"step": 4, "rew')  # half a line
    page.wait_for_timeout(1300)
    assert points(page, "reward/hps")[0] == [0.5, 0.5, 0.875]
    expect(card(page, "one")).not_to_contain_text("damaged")
    check_quiet(opened)


def test_rows_that_a_resume_has_dropped_disappear(opened: Opened, root: Path) -> None:
    page = opened.page
    page.locator("#curves").scroll_into_view_if_needed()
    wait_until(page, HAS_CURVE)
    page.evaluate("document.getElementById('smoothing').value = 0")
    again = root / "again.jsonl"
    append(again, metrics_row(1, 0.25))
    again.replace(root / "one/metrics.jsonl")
    expect(card(page, "one")).to_contain_text("hps 0.250")
    assert points(page, "reward/hps") == [[0.25], [0.5, 0.5]]


def test_a_curve_is_smoothed_as_by_tensorboard(opened: Opened) -> None:
    """Its formula, written out for three values: a mean whose weights fall by 0.8 a step."""
    found = opened.page.evaluate("watch.smooth([1, 2, 4], 0.8)")
    weights = [[1], [0.8, 1], [0.64, 0.8, 1]]
    values = [1, 2, 4]
    expected = [sum(w * v for w, v in zip(row, values, strict=False)) / sum(row) for row in weights]
    assert found == pytest.approx(expected)
    assert opened.page.evaluate("watch.smooth([1, null, 3], 0)") == [1, None, 3]


@pytest.mark.parametrize(
    ("button", "after", "order"),
    [
        ("Pause", "Start", "pause"),
        ("Stop after this step", "Stops after this step", "stop"),
        ("Sample now", "Samples after this step", "sample"),
    ],
)
def test_a_button_writes_the_file_of_its_order_and_takes_it_back(
    opened: Opened, root: Path, button: str, after: str, order: str
) -> None:
    page, file = opened.page, root / "two/control" / order
    card(page, "two").get_by_role("button", name=button).click()
    expect(card(page, "two").get_by_role("button", name=after)).to_be_visible()
    assert file.exists()
    assert not (root / "one/control").exists()
    card(page, "two").get_by_role("button", name=after).click()
    expect(card(page, "two").get_by_role("button", name=button)).to_be_visible()
    assert not file.exists()
    check_quiet(opened)


def test_a_run_that_has_stopped_shows_how_to_resume_and_takes_no_orders(
    opened: Opened, root: Path
) -> None:
    write_status(root / "one", state="stopped", message="stopped after step 3 of 9")
    one = card(opened.page, "one")
    expect(one).to_contain_text("stopped after step 3 of 9")
    expect(one.locator("code")).to_contain_text(f"reward_tuning.cli resume {root / 'one'}")
    expect(one.get_by_role("button", name="Stop after this step")).to_be_hidden()


def test_new_clips_and_new_runs_appear_and_prompts_are_text(opened: Opened, root: Path) -> None:
    page = opened.page
    expect(page.locator(".clip-row")).to_have_count(1)
    expect(page.locator(".clip-row h3")).to_have_text(EVIL)
    expect(page.locator(".clip-row figcaption")).to_have_text(["base"])
    moving_clip(root / "one/samples/step-000020/00.mp4")
    expect(page.locator(".clip-row figcaption")).to_have_text(["base", "one, step 20"])
    page.wait_for_function(
        "[...document.querySelectorAll('video')].every((v) => v.readyState >= 3)"
    )
    shape = page.evaluate("(v => [v.videoWidth, v.videoHeight])(document.querySelector('video'))")
    assert shape == [64, 64]
    page.locator("#clip-step").fill("0")
    expect(page.locator(".clip-row figcaption")).to_have_text(["base"])
    expect(page.locator("#clip-newest")).to_have_attribute("aria-pressed", "false")
    write_run(root / EVIL.replace("/", ""), prompt=EVIL)
    expect(page.locator(".run-card")).to_have_count(3)
    assert page.locator(".run-card img, .clip-row img").count() == 0
    assert page.title() == "runs: live"
    card(page, "one").get_by_role("checkbox").uncheck()
    assert page.evaluate("watch.shown().length") == 2
    check_quiet(opened)


def test_rules_that_fired_are_told_and_marked(opened: Opened, root: Path) -> None:
    measures = {"clip": {"base": 0.5, "now": 0.4, "mean": -0.1, "low": -0.2, "high": 0.05}}
    fired = [{"rule": "held_out", "action": "stop", "text": "fell on two evaluations <b>"}]
    row = {"step": 2, "measures": measures, "motion": 0.9, "fired": fired}
    append(root / "one/guards.jsonl", json.dumps(row) + "\n")
    page = opened.page
    text = "Step 2, held_out (stop): fell on two evaluations <b>"
    expect(card(page, "one").locator(".fired li")).to_have_text([text])
    key = "guards: measures/clip/mean"
    plot = page.locator(f'.plot[data-key="{key}"]')
    plot.scroll_into_view_if_needed()
    expect(plot).to_have_attribute(
        "aria-label", "clip, change against the base by step; now one −0.100"
    )
    bars = page.evaluate(
        "key => (t => [t.error_y.array[0], t.error_y.arrayminus[0]])"
        '(document.querySelector(`.plot[data-key="${key}"]`).data[0])',
        key,
    )
    assert bars == pytest.approx([0.15, 0.1])
    check_quiet(opened)


def test_curves_have_titles_in_the_order_of_their_weight_and_none_is_of_null(
    opened: Opened, root: Path
) -> None:
    change = {"base": 0.5, "now": 0.6, "mean": 0.1, "low": 0.0, "high": 0.2}
    row = {
        "step": 2,
        "reward": {"before": None, "now": 0.5},
        "measures": dict.fromkeys(("brightness", "hps", "my_clip"), change),
        "motion": 0.9,
        "diversity": None,
        "fired": [],
    }
    append(root / "one/guards.jsonl", json.dumps(row) + "\n")
    titles = opened.page.locator("#charts h3 > span:first-child")
    shown = [
        "Training reward: hps",
        "my_clip, change against the base",
        "hps, change against the base",
        "brightness, change against the base",
        "Motion of the clips, ratio to the base",
        "Loss",
        "Seconds for each step",
    ]
    expect(titles).to_have_text(shown)
    opened.page.get_by_role("button", name="All numbers").click()
    since = "Training reward, since the guard evaluation before"
    expect(titles).to_have_text([*shown, since, "Seconds: rollout"])
    check_quiet(opened)


def test_the_recipe_is_shown_as_text(opened: Opened, root: Path) -> None:
    (root / "one/recipe.yaml").write_text(f"name: {EVIL}\n")
    card(opened.page, "one").locator("summary").click()
    expect(card(opened.page, "one").locator("pre")).to_have_text(f"name: {EVIL}")


def test_a_wrong_token_is_refused(root: Path, serve: Serve, browser: Any) -> None:
    address = serve(root)
    context = browser.new_context()
    try:
        page = context.new_page()
        for wrong in (address.replace("token", "tokem"), address.replace("token/", "")):
            answer = page.goto(wrong)
            assert answer is not None
            assert answer.status == 403
            assert page.locator(".run-card").count() == 0
    finally:
        context.close()


def test_a_server_that_has_ended_is_told(opened: Opened, root: Path) -> None:
    opened.page.route("**/state?*", lambda route: route.abort())
    expect(opened.page.locator("#connection")).to_contain_text("no answer")
    opened.page.unroute("**/state?*")
    expect(opened.page.locator("#connection")).to_have_text("live")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1440])
def test_everyone_can_use_it(
    root: Path, serve: Serve, open_page: Pages, scheme: str, width: int
) -> None:
    write_status(root / "two", state="failed", message="no such judge")
    viewport = {"width": width, "height": 900}
    opened = open_page(serve(root), color_scheme=scheme, viewport=viewport)
    expect(opened.page.locator(".run-card")).to_have_count(2)
    opened.page.locator("#curves").scroll_into_view_if_needed()
    opened.page.wait_for_timeout(500)
    assert opened.page.evaluate("document.documentElement.scrollWidth") == width
    found = Axe().run(opened.page).response["violations"]
    assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in found] == []
