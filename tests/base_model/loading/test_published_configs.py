"""The packaged configs against the published ones."""

from __future__ import annotations

import pytest

from base_model.loading.published_configs import FOLDER, published_configs
from tests.published_layout import CHANNELS, published

IDS = {
    "alibaba-pai/EasyAnimateV5.1-12b-zh": ("12b", "text"),
    "alibaba-pai/EasyAnimateV5.1-7b-zh-diffusers": ("7b", "text"),
    "alibaba-pai/EasyAnimateV5.1-12b-zh-InP-diffusers": ("12b", "inpaint"),
    "alibaba-pai/EasyAnimateV5.1-7b-zh-Control": ("7b", "control"),
    "/models/EasyAnimateV5.1-12b-zh-Control-Camera": ("12b", "camera"),
}


@pytest.mark.parametrize("name", IDS)
def test_each_published_checkpoint(name: str) -> None:
    size, kind = IDS[name]
    found = published_configs(name)
    assert found is not None
    transformer = published(f"transformer-{size}-control") | {"in_channels": CHANNELS[kind]}
    assert found.transformer == transformer
    assert found.vae == published("vae")
    assert found.text_encoder == published("text_encoder")
    assert found.name.startswith(f"EasyAnimateV5.1 {size} ")


def test_other_names_have_none() -> None:
    assert published_configs("tiny") is None
    assert published_configs("someone/EasyAnimateV5-12b-zh") is None
    assert len(list(FOLDER.glob("*.json"))) == 4
