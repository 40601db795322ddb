"""Who may ask the live page's server: this machine's user, by a secret address.

The token is the first part of every address. A cookie would not do: browsers send it to every
server of this machine, whatever its port.
"""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import Mapping

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HOSTS = re.compile(r"(127\.0\.0\.1|localhost)(:\d{1,5})?")
"""Names of this machine alone: a foreign name that leads here is an attack (DNS rebinding). The
port may be another one, as behind `ssh -L`."""
CLOSED_POLICY = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
HEADERS: Mapping[str, str] = {
    "cache-control": "no-store",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


def new_token() -> str:
    """Return a secret of 192 random bits that can stand in an address."""
    return secrets.token_urlsafe(24)


class Access:
    """Let through only requests to this machine's name that know the token.

    Args:
        app: Application behind it; it sees paths without the token.
        token: The secret.
    """

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return  # the server closes a web socket that nobody accepts

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("content-security-policy", CLOSED_POLICY)
            await send(message)

        refused = self._refusal(scope)
        first, _, rest = scope["path"].removeprefix("/").partition("/")
        if refused:
            await PlainTextResponse(refused, 403)(scope, receive, guarded)
        elif scope["path"] == f"/{first}":
            await RedirectResponse(f"/{first}/", 308)(scope, receive, guarded)
        else:
            inside = {**scope, "path": f"/{rest}", "raw_path": f"/{rest}".encode()}
            await self._app(inside, receive, guarded)

    def _refusal(self, scope: Scope) -> str:
        """Return why a request is refused; empty where it is not."""
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if not HOSTS.fullmatch(host):
            return "This server answers only to 127.0.0.1 and localhost"
        given = scope["path"].removeprefix("/").partition("/")[0]
        if not hmac.compare_digest(given.encode(), self._token.encode()):
            return "Open the whole address that `reward-tuning watch` has printed"
        if scope["method"] not in ("GET", "HEAD"):
            origin = headers.get("origin")
            if origin is not None and origin != f"http://{host}":
                return "This request comes from another site"
            if headers.get("content-type", "").partition(";")[0] != "application/json":
                return "Orders are JSON"
        return ""
