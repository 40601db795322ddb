"""Names by which VBench finds clips; the rule is VBench's own, `{prompt}-{index}.mp4`."""

from pathlib import Path

import pytest

from reward_tuning.errors import TuningError
from reward_tuning.files.vbench_names import vbench_clips, vbench_name


def test_the_prompt_stays_letter_by_letter(tmp_path: Path) -> None:
    prompt = 'An old lamp: "on", then off? A café by night.'
    assert vbench_name(prompt, 4) == f"{prompt}-4.mp4"
    (tmp_path / vbench_name(prompt, 0)).touch()
    assert [path.stem for path in tmp_path.iterdir()] == [f"{prompt}-0"]


def test_vbench_2_cuts_long_prompts() -> None:
    prompt = "é" * 181
    with pytest.raises(TuningError, match="too long for a file name: 368 bytes"):
        vbench_name(prompt, 0)
    with pytest.raises(TuningError, match="too long for a file name: 366 bytes"):
        vbench_name(prompt, 0, "Complex_Plot")  # 180 characters, still more than 255 bytes
    assert vbench_name("e" * 181, 12, "Complex_Plot") == f"{'e' * 180}-12.mp4"
    assert vbench_name("e" * 181, 0, "complex plots") == f"{'e' * 181}-0.mp4"


def test_the_longest_name(tmp_path: Path) -> None:
    name = vbench_name("e" * 249, 0)
    (tmp_path / name).touch()
    assert len(name) == 255
    with pytest.raises(TuningError, match="too long for a file name: 256 bytes"):
        vbench_name("e" * 250, 0)


@pytest.mark.parametrize(
    ("prompt", "fault"),
    [
        ("black and/or white", "'/'"),
        ("../../etc", "'/'"),
        ("a\nb", r"'\\n'"),
        ("a\x1b[2J", r"'\\x1b'"),
        ("a\0b", r"'\\x00'"),
    ],
)
def test_names_that_no_file_should_have(prompt: str, fault: str) -> None:
    with pytest.raises(TuningError, match=f"cannot be a file name.*: it contains {fault}"):
        vbench_name(prompt, 0)


def test_how_many_clips_it_reads() -> None:
    # vbench/__init__.py and VBench-2.0/vbench2/__init__.py at 45e79ec
    names = (None, "animals", "temporal_style", "Complex_Plot", "Diversity")
    assert [vbench_clips(name) for name in names] == [5, 5, 5, 3, 20]
