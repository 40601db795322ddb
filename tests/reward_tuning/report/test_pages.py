import json
import re
from pathlib import Path

import pytest
from plotly import graph_objects as go

from reward_tuning.report import pages
from reward_tuning.report.pages import Page, content_policy, json_text, readable, render_page
from tests.reward_tuning.browser import Pages

EVIL = "<img src=x onerror=document.title='run'></script><script>document.title='run'</script>"


def write(tmp_path: Path, page: Page) -> Path:
    path = tmp_path / "page.html"
    path.write_text(render_page(page), encoding="utf-8")
    return path


def test_data_arrives_in_the_browser_as_it_was(tmp_path: Path, open_page: Pages) -> None:
    data = {
        "evil": EVIL,
        "lines": "a\u2028b\u2029c &amp; \0",
        "红": [1, 2.5, None],
        "lone": "\udcff",
    }
    opened = open_page(write(tmp_path, Page("base.html", EVIL, data, charts=False)))
    found = json.loads(opened.page.evaluate("JSON.stringify(window.report.data)"))
    assert found == data
    assert opened.page.title() == " ".join(EVIL.split())
    assert opened.page.locator("img").count() == 0
    opened.check_quiet()


def test_plotly_draws_under_the_policy_and_asks_for_nothing(
    tmp_path: Path, open_page: Pages
) -> None:
    opened = open_page(write(tmp_path, Page("base.html", "charts", {})))
    figure = go.Figure([go.Scatter(x=[1, 2], y=[3, 4]), go.Bar(x=[1, 2], y=[1, 1])])
    opened.page.evaluate(
        "figure => Plotly.newPlot(document.getElementById('main'), figure.data, figure.layout)",
        json.loads(figure.to_json()),
    )
    assert opened.page.locator("#main .scatterlayer .trace").count() == 1
    opened.check_quiet()


def test_a_script_that_is_not_ours_does_not_run(tmp_path: Path, open_page: Pages) -> None:
    path = write(tmp_path, Page("base.html", "title", {}, charts=False))
    html = path.read_text().replace("</main>", "<script>document.title = 'run'</script></main>")
    path.write_text(html)
    opened = open_page(path)
    assert opened.page.title() == "title"
    (violation,) = opened.page.evaluate("window.violations")
    assert violation.startswith("script-src-elem inline")


def test_clips_are_there_when_they_are_asked_for(tmp_path: Path, open_page: Pages) -> None:
    page = Page("base.html", "clips", {}, clips={'a"b': "AAAA"}, charts=False)
    opened = open_page(write(tmp_path, page))
    assert opened.page.evaluate("report.clip('a\"b')") == "data:video/mp4;base64,AAAA"
    assert opened.page.evaluate("report.clip('none')") is None


def test_theme_follows_the_system_until_the_reader_chooses(
    tmp_path: Path, open_page: Pages
) -> None:
    path = write(tmp_path, Page("base.html", "theme", {}, charts=False))
    for scheme, expected in (("light", "rgb(251, 251, 249)"), ("dark", "rgb(18, 20, 21)")):
        opened = open_page(path, color_scheme=scheme)
        assert opened.page.evaluate("getComputedStyle(document.body).backgroundColor") == expected
        assert opened.page.evaluate("report.colour('--bg')") == expected
        assert opened.page.evaluate("report.isDark()") is (scheme == "dark")


@pytest.mark.parametrize(
    ("value", "text"),
    [("0.012345", "0.0123"), ("-1.5", "−1.50"), ("128", "128"), ("1e-7", "1.00e−7"), ("NaN", "–")],
)
def test_numbers_have_the_digits_of_their_size(
    tmp_path: Path, open_page: Pages, value: str, text: str
) -> None:
    opened = open_page(write(tmp_path, Page("base.html", "numbers", {}, charts=False)))
    assert opened.page.evaluate(f"report.number({value})") == text


def test_json_has_no_character_that_ends_its_element() -> None:
    text = json_text({"a": "</script><!--&\u2028", "b": float("nan"), "c": (1, float("inf"))})
    assert re.search(r"[<>&\u2028\u2029]", text) is None
    assert json.loads(text) == {"a": "</script><!--&\u2028", "b": None, "c": [1, None]}


def test_policy_names_texts_by_their_published_hash() -> None:
    # echo -n "" | openssl dgst -sha256 -binary | base64
    empty = "'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='"
    policy = content_policy([""], ["", ""], {"connect-src": "'self'"})
    assert policy.startswith(f"default-src 'none'; script-src {empty}; style-src-elem {empty};")
    assert policy.endswith("; connect-src 'self'")
    assert "unsafe-eval" not in policy
    assert policy.count("unsafe-inline") == 1


def test_an_asset_that_would_end_its_element_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "asset", lambda name: "x = '</SCRIPT>'")
    with pytest.raises(AssertionError, match="</SCRIPT"):
        render_page(Page("base.html", "title", {}, charts=False, styles=()))


def test_names_that_no_encoding_holds_become_escapes() -> None:
    assert readable("a\udcff") == "a\\udcff"
