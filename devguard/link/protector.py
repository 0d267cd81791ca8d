"""The seam between the link and whoever seals its frames. The link knows no keys and no ciphers.

The frame header is the associated data; it carries the low 2 bits of the key epoch and the low 16 bits of the
64-bit record counter. The protector rebuilds the full values, keeps the replay window and makes the key update.
"""

from __future__ import annotations

from typing import Protocol


class Protector(Protocol):
    """Seals and opens the frames of one sealed channel, both directions."""

    @property
    def tag_size(self) -> int:
        """Bytes that `seal` adds to the plaintext."""

    def next(self) -> tuple[int, int]:
        """(epoch, full 64-bit counter) for one transmission, never given twice; may perform the key update."""

    def seal(self, epoch: int, counter: int, header: bytes, plaintext: bytes) -> bytes:
        """Ciphertext with tag, `len(plaintext) + tag_size` bytes."""

    def open(self, epoch_low2: int, counter_low16: int, header: bytes, ciphertext: bytes) -> bytes:
        """The plaintext. Refused("session.tampered") when the tag is wrong, Refused("session.replay") when the
        record is genuine but was opened before or is too old to tell."""
