"""The one exception of the package that a person can act on."""

import pytest

from base_model.core.tokens import token_count
from base_model.errors import GeneratorError


def test_callers_may_catch_a_value_error() -> None:
    with pytest.raises(ValueError, match="Use 5") as caught:
        token_count(8, 16, 16)
    assert type(caught.value) is GeneratorError
