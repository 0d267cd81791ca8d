"""The checksums of the packet families, each with its check value over ASCII "123456789".

CRC-16 of polynomial 0x1021 and CRC-32 come from the standard library; the others are tables made from their
polynomial at import. Two are in no catalogue: the Omnipod message CRC (an unreflected table driven the reflected
way) and Dana RS's, which lives in its family.
"""

from __future__ import annotations

import binascii
import zlib
from functools import reduce
from operator import xor
from typing import Final


def _table8(polynomial: int) -> bytes:
    table = []
    for value in range(256):
        for _ in range(8):
            value = (value << 1) ^ polynomial if value & 0x80 else value << 1
        table.append(value & 0xFF)
    return bytes(table)


def _table16(polynomial: int) -> tuple[int, ...]:
    table = []
    for value in range(256):
        value <<= 8
        for _ in range(8):
            value = (value << 1) ^ polynomial if value & 0x8000 else value << 1
        table.append(value & 0xFFFF)
    return tuple(table)


def _table16_reflected(polynomial: int) -> tuple[int, ...]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = (value >> 1) ^ polynomial if value & 1 else value >> 1
        table.append(value)
    return tuple(table)


_CRC8_9B: Final = _table8(0x9B)
_CRC8_07: Final = _table8(0x07)
_OMNIPOD: Final = _table16(0x8005)
_MCRF4XX: Final = _table16_reflected(0x8408)


def crc8_minimed(data: bytes) -> int:
    """CRC-8, polynomial 0x9B, initial 0 (MiniMed RF, CareLink stick, Medtrum); check value EA."""
    crc, table = 0, _CRC8_9B
    for byte in data:
        crc = table[crc ^ byte]
    return crc


def crc8_omnipod(data: bytes) -> int:
    """CRC-8, polynomial 0x07, initial 0 (Omnipod packets); check value F4."""
    crc, table = 0, _CRC8_07
    for byte in data:
        crc = table[crc ^ byte]
    return crc


def crc16_ccitt_false(data: bytes) -> int:
    """CRC-16, polynomial 0x1021, initial FFFF, not reflected; check value 29B1."""
    return binascii.crc_hqx(data, 0xFFFF)


def crc16_xmodem(data: bytes) -> int:
    """CRC-16, polynomial 0x1021, initial 0, not reflected; check value 31C3."""
    return binascii.crc_hqx(data, 0)


def crc16_mcrf4xx(data: bytes) -> int:
    """CRC-16, polynomial 0x1021, initial FFFF, reflected (Accu-Chek Combo); check value 6F91."""
    return reduce(lambda crc, byte: (crc >> 8) ^ _MCRF4XX[(crc ^ byte) & 0xFF], data, 0xFFFF)


def crc16_omnipod(data: bytes) -> int:
    """The Omnipod message CRC: the table of unreflected 0x8005, shifted right, initial 0; check value 0265."""
    return reduce(lambda crc, byte: (crc >> 8) ^ _OMNIPOD[(crc ^ byte) & 0xFF], data, 0)


def crc32(data: bytes) -> int:
    """zlib's CRC-32; check value CBF43926."""
    return zlib.crc32(data)


def sum8(data: bytes) -> int:
    """The sum of all bytes modulo 256."""
    return sum(data) & 0xFF


def xor8(data: bytes) -> int:
    """All bytes combined by exclusive or."""
    return reduce(xor, data, 0)
