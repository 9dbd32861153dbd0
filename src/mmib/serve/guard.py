"""Access control for browsers: check host and origin of every request, and add security headers to every answer."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' blob: data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
}
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


def allowed_hosts(address: str, names: Collection[str] = ()) -> frozenset[str] | None:
    """Host names that a service accepts: those of this machine and of its proxy at a loopback address, else any (None).

    This prevents DNS rebinding: a web site can resolve one of its names to this machine, and the browser then lets the
    site read the answers of the service; but the browser sends that name as the host.

    Args:
        address: the address that the service listens on.
        names: names under which a proxy serves it, see `Guard`.
    """
    if not ipaddress.ip_address(address).is_loopback:
        return None
    return LOOPBACK | {address} | {host for name in names if (host := _name(f"//{name}"))}


class Guard:
    """Refuses requests with unknown host names and from pages of other sites; adds security headers.

    Args:
        app: the application that answers accepted requests.
        hosts: accepted host names, see `allowed_hosts`.
        names: names under which a proxy serves the application's pages, in lower case, with the port unless it is the
            default one; their requests are accepted whatever host the proxy asks for.
    """

    def __init__(self, app: ASGIApp, hosts: frozenset[str] | None = None, names: frozenset[str] = frozenset()) -> None:
        self.app = app
        self.hosts = hosts
        self.names = names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        headers = Headers(scope=scope)
        host, origin = headers.get("host", ""), headers.get("origin")
        app = self.app
        if self.hosts is not None and _name(f"//{host}") not in self.hosts:
            app = JSONResponse({"error": "this service does not accept requests with this host name"}, 421)
        # Pages of other sites can send forms without permission, and would keep the models busy.
        elif origin is not None and _place(origin) not in self.names | {host.lower()}:
            app = JSONResponse({"error": "pages of other sites may not use this service"}, 403)
        await app(scope, receive, answer)


def _place(address: str) -> str | None:
    """Name and port of an address, or None if it is invalid."""
    try:
        return urlsplit(address).netloc.lower()
    except ValueError:
        return None


def _name(address: str) -> str | None:
    try:
        return urlsplit(address).hostname
    except ValueError:
        return None
