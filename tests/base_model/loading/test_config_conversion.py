"""Published configs in the other layout's words, and back to the byte."""

import json
from pathlib import Path

import pytest

from base_model.errors import GeneratorError
from base_model.loading.config_conversion import (
    Part,
    converted_config,
    kept_name,
    model_index,
    translated,
    written,
)
from base_model.loading.key_map import Layout
from tests.published_layout import published, transformer_config

HERE = Path("config.json")


@pytest.mark.parametrize(
    ("part", "config"),
    [("transformer", transformer_config("7b", "inpaint")), ("vae", published("vae"))],
)
def test_a_published_config_comes_back_to_the_byte(part: Part, config: dict[str, object]) -> None:
    text = json.dumps(config, indent=4)  # not as diffusers writes it

    def convert(content: str, layout: Layout) -> str:
        return converted_config(part, HERE, content, layout)

    new, kept = translated(text, None, "diffusers", convert)
    assert kept == text  # the order of lines cannot be told from the other layout
    assert "_diffusers_version" in json.loads(new)
    back, again = translated(new, kept, "original", convert)
    assert back == text
    assert again is None  # the text of diffusers' layout follows from the original
    changed = written(
        {**json.loads(new), "norm_eps" if part == "transformer" else "scaling_factor": 0.5}
    )
    edited, _ = translated(changed, kept, "original", convert)
    assert edited != text  # what somebody changed since is not undone
    assert 0.5 in json.loads(edited).values()


def test_values_that_only_one_class_has_are_written_out() -> None:
    text = written(published("vae"))
    new = json.loads(converted_config("vae", HERE, text, "diffusers"))
    assert new["cache_mag_vae"] is True  # diffusers' inpaint pipeline reads it
    assert "mini_batch_encoder" not in new
    old = json.loads(converted_config("vae", HERE, written(new), "original"))
    assert (old["mini_batch_encoder"], old["mini_batch_decoder"]) == (4, 1)
    assert [old["ch"] * n for n in old["ch_mult"]] == new["block_out_channels"]


def test_names_and_the_index() -> None:
    assert kept_name("config.json", "original") == "config.original.json"
    for channels, name in ((16, ""), (33, "Inpaint"), (38, "Control"), (48, "Control")):
        assert json.loads(model_index(channels))["_class_name"] == f"EasyAnimate{name}Pipeline"
    with pytest.raises(GeneratorError, match="takes 17 input channels"):
        model_index(17)
