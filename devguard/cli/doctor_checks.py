"""What `devguard doctor` looks at, one function a subject; each looks, changes nothing, and never refuses itself.

`System` says where to look, so that a test can give another machine. A finding is `refuse` only where devguard would
refuse to work because of it; everything a person should mend is `warn`; what cannot be seen from here is `unknown`.
"""

from __future__ import annotations

import contextlib
import csv
import enum
import importlib.metadata
import os
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from devguard.errors import DevguardError

if TYPE_CHECKING:
    from devguard.cli.home import Home

EARLIEST: Final = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp())  # older than this version of devguard
LATEST: Final = int(datetime(2100, 1, 1, tzinfo=UTC).timestamp())
SUPPORT_SOON: Final = 90
# End of security support without extra contracts (Debian: LTS), as the distributions' own table had it then.
SUPPORT_AS_OF: Final = "2026-07"
SUPPORT_ENDS: Final = {
    ("debian", "11"): date(2026, 8, 31),
    ("debian", "12"): date(2028, 6, 30),
    ("debian", "13"): date(2030, 6, 30),
    ("ubuntu", "20.04"): date(2025, 5, 29),
    ("ubuntu", "22.04"): date(2027, 6, 1),
    ("ubuntu", "24.04"): date(2029, 5, 31),
    ("ubuntu", "26.04"): date(2031, 5, 29),
}
# Where a Debian or Ubuntu system keeps that table, newer than ours when it is updated (package distro-info-data).
DISTRO_INFO: Final = {"debian": ("debian.csv", "eol-lts"), "ubuntu": ("ubuntu.csv", "eol")}
# (lowest version devguard runs with, first major version it has not been tested with)
TESTED: Final = {
    "cbor2": ((5, 9), 6),
    "click": ((8, 2), 9),
    "cobs": ((1, 2), 2),
    "construct": ((2, 10), 3),
    "cryptography": ((50, 0), 51),
    "pyserial": ((3, 5), 4),
    "python-pkcs11": ((0, 10), 1),
    "rich": ((14, 0), 16),
}
OPTIONAL: Final = {"python-pkcs11"}


class State(enum.StrEnum):
    """What a finding means."""

    OK = "ok"
    WARN = "warn"
    UNKNOWN = "unknown"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report. `code`: what devguard would refuse with."""

    subject: str
    state: State
    detail: str
    code: str | None = None


@dataclass(frozen=True, slots=True)
class System:
    """Where the machine is looked at; `root` is / except in tests."""

    root: Path = Path("/")

    def text(self, *parts: str) -> str | None:
        """A small file of the system, None where it cannot be read."""
        try:
            return self.root.joinpath(*parts).read_text(encoding="utf-8", errors="replace")[:1_000_000]
        except OSError:
            return None


def clock(home: Home, now: int) -> Iterator[Finding]:
    """The clock against what cannot be later than now: this software, the trust document, the evidence log."""
    shown = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    if not EARLIEST <= now < LATEST:
        yield Finding("clock", State.REFUSE, f"{shown} cannot be: set the clock", "trust.not-yet")
        return
    yield Finding("clock", State.OK, shown)
    yield from _against_trust(home, now)
    yield from _against_evidence(home, now)


def _against_trust(home: Home, now: int) -> Iterator[Finding]:
    from devguard.trust.document import check_time

    if not home.trust_file.exists():
        yield Finding("trust", State.UNKNOWN, "no trust document is kept here")
        return
    try:
        document = home.trust(None)
        check_time(document, now)
    except DevguardError as error:
        yield Finding("trust", State.REFUSE, error.message, error.code)
        return
    left = (document.expires - now) // 86_400
    if document.issued > now:
        yield Finding("clock", State.WARN, f"{document.issued - now} s before the trust document was issued")
    state = State.WARN if left < SUPPORT_SOON else State.OK
    yield Finding("trust", state, f"version {document.version}, {left} days left")


def _against_evidence(home: Home, now: int) -> Iterator[Finding]:
    from devguard.cli.memory import check_clock, origin, recall

    if not home.evidence_folder.exists():
        return
    try:
        # The end of the log only, as every command does: a log of years is `devguard evidence verify`'s to read.
        memory = recall(home, origin(home) or "")
        check_clock(memory, now)
    except DevguardError as error:
        subject = "clock" if error.code == "clock.rollback" else "memory"
        yield Finding(subject, State.REFUSE, error.message, error.code)
        return
    yield Finding("memory", State.OK, "it is the one that the newest evidence record names")
    if memory.latest > now:
        yield Finding("clock", State.WARN, f"the clock is {memory.latest - now} s behind the latest time seen here")


def support(system: System, now: int) -> Iterator[Finding]:
    """How long the operating system gets security updates."""
    text = system.text("etc", "os-release")
    if text is None:
        yield Finding("system", State.UNKNOWN, f"{sys.platform}: this system does not say how long it is supported")
        return
    facts = {key: value.strip().strip("\"'") for key, _, value in (line.partition("=") for line in text.splitlines())}
    name = facts.get("PRETTY_NAME") or facts.get("ID", "this system")
    end, source = _support_end(system, facts)
    if end is None:
        yield Finding("system", State.UNKNOWN, f"{name}: when its support ends is not known here")
        return
    left = (end - datetime.fromtimestamp(now, UTC).date()).days
    if left < 0:
        yield Finding("system", State.WARN, f"{name}: without security updates since {end} ({source}); replace it")
    else:
        state = State.WARN if left < SUPPORT_SOON else State.OK
        yield Finding("system", state, f"{name}: supported until {end} ({source})")


def _support_end(system: System, facts: dict[str, str]) -> tuple[date | None, str]:
    """When support ends, and who says so: the system itself, its distribution's table, else ours with its date."""
    with contextlib.suppress(ValueError, KeyError):
        return date.fromisoformat(facts["SUPPORT_END"]), "says os-release"
    name, version = facts.get("ID", ""), facts.get("VERSION_ID", "")
    if name in DISTRO_INFO:
        file, column = DISTRO_INFO[name]
        rows = (system.text("usr", "share", "distro-info", file) or "").splitlines()
        with contextlib.suppress(ValueError, csv.Error):
            for row in csv.DictReader(rows):
                if (row.get("version") or "").removesuffix(" LTS") == version:
                    return date.fromisoformat(row.get(column) or ""), "says distro-info-data"
    return SUPPORT_ENDS.get((name, version)), f"as known in {SUPPORT_AS_OF}"


