"""One address on the web that judges post to: that host alone, within bounds, without secrets."""

from __future__ import annotations

import email.utils
import hashlib
import http.client
import ipaddress
import json
import os
import re
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from rewards.core.asking import FailedTry, quoted
from rewards.errors import RewardError

LONGEST_REPLY = 2**20
"""Bytes of a reply that are read; an answer has a few dozen."""
AGAIN = {
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.CONFLICT,
    HTTPStatus.TOO_EARLY,
    HTTPStatus.TOO_MANY_REQUESTS,
}
"""Refusals that pass, besides those of 500 and above."""
SECRET = re.compile(r"key|token|secret|passw|signature", re.IGNORECASE)
_MEGABYTE = 1_000_000

Field = tuple[str, str | bytes]
"""Name and value of a form's field; bytes are an mp4 file."""


class Endpoint:
    """An address that is posted to.

    Redirects are refused, so nothing is sent to a host that the recipe does not name. Proxies of
    the environment (`HTTPS_PROXY`) are used, but never for an address of this machine.

    Args:
        url: http:// or https://, without user and password.
        timeout: Seconds for a whole request.
        max_mb: Most megabytes of a request.
        key_env: Name of an environment variable whose value is sent as bearer token; it is shown
            and kept nowhere. None for none.

    Raises:
        RewardError: The address, a number or the variable cannot be used.
    """

    def __init__(
        self, url: str, *, timeout: float, max_mb: float, key_env: str | None = None
    ) -> None:
        self.url = checked_url(url)
        if not timeout > 0 or not max_mb > 0:
            raise RewardError(f"timeout is {timeout} and max_mb {max_mb}; both must be above 0")
        self._timeout = timeout
        self._most = int(max_mb * _MEGABYTE)
        self._key = None if key_env is None else _key_in(key_env)
        handlers: list[urllib.request.BaseHandler] = [_NoRedirect()]
        if is_local(url):
            handlers.append(urllib.request.ProxyHandler({}))
        self._opener = urllib.request.build_opener(*handlers)

    def post(self, body: bytes, content_type: str) -> Any:
        """Post once, and return the JSON that comes back.

        Raises:
            FailedTry: No connection, a status other than 2xx, or a reply that is not JSON.
            RewardError: The request is too large.
        """
        if len(body) > self._most:
            raise RewardError(
                f"a request to {self.url} has {len(body) / _MEGABYTE:.1f} MB, and max_mb allows "
                f"{self._most / _MEGABYTE:g}; raise it, put fewer clips into a request (batch), or "
                "show the judge fewer frames (frames)"
            )
        headers = {"Content-Type": content_type, "Accept": "application/json"}
        request = urllib.request.Request(self.url, body, headers, method="POST")
        if self._key is not None:
            request.add_unredirected_header("Authorization", f"Bearer {self._key}")
        until = time.monotonic() + self._timeout
        try:
            with self._opener.open(request, timeout=self._timeout) as reply:
                content = self._read(reply, until)
        except urllib.error.HTTPError as refused:
            with refused:
                raise self._refused(refused, until) from refused
        except (OSError, http.client.HTTPException) as error:
            raise self._failed(error) from error
        try:
            return json.loads(content)
        except (ValueError, RecursionError) as error:
            raise FailedTry(f"a reply that is not JSON: {quoted(content) or 'empty'}") from error

    def _read(self, reply: Any, until: float) -> bytes:
        """Read a reply up to its largest size and the end of its time.

        Raises:
            FailedTry: It is larger, or takes longer.
        """
        parts, size = [], 0
        while part := reply.read1(2**16):  # what is there; `read` would wait for all of it
            parts.append(part)
            size += len(part)
            if size > LONGEST_REPLY:
                start = quoted(self._without_key(parts[0]))
                raise FailedTry(f"a reply of more than {LONGEST_REPLY:,} bytes: {start}")
            if time.monotonic() > until:
                raise FailedTry(f"a reply that did not end within {self._timeout:g} s (timeout)")
        return self._without_key(b"".join(parts))

    def _refused(self, reply: urllib.error.HTTPError, until: float) -> FailedTry:
        status = reply.code
        if 300 <= status < 400:
            target = self._without_key((reply.headers.get("Location") or "nowhere").encode())
            return FailedTry(
                f"a redirect (HTTP {status}) to {quoted(target)}",
                again=False,
                advice="Clips are sent only to the host that the recipe names: if this is the "
                "right address, set url to it",
            )
        try:
            content = self._read(reply, until)
        except (OSError, http.client.HTTPException, FailedTry):
            content = b""
        again = status >= 500 or status in AGAIN
        said = f": {quoted(content)}" if content.strip() else " without a text"
        return FailedTry(
            f"HTTP {status} {reply.reason or ''}".rstrip() + said,
            again=again,
            after=seconds_in(reply.headers.get("Retry-After"), time.time()),
            advice="" if again else self._advice(status),
        )

    def _advice(self, status: int) -> str:
        if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            return (
                "Name an environment variable with a valid key in key_env"
                if self._key is None
                else "Check the key in the environment variable that key_env names"
            )
        return "The server refuses the request itself: compare url and the other keys with it"

    def _failed(self, error: OSError | http.client.HTTPException) -> FailedTry:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        if isinstance(reason, TimeoutError):
            return FailedTry(f"no reply within {self._timeout:g} s (timeout)")
        text = quoted(str(reason) or type(reason).__name__)
        if isinstance(reason, ssl.SSLCertVerificationError):
            advice = "Set SSL_CERT_FILE to the certificates of your network, or correct url"
            return FailedTry(f"no trusted certificate: {text}", again=False, advice=advice)
        return FailedTry(f"no connection, or one that broke: {text}")

    def _without_key(self, content: bytes) -> bytes:
        """Take the key out of what a server sends, which may be an echo of the request."""
        return content if self._key is None else content.replace(self._key.encode(), b"***")


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Follow no redirect: the opener then raises the reply as an `HTTPError`."""

    def redirect_request(self, *_: Any) -> None:
        return None


def checked_url(url: str) -> str:
    """Return an address that can be posted to.

    Raises:
        RewardError: It is no http(s) address, or has a secret in it, which recipes would keep.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise RewardError(f"url: {_without_user(url)!r:.200} is no address ({error})") from error
    if parts.username is not None or parts.password is not None:
        raise RewardError(
            "url: it contains a user name or a password, which recipe.yaml and messages would "
            "show; leave them out, and name an environment variable with the key in key_env"
        )
    named = [name for name, _ in parse_qsl(parts.query) if SECRET.search(name)]
    if named:
        raise RewardError(
            f"url: it contains {named[0]}, which recipe.yaml and messages would show; leave it "
            "out, and name an environment variable with the key in key_env"
        )
    if parts.scheme not in ("http", "https") or not host or port == 0:
        raise RewardError(
            f"url: got {_without_user(url)!r:.200}; an address begins with http:// or https:// and "
            "a host, such as http://localhost:8000/score"
        )
    if parts.fragment or re.search(r"[\s\x00-\x20\x7f]", url) or not url.isascii():
        raise RewardError(
            f"url: {url!r:.200} contains a character that no address has; encode it, such as a "
            "space as %20"
        )
    return url


