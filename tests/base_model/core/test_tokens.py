import pytest

from base_model.core.tokens import BUDGETS, buckets, frames_under, nearest_bucket, token_count
from base_model.errors import GeneratorError


@pytest.mark.parametrize(("side", "tokens"), [(256, 3328), (512, 13312), (1024, 53248)])
def test_the_budgets_are_49_frames_of_a_square(side: int, tokens: int) -> None:
    assert token_count(49, side, side) == tokens
    assert BUDGETS[tokens] == side
    assert frames_under(tokens, side, side) == 49
    assert frames_under(tokens, side, side, "code") == 49


@pytest.mark.parametrize(
    ("size", "report", "code"),
    # report: the technical report's table. code: its token-length table worked out by hand,
    # min(49 * 512^2 / size^2, 49) // 4 * 4 + 1.
    [(256, 49, 49), (512, 49, 49), (640, 29, 29), (768, 21, 21), (896, 13, 17), (1024, 9, 13)],
)
def test_frames_under_13312(size: int, report: int, code: int) -> None:
    assert frames_under(13312, size, size) == report
    assert frames_under(13312, size, size, "code") == code


def test_tokens_of_clips() -> None:
    assert token_count(1, 16, 16) == 1
    assert token_count(5, 32, 48) == 2 * 2 * 3
    assert token_count(21, 768, 768) == 13824  # above 13312: the budget counts frames
    assert token_count(9, 1024, 1024) == 12288
    assert frames_under(3328, 384, 672) == 9
    assert frames_under(3328, 1024, 1024) == 1
    assert frames_under(53248, 512, 512) == 49


def test_the_buckets_are_the_published_table() -> None:
    from diffusers.pipelines.pixart_alpha.pipeline_pixart_alpha import ASPECT_RATIO_512_BIN

    published = {(int(height), int(width)) for height, width in ASPECT_RATIO_512_BIN.values()}
    assert published <= set(buckets())
    assert all(h % 16 == w % 16 == 0 for side in (256, 320, 512, 1024) for h, w in buckets(side))
    assert (1024, 1024) in buckets(1024)
    assert (192, 336) in buckets(256)
    assert buckets() == sorted(buckets(), key=lambda size: size[0] / size[1])


def test_the_nearest_bucket() -> None:
    assert nearest_bucket(720, 1280) == (384, 672)
    assert nearest_bucket(1280, 720) == (672, 384)
    assert nearest_bucket(33, 33, 256) == (256, 256)
    assert nearest_bucket(1, 100) == (256, 1024)


def test_what_does_not_fit_is_told() -> None:
    with pytest.raises(GeneratorError, match=r"4k \+ 1 frames, got 8\. Use 5"):
        token_count(8, 512, 512)
    with pytest.raises(GeneratorError, match="multiples of 16, got 40 x 512"):
        token_count(9, 40, 512)
    with pytest.raises(GeneratorError, match="one of 3328, 13312, 53248, got 4096"):
        frames_under(4096, 512, 512)
    with pytest.raises(GeneratorError, match="One frame of 2048 x 2048 is more than the budget"):
        frames_under(3328, 2048, 2048)
    with pytest.raises(GeneratorError, match="at least 32 pixels, got 16"):
        buckets(16)
    with pytest.raises(GeneratorError, match="at least 1 x 1 pixels, got 0 x 4"):
        nearest_bucket(0, 4)