def disk(home: Home, system: System) -> Iterator[Finding]:
    """Whether the file system that holds the home lies on an encrypted device, as far as can be seen."""
    mounts = system.text("proc", "mounts")
    folder = _existing(home.path)
    best: tuple[str, str] | None = None
    for line in (mounts or "").splitlines():
        device, _, rest = line.partition(" ")
        place = rest.partition(" ")[0].replace("\\040", " ")
        if folder.is_relative_to(place) and (best is None or len(place) >= len(best[1])):
            best = (device, place)
    if best is None or not best[0].startswith("/dev/"):
        yield Finding("disk", State.UNKNOWN, f"whether the disk under {folder} is encrypted cannot be seen from here")
        return
    if _encrypted(system, os.path.basename(os.path.realpath(best[0])), 8):
        yield Finding("disk", State.OK, f"{best[1]} is on an encrypted device")
    else:
        yield Finding("disk", State.WARN, f"{best[0]}, which holds {folder}, is not encrypted")


def _existing(path: Path) -> Path:
    path = path.absolute()
    return next((one for one in (path, *path.parents) if one.exists()), Path("/")).resolve()


def _encrypted(system: System, name: str, depth: int) -> bool:
    """A device-mapper target of dm-crypt, or one that lies on such a device."""
    if (system.text("sys", "block", name, "dm", "uuid") or "").startswith("CRYPT-"):
        return True
    try:
        below = [one.name for one in (system.root / "sys" / "block" / name / "slaves").iterdir()]
    except OSError:
        return False
    return depth > 0 and bool(below) and all(_encrypted(system, one, depth - 1) for one in below)


def key_files(home: Home) -> Iterator[Finding]:
    """Modes and form of the key files of the home."""
    from devguard.custody.keyfile import is_private, read_info

    if home.keys.is_dir() and os.name != "nt" and home.keys.stat().st_mode & 0o077:
        yield Finding("keys", State.WARN, f"{home.keys} can be looked into by others; chmod 700")
    count = 0
    for path in home.key_files():
        count += 1
        try:
            info, private = read_info(path), is_private(path)
            mode = stat.S_IMODE(path.stat().st_mode)
        except DevguardError as error:
            yield Finding("keys", State.REFUSE, f"{path.name}: {error.message}", error.code)
            continue
        except OSError as error:
            yield Finding("keys", State.REFUSE, f"{path.name}: {error.strerror}", "file.unreadable")
            continue
        if private and os.name != "nt" and mode & 0o077:
            yield Finding("keys", State.REFUSE, f"{path.name} has mode {mode:04o}; others can reach it", "key.file")
        if info.development:
            yield Finding("keys", State.WARN, f"{path.name} is a development key: no production trust takes it")
    yield Finding("keys", State.OK, f"{count or 'no'} key files in {home.keys}")


def serial(system: System) -> Iterator[Finding]:
    """Whether this account may open the serial ports that are there."""
    devices = system.root / "dev"
    ports = [path for kind in ("ttyUSB*", "ttyACM*") for path in sorted(devices.glob(kind))]
    closed = [path.name for path in ports if not os.access(path, os.R_OK | os.W_OK)]
    if closed:
        detail = f"{', '.join(closed)}: not open to this account; add it to the group that owns them (dialout)"
        yield Finding("serial", State.WARN, detail)
    else:
        yield Finding("serial", State.OK, f"{len(ports) or 'no'} serial ports, none closed to this account")


def software() -> Iterator[Finding]:
    """Which devguard this is, by the digest of its own files: to compare machines, and the record of a ceremony."""
    from devguard.cli.ceremony_record import software as told

    yield Finding("devguard", State.OK, told())


def versions() -> Iterator[Finding]:
    """Python and the packages devguard stands on, against what it was tested with."""
    found = sys.version_info[:3]
    shown = ".".join(map(str, found))
    yield Finding("python", State.OK if found >= (3, 11) else State.REFUSE, shown, None)
    for name, (lowest, untested) in TESTED.items():
        try:
            text = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            if name not in OPTIONAL:
                yield Finding(name, State.REFUSE, "not installed")
            continue
        version = tuple(int(part) if part.isdigit() else 0 for part in text.split(".")[:2])
        if version < lowest:
            yield Finding(
                name, State.REFUSE, f"{text} is older than {'.'.join(map(str, lowest))}, the lowest it runs with"
            )
        elif version[0] >= untested:
            yield Finding(name, State.WARN, f"{text} is newer than what devguard was tested with")
        else:
            yield Finding(name, State.OK, text)
