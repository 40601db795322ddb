import json
import math

from reward_tuning.files.finite_json import without_infinities


def test_what_json_lacks_becomes_null_at_any_depth() -> None:
    found = {"a": [1.5, math.nan, (math.inf, {"b": -math.inf})], "c": "nan", "d": 2, "e": True}
    plain = without_infinities(found)
    assert plain == {"a": [1.5, None, [None, {"b": None}]], "c": "nan", "d": 2, "e": True}
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert math.isnan(found["a"][1])  # type: ignore[index]
