"""What every answer says to the browser: run nothing but what this console serves, show it in no frame, keep nothing.

CSP Level 3; Fetch (Sec-Fetch-Site); RFC 6797 (HSTS). There is no inline script and no inline style to allow.
"""

from __future__ import annotations

from typing import Final

from starlette.datastructures import MutableHeaders
from starlette.types import Message, Send

_CSP: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
    )
)
_FEATURES: Final = ("camera", "microphone", "geolocation", "usb", "serial", "bluetooth", "hid", "payment", "midi")
ALWAYS: Final = {
    "Content-Security-Policy": _CSP,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",  # with no-referrer browsers send "Origin: null" from our own forms
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": ", ".join(f"{name}=()" for name in _FEATURES),
}
_HSTS: Final = "max-age=31536000"


def guarded_send(send: Send, *, tls: bool) -> Send:
    """`send`, with the headers in every answer. What says nothing of keeping it is kept nowhere."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in ALWAYS.items():
                headers[name] = value
            if tls:
                headers["Strict-Transport-Security"] = _HSTS
            headers.setdefault("Cache-Control", "no-store")
        await send(message)

    return sending
