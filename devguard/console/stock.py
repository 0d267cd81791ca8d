"""What lies in the home to choose from: technicians' keys, grants, releases, ports. Read, never written.

Serial numbers are in grants, and are not shown here: what stands on the screen is copied from the screen, and the
question is which device hangs on the wire (docs/decisions/0026).
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from devguard.console.settings import Places, Settings
from devguard.errors import DevguardError, Malformed

_LARGEST_GRANT: Final = 16 * 1024
_MOST: Final = 200


@dataclass(frozen=True, slots=True)
class KeyChoice:
    """A technician's key in the home. `name`: of its file."""

    name: str
    person: str


@dataclass(frozen=True, slots=True)
class GrantChoice:
    """A grant in the home, without its serial numbers. `expires`: seconds since the epoch."""

    name: str
    person: str
    models: tuple[str, ...]
    actions: tuple[str, ...]
    expires: int


@dataclass(frozen=True, slots=True)
class ReleaseChoice:
    """A release that was pushed from here and is kept."""

    name: str
    model: str
    version: str


def technician_keys(home: Places) -> list[KeyChoice]:
    """Private keys of technicians, by person."""
    from devguard.cose.roles import RoleName
    from devguard.custody.keyfile import read_info

    found = []
    for path in home.private_keys()[:_MOST]:
        with contextlib.suppress(DevguardError):
            info = read_info(path)
            if info.role == RoleName.TECHNICIAN:
                found.append(KeyChoice(path.stem, info.person))
    return sorted(found, key=lambda one: (one.person, one.name))


def grants(home: Places, now: float) -> list[GrantChoice]:
    """Grants that have not expired, by person."""
    from devguard.custody.files import read_limited
    from devguard.grant.claims import read_grant

    found = []
    for path in home.grant_files()[:_MOST]:
        with contextlib.suppress(DevguardError):
            one = read_grant(read_limited(path, _LARGEST_GRANT))
            if one.expires > now:
                models, actions = sorted(one.scope.models), sorted(map(str, one.scope.actions))
                found.append(GrantChoice(path.stem, one.subject, tuple(models), tuple(actions), one.expires))
    return sorted(found, key=lambda one: (one.person, one.name))


def kept_releases(home: Places) -> list[ReleaseChoice]:
    """Releases kept in the home, newest file first."""
    from devguard.manifest.envelope import read_envelope
    from devguard.manifest.release import release_facts

    found = []
    paths = sorted(home.releases.glob("*.suit"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in paths[:_MOST]:
        with contextlib.suppress(DevguardError, OSError), path.open("rb") as file:
            facts = release_facts(read_envelope(file))
            model = facts.text.model if facts.text is not None else ""
            found.append(ReleaseChoice(path.stem, model, facts.version or ""))
    return found


def needs_two(path: Path) -> bool:
    """Whether a release is one that a second technician has to approve, by its model or by its own word. What cannot
    be read needs nobody: the command refuses it."""
    from devguard.device.models import load_model
    from devguard.manifest.envelope import read_envelope
    from devguard.manifest.release import release_facts

    try:
        with path.open("rb") as file:
            facts = release_facts(read_envelope(file))
        if facts.two_technicians or facts.text is None:
            return facts.two_technicians
        return load_model(facts.text.model).facts.technicians > 1
    except (DevguardError, OSError):
        return False


def chosen(name: str, among: list[str], what: str) -> str:
    """A name that was offered; `Malformed("console.request")` for any other: names of files come from here only."""
    if name not in among:
        raise Malformed("console.request", f"that {what} was not offered; open the page again")
    return name


def ports(settings: Settings) -> list[tuple[str, str]]:
    """(port, description) of what may be pushed to: this machine's ports, and those the console was started with."""
    from devguard.link.driver import list_ports

    found = {port.device: "" if port.description == "n/a" else port.description for port in list_ports()}
    return [*found.items(), *((port, "") for port in settings.ports if port not in found)]


def place_kept(home: Places, name: str, path: Path) -> None:
    """A copy of a kept release at `path`."""
    import shutil

    try:
        shutil.copyfile(home.releases / f"{name}.suit", path)
    except OSError as error:
        raise Malformed("file.missing", f"the release cannot be copied: {error.strerror}") from None
