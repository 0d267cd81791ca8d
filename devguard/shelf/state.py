"""What a bench keeps of a shelf, in one file to which whole steps are appended.

    file     = "devguard-shelf-state 1\\n" *step
    step     = length of payload, 4 bytes big-endian || payload || SHA-256 of payload
    payload  = deterministic CBOR {1: {N: root}, 2: {ROLE: metadata}, 3: {N: trust document}, 4: [ROLE that is gone],
                                   5: where the shelf was found}

A step replaces the entries it names and leaves the others. One that was cut off by a crash counts for nothing and is
overwritten by the next; a damaged one with more behind it makes the file unreadable. Nothing is verified here: that
is done before a step is kept, and again by the tuf client when it is used.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from devguard import wire
from devguard.custody.files import file_error, read_limited, write_atomic
from devguard.errors import DevguardError, Malformed
from devguard.shelf.freshness import TOP
from devguard.shelf.limits import LIMITS

HEADER: Final = b"devguard-shelf-state 1\n"
_ROOTS, _ROLES, _TRUST, _GONE, _PLACE = 1, 2, 3, 4, 5
_SLACK: Final = 1 << 20
_FORGET: Final = "remove the file, then refresh: the pinned root and the shelf make it again"


@dataclass(frozen=True, slots=True)
class State:
    """Verified bytes: roots and trust documents by version, other metadata by role. `place`: where they came from."""

    roots: Mapping[int, bytes] = field(default_factory=dict)
    roles: Mapping[str, bytes] = field(default_factory=dict)
    trust: Mapping[int, bytes] = field(default_factory=dict)
    place: str = ""

    @property
    def size(self) -> int:
        """All bytes of it."""
        return sum(len(data) for part in (self.roots, self.roles, self.trust) for data in part.values())

    @property
    def newest_root(self) -> bytes | None:
        """The root with the highest version."""
        return self.roots[max(self.roots)] if self.roots else None

    def top(self) -> dict[str, bytes]:
        """The metadata of the top-level roles. `Malformed("shelf.malformed")` where one is missing."""
        found = {**self.roles, "root": self.newest_root}
        top = {role: data for role in TOP if (data := found.get(role)) is not None}
        if len(top) != len(TOP):
            raise Malformed("shelf.malformed", "what is kept of the shelf has no top-level metadata", _FORGET)
        return top


def read_state(path: Path) -> tuple[State | None, int]:
    """The state in a file and how many bytes of it count; (None, 0) without the file or without a step.

    Raises `Malformed("shelf.malformed")`, and what `read_limited` raises.
    """
    try:
        data = read_limited(path, LIMITS.state_size)
    except DevguardError as error:
        if error.code != "file.missing":
            raise
        return None, 0
    if not data.startswith(HEADER):
        if HEADER.startswith(data):
            return None, 0
        raise Malformed("shelf.malformed", f"{path} is not what is kept of a shelf", _FORGET)
    state, at = None, len(HEADER)
    while (found := _step(data, at, path)) is not None:
        payload, at = found
        state = _applied(state or State(), payload, path)
    return state, at if state is not None else 0


def write_state(path: Path, old: State | None, length: int, new: State) -> None:
    """Make `new` the state, where the first `length` bytes of the file make `old`. Durable on return, or unchanged."""
    step = _encoded(_difference(old or State(), new))
    if old is None:
        write_atomic(path, HEADER + step, 0o600)
        return
    with _opened(path) as descriptor:
        try:
            os.ftruncate(descriptor, length)
            os.lseek(descriptor, length, os.SEEK_SET)
            left = memoryview(step)
            while left:
                left = left[os.write(descriptor, left) :]
            os.fsync(descriptor)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, length)
            raise


def take_back(path: Path, old: State | None, length: int) -> None:
    """Undo `write_state`: the first `length` bytes make the state again."""
    if old is None:
        with contextlib.suppress(OSError):
            os.unlink(path)
        return
    with _opened(path) as descriptor:
        os.ftruncate(descriptor, length)
        os.fsync(descriptor)


def compact(path: Path, state: State) -> None:
    """Write the file anew when most of it is what later steps have replaced. It may fail: the long file is as good."""
    with contextlib.suppress(OSError, DevguardError):
        if path.stat().st_size > 2 * state.size + _SLACK:
            write_atomic(path, HEADER + _encoded(_difference(State(), state)), 0o600)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    try:
        descriptor = os.open(path, os.O_RDWR | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0))
        try:
            yield descriptor
        finally:
            os.close(descriptor)
    except OSError as error:
        raise file_error(path, error) from None


def _step(data: bytes, at: int, path: Path) -> tuple[bytes, int] | None:
    """The payload at an offset and the offset behind its step; None at the end, or before a step that was cut off."""
    start = at + 4
    end = start + int.from_bytes(data[at:start], "big") + hashlib.sha256().digest_size
    if end > len(data):
        return None
    payload, digest = data[start : end - 32], data[end - 32 : end]
    if hashlib.sha256(payload).digest() == digest:
        return payload, end
    if end == len(data) or not any(data[at:]):
        return None
    raise Malformed("shelf.malformed", f"{path} is damaged at byte {at}", _FORGET)


def _encoded(payload: Mapping[int, object]) -> bytes:
    data = wire.encode(payload)
    return len(data).to_bytes(4, "big") + data + hashlib.sha256(data).digest()


def _difference(old: State, new: State) -> dict[int, object]:
    return {
        _ROOTS: {version: data for version, data in new.roots.items() if old.roots.get(version) != data},
        _ROLES: {role: data for role, data in new.roles.items() if old.roles.get(role) != data},
        _TRUST: {version: data for version, data in new.trust.items() if old.trust.get(version) != data},
        _GONE: sorted(old.roles.keys() - new.roles.keys()),
        _PLACE: new.place,
    }


def _applied(state: State, payload: bytes, path: Path) -> State:
    value: Any = wire.decode(payload, code="shelf.malformed")
    shapes = {_ROOTS: (int, bytes), _ROLES: (str, bytes), _TRUST: (int, bytes)}
    if (
        not isinstance(value, dict)
        or value.keys() != {*shapes, _GONE, _PLACE}
        or not all(isinstance(value[part], dict) for part in shapes)
        or not all(type(k) is a and type(v) is b for part, (a, b) in shapes.items() for k, v in value[part].items())
        or not isinstance(value[_GONE], list)
        or not isinstance(value[_PLACE], str)
    ):
        raise Malformed("shelf.malformed", f"{path} is not what is kept of a shelf", _FORGET)
    gone = set(map(str, value[_GONE]))
    roles = {role: data for role, data in {**state.roles, **value[_ROLES]}.items() if role not in gone}
    return State({**state.roots, **value[_ROOTS]}, roles, {**state.trust, **value[_TRUST]}, value[_PLACE])
