"""What a file is, told by its content and never by its name.

A quick look at the head (the first 4 KiB are enough) and, where given, at the tail: no parser, no promise
that the rest is well-formed. What fits nothing is `UNKNOWN`; `RAW` is said only of bytes that begin like the
vector table of an Arm Cortex-M image.
"""

from __future__ import annotations

import base64
import binascii
import enum
import re
from collections.abc import Callable
from typing import Final

HEAD_SIZE: Final = 4096
_HEX_LINE: Final = re.compile(rb"[\r\n]*:[0-9A-Fa-f]{10}")
_SREC_LINE: Final = re.compile(rb"[\r\n]*S[0-9][0-9A-Fa-f]{6}")
_CAPTURES: Final = (
    b"\xa1\xb2\xc3\xd4",
    b"\xd4\xc3\xb2\xa1",
    b"\xa1\xb2\x3c\x4d",
    b"\x4d\x3c\xb2\xa1",
    b"btsnoop\x00",
)
_PCAPNG: Final = b"\x0a\x0d\x0d\x0a"
_COSE_TAGS: Final = (b"\xd8\x3d\xd2", b"\xd8\x3d\xd8\x62", b"\xd2", b"\xd8\x62", b"")
_TYP_GRANT: Final = b"application/devguard-grant+cwt"
_TYP_TRUST: Final = b"application/devguard-trust+cbor"


class Kind(enum.StrEnum):
    """The kinds of file that `devguard inspect` names."""

    SUIT_ENVELOPE = "suit-envelope"
    SUIT_MANIFEST = "suit-manifest"
    GRANT = "grant"
    TRUST = "trust"
    CHECKPOINT = "checkpoint"
    MCUBOOT = "mcuboot"
    IHEX = "ihex"
    SREC = "srec"
    UF2 = "uf2"
    ELF = "elf"
    DFU = "dfu"
    ESP = "esp"
    RAW = "raw"
    CAPTURE = "capture"
    UNKNOWN = "unknown"


def recognise(head: bytes, tail: bytes = b"") -> Kind:
    """The kind of a file from its first bytes (up to `HEAD_SIZE`) and, for DFU suffixes, its last 16.

    Never raises: anything unrecognised is `Kind.UNKNOWN`.
    """
    head = bytes(head[:HEAD_SIZE])
    for kind, test in _TESTS:
        if test(head):
            return kind
    if len(tail) >= 16 and tail[-8:-5] == b"UFD" and tail[-5] >= 16:
        return Kind.DFU
    return Kind.RAW if _is_vector_table(head) else Kind.UNKNOWN


def _cbor_head(data: bytes, at: int) -> tuple[int, int, int] | None:
    if at >= len(data):
        return None
    major, info = data[at] >> 5, data[at] & 31
    if info < 24:
        return major, info, at + 1
    width = 1 << (info - 24) if info < 28 else 0
    if not width or at + 1 + width > len(data):
        return None
    return major, int.from_bytes(data[at + 1 : at + 1 + width], "big"), at + 1 + width


def _is_suit_envelope(head: bytes) -> bool:
    if head[:2] == b"\xd8\x6b":
        return len(head) > 2 and head[2] >> 5 == 5
    outer = _cbor_head(head, 0)
    if outer is None or outer[0] != 5 or outer[1] < 2 or head[outer[2] : outer[2] + 1] != b"\x02":
        return False
    wrapper = _cbor_head(head, outer[2] + 1)
    if wrapper is None or wrapper[0] != 2:
        return False
    after = wrapper[2] + wrapper[1]
    return after >= len(head) or (head[after] == 3 and len(head) > after + 1 and head[after + 1] >> 5 == 2)


def _is_suit_manifest(head: bytes) -> bool:
    at = 3 if head[:3] == b"\xd9\x04\x2e" else 0
    outer = _cbor_head(head, at)
    if outer is None or outer[0] != 5 or outer[1] < 3 or head[outer[2] : outer[2] + 3] != b"\x01\x01\x02":
        return False
    sequence = _cbor_head(head, outer[2] + 3)
    if sequence is None or sequence[0] != 0 or head[sequence[2] : sequence[2] + 1] != b"\x03":
        return False
    common = _cbor_head(head, sequence[2] + 1)
    return common is not None and common[0] == 2


def _cose_protected(head: bytes) -> bytes:
    """The protected header bytes of a COSE_Sign1 or COSE_Sign, tagged or not; empty when it is neither."""
    tag = next(tag for tag in _COSE_TAGS if head.startswith(tag))
    if head[len(tag) : len(tag) + 1] != b"\x84":
        return b""
    protected = _cbor_head(head, len(tag) + 1)
    if protected is None or protected[0] != 2:
        return b""
    return head[protected[2] : protected[2] + protected[1]]


def _is_checkpoint(head: bytes) -> bool:
    lines = head.split(b"\n", 3)
    if len(lines) < 4 or not lines[0] or not re.fullmatch(rb"0|[1-9][0-9]{0,19}", lines[1]):
        return False
    try:
        root = base64.b64decode(lines[2], validate=True)
    except (binascii.Error, ValueError):
        return False
    return len(root) == 32 and b"\n\xe2\x80\x94 " in b"\n" + lines[3]


def _is_capture(head: bytes) -> bool:
    if head.startswith(_PCAPNG):
        return head[8:12] in (b"\x1a\x2b\x3c\x4d", b"\x4d\x3c\x2b\x1a")
    return head.startswith(_CAPTURES)


def _is_esp(head: bytes) -> bool:
    if len(head) < 8 or head[0] != 0xE9 or not 1 <= head[1] <= 16 or head[2] > 5 or head[3] & 15 not in (0, 1, 2, 15):
        return False
    return int.from_bytes(head[4:8], "little") >> 28 == 4


def _is_vector_table(head: bytes) -> bool:
    """Initial stack pointer in the SRAM region, reset vector in code space with the Thumb bit set."""
    if len(head) < 8:
        return False
    stack, reset = int.from_bytes(head[:4], "little"), int.from_bytes(head[4:8], "little")
    return stack >> 28 == 2 and stack & 3 == 0 and reset & 1 == 1 and reset < 0x2000_0000


_TESTS: Final[tuple[tuple[Kind, Callable[[bytes], bool]], ...]] = (
    (Kind.MCUBOOT, lambda head: head.startswith((b"\x3d\xb8\xf3\x96", b"\x96\xf3\xb8\x3d"))),
    (Kind.ELF, lambda head: head.startswith(b"\x7fELF")),
    (Kind.UF2, lambda head: head.startswith(b"UF2\n\x57\x51\x5d\x9e")),
    (Kind.DFU, lambda head: head.startswith(b"DfuSe\x01")),
    (Kind.CAPTURE, _is_capture),
    (Kind.SUIT_ENVELOPE, _is_suit_envelope),
    (Kind.SUIT_MANIFEST, _is_suit_manifest),
    (Kind.GRANT, lambda head: _TYP_GRANT in _cose_protected(head)),
    (Kind.TRUST, lambda head: _TYP_TRUST in _cose_protected(head)),
    (Kind.IHEX, lambda head: _HEX_LINE.match(head) is not None),
    (Kind.SREC, lambda head: _SREC_LINE.match(head) is not None),
    (Kind.CHECKPOINT, _is_checkpoint),
    (Kind.ESP, _is_esp),
)
