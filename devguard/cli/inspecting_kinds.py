"""The kinds of file `devguard inspect` looks inside, SUIT apart: MCUboot, Intel HEX, grants, trust documents,
checkpoints, raw images; and what it says of the others.

Each reader of the room that owns the format does the work; here its values become fields for JSON.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from devguard.cli.inspecting import Keys, Report, Signed, check_signatures, ends, key_fields, published, read_small
from devguard.cli.times import iso
from devguard.image.kind import Kind

if TYPE_CHECKING:
    from devguard.cose.keys import CoseKey
    from devguard.grant.claims import Grant

_FAULT: Final = "handler of a fault"
_VECTORS: Final = (
    ("initial_stack_pointer", "where the stack begins"),
    ("reset", "where it starts"),
    ("nmi", "handler of the non-maskable interrupt"),
    ("hard_fault", _FAULT),
    ("memory_management", _FAULT),
    ("bus_fault", _FAULT),
    ("usage_fault", _FAULT),
    ("secure_fault", _FAULT),
    *((("", ""),) * 3),
    ("supervisor_call", "handler of calls into the system"),
    ("debug_monitor", "handler of the debugger"),
    ("", ""),
    ("pend_supervisor_call", "handler of switches between tasks"),
    ("system_tick", "handler of the system timer"),
)
"""The first sixteen words of an Arm Cortex-M image; what follows is the chip's own."""
_LAST_SECOND: Final = 253_402_300_799  # of the year 9999; a token may name later ones


def moment(seconds: int) -> str | int:
    """ISO 8601, or the seconds themselves where the calendar ends."""
    return iso(seconds) if seconds <= _LAST_SECOND else seconds


def describe(reader: BinaryIO, keys: Keys, report: Report) -> None:
    """Fields and problems of a file whose kind is known; `DevguardError` where nothing more can be read."""
    special = _KINDS.get(report.kind)
    if special is not None:
        special(reader, keys, report)
        return
    _measured(reader, report)
    if report.kind is Kind.UNKNOWN:
        what = "the file is empty" if not report.fields["size"] else "the content is of no kind devguard knows"
        report.problem("image.format", what, 0)
    elif report.kind is not Kind.RAW:
        report.fields["note"] = f"this version names {report.kind} files and does not look inside them"
    _unsigned(keys, report)


def _unsigned(keys: Keys, report: Report) -> None:
    if keys.cose is not None:
        check_signatures((), keys.cose, report)


