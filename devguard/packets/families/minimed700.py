"""MiniMed 700 series: the six 20-byte messages of the SAKE handshake, one a record.

    0   server: device type | version | random ...
    1   client: random ...
    2   server: mac (8) | key material (8) | nonce (4)
    3   client: mac (8) | key material ...
    4   server: ciphertext (17) | sequence byte | tag (2)
    5   client: ciphertext (17) | sequence byte | tag (2)

No checksum: messages prove themselves by AES-CMAC under keys that devguard does not have. A message does not carry its
number: it is read from its shape where that is certain (0: type and version; 4 and 5: a sequence byte of zero) and
from `--with index=N` otherwise; what cannot be told is kept as bytes. What follows the handshake is encrypted. Nothing
of it is therapy-affecting by itself.
"""

from __future__ import annotations

from typing import Any, Final

import construct as c

from devguard.packets.family import Family
from devguard.packets.layout import Damaged, parse
from devguard.packets.packet import Context, Packet, unreadable

NAME: Final = "minimed700_sake"
SIZE: Final = 20
_VERSIONS: Final = frozenset({1})
_DEVICE_TYPES: Final = frozenset(range(1, 9))

HELLO: Final = c.Struct("server_device_type" / c.Int8ub, "version" / c.Int8ub, "random" / c.Bytes(18))
PROOF: Final = c.Struct("mac8" / c.Bytes(8), "server_key_material" / c.Bytes(8), "server_nonce" / c.Bytes(4))
SEALED: Final = c.Struct("ciphertext" / c.Bytes(17), "seq_byte" / c.Int8ub, "tag" / c.Bytes(2))


def decode(data: bytes, context: Context) -> Packet:
    """One handshake message of 20 bytes."""
    try:
        if len(data) != SIZE:
            raise Damaged("packet.length", f"a handshake message has {SIZE} bytes, there are {len(data)}")
        index = _index(data, context)
        fields: dict[str, Any] = {"index": index, "length": SIZE, **_fields(data, index)}
    except Damaged as error:
        return unreadable(NAME, data, error)
    name = "handshake message" if index is None else f"handshake message {index}"
    return Packet(NAME, name, data, fields, None, False)


def _index(data: bytes, context: Context) -> int | None:
    """The message's number as it is given, or as its shape shows; None where it could be more than one."""
    given = context.names.get("index")
    if given is not None:
        if given not in {"0", "1", "2", "3", "4", "5"}:
            raise Damaged("packet.unknown", f"the handshake has messages 0 to 5, not {given!r}")
        return int(given)
    return 0 if data[0] in _DEVICE_TYPES and data[1] in _VERSIONS else None


def _fields(data: bytes, index: int | None) -> dict[str, Any]:
    if index == 0:
        layout = HELLO
    elif index in (4, 5) or (index is None and data[17] == 0):
        layout = SEALED
    elif index in (2, 3):
        layout = PROOF
    else:
        return {"body": data.hex()}
    got = parse(layout, data)
    values = {name: value.hex() if isinstance(value, bytes) else value for name, value in got.items() if name[0] != "_"}
    if index == 3:  # the client's half has no such split
        values = {"mac8": values["mac8"], "client_key_material": data[8:].hex()}
    return values


FAMILIES: Final = (Family(NAME, "MiniMed 700 series, SAKE handshake", decode),)
