"""Firmware files of every kind, made here field by field: sound ones, and whatever a test changes in them."""

from __future__ import annotations

import hashlib
import struct
import zlib
from functools import reduce
from operator import xor

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519

from devguard.image import mcuboot_layout as layout
from devguard.image.mcuboot_keys import image_key

SIGNER = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
KEY = image_key(SIGNER.public_key())


def uf2(*parts: tuple[int, bytes], family: int = 0xE48BFF56, flags: int = 0x2000) -> bytes:
    out = b""
    for number, (address, data) in enumerate(parts):
        head = struct.pack("<8sIIIIII", b"UF2\n\x57\x51\x5d\x9e", flags, address, len(data), number, len(parts), family)
        out += head + data.ljust(476, b"\0") + b"\x30\x6f\xb1\x0a"
    return out


def suffixed(data: bytes, *, dfu: int = 0x0100) -> bytes:
    whole = data + struct.pack("<HHHH3sB", 0x0200, 0xDF11, 0x0483, dfu, b"UFD", 16)
    return whole + struct.pack("<I", zlib.crc32(whole) ^ 0xFFFFFFFF)


def dfuse(*elements: tuple[int, bytes], name: bytes = b"Internal Flash") -> bytes:
    body = b"".join(struct.pack("<II", address, len(data)) + data for address, data in elements)
    target = struct.pack("<6sBI255sII", b"Target", 0, 1, name, len(body), len(elements)) + body
    return suffixed(struct.pack("<6sIB", b"DfuSe\x01", 11 + len(target), 1) + target, dfu=0x011A)


def esp(*segments: tuple[int, bytes], chip: int | None = 5, hashed: bool = True) -> bytes:
    out = struct.pack("<BBBBI", 0xE9, len(segments), 2, 0x20, 0x40000000 | 0x80000)
    if chip is not None:
        out += struct.pack("<B3sHBHH4sB", 0xEE, bytes(3), chip, 0, 0, 0xFFFF, bytes(4), hashed)
    checksum = 0xEF
    for address, data in segments:
        out += struct.pack("<II", address, len(data)) + data
        checksum ^= reduce(xor, data, 0)
    out += bytes(15 - len(out) % 16) + bytes((checksum,))
    return out + (hashlib.sha256(out).digest() if chip is not None and hashed else b"")


def described() -> bytes:
    text = [
        value.ljust(size, b"\0") for value, size in ((b"1.4.0", 32), (b"pump", 32), (b"12:00", 16), (b"Nov 22", 16))
    ]
    head = struct.pack("<II8s", 0xABCD5432, 3, bytes(8))
    return head + b"".join(text) + b"v5.3".ljust(32, b"\0") + bytes(range(32)) + bytes(64)


def srec(data: bytes = bytes(range(100)), address: int = 0x0800_0000) -> bytes:
    import bincopy

    file = bincopy.BinFile()
    file.add_binary(data, address=address)
    file.header = "devguard"
    file.execution_start_address = address
    return bytes(file.as_srec(16, 32), "ascii")


def elf(**changes: int) -> bytes:
    """A small executable of one segment for an Arm microcontroller, no sections."""
    value = {"entry": 0x1001, "offset": 0x54, "physical": 0x1000, "stored": 64, "memory": 64, "flags": 5, "count": 1}
    value |= changes
    ident = b"\x7fELF\x01\x01\x01" + bytes(9)
    head = struct.pack("<HHIIIIIHHHHHH", 2, 40, 1, value["entry"], 52, 0, 0x05000000, 52, 32, value["count"], 40, 0, 0)
    program = struct.pack(
        "<IIIIIIII",
        1,
        value["offset"],
        value["physical"],
        value["physical"],
        value["stored"],
        value["memory"],
        value["flags"],
        4,
    )
    return ident + head + program + bytes(64)


def tlv(kind: int, value: bytes) -> bytes:
    return kind.to_bytes(2, "little") + len(value).to_bytes(2, "little") + value


def area(magic: int, tlvs: bytes) -> bytes:
    return magic.to_bytes(2, "little") + (len(tlvs) + 4).to_bytes(2, "little") + tlvs


def digest(data: bytes, algorithm: hashes.HashAlgorithm | None = None) -> bytes:
    context = hashes.Hash(algorithm or hashes.SHA256())
    context.update(data)
    return bytes(context.finalize())


def image(body: bytes = b"firmware" * 9, protected: bytes = b"", extra: bytes = b"", flags: int = 0) -> bytes:
    """An image signed by SIGNER; `extra` are more unprotected TLVs behind the signature."""
    prot = area(layout.PROTECTED_MAGIC, protected) if protected else b""
    header = layout.HEADER.build(
        {
            "magic": layout.IMAGE_MAGIC,
            "load_address": 0,
            "header_size": 32,
            "protected_size": len(prot),
            "image_size": len(body),
            "flags": flags,
            "major": 1,
            "minor": 2,
            "revision": 3,
            "build": 4,
            "padding": 0,
        }
    )
    signed = header + body + prot
    tlvs = tlv(0x10, digest(signed)) + tlv(1, KEY.hashes[0]) + tlv(0x24, SIGNER.sign(digest(signed)))
    return signed + area(layout.INFO_MAGIC, tlvs + extra)


def ihex(data: bytes = bytes(range(100)), address: int = 0x0800_0000) -> bytes:
    """An Intel HEX file of one run inside one 64 KiB page, with its start address."""

    def record(kind: int, offset: int, body: bytes) -> bytes:
        raw = bytes((len(body),)) + offset.to_bytes(2, "big") + bytes((kind,)) + body
        return b":" + (raw + bytes((-sum(raw) & 0xFF,))).hex().upper().encode() + b"\r\n"

    high, low = divmod(address, 1 << 16)
    lines = [record(4, 0, high.to_bytes(2, "big"))]
    lines += [record(0, low + at, data[at : at + 16]) for at in range(0, len(data), 16)]
    return b"".join([*lines, record(5, 0, address.to_bytes(4, "big")), record(1, 0, b"")])
