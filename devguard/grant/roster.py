"""The list of technicians as bytes, and the rows it shares with signed lists of suspensions. Reading, no deciding.

    ["devguard-technicians", format, epoch,
     [[name, person, COSE_Key, [site...], {model: until}]...], [[subject, person, at, suspended, reason, by]...],
     {token id: expiry}]

Deterministic CBOR in one encoding: rows in order, nobody twice. It is a station's own file and travels nowhere.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from devguard import wire
from devguard.cose.keys import CoseKey
from devguard.errors import Malformed, Refused
from devguard.grant.claims import CTI_SIZE, check_holder
from devguard.grant.cwt import MAX_TIME, number, text
from devguard.grant.scope import ANY, CODE, MAX_NAMES
from devguard.grant.technicians import Roster, Statement, Technician
from devguard.manifest.fields import NAME, NAME_HELP
from devguard.trust.model import MAX_EPOCH, same_person

FORMAT: Final = 1
MAX_ROSTER: Final = 1 << 20
MAX_ENTRIES: Final = 4096
_KIND: Final = "devguard-technicians"
_THUMBPRINT: Final = 32


def encode_roster(roster: Roster) -> bytes:
    """The one encoding of a roster."""
    technicians = [
        [one.name, one.person, one.key.to_map(), sorted(one.sites), dict(one.training)]
        for _, one in sorted(roster.technicians.items())
    ]
    statements = [
        [one.subject, one.person, one.at, one.suspended, one.reason, one.by]
        for one in in_order(roster.statements.values())
    ]
    return wire.encode([_KIND, FORMAT, roster.epoch, technicians, statements, dict(roster.revoked)])


def decode_roster(data: bytes) -> Roster:
    """The roster in `data`; `Malformed("grant.malformed")` for any other bytes."""
    if len(data) > MAX_ROSTER:
        raise Malformed(CODE, f"a list of technicians of {len(data)} bytes; at most {MAX_ROSTER} are read")
    value: Any = wire.decode(data, code=CODE)
    if not isinstance(value, list) or value[:1] != [_KIND] or len(value) < 2:
        raise Malformed(CODE, "not a list of technicians")
    if value[1] != FORMAT:
        raise Malformed(CODE, f"a list of technicians of format {value[1]}; known is {FORMAT}", "update devguard")
    if len(value) != 6:
        raise Malformed(CODE, "a list of technicians with other fields")
    technicians = [_technician(row) for row in rows(value[3], 5, "technicians")]
    statements = [
        statement(row, _short(row[4], "a reason"), _short(row[5], "who signed"))
        for row in rows(value[4], 6, "suspensions")
    ]
    roster = Roster(
        technicians={one.name: one for one in technicians},
        statements={one.subject: one for one in statements},
        revoked=revoked(value[5]),
        epoch=number(value[2], "the epoch", CODE, most=MAX_EPOCH),
    )
    if encode_roster(roster) != data or len({one.key.thumbprint for one in technicians}) != len(technicians):
        raise Malformed(CODE, "a list of technicians out of order, or with somebody twice")
    return roster


def in_order(statements: Iterable[Statement]) -> list[Statement]:
    """Statements in the order of their subjects' encodings."""
    return sorted(statements, key=lambda one: wire.encode(one.subject))


def rows(value: object, size: int, what: str) -> list[list[Any]]:
    """`value` as rows of `size` fields."""
    if not isinstance(value, list) or len(value) > MAX_ENTRIES:
        raise Malformed(CODE, f"the {what} are not a list of at most {MAX_ENTRIES}")
    if not all(isinstance(row, list) and len(row) == size for row in value):
        raise Malformed(CODE, f"the {what} are not rows of {size}")
    return value


def statement(row: list[Any], reason: str = "", by: str = "") -> Statement:
    """The statement of a row that begins [subject, person, at, suspended]."""
    subject, person = row[0], text(row[1], "a person", CODE)
    is_key = isinstance(subject, bytes) and len(subject) == _THUMBPRINT
    if not is_key and subject != same_person(person):
        raise Malformed(CODE, "a suspension is of a person or of a key")
    if not isinstance(row[3], bool):
        raise Malformed(CODE, "a suspension is neither said nor lifted")
    return Statement(subject, person, number(row[2], "a suspension's time", CODE), row[3], reason, by)


def revoked(value: object) -> dict[bytes, int]:
    """A map of token ids to the times at which the grants expire."""
    if not isinstance(value, dict) or len(value) > MAX_ENTRIES:
        raise Malformed(CODE, f"the revoked grants are not a map of at most {MAX_ENTRIES}")
    if not all(isinstance(cti, bytes) and len(cti) == CTI_SIZE for cti in value):
        raise Malformed(CODE, "a revoked grant is named by its token id")
    return {cti: number(expires, "an expiry", CODE) for cti, expires in value.items()}


def technician_name(value: object) -> str:
    """`value` as what a list may call somebody."""
    if not isinstance(value, str) or not NAME.fullmatch(value):
        raise Malformed(CODE, f"{str(value)[:80]!r} is no name for a list of technicians: {NAME_HELP}")
    return value


def make_technician(name: str, person: str, key: CoseKey, sites: Iterable[str], training: dict[str, int]) -> Technician:
    """A technician of values from outside; `grant.malformed`, `signature.algorithm` for a key nobody can work with."""
    check_holder(key)
    return _technician([name, person, key.to_map(), sorted(sites), training])


def _technician(row: list[Any]) -> Technician:
    name, person, key_map, sites, training = row
    if not isinstance(sites, list) or len(sites) > MAX_NAMES or (ANY in sites and len(sites) > 1):
        raise Malformed(CODE, f"the sites are not a list of at most {MAX_NAMES} names, or name others beside *")
    if not isinstance(training, dict) or len(training) > MAX_NAMES:
        raise Malformed(CODE, f"training is not a map of at most {MAX_NAMES} models")
    try:
        key = CoseKey.from_map(key_map, CODE)
        check_holder(key)
    except Refused as error:
        raise Malformed(CODE, f"a technician's key: {error.message}") from None
    return Technician(
        technician_name(name),
        text(person, "a person", CODE),
        key,
        frozenset(text(site, "a site", CODE) for site in sites),
        {
            text(model, "a model", CODE): number(until, "the end of a training", CODE, most=MAX_TIME)
            for model, until in training.items()
        },
    )


def _short(value: object, what: str) -> str:
    return "" if value == "" else text(value, what, CODE)
