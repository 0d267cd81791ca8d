"""Serial protocols of the open pacemaker projects (McMaster 3K04): programmer to bench pacemaker. No implant's.

    A  16 01 | function | xor of the three | data, big endian ... | xor of data           at least four bytes
    B  16 | function | data (13) | xor of data                                          16 bytes
    C  16 | function | data (21), little endian                                         23 bytes, no checksum
    D  FE | mode | parameters ...; FF ... to commit                                     16 bytes, no checksum
    E  function or mode first, = 3BfB2fBf4H5B                                           34 bytes, no checksum

115200 baud, 8N1 (B: 57600). The variant is told by its first bytes and length; a beginning of D is read as far as it
goes. In a stream the heads of A and the packets of B are found by their checksums; name `data` says how many bytes of
data follow a set_params head of A, which does not say so itself (without it the head alone is the packet). C and D
carry no checksum and are looked for only with name `variant=C` or `variant=D`; E has no mark to be found by. Functions:
47 start electrogram, 49 or 22 echo, 55 set parameters (in E: request electrogram), 62 stop electrogram. Nothing is
authenticated in any of them. Therapy-affecting: setting parameters (A, B, C: 55; D: a mode and parameters, and the
commit; E: anything but 55). `outside_profile` names parameters of C that the PACEMAKER profile (`pacemaker-2007`)
cannot program; widths and sensitivities have no unit here and are not compared.
"""

from __future__ import annotations

import math
from typing import Any, Final

import construct as c

from devguard.errors import Malformed, Refused
from devguard.packets.checksums import xor8
from devguard.packets.family import Family, Read
from devguard.packets.gather import Singly
from devguard.packets.layout import Damaged, Layout, parse, rest
from devguard.packets.packet import Context, Effect, Packet, checked, unreadable
from devguard.packets.profile import PROFILE, outside
from devguard.packets.stream import LengthFramer

NAME: Final = "pacemaker_3k04"
SYNC: Final = 0x16
START_D: Final = 0xFE
COMMIT_D: Final = 0xFF
SIZE_A, SIZE_B, SIZE_C, SIZE_D, SIZE_E = 4, 16, 23, 16, 34
LONGEST_A: Final = 64
_SET: Final = 0x55
_FUNCTIONS: Final = {
    0x22: "echo",
    0x47: "start egram",
    0x49: "echo",
    0x50: "acknowledge",
    0x55: "set_params",
    0x62: "stop egram",
}
_MODES_B: Final = "Off AAT VVT AOO AAI VOO VVI VDD DOO DDI DDD AOOR AAIR VOOR VVIR DOOR DDIR DDDR".split()  # noqa: SIM905

HEAD_A: Final = Layout(c.Struct("sync" / c.Const(b"\x16\x01"), "fn" / c.Int8ub), c.Int8ub, xor8)
DATA_A: Final = Layout(c.Struct(rest("data", 1)), c.Int8ub, xor8)
LAYOUT_B: Final = Layout(
    c.Struct(
        "sync" / c.Const(b"\x16"),
        "fn" / c.Int8ub,
        "state" / c.Int8ub,
        "mode" / c.Int8ub,
        "hysteresis" / c.Int8ub,
        "hysteresis_interval" / c.Bytes(2),
        "lower_rate_interval" / c.Bytes(2),
        "vent_amp" / c.Bytes(2),
        "vent_pw" / c.Bytes(2),
        "vrp" / c.Bytes(2),
    ),
    c.Int8ub,
    xor8,
    cover=lambda body: body[2:],
)
PARAMS_C: Final = c.Struct(
    "mode" / c.Int8ub,
    "lrl" / c.Int8ub,
    "url" / c.Int8ub,
    "atr_amp_mv" / c.Int16ul,
    "vent_amp_mv" / c.Int16ul,
    "atr_pw" / c.Int8ub,
    "vent_pw" / c.Int8ub,
    "atr_sens" / c.Int16ul,
    "vent_sens" / c.Int16ul,
    "arp" / c.Int16ul,
    "vrp" / c.Int16ul,
    "av_delay" / c.Int16ul,
    "f15" / c.Int8ub,
    "f16" / c.Int8ub,
)
LAYOUT_E: Final = c.Struct(
    "bytes" / c.Int8ul[3],
    "first" / c.Float32l,
    "byte" / c.Int8ul,
    "pair" / c.Float32l[2],
    "byte2" / c.Int8ul,
    "last" / c.Float32l,
    "words" / c.Int16ul[4],
    "tail" / c.Int8ul[5],
)
_PROFILED: Final = {
    "lrl": "lower_rate_limit",
    "url": "upper_rate_limit",
    "atr_amp_mv": "atrial_amplitude",
    "vent_amp_mv": "ventricular_amplitude",
    "arp": "atrial_refractory_period",
    "vrp": "ventricular_refractory_period",
    "av_delay": "fixed_av_delay",
}


def decode(data: bytes, _context: Context) -> Packet:
    """One packet of whichever variant it is."""
    try:
        if len(data) == SIZE_E and data[0] not in (SYNC, START_D, COMMIT_D):
            return _variant_e(data)
        if data[:1] in (bytes((START_D,)), bytes((COMMIT_D,))) and len(data) <= SIZE_D:
            return _variant_d(data)
        if data[:2] == b"\x16\x01" and len(data) not in (SIZE_B, SIZE_C):
            return _variant_a(data)
        if data[:1] == b"\x16" and len(data) == SIZE_B:
            return _variant_b(data)
        if data[:1] == b"\x16" and len(data) == SIZE_C:
            return _variant_c(data)
        raise Damaged("packet.unknown", f"{len(data)} bytes that begin with {data[:2].hex() or 'nothing'}: no variant")
    except Damaged as error:
        return unreadable(NAME, data, error)


