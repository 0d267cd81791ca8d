"""Which form of an image to send: the image itself, a patch against what the device runs, or the image compressed.

Bytes in, a choice out. Making the forms belongs to `image.delta`; what is accepted and judged is the same for all.
Source: decision 0018.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from devguard.session.verbs import Accept, Encoding

GAIN: Final = 20  # an encoded image has to save one byte in so many, for the device spends time on it
HANDLING: Final = 256  # bytes of a message more, and its answer


@dataclass(frozen=True, slots=True)
class Encoded:
    """An image in another form. `source`: digest of the image that a patch is against; None where it needs none."""

    encoding: Encoding
    data: bytes
    source: bytes | None = None
    digest: bytes = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "digest", hashlib.sha256(self.data).digest())


@dataclass(frozen=True, slots=True)
class Sent:
    """What went over the line: "full", "delta" or "compressed"; its bytes, those of this session alone; the code for
    which the device refused an encoded form before, and the bytes that were spent on it."""

    encoding: str
    size: int
    refused: str | None = None
    wasted: int = 0


def choose(accept: Accept, size: int, forms: Iterable[Encoded]) -> Encoded | None:
    """The smallest form that the device takes and that is worth it; None: send what is missing of the image itself.

    `size`: the image's, bytes.
    """
    missing = size - accept.resume_offset
    fitting = [
        form
        for form in forms
        if form.encoding in accept.encodings
        and form.source in (None, accept.source_digest)
        and len(form.data) + HANDLING < missing - missing // GAIN
    ]
    return min(fitting, key=lambda form: len(form.data), default=None)
