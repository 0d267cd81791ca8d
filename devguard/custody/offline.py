"""Whether this machine is on a network: what a ceremony asks before it begins. Looks, changes nothing.

Linux tells in /sys/class/net and /proc/net. An interface counts as up when the kernel says so, or when it carries an
address or a route, loopback aside. Where that cannot be read, nobody can say that no network is up, and that refuses.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from devguard.errors import Refused

_LOOPBACK_TYPE: Final = "772"  # ARPHRD_LOOPBACK
_IFF_UP: Final = 0x1
_DOWN: Final = frozenset({"down", "notpresent", "lowerlayerdown"})
_LIMIT: Final = 1 << 20


def check_offline(root: Path = Path("/")) -> tuple[str, ...]:
    """The names of the interfaces that are there and down; `Refused("key.network")` when one is up."""
    up = networks_up(root)
    if up:
        raise Refused("key.network", f"this machine is on a network: {'; '.join(up)}")
    return tuple(sorted(path.name for path in (root / "sys/class/net").iterdir()))


def networks_up(root: Path = Path("/")) -> tuple[str, ...]:
    """Every interface that is up or carries an address or route, with the reason; `root` is / except in tests.

    Raises `Refused("key.network")` where the system does not tell.
    """
    folder = root / "sys/class/net"
    try:
        names = sorted(path.name for path in folder.iterdir())
        inet6 = _column(root / "proc/net/if_inet6", 5, header=False)
        routes = _column(root / "proc/net/route", 0, header=True)
    except OSError as error:
        raise Refused("key.network", f"this system does not tell whether a network is up: {error}") from None
    found = []
    for name in names:
        if _read(folder / name / "type") == _LOOPBACK_TYPE:
            continue
        why = _why_up(folder / name) or ("it has an IPv6 address" if name in inet6 else "")
        why = why or ("it has an IPv4 route" if name in routes else "")
        if why:
            found.append(f"{name} ({why})")
    return tuple(found)


def _why_up(folder: Path) -> str:
    if not (folder / "operstate").exists() and not (folder / "flags").exists():
        return ""  # a file of the bonding driver, not an interface
    state = _read(folder / "operstate") or "unknown"
    try:
        flags = int(_read(folder / "flags") or "1", 16)
    except ValueError:
        flags = _IFF_UP
    if state == "up" or (state not in _DOWN and flags & _IFF_UP):
        return f"its state is {state}"
    return ""


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii", errors="replace")[:_LIMIT].strip()
    except OSError:
        return None


def _column(path: Path, index: int, *, header: bool) -> frozenset[str]:
    """One column of a table of /proc/net; a protocol that the kernel does not have has no table."""
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path.parent} is not there")
    rows = [line.split() for line in (_read(path) or "").splitlines()[header:]]
    return frozenset(row[index] for row in rows if len(row) > index)
