"""The caches of sampler steps that a recipe or `generate` may choose: a section for each kind.

A kind may be written as its name alone, `cache: teacache`; a number alone is the threshold of the
first-block cache. On a command line a colon separates the name from its first number,
`teacache:0.08`. `NUMBER` names that number, and `COMPILES` says whether a kind leaves the inside of
a call alone, so that the call can be compiled.
"""

import math
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import BeforeValidator, Field, ValidationError

from reward_tuning.errors import TuningError
from reward_tuning.section import NotNegative, Positive, Section


class FirstBlock(Section):
    """First Block Cache of diffusers (after ParaAttention): decides by the first block's residual.

    The threshold bounds the change since the last step computed in full.
    """

    NUMBER: ClassVar = "threshold"
    COMPILES: ClassVar = False

    kind: Literal["first-block"] = "first-block"
    threshold: float = Field(
        default=0.1,
        gt=0.0,
        description="The other blocks run if the mean absolute change of the first block's "
        "residual exceeds this share of its mean absolute value (0.05 to 0.2)",
    )


class TeaCache(Section):
    """TeaCache (arXiv 2411.19108): decides by the rescaled change of the first block's input."""

    NUMBER: ClassVar = "threshold"
    COMPILES: ClassVar = False

    kind: Literal["teacache"] = "teacache"
    threshold: float = Field(
        default=0.08,
        ge=0.0,
        description="A step is computed in full when the rescaled changes that have added up since "
        "the last such step reach this (0.05 to 0.1); 0 = every step",
    )
    coefficients: Annotated[
        tuple[float, float, float, float, float] | None, Field(strict=False)
    ] = Field(
        default=None,
        description="Polynomial of degree 4 that rescales the relative change of the modulated "
        "input, highest power first; null = the one known for the checkpoint's shape (7B and 12B: "
        "published; embedded: `python -m benchmarks.teacache_fit`)",
    )


class Taylor(Section):
    """Prediction of the transformer's output from earlier steps: TaylorSeer (arXiv 2503.06923).

    A fixed plan decides which steps run in full. The differences are taken over noise levels.
    """

    NUMBER: ClassVar = "interval"
    COMPILES: ClassVar = True

    kind: Literal["taylor"] = "taylor"
    interval: Positive = Field(
        default=2,
        description="Every interval-th step is computed in full, counted back from the last but "
        "one; 1 = every step",
    )
    warm_up: Positive = Field(default=4, description="Number of first steps computed in full")
    order: NotNegative = Field(
        default=1,
        le=3,
        description="Order of the Taylor polynomial: 0 repeats the last output, 1 is linear",
    )


AUTO = "auto"
"""Value of `generate --cache`: the choice of `reward_tuning.sampling.automatic_cache`."""

CacheSection = FirstBlock | TeaCache | Taylor
KINDS: dict[str, Any] = {one().kind: one for one in get_args(CacheSection)}
ALLOWED = f"{', '.join(KINDS)}, or a section with one of them as its `kind`"


def _from_name(value: Any) -> Any:
    """Take a name, also with its number, and a number alone as first-block's threshold."""
    if isinstance(value, dict | Section) or value is None:
        return value
    if value in ("none", AUTO):  # words of the option `--cache` alone
        raise ValueError(f"allowed: null for no cache, {ALLOWED}")
    if isinstance(value, str):
        name, colon, number = value.partition(":")
        return {"kind": name, **_named_number(name, number)} if colon else {"kind": value}
    if isinstance(value, int | float) and not isinstance(value, bool):
        return {"kind": "first-block", "threshold": float(value)}
    raise ValueError(f"allowed: {ALLOWED}")


def _named_number(name: str, text: str) -> dict[str, float]:
    """Return the number behind a name and a colon as the section's key.

    Raises:
        ValueError: The kind or the number is none.
    """
    if name not in KINDS:
        raise ValueError(f"allowed: {ALLOWED}, each also with its number, such as taylor:2")
    key, value = KINDS[name].NUMBER, _number(text)
    whole = key == "interval"
    if value is None or (whole and value != int(value)):
        raise ValueError(f"allowed after `{name}:` is {'a whole number' if whole else 'a number'}")
    return {key: int(value) if whole else value}


CacheChoice = Annotated[
    Annotated[CacheSection, Field(discriminator="kind")] | None, BeforeValidator(_from_name)
]


def cache_of(text: str) -> CacheSection | None:
    """Return the cache that an option names: `KIND`, `KIND:NUMBER`, a threshold alone, or `none`.

    Raises:
        TuningError: There is no such kind, or its number is out of range.
    """
    if text == "none":
        return None
    name, colon, number = text.partition(":")
    if not colon and _number(name) is not None:
        name, number = "first-block", name
    if name not in KINDS:
        raise TuningError(
            f"--cache: got {text!r}; allowed: auto, none, {', '.join(KINDS)}, each also with its "
            "number, such as teacache:0.08 or taylor:2"
        )
    section = KINDS[name]
    if not colon and not number:
        found: CacheSection = section()
        return found
    try:
        numbers = _named_number(name, number)
    except ValueError as error:
        raise TuningError(f"--cache: got {text!r}; {error}") from error
    try:
        found = section(**numbers)
    except ValidationError as error:
        said = error.errors()[0]["msg"].replace("Input should be", "allowed:")
        raise TuningError(
            f"--cache: {section.NUMBER} of {name} is {numbers[section.NUMBER]:g}; {said}, or omit "
            "the option"
        ) from error
    return found


def _number(text: str) -> float | None:
    """Return a finite number, or None; NaN and infinity are words here, which no kind has."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def cache_identity(cache: CacheSection) -> str:
    """Return a text that holds every number of a cache, for the fingerprint of what it made."""
    return cache.model_dump_json()


def cache_text(cache: CacheSection | None) -> str:
    """Return the option that names a cache, with its number."""
    return "none" if cache is None else f"{cache.kind}:{getattr(cache, cache.NUMBER):g}"
