"""A page served on this machine alone, to whoever has the token that is printed.

Requests come by way of the loopback address, name it as their host (a name that leads there by a foreign DNS answer is
refused), and carry a token that nobody can guess. There is the page and what it posts to: no file is read or written.
"""

from __future__ import annotations

import hmac
import json
import os
import secrets
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from onnxslim_learn.errors import InputError, SlimError

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = "127.0.0.1"
MOST = 1 << 20  # bytes of what is posted
DRAINED = 16 * MOST  # bytes read of what is too long: an answer is lost when a connection closes on unread bytes
PATIENCE = 10  # seconds for a request to come in
PLANS = "/plan"
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval';"
    " style-src 'unsafe-inline'; img-src data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none';"
    " frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
TEXT = "text/plain; charset=utf-8"


class Served(ThreadingHTTPServer):
    """A page, and what makes plans of the widths that are posted.

    Attributes:
        token: What every request must carry.
        url: Where the page is, token included.
    """

    daemon_threads = True
    allow_reuse_address = os.name == "posix"  # elsewhere two programs could listen at one port

    def __init__(self, render: Callable[[str], str], plan: Callable[[Any], str], port: int | None = None) -> None:
        """Listen; nothing is answered before :meth:`serve_forever`.

        Args:
            render: Makes the page, given where it posts widths.
            plan: Makes the text of a plan of what was posted.
            port: Where to listen; a free one by default.

        Raises:
            InputError: If the port cannot be had.
        """
        self.token = secrets.token_urlsafe(24)
        try:
            super().__init__((HERE, port or 0), _Request)
        except (OSError, OverflowError) as error:
            said = getattr(error, "strerror", None) or str(error)
            raise InputError(f"⟨port⟩ {port}: {said}. Give another, or none for one that is free.") from error
        self.plan, self.page = plan, render(f"{PLANS}?token={self.token}").encode()
        self.hosts = {f"{name}:{self.server_port}" for name in (HERE, "localhost")}
        self.url = f"http://{HERE}:{self.server_port}/?token={self.token}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a browser that went away in the middle."""


class _Request(BaseHTTPRequestHandler):
    """One request."""

    server: Served
    timeout = PATIENCE
    server_version = "onnxslim-learn"
    sys_version = ""

    def do_GET(self) -> None:
        """Answer with the page."""
        if self._refused("/"):
            return
        self._answer(HTTPStatus.OK, self.server.page, "text/html; charset=utf-8")

    def do_POST(self) -> None:
        """Answer with the plan of the widths that are posted."""
        posted = self._posted()
        if self._refused(PLANS):
            return
        if posted is None:
            self._answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"At most {MOST} bytes.".encode())
            return
        try:
            answer = self.server.plan(json.loads(posted))
        except (SlimError, ValueError, RecursionError) as error:
            self._answer(HTTPStatus.BAD_REQUEST, str(error).encode())
            return
        self._answer(HTTPStatus.OK, answer.encode(), "application/json")

    def _posted(self) -> bytes | None:
        """What is posted; nothing where it is too long or does not say how long it is."""
        length = self.headers.get("Content-Length", "")
        count = int(length) if length.isascii() and length.isdecimal() and len(length) < 20 else DRAINED + 1
        if count <= MOST:
            return self.rfile.read(count)
        left = count if count <= DRAINED else 0
        while left and (part := self.rfile.read(min(left, MOST))):
            left -= len(part)
        return None

    def _refused(self, path: str) -> bool:
        """Refuse what comes from elsewhere, has no token, or asks for something else."""
        asked = urlsplit(self.path)
        given = parse_qs(asked.query).get("token", [""])[0]
        origin = self.headers.get("Origin")
        from_here = self.headers.get("Host") in self.server.hosts
        from_here &= origin is None or origin.removeprefix("http://") in self.server.hosts
        if not (from_here and hmac.compare_digest(given.encode(), self.server.token.encode())):
            self._answer(HTTPStatus.FORBIDDEN, b"Open the address that onnxslim-learn view printed, token included.")
            return True
        if asked.path != path:
            self._answer(HTTPStatus.NOT_FOUND, b"Nothing is here.")
            return True
        return False

    def _answer(self, status: HTTPStatus, content: bytes, kind: str = TEXT) -> None:
        self.send_response(status)
        for name, value in {**HEADERS, "Content-Type": kind, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the name is the library's
        """Say nothing: a log would hold the token."""
