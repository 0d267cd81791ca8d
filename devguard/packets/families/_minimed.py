"""What the MiniMed families share: message numbers, which of them act, and what their bodies say. Not a family."""

from __future__ import annotations

from typing import Any, Final

import construct as c

from devguard.packets.layout import parse
from devguard.packets.packet import Effect

MESSAGES: Final = {
    0x01: "alert",
    0x02: "alert_cleared",
    0x03: "device_test",
    0x04: "pump_status",
    0x06: "pump_ack",
    0x08: "pump_backfill",
    0x09: "find_device",
    0x0A: "device_link",
    0x15: "error_response",
    0x28: "write_glucose_history_timestamp",
    0x40: "change_time",
    0x41: "set_max_bolus",
    0x42: "bolus",
    0x4A: "select_basal_profile",
    0x4C: "change_temp_basal",
    0x4D: "suspend_resume",
    0x51: "set_remote_id",
    0x5B: "button_press",
    0x5D: "power_on",
    0x69: "change_temp_basal_percent",
    0x6E: "set_max_basal",
    0x70: "read_time",
    0x71: "get_pump_id",
    0x72: "get_battery",
    0x73: "read_remaining_insulin",
    0x74: "read_firmware_version",
    0x75: "read_error_status",
    0x76: "read_remote_ids",
    0x79: "read_totals_today",
    0x80: "get_history_page",
    0x8D: "get_pump_model",
    0x92: "read_profile_std",
    0x93: "read_profile_a",
    0x94: "read_profile_b",
    0x98: "read_temp_basal",
    0x9A: "get_glucose_page",
    0x9D: "read_current_page_number",
    0xC0: "read_settings",
    0xCD: "read_current_glucose_page",
    0xCE: "read_pump_status",
    0xF0: "read_other_device_ids",
    0xF3: "read_other_device_status",
}
# Whatever is written to a pump acts: between 40 and 6F only commands that change it were ever seen.
WRITES: Final = range(0x40, 0x70)
CLOCKS: Final = frozenset({0x28})

_CLOCK: Final = c.Struct(
    "hour" / c.Int8ub,
    "minute" / c.Int8ub,
    "second" / c.Int8ub,
    "year" / c.Int16ub,
    "month" / c.Int8ub,
    "day" / c.Int8ub,
)
_TEMP_BASAL: Final = c.Struct("rate_strokes" / c.Int16ub, "segments" / c.Int8ub)
_READ_TEMP: Final = c.Struct("kind" / c.Int8ub, "percent" / c.Int8ub, "strokes" / c.Int16ub, "minutes" / c.Int16ub)
_BATTERY: Final = c.Struct("status" / c.Int8ub, "centivolts" / c.Int16ub)
STROKES: Final = 40  # per unit, models x23 and later
OLD_STROKES: Final = 10
SEGMENT: Final = 30  # minutes
PATIENT: Final = frozenset({"units", "units_per_hour", "rate_units_per_hour", "minutes_remaining", "body"})


def acts(message: int) -> bool:
    """Whether this command changes therapy, a clock or an address, whatever its body."""
    return message in WRITES or message in CLOCKS


def effect(message: int) -> Effect | None:
    """What a packet has to tell beside `acts`: nobody knows what an unlisted message does."""
    return None if acts(message) or message in MESSAGES else Effect.UNKNOWN


def said(message: int, body: bytes) -> dict[str, Any]:
    """What the body of a CareLink message says, its own length byte first. `Damaged` where it ends early."""
    inside = body[1 : 1 + body[0]] if body else b""
    if not inside:
        return {}
    if message == 0x42:
        return _bolus(inside)
    if message == 0x4C:
        got = parse(_TEMP_BASAL, inside)
        return {
            "body_len": len(inside),
            "rate_strokes": got.rate_strokes,
            "units_per_hour": got.rate_strokes / STROKES,
            "duration_min": got.segments * SEGMENT,
        }
    if message == 0x40:
        return {name: value for name, value in parse(_CLOCK, inside).items() if name != "_io"}
    if message == 0x72:
        return {"volts": parse(_BATTERY, inside).centivolts / 100}
    if message == 0x8D:
        return {"model": inside[1 : 1 + inside[0]].decode("ascii", "replace")}
    if message == 0x98:
        got = parse(_READ_TEMP, inside)
        rate = {"rate_units_per_hour": got.strokes / STROKES} if got.kind == 0 else {"rate_percent": got.percent}
        return {**rate, "minutes_remaining": got.minutes}
    return {}


def _bolus(inside: bytes) -> dict[str, Any]:
    """Two bytes of strokes on newer models, one on older."""
    strokes = int.from_bytes(inside[:2], "big")
    per_unit = STROKES if len(inside) > 1 else OLD_STROKES
    return {"body_len": len(inside), "strokes": strokes, "strokes_per_unit": per_unit, "units": strokes / per_unit}
