"""Omnipod: the messages of Eros and DASH pods, whole.

    message:  address (4) | follow-on (1 bit), 0 (1), sequence (4), length of body (10) | body | crc16
    block:    type | length | data, of which a body has one or more; status answers (1D) have no length and 9 bytes

Numbers are big endian; a pulse is 0.05 U. Checksum: the pods' own CRC-16, which lets a few multi-bit errors through.
Nothing is authenticated: the nonce follows from lot and serial number on Eros and is fixed on DASH. Therapy-affecting
commands: 03 setup, 07 assign address, 08 fault settings, 13, 16, 17 and 1A basal, temporary basal and bolus, 1C
deactivate, 1F cancel delivery, and blocks not listed. Alerts (19) are not marked so by the readers; they can end a
pod's delivery, and `effect` says that they act. Fault and history pages of answer 02 are not read further. The address
and answers are patient data.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Final

import construct as c

from devguard.packets.checksums import crc16_omnipod
from devguard.packets.family import Family
from devguard.packets.layout import Damaged, Layout, parse
from devguard.packets.packet import Context, Effect, Packet, unreadable

MESSAGE: Final = "omnipod_message"
DASH: Final = "omnipod_dash"
MESSAGE_HEAD: Final = 6
OVERHEAD: Final = MESSAGE_HEAD + 2
PULSE: Final = 0.05
LENGTH: Final = 0x3FF
STATUS: Final = 0x1D
BLOCKS: Final = {
    0x01: "version_response",
    0x02: "pod_info",
    0x03: "setup_pod",
    0x06: "error_response",
    0x07: "assign_address",
    0x08: "fault_config",
    0x0E: "get_status",
    0x11: "ack_alerts",
    0x13: "basal_extra",
    0x16: "temp_basal_extra",
    0x17: "bolus_extra",
    0x19: "configure_alerts",
    0x1A: "set_insulin_schedule",
    0x1C: "deactivate",
    STATUS: "status_response",
    0x1E: "beep_config",
    0x1F: "cancel_delivery",
}
ANSWERS: Final = frozenset({0x01, 0x02, 0x06, STATUS})
HARMLESS: Final = ANSWERS | {0x0E, 0x11, 0x19, 0x1E}
ALERTS: Final = 0x19  # set when the pod stops by itself; the readers do not mark them, a person is told all the same
TABLES: Final = ("basal", "temp_basal", "bolus")

MESSAGE_LAYOUT: Final = Layout(
    c.Struct(
        "address" / c.Int32ub,
        "head" / c.Rebuild(c.Int16ub, lambda this: this.flags << 10 | len(this.body)),
        "body" / c.Bytes(lambda this: this.head & LENGTH),
    ),
    c.Int16ub,
    crc16_omnipod,
)
SCHEDULE: Final = c.Struct("nonce" / c.Int32ub, "table" / c.Int8ub, "checksum" / c.Int16ub, "data" / c.GreedyBytes)
CANCEL: Final = c.Struct("nonce" / c.Int32ub, "what" / c.Int8ub)
BOLUS: Final = c.Struct(
    "beeps" / c.Int8ub,
    "pulses10" / c.Int16ub,
    "interval" / c.Int32ub,
    "extended10" / c.Int16ub,
    "extended_interval" / c.Int32ub,
)
STATUS_LAYOUT: Final = c.BitStruct(
    "delivery" / c.BitsInteger(4),
    "progress" / c.BitsInteger(4),
    "page" / c.BitsInteger(4),
    "delivered" / c.BitsInteger(13),
    "last_sequence" / c.BitsInteger(4),
    "not_delivered" / c.BitsInteger(11),
    "fault" / c.Bit,
    "alerts" / c.BitsInteger(8),
    "minutes" / c.BitsInteger(13),
    "reservoir" / c.BitsInteger(10),
)


@dataclass(frozen=True, slots=True)
class Block:
    """One block of a message's body."""

    kind: int
    data: bytes

    @property
    def name(self) -> str:
        """The block's name."""
        return BLOCKS.get(self.kind, f"unknown {self.kind:#04x}")


def blocks_of(body: bytes) -> list[Block]:
    """The blocks of a body. Raises `Damaged("packet.length")` where one ends behind the body."""
    found, at = [], 0
    while at < len(body):
        kind = body[at]
        head = 1 if kind == STATUS else 2
        size = 9 if kind == STATUS else body[at + 1] if at + 1 < len(body) else 0
        if at + head + size > len(body):
            raise Damaged("packet.length", f"block {kind:#04x} at {at} of the body ends behind its {len(body)} bytes")
        found.append(Block(kind, body[at + head : at + head + size]))
        at += head + size
    return found


