"""One tree of errors and one table of refusal codes.

Every failure that crosses a room's door is a `DevguardError` with a stable dotted code, a message that
says what was expected and what was found, and a hint that says what to do next. The table `CODES` is the
single source of `devguard explain`, of `docs/refusal-codes.md` and of the exit status of the command line.
Codes are added, never renamed: scripts and old evidence logs depend on them.

This module imports nothing of devguard and nothing heavy.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from devguard._codes import CODE_ROWS


class Exit(enum.IntEnum):
    """Exit statuses of the command-line contract."""

    DONE = 0
    REFUSED = 1
    USAGE = 2
    MALFORMED = 3
    RETRY = 4
    DEVICE = 5
    INTERNAL = 70
    INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class CodeInfo:
    """One row of the table: what a code means, why it happens, what to do, which exit status it gives."""

    code: str
    exit: Exit
    cause: str
    remedy: str


CODES: dict[str, CodeInfo] = {
    code: CodeInfo(code, Exit(status), cause, remedy) for code, status, cause, remedy in CODE_ROWS
}


class DevguardError(Exception):
    """Base of every error devguard raises on purpose.

    `code` is dotted and stable (a code of a newer peer may be unknown here and is kept as it is),
    `message` says what was expected and found, `hint` what to do; without a hint the table's remedy serves.
    """

    def __init__(self, code: str, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        known = CODES.get(code)
        self.hint = hint if hint is not None else (known.remedy if known else "update devguard: this code is newer")

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"

    @property
    def exit_status(self) -> Exit:
        """The exit status of the contract; unknown codes count as refused."""
        known = CODES.get(self.code)
        return known.exit if known else Exit.REFUSED


class Malformed(DevguardError):
    """The bytes are wrong: they do not parse, or parse in a form we refuse."""


class Refused(DevguardError):
    """Well-formed, but not allowed."""


class LocalProtocolError(DevguardError):
    """Our own side broke the protocol's rule (a bug in the caller)."""


class RemoteProtocolError(DevguardError):
    """The peer broke the protocol's rule."""


class LinkError(DevguardError):
    """The road is bad: port, cable, time-out. Retrying may help."""


class DeviceRefused(DevguardError):
    """The far end said no. Its code is kept even when this version does not know it. `serial`: of the device that said
    it, where it had proved one."""

    serial: str | None = None

    @property
    def exit_status(self) -> Exit:
        return Exit.DEVICE
