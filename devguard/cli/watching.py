"""What `devguard packets watch` reads and prints: a port or a file that may still grow, a line a packet, a summary.

A port is opened for reading and nothing is ever written to it. Lines are printed together for each read, so that a
capture of a million packets is told as fast as it is decoded.
"""

from __future__ import annotations

import io
import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Any, Final

import click

from devguard.cli.context import printed
from devguard.packets.packet import Effect

if TYPE_CHECKING:
    from devguard.packets.packet import Packet

LISTEN_SECONDS: Final = 0.2
SILENCES: Final = 5
NAMES: Final = 64  # of therapy-affecting messages that the summary counts one by one
_MARGIN: Final = " " * 31
_THERAPY: Final = "!! THERAPY, NOT AUTHENTICATED  "
_PROVED: Final = "!  therapy, authenticated      "
_UNKNOWN: Final = "?  not known what it does      "


class Tally:
    """What a watch has seen."""

    def __init__(self) -> None:
        self.packets = self.invalid = self.therapy = self.unauthenticated = self.unknown = 0
        self.skipped = self.damaged = 0
        self.names: Counter[str] = Counter()

    def add(self, packet: Packet) -> None:
        """Count one packet."""
        self.packets += 1
        if packet.code is not None:
            self.invalid += 1
        effect = packet.effect
        if effect is Effect.UNKNOWN:
            self.unknown += 1
        elif effect is Effect.ACTS:
            self.therapy += 1
            if not packet.authenticated:
                self.unauthenticated += 1
                self.names[packet.name if packet.name in self.names or len(self.names) < NAMES else "others"] += 1

    def to_json(self) -> dict[str, Any]:
        """The summary's numbers."""
        return {
            "packets": self.packets,
            "invalid": self.invalid,
            "therapy_affecting": self.therapy,
            "therapy_affecting_unauthenticated": self.unauthenticated,
            "effect_unknown": self.unknown,
            "skipped_bytes": self.skipped,
            "damaged": self.damaged,
            "unauthenticated": dict(self.names.most_common()),
        }

    def text(self) -> str:
        """The summary: what came, then what a person should look at."""
        lines = [
            f"{self.packets} packets, {self.invalid} not valid, {self.therapy} therapy-affecting "
            f"({self.unauthenticated} of them not authenticated), {self.skipped} bytes skipped"
        ]
        if self.names:
            named = ", ".join(f"{name} ({count})" for name, count in self.names.most_common())
            lines.append(f"therapy-affecting, NOT AUTHENTICATED: {named}")
        if self.unknown:
            lines.append(
                f"{self.unknown} packets could not be read far enough to tell what they do: count none as safe"
            )
        if self.damaged:
            lines.append(
                f"{self.damaged} beginnings of packets were damaged or no packets; their bytes are among the skipped"
            )
        return "\n".join(lines)


def report(
    found: Iterable[tuple[int, Packet]], tally: Tally, *, as_json: bool, quiet: bool, patient_data: bool
) -> None:
    """Count the packets and print a line for each; with `quiet` only for those that act or are not valid."""
    lines = []
    for place, packet in found:
        tally.add(packet)
        if quiet and packet.code is None and packet.effect is not Effect.ACTS:
            continue
        if as_json:
            lines.append(json.dumps({"offset": place, **packet.to_json(patient_data=patient_data)}))
        else:
            lines.append(line(place, packet, patient_data=patient_data))
    if lines:
        click.echo("\n".join(lines))


def line(place: int, packet: Packet, *, patient_data: bool) -> str:
    """One packet for people; what acts and was not proved stands out, in words and in colour."""
    fields = " ".join([f"{name}={_short(value)}" for name, value in packet.shown(patient_data=patient_data).items()])
    text = printed(f"{place:>8}  {packet.code or 'ok':14} {packet.name}  {fields}")
    effect = packet.effect
    if effect is Effect.ACTS and not packet.authenticated:
        return click.style(f"{_THERAPY}{text}", fg="red", bold=True)
    if effect is Effect.ACTS:
        return click.style(f"{_PROVED}{text}", fg="yellow")
    return f"{_UNKNOWN if effect is Effect.UNKNOWN else _MARGIN}{text}"


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 48 else f"{text[:45]}..."


class Growing(io.RawIOBase):
    """A file that somebody still writes to: at its end it is waited for more, until Ctrl-C."""

    def __init__(self, file: io.BufferedReader) -> None:
        super().__init__()
        self._file = file

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: Any) -> int:
        """What there is, or what comes next."""
        while not (data := self._file.read1(len(buffer))):
            time.sleep(LISTEN_SECONDS)
        buffer[: len(data)] = data
        return len(data)


def listen(port: str, baud: int) -> Iterator[bytes]:
    """What a port brings, until it is gone; empty bytes once when it has been silent for a second: what was begun by
    then will not be ended. `Refused`: link.port."""
    from devguard.link.driver import SerialDriver

    silent = 0
    with closing(SerialDriver.open(port, baud)) as driver:
        while True:
            data = driver.listen(LISTEN_SECONDS)
            silent = 0 if data else silent + 1
            if data or silent == SILENCES:
                yield data
