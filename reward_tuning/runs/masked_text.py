"""Take secrets out of a text before it is shown or kept."""

from __future__ import annotations

import os
import re

SECRET_NAME = re.compile(r"key|token|secret|password", re.IGNORECASE)
LEAST = 6
"""Characters of a secret; shorter values of such variables, such as `true`, hide nothing."""


def masked(text: str) -> str:
    """Replace secrets in a text, such as the message of a network library, by asterisks.

    That is: the values of environment variables whose names say key, token, secret or password;
    name and password in an address; and query values of such names.
    """
    for name, value in os.environ.items():
        if SECRET_NAME.search(name) and len(value) >= LEAST:
            text = text.replace(value, "***")
    text = re.sub(r"(\w://)[^/@\s]+@", r"\1***@", text)
    return re.sub(r"(?i)([?&]\w*(?:key|token|secret|password)\w*=)[^&\s'\"]+", r"\1***", text)
