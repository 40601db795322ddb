"""Take secrets out of a text before it is shown or kept."""

from __future__ import annotations

import os
import re

SECRET_NAME = re.compile(r"key|token|secret|passw|signature", re.IGNORECASE)
LEAST = 6
"""Characters of a secret; shorter values of such variables, such as `true`, hide nothing."""

_USER = re.compile(r"(//)[^/@\s]+@")
_VALUE = re.compile(rf"([?&][^=&\s]*(?:{SECRET_NAME.pattern})[^=&\s]*=)[^&\s'\"]+", re.IGNORECASE)


def masked(text: str) -> str:
    """Replace secrets in a text, such as the message of a network library, by asterisks.

    That is: the values of environment variables whose names say key, token, secret, password or
    signature, and what `masked_addresses` replaces.
    """
    for name, value in os.environ.items():
        if SECRET_NAME.search(name) and len(value) >= LEAST:
            text = text.replace(value, "***")
    return masked_addresses(text)


def masked_addresses(text: str) -> str:
    """Replace the name and password in an address, and its query values of secret names."""
    return _VALUE.sub(r"\1***", _USER.sub(r"\1***@", text))
