"""From a template and data to one HTML file that needs no network, under a strict content policy.

Everything is in the page: styles, scripts, data, clips. Its policy names each script and style
by its hash, so a text that became markup by a mistake of ours would still not run. Data never is
markup: templates escape every value, and JSON has no character that ends its element.

Plotly needs two exceptions (tried with 7.1 in Chromium): style attributes, and one empty style
element that it fills through the style sheet's interface.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from reward_tuning.errors import TuningError
from reward_tuning.files.finite_json import without_infinities

ROOM = "reward_tuning.report"
ENDS_SCRIPT = re.compile(r"</script|<!--|\r|\0", re.IGNORECASE)
"""What an HTML parser does not leave as it is in a script, so that its hash would differ."""
ENDS_STYLE = re.compile(r"</style|\r|\0", re.IGNORECASE)
PLOTLY_STYLES = re.compile(r'document\.getElementById\("([0-9a-f]{64})"\)')
"""Plotly adds style sheets of its maps unless an element with such an id is there. The pages have
no maps, so they hold these elements empty, and the policy need not allow the sheets."""
_IN_JSON = {ord(c): f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"}


@dataclass(frozen=True)
class Page:
    """What a page is made of.

    Attributes:
        template: File name in `templates/`; it extends `base.html`.
        title: Title of the document; any text.
        data: Becomes the JSON that the scripts read (`window.report.data`); numbers that are not
            finite become null.
        scripts: File names in `assets/`, run in this order after the page is there.
        styles: File names in `assets/`.
        values: Further values of the template.
        clips: Name to base64 of clips, each in an element of its own that a script asks for
            (`window.report.clip(name)`), so that opening the page decodes none.
        charts: The page holds Plotly.
        policy: Further directives of the content policy, such as `{"connect-src": "'self'"}` of a
            page that is served.
    """

    template: str
    title: str
    data: Mapping[str, Any]
    scripts: Sequence[str] = ()
    styles: Sequence[str] = ("page.css",)
    values: Mapping[str, Any] = field(default_factory=dict)
    clips: Mapping[str, str] = field(default_factory=dict)
    charts: bool = True
    policy: Mapping[str, str] = field(default_factory=dict)


def render_page(page: Page) -> str:
    """Return a page as one HTML document.

    Raises:
        TuningError: Plotly is installed without its script.
    """
    early = [_checked(asset("theme.js"), ENDS_SCRIPT)]
    plotly = plotly_script() if page.charts else ""
    styles = [_checked(asset(name), ENDS_STYLE) for name in page.styles]
    empty = PLOTLY_STYLES.findall(plotly)
    # Plotly last: its 5 MB are read when everything else can be seen already.
    late = [_checked(asset(name), ENDS_SCRIPT) for name in ("core.js", *page.scripts)]
    late += [_checked(plotly, ENDS_SCRIPT)] if plotly else []
    policy = content_policy([*early, *late], [*styles, ""], page.policy)
    return (
        _environment()
        .get_template(page.template)
        .render(
            **page.values,
            title=page.title,
            policy=policy,
            early=[Markup(text) for text in early],
            scripts=[Markup(text) for text in late],
            styles=[Markup(text) for text in styles],
            empty_styles=empty,
            data=Markup(json_text(page.data)),
            clips=page.clips,
        )
    )


def content_policy(
    scripts: Sequence[str], styles: Sequence[str], further: Mapping[str, str] | None = None
) -> str:
    """Return a content policy that allows these texts and clips and pictures in the page itself.

    Args:
        scripts: Text of each script.
        styles: Text of each style element.
        further: Further directives.
    """
    directives = {
        "default-src": "'none'",
        "script-src": " ".join(dict.fromkeys(map(source_hash, scripts))),
        "style-src-elem": " ".join(dict.fromkeys(map(source_hash, styles))),
        "style-src-attr": "'unsafe-inline'",
        "img-src": "data: blob:",
        "media-src": "data: blob:",
        "base-uri": "'none'",
        "form-action": "'none'",
        **(further or {}),
    }
    return "; ".join(f"{name} {value}" for name, value in directives.items())


def source_hash(text: str) -> str:
    """Return the source expression that allows an element with exactly this text."""
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"


def json_text(data: Any) -> str:
    """Return data as JSON that can stand in any element of a page and in a script."""
    text = json.dumps(
        without_infinities(data), ensure_ascii=True, allow_nan=False, separators=(",", ":")
    )
    return text.translate(_IN_JSON)


@cache
def asset(name: str) -> str:
    """Return the text of a file in `assets/`."""
    place = resources.files(ROOM).joinpath("assets", name)
    return place.read_text(encoding="utf-8").replace("\r\n", "\n")


@cache
def plotly_script() -> str:
    """Return Plotly's own bundle, from the installed package.

    Raises:
        TuningError: The package lacks it.
    """
    place = resources.files("plotly").joinpath("package_data", "plotly.min.js")
    try:
        return place.read_text(encoding="utf-8")
    except OSError as error:
        raise TuningError(
            f"the installed plotly has no {place} ({error.strerror or error}); install it again "
            "with `pip install --force-reinstall plotly`"
        ) from error


def _checked(text: str, forbidden: re.Pattern[str]) -> str:
    found = forbidden.search(text)
    assert found is None, f"an asset contains {found[0]!r}, which a page cannot hold"
    return text


def readable(text: object) -> str:
    r"""Return a text for people: parts that no encoding holds become escapes, as `\\udcff`."""
    return str(text).encode("utf-8", "backslashreplace").decode()


def sentence(text: str) -> Markup:
    """Return a text as markup in which `names` are code and numbers stay with their unit."""
    parts = readable(text).replace(" %", "\u00a0%").split("`")
    code = [
        Markup("<code>{}</code>").format(p) if i % 2 else escape(p) for i, p in enumerate(parts)
    ]
    return Markup("").join(code)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader(ROOM, "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: value if isinstance(value, Markup) else readable(value),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["sentence"] = sentence
    return environment