def read_message(family: str, data: bytes) -> Packet:
    """A whole message as a packet of `family`."""
    try:
        if len(data) < OVERHEAD:
            raise Damaged("packet.length", f"a message has at least {OVERHEAD} bytes, there are {len(data)}")
        wanted = OVERHEAD + ((data[4] & 3) << 8 | data[5])
        if len(data) != wanted:
            raise Damaged("packet.length", f"the message says {wanted} bytes, there are {len(data)}")
        message, found, expected = MESSAGE_LAYOUT.read(data)
    except Damaged as error:
        return unreadable(family, data, error)
    fields: dict[str, Any] = {
        "address": f"{message.address:08x}",
        "sequence": message.head >> 10 & 15,
        "follow_on": bool(message.head >> 15),
        "body_len": message.head & LENGTH,
        "body": message.body.hex(),
        "crc16": found,
    }
    damage = None if found == expected else wrong_sum("CRC-16", found, expected)
    blocks, details, inner = _read_blocks(message.body)
    fields |= {"blocks": [block.kind for block in blocks], "details": details}
    damage = damage or inner
    kinds = {block.kind for block in blocks}
    private = {"body", "details"} if not kinds or kinds - (BLOCKS.keys() - ANSWERS) else set()
    return Packet(
        family,
        "+".join(block.name for block in blocks) or "no blocks",
        data,
        fields,
        found == expected and (damage is None or damage.code != "packet.crc"),
        bool(kinds - HARMLESS),
        code=damage.code if damage else None,
        detail=damage.message if damage else "",
        patient=frozenset(private | {"address"}),
        told=effect(kinds, damage),
    )


def effect(kinds: Collection[int], damage: Damaged | None = None) -> Effect | None:
    """What a message of these blocks has to tell beside whether one of them acts."""
    if set(kinds) - HARMLESS or (not damage and ALERTS not in kinds):
        return None
    return Effect.ACTS if ALERTS in kinds else Effect.UNKNOWN


def _read_blocks(body: bytes) -> tuple[list[Block], list[dict[str, Any]], Damaged | None]:
    """The blocks, what each says, and the first damage found in them."""
    details: list[dict[str, Any]] = []
    blocks: list[Block] = []
    try:
        blocks = blocks_of(body)
        if not blocks:
            raise Damaged("packet.length", "the body has no block")
        for block in blocks:
            details.append({"block": block.name, "data": block.data.hex()})
            if block.kind in READERS:
                details[-1] |= READERS[block.kind](block.data)
            if details[-1].get("checksum_ok") is False:
                raise Damaged("packet.crc", "the insulin schedule's own checksum is wrong")
    except Damaged as error:
        if not blocks and body:
            blocks = [Block(body[0], body[2:])]  # what it begins with is still told
        return blocks, details, error
    return blocks, details, None


def wrong_sum(what: str, found: int, expected: int) -> Damaged:
    """A checksum that does not fit."""
    return Damaged("packet.crc", f"{what}: {found:#x} found, the bytes give {expected:#x}")


def _schedule(data: bytes) -> dict[str, Any]:
    got = parse(SCHEDULE, data)
    if len(got.data) < 5 or len(got.data) % 2 == 0:
        raise Damaged("packet.length", f"an insulin schedule of {len(data)} bytes: 12 and 2 for each entry expected")
    total = sum(got.data[:5])
    for high, low in zip(got.data[5::2], got.data[6::2], strict=True):
        segments, alternate = (high >> 4) + 1, high >> 3 & 1
        total += (low + (high & 3)) * segments + alternate * (segments // 2)
    table = TABLES[got.table] if got.table < len(TABLES) else f"unknown {got.table:#04x}"
    return {
        "nonce": f"{got.nonce:08x}",
        "table": table,
        "checksum": got.checksum,
        "checksum_ok": got.checksum == total & 0xFFFF,
    }


def _cancel(data: bytes) -> dict[str, Any]:
    got = parse(CANCEL, data)
    stops = [name for bit, name in enumerate(TABLES) if got.what >> bit & 1]
    return {"nonce": f"{got.nonce:08x}", "cancels": stops, "beep": got.what >> 4}


def _bolus(data: bytes) -> dict[str, Any]:
    got = parse(BOLUS, data)
    return {
        "bolus_units": round(got.pulses10 * PULSE / 10, 3),
        "extended_units": round(got.extended10 * PULSE / 10, 3),
        "pulse_interval_10us": got.interval,
        "extended_interval_10us": got.extended_interval,
    }


def _status(data: bytes) -> dict[str, Any]:
    got = parse(STATUS_LAYOUT, data)
    return {
        "delivery_status": got.delivery,
        "pod_progress": got.progress,
        "delivered_units": round(got.delivered * PULSE, 2),
        "last_command_sequence": got.last_sequence,
        "not_delivered_units": round((got.not_delivered & 0x3FF) * PULSE, 2),
        "alerts": got.alerts,
        "minutes_active": got.minutes,
        "reservoir_units": None if got.reservoir == 0x3FF else round(got.reservoir * PULSE, 2),
    }


READERS: Final[dict[int, Callable[[bytes], dict[str, Any]]]] = {
    0x07: lambda data: {"assigned_address": f"{parse(c.Int32ub, data):08x}"},
    0x17: _bolus,
    0x1A: _schedule,
    0x1C: lambda data: {"nonce": f"{parse(c.Int32ub, data):08x}"},
    STATUS: _status,
    0x1F: _cancel,
}


def decode_message(data: bytes, _context: Context) -> Packet:
    """A whole Eros message."""
    return read_message(MESSAGE, data)


def decode_dash(data: bytes, _context: Context) -> Packet:
    """A whole DASH message, out of its Bluetooth wrapping."""
    return read_message(DASH, data)


FAMILIES: Final = (
    Family(MESSAGE, "Omnipod Eros, whole messages", decode_message),
    Family(DASH, "Omnipod DASH, whole messages", decode_dash),
)
