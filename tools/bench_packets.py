"""Packets per second out of a capture, against construct alone and a parser written by hand.

`rows()` is what `tools/bench.py` calls. A million packets of one serial family lie in a raw file and are read as
`devguard packets watch` reads them: the file's records, the framer, the family's bulk path, one `Packet` each. The
other fixed-layout families read a tenth of that, those of radio and Bluetooth as hex text, one record a line. The peers
parse the same packets already cut: construct compiled with `Checksum` over `RawCopy`, and one `struct` with the CRC
beside it; neither knows streams, nor what a packet means. Times are the processor's; all take turns, medians.
"""

from __future__ import annotations

import binascii
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import construct

from devguard.packets import capture
from devguard.packets.decoder import Decoder
from devguard.packets.families import (
    ble_e2e,
    carelink,
    codefree,
    dana_r,
    dexcom_ble,
    dexcom_g4,
    lifescan,
    minimed_rf,
    taidoc,
)
from devguard.packets.registry import family_named

MILLION, TENTH, CUT = 1_000_000, 100_000, 50_000
ROUNDS = 3
AIM = 100_000
SHOWN = "lifescan_binary"
SERIAL = b"\x12\x34\x56"
BOLUS = b"\x02\x00\x2c".ljust(65, b"\0")
PACKETS = {
    SHOWN: lifescan.LAYOUT.write(link_control=3, message=b"\x05\x06" + bytes(8)),
    "taidoc_td42xx": taidoc.LAYOUT.write(command=0x25, message=b"\x01\x02\x03\x04", direction=0xA5),
    "sd_codefree": codefree.LAYOUT.write(direction=0x20, message=bytes(range(8))) + b"\xaa",
    "dexcom_g4_serial": dexcom_g4.LAYOUT.write(command=17, payload=bytes(6)),
    "dana_r_serial": dana_r.LAYOUT.write(command=0x0102, params=b"\x00\x64") + dana_r.END,
    "dexcom_g5g6_ble": dexcom_ble.LAYOUT.write(opcode=0x31, body=bytes(14)),
    "ble_e2e": ble_e2e.LAYOUT.write(body=bytes(12)),
    "minimed_rf": minimed_rf.LAYOUT.write(
        type=0xA7, address=SERIAL, message=0x42, body=b"\x02\x00\x2c".ljust(65, b"\0")
    ),
    "carelink_usb": carelink.HEAD_LAYOUT.write(serial=SERIAL, count=0x8000, button=0, retries=2, pages=1, opcode=0x8D)
    + b"\x00",
}
PEER = construct.Struct(
    "body"
    / construct.RawCopy(
        construct.Struct(
            "start" / construct.Const(b"\x02"),
            "length" / construct.Int8ub,
            "link_control" / construct.Int8ub,
            "message" / construct.Bytes(construct.this.length - 6),
            "end" / construct.Const(b"\x03"),
        )
    ),
    "crc"
    / construct.Checksum(construct.Int16ul, lambda data: binascii.crc_hqx(data, 0xFFFF), construct.this.body.data),
).compile()
HAND = struct.Struct("<BBB10sBH")
Row = tuple[str, str, str, str, str, bool | None]


def rows() -> list[Row]:
    """Packets per second of the shown family and of the slowest, the whole command, and how memory grows."""
    with tempfile.TemporaryDirectory(prefix="devguard-bench-") as name:
        folder = Path(name)
        files = {family: _capture(folder, family, MILLION if family == SHOWN else TENTH) for family in PACKETS}
        speeds = dict.fromkeys(PACKETS, 0.0)
        peers: list[tuple[float, float]] = []
        for family in PACKETS:
            found = []
            for _ in range(ROUNDS):
                found.append(_speed(lambda chosen=family: _decoded(chosen, files[chosen])))
                peers.append((_speed(_construct), _speed(_hand)))
            speeds[family] = statistics.median(found)
        return [*_table(speeds, peers), *_command(folder, files[SHOWN])]


