"""IEEE 11073-20601 personal health devices: application protocol data units, one a record.

    choice (16 bit) | length of the rest (16 bit) | ...
    E200 AARQ   association version (32) | count, length, { protocol id, length, ... }
    E300 AARE   result (16) | ...
    E400 RLRQ, E500 RLRE, E600 ABRT   reason (16)
    E700 PRST   length of octet string (16) | invoke id (16) | data choice (16) | length (16) | ...

Numbers are big endian. There is no checksum and no security here: that is the transport's. A unit whose length
disagrees with its size is not valid. Therapy-affecting: the action that sets the device's clock (confirmed or not).
Scan reports and attributes are not taken apart; they are patient data.
"""

from __future__ import annotations

from typing import Any, Final

import construct as c

from devguard.packets.family import Family, Read
from devguard.packets.layout import Damaged, parse, rest
from devguard.packets.packet import Context, Effect, Packet, unreadable
from devguard.packets.stream import LengthFramer

NAME: Final = "ieee11073_20601"
HEADER: Final = 4
LONGEST: Final = 64_512  # clause 8.4.1: no agent or manager sends more
_CHOICES: Final = {0xE200: "AARQ", 0xE300: "AARE", 0xE400: "RLRQ", 0xE500: "RLRE", 0xE600: "ABRT", 0xE700: "PRST"}
_DATA: Final = {
    0x0100: "event report",
    0x0101: "confirmed event report",
    0x0103: "get",
    0x0104: "set",
    0x0105: "confirmed set",
    0x0106: "action",
    0x0107: "confirmed action",
    0x0201: "event report response",
    0x0203: "get response",
    0x0205: "set response",
    0x0207: "action response",
    0x0300: "error",
    0x0400: "reject",
}
# No presentation at all (associations and releases), or one that asks, answers or reports; sets and other actions are
# not taken apart.
_ASKING: Final = frozenset({None, *_DATA} - {0x0104, 0x0105, 0x0106, 0x0107})
_ACTIONS: Final = frozenset({0x0106, 0x0107})
_SET_TIME: Final = 0x0C17  # MDC_ACT_SET_TIME
_RESULTS: Final = {
    0: "accepted",
    1: "rejected permanently",
    2: "rejected for now",
    3: "accepted, configuration unknown",
    4: "rejected, no common protocol",
    5: "rejected, no common parameter",
    6: "rejected, unknown",
    7: "rejected, unauthorised",
    8: "rejected, unsupported association version",
}

UNIT: Final = c.Struct(
    "choice" / c.Int16ub, "length" / c.Rebuild(c.Int16ub, lambda this: len(this.body)), rest("body", HEADER)
)
REQUEST: Final = c.Struct(
    "association_version" / c.Bytes(4), "count" / c.Int16ub, "size" / c.Int16ub, "data_proto_id" / c.Int16ub
)
PRESENTATION: Final = c.Struct("octet_string_len" / c.Int16ub, "invoke_id" / c.Int16ub, "data_choice" / c.Int16ub)
ACTION: Final = c.Struct("length" / c.Int16ub, "handle" / c.Int16ub, "type" / c.Int16ub)


def decode(data: bytes, _context: Context) -> Packet:
    """One unit."""
    try:
        if not HEADER <= len(data) <= LONGEST:
            raise Damaged("packet.length", f"a unit has {HEADER} to {LONGEST} bytes, there are {len(data)}")
        unit = parse(UNIT, data)
    except Damaged as error:
        return unreadable(NAME, data, error)
    fields: dict[str, Any] = {
        "choice": unit.choice,
        "choice_name": _CHOICES.get(unit.choice),
        "length": unit.length,
        "length_ok": unit.length == len(unit.body),
    }
    code, detail = None, ""
    try:
        fields |= _inside(unit.choice, unit.body)
    except Damaged as error:
        code, detail = error.code, error.message
    if not fields["length_ok"]:
        code, detail = "packet.length", f"the unit says {unit.length} bytes follow, {len(unit.body)} do"
    elif unit.choice not in _CHOICES:
        code, detail = "packet.unknown", f"no unit begins with {unit.choice:#06x}"
    therapy = fields.get("action_type") == _SET_TIME
    patient = frozenset({"body"}) & frozenset(fields)
    told = None if therapy or (code is None and fields.get("data_choice") in _ASKING) else Effect.UNKNOWN
    return Packet(NAME, _name(fields), data, fields, None, therapy, False, code, detail, patient, told)


def _name(fields: dict[str, Any]) -> str:
    name = fields["choice_name"] or f"unknown {fields['choice']:#06x}"
    choice = fields.get("data_choice")
    return name if choice is None else f"{name} {_DATA.get(choice, f'unknown {choice:#06x}')}"


def _inside(choice: int, body: bytes) -> dict[str, Any]:
    """What the units say in front of their lists."""
    name = _CHOICES.get(choice)
    if name == "AARQ":
        got = parse(REQUEST, body)
        return {"association_version": got.association_version.hex(), "data_proto_id": got.data_proto_id}
    if name == "AARE":
        result = parse(c.Int16ub, body)
        return {"result": result, "result_name": _RESULTS.get(result)}
    if name in {"RLRQ", "RLRE", "ABRT"}:
        return {"reason": parse(c.Int16ub, body)}
    if name == "PRST":
        got = parse(PRESENTATION, body)
        inside = body[PRESENTATION.sizeof() :]
        fields = {
            "octet_string_len": got.octet_string_len,
            "invoke_id": got.invoke_id,
            "data_choice": got.data_choice,
            "body": inside.hex(),
        }
        if got.data_choice in _ACTIONS:
            fields["action_type"] = parse(ACTION, inside).type
        return fields
    return {"body": body.hex()}


def _size(head: bytes) -> int | None:
    return HEADER + int.from_bytes(head[2:4], "big") if len(head) >= HEADER else None


def framer(read: Read, _context: Context) -> LengthFramer:
    """Units in a stream (USB, TCP): told by their choice, since there is no checksum."""
    marks = tuple(choice.to_bytes(2, "big") for choice in _CHOICES)
    return LengthFramer(marks, _size, LONGEST, read, sound=lambda packet: len(packet.raw) > HEADER)


FAMILIES: Final = (Family(NAME, "IEEE 11073-20601 personal health devices", decode, framer),)
