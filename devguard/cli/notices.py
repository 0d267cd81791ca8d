"""Notices of incidents to people elsewhere: made when an incident is opened, kept until they are delivered.

    [incidents]
    webhook = "https://soc.hospital.example/devguard"
    secret = "/etc/devguard/webhook.secret"
    syslog = "tcp://log.hospital.example:601"

A notice is a line of `evidence export`: no file names, reasons or other words of people. It goes to `outbox/` of the
home once the incident is on record, is tried once when the command ends, and again by `ledger send` and `evidence
incident notify`. Nothing here fails or holds up the command that made it: the log has the incident in any case.
"""

from __future__ import annotations

import contextlib
import json
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from devguard.errors import DevguardError, LinkError, Malformed

if TYPE_CHECKING:
    from devguard.cli.home import Home
    from devguard.cli.notice_ways import Way
    from devguard.evidence.log import EvidenceLog
    from devguard.evidence.record import Entry

KEYS: Final = frozenset({"webhook", "syslog", "secret", "format", "ca"})
KINDS: Final = {"ocsf": "application/json", "jsonl": "application/json", "cef": "text/plain; charset=utf-8"}
KEPT: Final = 100
"""So many notices are kept for each way; the oldest goes first."""
ATTEMPTS: Final = 20
_AT_END: Final = 3.0  # seconds that a command may take longer
_SECRET: Final = (16, 4096)
_NOTICE: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Settings:
    """The ways out by name, and the format of the webhook's body."""

    ways: dict[str, Way] = field(default_factory=dict)
    format: str = "ocsf"


@dataclass(slots=True)
class Outcome:
    """What came of trying: notices sent, kept for the next time, given up; and why the last one failed."""

    sent: int = 0
    kept: int = 0
    given_up: int = 0
    why: str | None = None

    @property
    def any(self) -> bool:
        """Whether there was anything to do."""
        return bool(self.sent or self.kept or self.given_up)


def settings_of(home: Home) -> Settings:
    """What config.toml says of notices. Raises `Malformed("config.malformed")`, and what reading the secret raises."""
    from devguard.cli.incidents import SECTION
    from devguard.cli.notice_ways import Syslog, Webhook, check_syslog, check_webhook

    section = home.config().get(SECTION, {})
    said = {key: section[key] for key in KEYS & section.keys()} if isinstance(section, dict) else {}
    if not all(isinstance(value, str) for value in said.values()):
        raise Malformed("config.malformed", f"{home.config_file}: [{SECTION}] {', '.join(sorted(KEYS))} are texts")
    ways: dict[str, Way] = {}
    form = said.get("format", "ocsf")
    if form not in KINDS:
        raise Malformed("config.malformed", f"{home.config_file}: [{SECTION}] format is one of {', '.join(KINDS)}")
    if "webhook" in said:
        check_webhook(said["webhook"])
        ca = Path(said["ca"]) if "ca" in said else None
        ways["webhook"] = Webhook(said["webhook"], _secret(home, said.get("secret")), KINDS[form], ca)
    if "syslog" in said:
        check_syslog(said["syslog"])
        ways["syslog"] = Syslog(said["syslog"])
    return Settings(ways, form)


def _secret(home: Home, path: str | None) -> bytes:
    from devguard.custody.files import read_limited

    least, most = _SECRET
    found = b"" if path is None else read_limited(Path(path), most).strip()
    if len(found) < least:
        raise Malformed("config.malformed", f"{home.config_file}: secret names a file of {least} characters or more")
    return found


def outbox(home: Home) -> Path:
    """Where notices wait."""
    return home.path / "outbox"


def keep(home: Home, log: EvidenceLog, indexes: list[int]) -> list[Path]:
    """Put notices of the incidents in these records into the outbox; nothing where no way out is set up.

    What is wrong with the settings or the disk costs the notice, never the command: the incident is on record.
    """
    made: list[Path] = []
    with contextlib.suppress(DevguardError):
        settings = settings_of(home)
        if settings.ways:
            home.make(outbox(home))
            for entry in _entries(home.evidence_folder, set(indexes)):
                made += [_put(home, name, entry, log.checkpoint.origin, settings) for name in settings.ways]
    return made


def _entries(folder: Path, wanted: set[int]) -> list[Entry]:
    from devguard.evidence.newest import backwards

    found = []
    for entry, _ in backwards(folder):
        if entry.index < min(wanted):
            break
        if entry.index in wanted:
            found.append(entry)
    return found[::-1]


def _put(home: Home, name: str, entry: Entry, origin: str, settings: Settings) -> Path:
    from importlib.metadata import version

    from devguard.custody.files import write_atomic
    from devguard.evidence.export import LINES, Source, syslog_line

    source = Source(origin, version("devguard"))
    body = syslog_line(entry, source) if name == "syslog" else LINES[settings.format](entry, source)
    path = outbox(home) / f"{entry.index:012d}.{name}"
    write_atomic(path, _encoded({"id": f"{origin}/{entry.index}", "attempts": 0, "body": body}), 0o600)
    for old in _waiting(home, name)[:-KEPT]:
        old.unlink(missing_ok=True)
    return path


def _encoded(notice: dict[str, Any]) -> bytes:
    return json.dumps(notice).encode()


def _waiting(home: Home, name: str) -> list[Path]:
    """Notices for one way, the oldest first."""
    return sorted(outbox(home).glob(f"[0-9]*.{name}"))


def tell(home: Home, made: list[Path], now: int) -> None:
    """Try notices once, from a thread of their own that nobody waits for longer than three seconds."""
    thread = threading.Thread(target=_try, args=(home, made, now), name="notices", daemon=True)
    thread.start()
    thread.join(_AT_END)


def _try(home: Home, made: list[Path], now: int) -> None:
    with contextlib.suppress(DevguardError, OSError):  # what was not sent waits
        settings = settings_of(home)
        for path in made:
            _deliver(path, settings, now, Outcome())


def flush(home: Home, now: int) -> Outcome:
    """Try whatever waits, the oldest first; a way that fails is not tried again for the others. Raises what is wrong
    with the settings."""
    settings, outcome = settings_of(home), Outcome()
    for name in settings.ways:
        broken = False
        for path in _waiting(home, name):
            if broken:
                outcome.kept += 1
            else:
                broken = not _deliver(path, settings, now, outcome)
    return outcome


def _deliver(path: Path, settings: Settings, now: int, outcome: Outcome) -> bool:
    """One notice; whether its way is open. It is gone once it was delivered, or failed too often, or is none."""
    from devguard.custody.files import write_atomic

    notice = _read(path)
    if notice is None:
        path.unlink(missing_ok=True)
        return True
    try:
        settings.ways[path.suffix[1:]].send(notice["body"].encode(), notice["id"], now)
    except LinkError as error:
        outcome.why = error.message
        notice["attempts"] += 1
        if notice["attempts"] >= ATTEMPTS:
            path.unlink(missing_ok=True)
            outcome.given_up += 1
        else:
            write_atomic(path, _encoded(notice), 0o600)
            outcome.kept += 1
        return False
    path.unlink(missing_ok=True)
    outcome.sent += 1
    return True


def _read(path: Path) -> dict[str, Any] | None:
    from devguard.cli.files import read_if_there

    try:
        found = json.loads(read_if_there(path, _NOTICE) or b"null")
    except (DevguardError, ValueError, RecursionError):
        return None
    shape = {"id": str, "attempts": int, "body": str}
    good = isinstance(found, dict) and found.keys() == shape.keys()
    return found if good and all(type(found[name]) is kind for name, kind in shape.items()) else None
