"""Forward passes that were replaced: what stood there before stands there again."""

from __future__ import annotations

from torch import nn

from reward_tuning.sampling.replaced_forward import ReplacedForwards


def test_both_kinds_of_forward_come_back() -> None:
    plain, patched = nn.Identity(), nn.Identity()

    def own(x: int) -> int:
        return x + 1

    patched.forward = own  # type: ignore[method-assign]
    replaced = ReplacedForwards([plain, patched])
    for module in (plain, patched):
        module.forward = lambda x: -x  # type: ignore[method-assign]
    assert (plain(2), patched(2)) == (-2, -2)
    replaced.restore()
    assert "forward" not in vars(plain)
    assert vars(patched)["forward"] is own
    assert (plain(2), patched(2)) == (2, 3)
