"""Which requests are answered, and the security headers of every answer."""

import ipaddress
import socket

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


class Guard:
    """Refuses requests that another site may have sent through the user's browser, and adds the security headers.

    In an attack by DNS rebinding, another site points a name of its own at this machine and then reads the answers. The
    Host header holds that name, so only IP addresses and the names of this machine are accepted there.

    Args:
        app: the application that is protected.
        host: the address that the server listens at.
    """

    def __init__(self, app: ASGIApp, *, host: str) -> None:
        self._app = app
        self._names = {"localhost", host.lower(), socket.gethostname().lower(), socket.getfqdn().lower()} - {""}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on, or answers 403."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        headers = Headers(scope=scope)
        host, origin = headers.get("host", ""), headers.get("origin")
        reason = None
        if not self._is_own(host):
            reason = "this address does not belong to the server; open the address that `delf-jax serve` printed"
        elif origin is not None and origin.partition("://")[2] != host:
            reason = "requests from other sites are refused"
        if reason is None:
            await self._app(scope, receive, send_with_headers)
        else:
            await JSONResponse({"error": reason}, status_code=403)(scope, receive, send_with_headers)

    def _is_own(self, host: str) -> bool:
        name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return name.lower() in self._names
        return True
