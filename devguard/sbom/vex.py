"""Signed statements on known holes: this part of this bill is touched by that hole, or is not, and why.

A COSE_Sign1 (RFC 9052 section 4.2) by one key of the role quality over a deterministic CBOR array, bound to the bill
of materials by its SHA-256: the words are those of VEX, so they can be carried into CSAF or OpenVEX as they are.
Source: CISA, "Minimum Requirements for VEX" (2023); statuses and justifications as CSAF 2.0 section 3.2.3.5 flags.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from devguard import wire
from devguard.cose.algorithms import EMITTED
from devguard.cose.roles import RoleName
from devguard.cose.sign import Signer, read_sign1, sign1
from devguard.errors import Malformed, Refused
from devguard.trust.model import TrustDocument

TYP: Final = "application/devguard-vex+cbor"
FORMAT: Final = 1
CODE: Final = "sbom.statement"
MAX_FILE: Final = 1 << 20
MAX_STATEMENTS: Final = 1024
MAX_TEXT: Final = 1024


class Status(enum.IntEnum):
    """What a statement says. Numbers are for ever."""

    NOT_AFFECTED = 1
    AFFECTED = 2
    FIXED = 3
    UNDER_INVESTIGATION = 4

    @property
    def word(self) -> str:
        """As VEX spells it."""
        return self.name.lower()


class Justification(enum.IntEnum):
    """Why a part is not affected. Numbers are for ever."""

    COMPONENT_NOT_PRESENT = 1
    VULNERABLE_CODE_NOT_PRESENT = 2
    VULNERABLE_CODE_NOT_IN_EXECUTE_PATH = 3
    VULNERABLE_CODE_CANNOT_BE_CONTROLLED_BY_ADVERSARY = 4
    INLINE_MITIGATIONS_ALREADY_EXIST = 5

    @property
    def word(self) -> str:
        """As VEX spells it."""
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement. `hole`: the id it is about; `part`: the bill's ref of the part; `justification` stands exactly
    with not_affected; `note`: for people, may be empty. `by` and `issued` (epoch seconds) come from its file."""

    hole: str
    part: str
    status: Status
    justification: Justification | None
    note: str
    by: str = ""
    issued: int = 0

    def __post_init__(self) -> None:
        if (self.justification is not None) != (self.status is Status.NOT_AFFECTED):
            raise Refused(CODE, "a justification goes with not_affected, and not_affected with a justification")
        for name, value in (("hole", self.hole), ("part", self.part), ("note", self.note)):
            if len(value) > MAX_TEXT or (name != "note" and not value) or not value.isprintable():
                raise Refused(CODE, f"the {name} of a statement is one line of at most {MAX_TEXT} characters")

    @property
    def text(self) -> str:
        """One line for people."""
        why = f" ({self.justification.word})" if self.justification is not None else ""
        return f"{self.status.word}{why}, says {self.by}"


def sign_statements(signer: Signer, bill_digest: bytes, statements: Sequence[Statement], issued: int) -> bytes:
    """The file of `statements` on the bill with that SHA-256, signed now (`issued`, epoch seconds)."""
    rows = [[one.hole, one.part, int(one.status), _number(one.justification), one.note] for one in statements]
    return sign1(signer, wire.encode([FORMAT, issued, bill_digest, rows]), typ=TYP).encode()


def _number(justification: Justification | None) -> int | None:
    return None if justification is None else int(justification)


def read_statements(data: bytes, *, trust: TrustDocument, bill_digest: bytes, now: int) -> tuple[Statement, ...]:
    """The statements in a file, signed by a quality key that counts at `now`, about this very bill.

    Raises `Malformed("sbom.statement")` for what is no such file; `Refused`: `key.unknown`, `key.purpose`,
    `key.revoked`, `key.expired`, `signature.*`, and `sbom.digest` for one about another bill.
    """
    if len(data) > MAX_FILE:
        raise Malformed(CODE, f"a statement file of {len(data)} bytes; at most {MAX_FILE} are read")
    message = read_sign1(data, code=CODE)
    role = trust.role(RoleName.QUALITY)
    entry = role.entry(message.kid) if role is not None and message.kid is not None else None
    if entry is None:
        listed = message.kid is not None and trust.find(message.kid)
        raise Refused("key.purpose" if listed else "key.unknown", "statements on holes are signed by a quality key")
    if trust.is_revoked(entry.thumbprint):
        raise Refused("key.revoked", f"{entry.person}'s key is revoked")
    if not entry.valid_at(now):
        raise Refused("key.expired", f"{entry.person}'s key is outside its validity")
    if message.algorithm not in EMITTED:
        raise Refused("signature.algorithm", "the statements are signed by an algorithm that is not allowed")
    fields = wire.decode(message.verify(entry.key, typ=TYP), code=CODE, max_depth=4)
    issued, bill, rows = _fields(fields)
    if bill != bill_digest:
        raise Refused("sbom.digest", "the statements are about another bill of materials")
    return tuple(_statement(row, entry.person, issued) for row in rows)


def _fields(value: Any) -> tuple[int, bytes, list[Any]]:
    if not isinstance(value, list) or len(value) != 4 or value[0] != FORMAT:
        raise Malformed(CODE, f"not statements of format {FORMAT}")
    _, issued, bill, rows = value
    if type(issued) is not int or issued < 0 or not isinstance(bill, bytes) or len(bill) != 32:
        raise Malformed(CODE, "statements without a time or without the digest of a bill")
    if not isinstance(rows, list) or not 0 < len(rows) <= MAX_STATEMENTS:
        raise Malformed(CODE, f"a file holds 1 to {MAX_STATEMENTS} statements")
    return issued, bill, rows


def _statement(row: Any, by: str, issued: int) -> Statement:
    kinds: list[tuple[type, ...]] = [(str,), (str,), (int,), (int, type(None)), (str,)]
    if not isinstance(row, list) or len(row) != len(kinds) or not all(map(_is, row, kinds)):
        raise Malformed(CODE, "a statement is hole, part, status, justification and note")
    hole, part, status, justification, note = row
    try:
        return Statement(
            hole,
            part,
            Status(status),
            None if justification is None else Justification(justification),
            note,
            by,
            issued,
        )
    except (ValueError, Refused) as error:
        raise Malformed(CODE, f"a statement that says nothing known: {error}") from None


def _is(field: object, kinds: tuple[type, ...]) -> bool:
    return type(field) in kinds


def newest(statements: Iterable[Statement]) -> dict[tuple[str, str], Statement]:
    """The last word on each hole and part; of two of one second the one that is worse for the release."""
    order = (Status.NOT_AFFECTED, Status.FIXED, Status.UNDER_INVESTIGATION, Status.AFFECTED)
    found: dict[tuple[str, str], Statement] = {}
    for one in sorted(statements, key=lambda one: (one.issued, order.index(one.status))):
        found[one.hole, one.part] = one
    return found
