"""The link's figures: how fast both engines are, and how much of a line a push uses on a virtual clock.

`rows()` is what `tools/bench.py` calls: (what, ours, theirs, outcome, aim, met). A share of the line is that of the
data phase, but for "all of it": hello, keys, offer, data, commit, to a programmer with two technicians. The engines run
in one process with the keys of a real handshake, each byte sealed and opened once; the floor is AES-CCM alone over the
same segments.
"""

from __future__ import annotations

import statistics
import sys
import time
from typing import Any

ROUNDS = 5
VOLUME = 8 << 20
SEGMENT = 4096
SEEDS = range(1, 21)
IMAGE = 256 << 10
MEGABYTE = 1 << 20
Row = tuple[str, str, str, str, str, bool | None]


def rows() -> list[Row]:
    """Throughput of the engines, then the share of the line that the image's data phase reaches."""
    return [_throughput(), *_lines()]


def _throughput() -> Row:
    ends = _connected()
    _carry(*ends)
    times: dict[str, list[float]] = {"engines": [], "cipher": []}
    for _ in range(ROUNDS):
        times["engines"].append(_carry(*ends))
        times["cipher"].append(_cipher())
    mine, floor = (VOLUME / statistics.median(times[name]) / 1e6 for name in ("engines", "cipher"))
    shown = f"{mine:.1f} MB/s", f"AES-CCM alone {floor:.0f} MB/s"
    return ("both link engines, one process", *shown, f"{mine / floor:.2f}", "1.5 MB/s", mine >= 1.5)


def _connected() -> tuple[Any, Any, Any]:
    """The host's and the device's engine after a real handshake on a line that takes no time, and their clock."""
    from devguard.bench.line import VirtualClock, VirtualLine
    from devguard.bench.stage import Stage, stream
    from devguard.bench.way import Shape
    from devguard.device.emulator import EmulatedDevice
    from devguard.device.models import load_model
    from devguard.link.parameters import LinkParameters
    from devguard.link.runner import ScriptRunner
    from devguard.session.connect import connect

    clock = VirtualClock()
    line = VirtualLine.of(Shape(baud=0), 1, clock)
    stage = Stage(load_model("insulin-pump"), "bench", lambda: clock.now)
    line.serve(EmulatedDevice(stage.node, line.device, stream("device engine")))
    ScriptRunner(line.host, LinkParameters(baud=0), stream("host engine")).run(connect(stage.bench()))
    host, device = line.sides["host"].engine, line.sides["device"].engine
    if host is None or device is None:
        raise SystemExit("the bench has no session")
    return host, device, clock


def _carry(host: Any, device: Any, clock: Any) -> float:
    """Seconds that `VOLUME` bytes take from one engine to the other, acknowledgements included."""
    from devguard.link.events import Channel, Message
    from devguard.session.update import DATA_CHUNK

    message, sent, arrived = bytes(DATA_CHUNK), 0, 0
    start = time.perf_counter()
    while arrived < VOLUME:
        while sent < VOLUME and host.pending_bytes(Channel.SEALED) < 4 * DATA_CHUNK:
            host.send(Channel.SEALED, message, clock.now)
            sent += len(message)
        clock.now += 1e-4
        events = device.receive_bytes(host.data_to_send(clock.now), clock.now)
        arrived += sum(len(event.data) for event in events if isinstance(event, Message))
        host.receive_bytes(device.data_to_send(clock.now), clock.now)
    return time.perf_counter() - start


def _cipher() -> float:
    """Seconds that sealing and opening the same bytes takes by itself."""
    from cryptography.hazmat.primitives.ciphers.aead import AESCCM

    cipher, segment = AESCCM(bytes(16), tag_length=16), bytes(SEGMENT)
    start = time.perf_counter()
    for number in range(VOLUME // SEGMENT):
        nonce = number.to_bytes(13, "big")
        cipher.decrypt(nonce, cipher.encrypt(nonce, segment, b"header"), b"header")
    return time.perf_counter() - start


def _lines() -> list[Row]:
    """(what, share of the line) for the lines that the aims name, noisy ones as the mean of `SEEDS`."""
    from devguard.bench.impair import UNHARMED, Damage

    found: list[Row] = []
    for baud in (115_200, 921_600):
        for latency, timer, aim in ((0.0, 0.0, 0.975), (0.002, 0.0, 0.975), (0.016, 0.0, 0.965), (0.0, 0.016, 0.96)):
            what = f"{latency * 1e3:g} ms" if not timer else f"FTDI {timer * 1e3:g} ms"
            found.append(_line(f"line, {baud}, {what}", [_share(baud, latency, timer, UNHARMED, 1)], aim))
        harms = (("bit errors 1e-5", Damage(ber=1e-5), 0.88), ("bit errors 1e-4", Damage(ber=1e-4), 0.5),
                 ("dropped bytes 1e-5", Damage(drop=1e-5), 0.94))  # fmt: skip
        for name, damage, aim in harms:
            shares = [_share(baud, 0.002, 0.0, damage, seed) for seed in SEEDS]
            found.append(_line(f"line, {baud}, {name}", shares, aim))
    found += [_line(f"line, {baud}, 2 ms", [_share(baud, 0.002, 0.0, UNHARMED, 1)]) for baud in (9600, 3_000_000)]
    for baud, aim in ((115_200, 0.95), (921_600, 0.92)):
        whole = _push("pacemaker-programmer", MEGABYTE, baud, 0.016, 0.0, UNHARMED, 1).session_efficiency
        found.append(_line(f"1 MiB, all of it, {baud}, 16 ms", [whole], aim))
    return found


def _push(model: str, size: int, baud: int, latency: float, timer: float, damage: Any, seed: int) -> Any:
    from devguard.bench.link_run import Trial, run_virtual
    from devguard.bench.way import Shape
    from devguard.device.models import load_model

    return run_virtual(Trial(load_model(model), size, Shape(baud, latency, timer, damage), seed))


def _share(baud: int, latency: float, timer: float, damage: Any, seed: int) -> float:
    share: float = _push("insulin-pump", IMAGE, baud, latency, timer, damage, seed).line_efficiency
    return share


def _line(what: str, shares: list[float], aim: float | None = None) -> Row:
    mean = statistics.mean(shares)
    spread = f"{min(shares):.3f} to {max(shares):.3f}" if len(shares) > 1 else ""
    if aim is None:
        return (what, f"{mean:.3f}", spread, "", "no aim", None)
    return (what, f"{mean:.3f}", spread, "", f"at least {aim}", mean >= aim)


if __name__ == "__main__":
    for row in rows():
        print(*row, sep="  ")
    sys.exit(0)