def _measured(reader: BinaryIO, report: Report) -> None:
    from devguard.image.measure import measure

    head, _ = ends(reader)
    found = measure(reader)
    report.fields |= {"size": found.size, "sha256": found.digest.hex()}
    if report.kind is Kind.RAW:
        from devguard.image.places import place

        report.fields["initial_stack_pointer"] = int.from_bytes(head[:4], "little")
        report.fields["reset_vector"] = int.from_bytes(head[4:8], "little")
        words = [int.from_bytes(head[4 * index : 4 * index + 4], "little") for index in range(len(head) // 4)]
        report.fields["places"] = [
            place(4 * index, 4, name, word, meaning)
            for index, ((name, meaning), word) in enumerate(zip(_VECTORS, words, strict=False))
            if name
        ]


def _mcuboot(reader: BinaryIO, keys: Keys, report: Report) -> None:
    from devguard.image.mcuboot import PUBLISHED_TEST_KEYS, inspect_mcuboot

    found = inspect_mcuboot(reader, keys.mcuboot, keys.device)
    report.fields |= found.fields
    if keys.mcuboot is not None:
        origin = next(
            (PUBLISHED_TEST_KEYS[one.hex()] for one in keys.mcuboot.hashes if one.hex() in PUBLISHED_TEST_KEYS), None
        )
        report.fields["mcuboot_key"] = {"type": keys.mcuboot.name, "published_test_key": origin}
    if keys.encryption:
        report.fields["published_encryption_key"] = keys.encryption
    for one in found.problems:
        report.problem(one.code, one.detail, one.offset)
    _unsigned(keys, report)


def _described(module: str, function: str) -> Callable[[BinaryIO, Keys, Report], None]:
    """The reader of a format in room `image`, imported when a file of its kind is met."""

    def look(reader: BinaryIO, keys: Keys, report: Report) -> None:
        found = getattr(importlib.import_module(f"devguard.image.{module}"), function)(reader)
        report.fields |= found.fields
        for one in found.problems:
            report.problem(one.code, one.detail, one.offset)
        _unsigned(keys, report)

    return look


def _grant(reader: BinaryIO, keys: Keys, report: Report) -> None:
    from devguard.cose.sign import TYP_GRANT
    from devguard.grant.chain import read_chain
    from devguard.grant.claims import read_grant

    grant = read_grant(read_small(reader))
    report.fields |= _grant_fields(grant)

    def signed(index: int) -> Callable[[CoseKey], object]:
        return lambda key: grant.token.verify(index, key, TYP_GRANT)

    named = [Signed(kid, algorithm, signed(index)) for index, (kid, algorithm) in enumerate(grant.token.signatures)]
    check_signatures(named, keys.cose, report)
    report.fields["delegated_from"] = [_grant_fields(one) for one in read_chain(grant)[1:]]


def _grant_fields(grant: Grant) -> dict[str, Any]:
    scope = grant.scope
    return {
        "issuer": grant.issuer,
        "subject": grant.subject,
        "issued": moment(grant.issued),
        "not_before": moment(grant.not_before),
        "expires": moment(grant.expires),
        "cti": grant.cti.hex(),
        "holder": key_fields(grant.holder),
        "scope": {
            "models": sorted(scope.models),
            "serials": sorted(scope.serials),
            "sites": sorted(scope.sites),
            "actions": sorted(scope.actions),
            "release_digest": None if scope.release_digest is None else scope.release_digest.hex(),
            "sequences": None if scope.sequences is None else list(scope.sequences),
            "any_release": scope.any_release,
            "hours": "*" if scope.hours is None else list(scope.hours),
            "max_uses": "*" if scope.max_uses is None else scope.max_uses,
            "trained_until": "*" if scope.trained_until is None else moment(scope.trained_until),
            "epoch": scope.epoch,
            "device_nonce": None if scope.device_nonce is None else scope.device_nonce.hex(),
        },
        "any": list(scope.wide),
    }


def _trust(reader: BinaryIO, keys: Keys, report: Report) -> None:
    from devguard.cose.sign import TYP_TRUST, read_sign
    from devguard.trust.document import peek_trust
    from devguard.trust.show import as_dict

    data = read_small(reader)
    sign = read_sign(data, code="trust.malformed")

    def signed(index: int) -> Callable[[CoseKey], object]:
        return lambda key: sign.verify_one(index, key, typ=TYP_TRUST)

    named = [Signed(one.kid, one.algorithm, signed(index)) for index, one in enumerate(sign.signatures)]
    check_signatures(named, keys.cose, report)
    document, quorum = peek_trust(data)
    report.fields |= as_dict(document, quorum)
    held = [published(entry.thumbprint) for role in document.roles.values() for entry in role.keys]
    report.fields["published_test_keys"] = [one["published_test_key"] for one in held if one]
    if not quorum:
        report.problem("trust.signature", f"not signed by enough root persons: {quorum.explanation}")


def _checkpoint(reader: BinaryIO, keys: Keys, report: Report) -> None:
    from devguard.evidence.checkpoint import key_id, open_checkpoint, parse_text, read_note

    data = read_small(reader)
    note = read_note(data)
    head = parse_text(note.text)
    report.fields |= {"origin": head.origin, "size": head.size, "root": head.root.hex()}
    rows: list[dict[str, Any]] = [
        {"name": one.name, "key_id": one.key_id.hex(), "valid": None} for one in note.signatures
    ]
    report.fields["signatures"] = rows
    if keys.cose is not None:
        open_checkpoint(data, keys.cose)
        ours = key_id(head.origin, keys.cose).hex()
        for row in rows:
            row["valid"] = True if (row["name"], row["key_id"]) == (head.origin, ours) else None


_KINDS: Final[dict[Kind, Callable[[BinaryIO, Keys, Report], None]]] = {
    Kind.MCUBOOT: _mcuboot,
    Kind.IHEX: _described("ihex", "describe_ihex"),
    Kind.SREC: _described("srec", "describe_srec"),
    Kind.UF2: _described("uf2", "describe_uf2"),
    Kind.ELF: _described("elf", "describe_elf"),
    Kind.DFU: _described("dfu", "describe_dfu"),
    Kind.ESP: _described("esp", "describe_esp"),
    Kind.GRANT: _grant,
    Kind.TRUST: _trust,
    Kind.CHECKPOINT: _checkpoint,
}