def _variant_a(data: bytes) -> Packet:
    if not SIZE_A <= len(data) <= LONGEST_A:
        raise Damaged("packet.length", f"variant A has {SIZE_A} to {LONGEST_A} bytes, there are {len(data)}")
    head, found, expected = HEAD_A.read(data[:SIZE_A])
    fields: dict[str, Any] = {"variant": "A", "sync": SYNC, "fn": head.fn, "crc_head": found}
    if found == expected and len(data) > SIZE_A:
        body, found, expected = DATA_A.read(data[SIZE_A:])
        fields |= {"data": body.data.hex(), "crc_data": found}
    return checked(
        NAME,
        _function(head.fn),
        data,
        fields,
        (found, expected),
        therapy=head.fn == _SET,
        patient={"data"},
        told=_told(head.fn),
    )


def _variant_b(data: bytes) -> Packet:
    body, found, expected = LAYOUT_B.read(data)
    fields: dict[str, Any] = {"variant": "B", "sync": SYNC, "fn": body.fn}
    values = {name: value for name, value in body.items() if name not in {"_io", "sync", "fn"}}
    fields |= {name: value.hex() if isinstance(value, bytes) else value for name, value in values.items()}
    if body.mode < len(_MODES_B):
        fields["mode_name"] = _MODES_B[body.mode]
    return checked(
        NAME, _function(body.fn), data, fields, (found, expected), therapy=body.fn == _SET, told=_told(body.fn)
    )


def _variant_c(data: bytes) -> Packet:
    function = data[1]
    fields: dict[str, Any] = {"variant": "C", "sync": SYNC, "fn": function}
    if function in _FUNCTIONS:
        fields["fn_name"] = _FUNCTIONS[function]
    if function == _SET:
        got = parse(PARAMS_C, data[2:])
        fields |= {name: value for name, value in got.items() if name != "_io"}
        fields["profile"] = PROFILE
        fields["outside_profile"] = outside({_PROFILED[name]: fields[name] for name in _PROFILED})
    return Packet(NAME, _function(function), data, fields, None, function == _SET, told=_told(function))


def _variant_d(data: bytes) -> Packet:
    """The probe or a beginning of it (FE only), a mode with parameters, or the commit (FF only)."""
    start = data[0]
    count = len(data) - len(data.lstrip(bytes((start,))))
    fields = {"variant": "D", "start": start, "count": count, "frame_len": SIZE_D}
    if count == len(data):
        name = "identify" if start == START_D else "commit"
        return Packet(NAME, name, data, fields, None, start == COMMIT_D)
    if start == COMMIT_D or len(data) != SIZE_D:
        raise Damaged("packet.length", f"variant D has {SIZE_D} bytes, there are {len(data)}")
    return Packet(NAME, "set_params", data, {**fields, "params": data[1:].hex()}, None, True)


def _variant_e(data: bytes) -> Packet:
    got = parse(LAYOUT_E, data)
    floats = [got.first, *got.pair, got.last]
    fields: dict[str, Any] = {"variant": "E", "fn": data[0], "frame_len": SIZE_E}
    asking = data[0] == _SET
    if not asking:
        fields["floats"] = [value if math.isfinite(value) else str(value) for value in floats]
        fields["words"] = list(got.words)
    return Packet(NAME, "request egram" if asking else "set_params", data, fields, None, not asking)


def _told(function: int) -> Effect | None:
    return None if function in _FUNCTIONS else Effect.UNKNOWN


def _function(number: int) -> str:
    return _FUNCTIONS.get(number, f"unknown {number:#04x}")


def framer(read: Read, context: Context) -> LengthFramer:
    """Packets in a serial stream, of the variant that is named or of those that prove themselves."""
    variant = context.names.get("variant", "")
    if variant == "C":
        return LengthFramer(b"\x16", _size_c, SIZE_C, read)
    if variant == "D":
        return LengthFramer((bytes((START_D,)), bytes((COMMIT_D,))), lambda _: SIZE_D, SIZE_D, read)
    if variant not in ("", "A", "B"):
        raise Refused("packet.unknown", f"variant {variant[:9]!r} cannot be found in a stream", "A, B, C or D can")
    given = context.names.get("data", "")
    data = int(given) if given.isdecimal() and len(given) < 3 else 0
    if given and not 0 < data <= LONGEST_A - SIZE_A - 1:
        raise Malformed("packet.unknown", f"`data` is a number of bytes up to {LONGEST_A - SIZE_A - 1}")

    def size(head: bytes) -> int | None:
        if len(head) < 3:
            return None
        if head[1] == 0x01 and variant != "B":
            return SIZE_A + (data + 1 if data and head[2] == _SET else 0)
        if head[1] in _FUNCTIONS and variant != "A":
            return SIZE_B
        raise ValueError("no packet begins so")

    return LengthFramer(b"\x16", size, LONGEST_A, read, sound=lambda packet: packet.valid and packet.crc_ok is True)


def _size_c(head: bytes) -> int | None:
    if len(head) < 2:
        return None
    if head[1] not in _FUNCTIONS:
        raise ValueError("no packet begins so")
    return SIZE_C


FAMILIES: Final = (Family(NAME, "Open pacemaker projects (3K04), serial", decode, framer, baud=115200, gather=Singly),)
