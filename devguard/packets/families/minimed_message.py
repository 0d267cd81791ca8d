"""MiniMed Paradigm messages as they are inside a radio frame: without its checksum.

    type | address (3, decimal digits) | message | body ...         CareLink: a body of 65 bytes (length + 64) or of one

No checksum at this layer, and nothing is authenticated. Read in full: bolus, temporary basal (set and read), clock,
battery, model; other bodies stay bytes. Strokes are 1/40 U (two bytes) or 1/10 U (one byte); durations count 30 min.
Therapy-affecting: the CareLink commands from 40 to 6F and every remote button. What a pump answers of doses and rates,
bodies and the address are patient data.
"""

from __future__ import annotations

from typing import Any, Final

import construct as c

from devguard.packets.families import _minimed as minimed
from devguard.packets.families.minimed_rf import CARELINK, HEAD, LONGEST, REMOTE, TYPES
from devguard.packets.family import Family
from devguard.packets.layout import Damaged, parse, rest
from devguard.packets.packet import Context, Packet, unreadable

NAME: Final = "minimed_rf_message"
HEADER: Final = 5
_BODIES: Final = (1, 65)

MESSAGE: Final = c.Struct(*HEAD, rest("body", HEADER))


def decode(data: bytes, _context: Context) -> Packet:
    """One message."""
    try:
        if not HEADER <= len(data) <= LONGEST:
            raise Damaged("packet.length", f"a message has {HEADER} to {LONGEST} bytes, there are {len(data)}")
        if data[0] not in TYPES:
            raise Damaged("packet.unknown", f"no message begins with {data[0]:#04x}")
        got = parse(MESSAGE, data)
    except Damaged as error:
        return unreadable(NAME, data, error)
    fields: dict[str, Any] = {
        "packet_type": got.type,
        "packet_type_name": TYPES[got.type],
        "address": got.address.hex(),
        "message_type": got.message,
        "message_name": minimed.MESSAGES.get(got.message),
        "body": got.body.hex(),
    }
    code, detail = None, ""
    if got.type == CARELINK:
        try:
            if len(got.body) not in _BODIES or (len(got.body) > 1 and got.body[0] >= len(got.body)):
                raise Damaged("packet.length", f"a body has 1 or 65 bytes and its length inside, not {len(got.body)}")
            fields |= minimed.said(got.message, got.body)
        except Damaged as error:
            code, detail = error.code, error.message
    therapy = got.type == REMOTE or (got.type == CARELINK and minimed.acts(got.message))
    name = fields["message_name"] or f"unknown {got.message:#04x}"
    patient = (minimed.PATIENT & fields.keys() if not therapy else {"body"}) | {"address"}
    told = minimed.effect(got.message) if got.type == CARELINK else None
    return Packet(NAME, name, data, fields, None, therapy, False, code, detail, frozenset(patient), told)


FAMILIES: Final = (Family(NAME, "MiniMed Paradigm messages", decode),)
