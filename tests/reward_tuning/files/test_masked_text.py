"""Secrets do not reach a message."""

import pytest

from reward_tuning.files.masked_text import masked


def test_values_of_secret_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "hunter2!")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    text = "401 for 0123456789abcdef and hunter2!: false"
    assert masked(text) == "401 for *** and ***: false"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://me:secret@host:5000/x", "https://***@host:5000/x"),
        ("postgresql://me:a/b@host/x", "postgresql://me:a/b@host/x"),  # no address: / ends a host
        ("http://h/?a=1&write_token=zz&b=2", "http://h/?a=1&write_token=***&b=2"),
        ("/work/runs/a@b", "/work/runs/a@b"),
    ],
)
def test_parts_of_an_address(text: str, shown: str) -> None:
    assert masked(text) == shown