def _without_user(url: str) -> str:
    """Return an address without the user and password that it may begin with."""
    return re.sub(r"^([^/]*//)?[^/]*@", r"\1***@", url)


def is_local(url: str) -> bool:
    """Return whether an address is of this machine."""
    host = urlsplit(url).hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def seconds_in(header: str | None, now: float) -> float | None:
    """Return the seconds that a `Retry-After` asks to wait; None if it does not say.

    Args:
        header: Seconds, or a date.
        now: Seconds since 1970.
    """
    text = (header or "").strip()
    if text.isdecimal() and len(text) < 10:
        return float(text)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - now)
    except (ValueError, TypeError, OverflowError):
        return None


def form_data(fields: Sequence[Field]) -> tuple[bytes, str]:
    """Encode a form: texts, and clips as files.

    Args:
        fields: The fields in order.

    Returns:
        The body, and its content type.
    """
    seen = hashlib.sha256()  # of the content, so that it cannot be part of it
    for name, value in fields:
        seen.update(name.encode())
        seen.update(value.encode() if isinstance(value, str) else value)
    boundary = f"reward-tuning-{seen.hexdigest()[:32]}"
    parts: list[bytes] = []
    for name, value in fields:
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"'
        if isinstance(value, bytes):
            head += f'; filename="{name}.mp4"\r\nContent-Type: video/mp4'
            content = value
        else:
            head += "\r\nContent-Type: text/plain; charset=utf-8"
            content = value.encode()
        parts += [head.encode(), b"\r\n\r\n", content, b"\r\n"]
    parts.append(f"--{boundary}--\r\n".encode())
    return b"".join(parts), f"multipart/form-data; boundary={boundary}"


def value_in(reply: Any, key: str) -> Any:
    """Return a value of the object that came back.

    Raises:
        FailedTry: It is no object, or has no such key.
    """
    if not isinstance(reply, Mapping) or key not in reply:
        raise FailedTry(f'no {{"{key}": ...}} in the reply {quoted(json.dumps(reply))}')
    return reply[key]


def _key_in(variable: str) -> str:
    key = os.environ.get(variable, "").strip()
    if not key:
        # A name in small letters may be a key that was pasted in its place.
        named = f" {variable}" if variable.isupper() else ""
        raise RewardError(
            f"key_env: there is no environment variable{named}; set one to the server's key and "
            "give its name here, or leave key_env out"
        )
    if not key.isascii() or not key.isprintable() or " " in key:
        raise RewardError(
            "key_env: the value of that environment variable contains a character that no key has; "
            "copy it again"
        )
    return key
