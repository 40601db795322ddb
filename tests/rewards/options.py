"""Keywords of a test's loader, as the loader takes them."""

from typing import Any

from rewards.core.tower_options import TowerOptions
from rewards.loading import TOWER_KEYWORDS


def taken(options: dict[str, Any], **fixed: Any) -> TowerOptions:
    """Take the keywords of `TowerOptions` out of the others."""
    given = {key: options.pop(key) for key in TOWER_KEYWORDS if key in options}
    return TowerOptions(**fixed, **given)
