import pytest

from reward_tuning.report.metric_titles import title_of


@pytest.mark.parametrize(
    ("key", "title"),
    [
        ("reward/my_judge", "Training reward: my_judge"),
        ("grad_norm", "Gradient norm"),
        ("motion", "Motion of the latents"),
        ("seconds/free_memory", "Seconds: free memory"),
        ("", ""),
    ],
)
def test_titles_of_a_training(key: str, title: str) -> None:
    assert title_of(key) == title


@pytest.mark.parametrize(
    ("key", "title"),
    [
        ("measures/clip_held_out/mean", "clip_held_out, change against the base"),
        ("measures/oracle_size/now", "oracle: size right: now"),
        ("motion", "Motion of the clips, ratio to the base"),
        ("reward/before", "Training reward, until the guard evaluation before"),
        ("motion_error", "Motion error, of the guards"),
    ],
)
def test_titles_of_the_guards(key: str, title: str) -> None:
    assert title_of(key, guards=True) == title