def _table(speeds: dict[str, float], peers: list[tuple[float, float]]) -> list[Row]:
    theirs, hand = (statistics.median(column) for column in zip(*peers, strict=True))
    slowest = min(speeds, key=lambda family: speeds[family])
    aim = f">= {AIM // 1000} 000/s"
    out: list[Row] = []
    for what, family in ((f"{MILLION:,} packets".replace(",", " "), SHOWN), (f"slowest of {len(speeds)}", slowest)):
        ours = speeds[family]
        shown = f"{ours:.0f}/s", f"construct {theirs:.0f}/s"
        out.append((f"{what}, {family}", *shown, f"{ours / theirs:.2f}", aim, ours >= AIM))
    ours, shown = speeds[SHOWN], (f"{speeds[SHOWN]:.0f}/s", f"struct {hand:.0f}/s")
    out.append(
        (
            "packets, against struct by hand",
            f"{ours:.0f}/s",
            f"struct {hand:.0f}/s",
            f"{ours / hand:.2f}",
            "no aim",
            None,
        )
    )
    return out


def _command(folder: Path, million: Path) -> list[Row]:
    """`packets watch` from start to exit: its speed, and its memory on a hundredth of the capture and on all of it."""
    small = _capture(folder, SHOWN, MILLION // 100, "small")
    seconds, most = _watch(million)
    _, least = _watch(small)
    speed, growth = MILLION / seconds, most - least
    shown = f"{most:.1f} MiB at a million", f"{least:.1f} MiB at 10 000"
    return [
        ("packets watch -q, whole process", f"{speed:.0f}/s", "", "", f">= {AIM // 1000} 000/s", speed >= AIM),
        ("packets watch, peak memory", *shown, f"{growth:+.1f} MiB", "within 2 MiB", growth <= 2),
    ]


def _capture(folder: Path, family: str, count: int, name: str = "") -> Path:
    """A file of so many packets: raw where the family is found in a stream, else a line of hex digits each."""
    data = PACKETS[family]
    if family_named(family).framer is None:
        data = data.hex().encode() + b"\n"
    path = folder / f"{family}{name}.capture"
    with path.open("wb") as file:
        for _ in range(count // 1000):
            file.write(data * 1000)
    return path


def _speed(work: Callable[[], int]) -> float:
    start = time.thread_time()
    done = work()
    return done / (time.thread_time() - start)


def _decoded(family: str, path: Path) -> int:
    decoder, found = Decoder(family_named(family)), 0
    with path.open("rb") as reader:
        for record in capture.records(reader, capture.recognise(reader.peek(4096)[:4096])):
            found += len(decoder.feed(record.data))
    found += len(decoder.finish())
    if found not in (MILLION, TENTH):
        raise SystemExit(f"{family}: {found} packets found")
    return found


def _construct() -> int:
    data = PACKETS[SHOWN]
    for _ in range(CUT):
        PEER.parse(data)
    return CUT


def _hand() -> int:
    data = PACKETS[SHOWN]
    for _ in range(CUT):
        *_, found = HAND.unpack(data)
        if binascii.crc_hqx(data[:-2], 0xFFFF) != found:
            raise SystemExit("the packet's checksum is wrong")
    return CUT


def _watch(path: Path) -> tuple[float, float]:
    """(processor seconds, peak MiB) of the command on a capture, from a small parent of its own."""
    run = (
        "import resource, subprocess, sys\n"
        "subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)\n"
        "used = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
        "print(used.ru_utime + used.ru_stime, used.ru_maxrss)\n"
    )
    command = [str(Path(sys.executable).with_name("devguard")), "packets", "watch", SHOWN, str(path), "-q"]
    told = subprocess.run([sys.executable, "-S", "-E", "-c", run, *command], check=True, capture_output=True, text=True)
    seconds, peak = map(float, told.stdout.split())
    return seconds, peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)


if __name__ == "__main__":
    for row in rows():
        print(*row, sep="  ")
