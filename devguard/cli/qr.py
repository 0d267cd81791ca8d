"""A text as a QR code on the terminal (extra `qr`, the segno package): for a telephone or a hand scanner."""

from __future__ import annotations

import io

from devguard.errors import Refused


def need_segno() -> None:
    """Return when codes can be drawn; `qr.package`. Asked before anything else is done."""
    try:
        import segno  # noqa: F401
    except ImportError:
        raise Refused("qr.package", "the segno package is not installed") from None


def drawn(text: str) -> str:
    """`text` as a QR code in half blocks, two modules a line; one that fits no code stays text alone: ""."""
    import segno

    try:
        code = segno.make_qr(text, error="m", boost_error=False)
    except segno.DataOverflowError:
        return ""
    out = io.StringIO()
    code.terminal(out, compact=True, border=2)
    return out.getvalue().rstrip("\n")
