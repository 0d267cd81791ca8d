"""Counters as stored bytes: one deterministic CBOR map, format version first.

Labels are locked: a field is added under a new label and a new format version, never changed. Whatever does not
parse to the last field is `Refused("device.state")`; a damaged store is never guessed at.
"""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import Any, Final

from devguard import wire
from devguard.device import fields
from devguard.device.audit import MAX_TEXT, AuditRing
from devguard.device.counters import Counters, Download, Outcome, Staging
from devguard.device.header import SlotHeader
from devguard.errors import Refused
from devguard.grant.scope import NONCE_SIZES
from devguard.grant.uses import SPENT_LIMIT, Spent

FORMAT: Final = 3
_LABELS: Final = {1: range(18), 2: range(19), FORMAT: range(22)}
_WHAT: Final = "counters"
_SIZE: Final = (1 << 32) - 1


def encode_counters(counters: Counters) -> bytes:
    """Deterministic CBOR of all counters."""
    download, outcome = counters.download, counters.outcome
    return wire.encode(
        {
            0: FORMAT,
            1: counters.security_version,
            2: counters.installed_sequence,
            3: counters.installed_digest,
            4: counters.clock_floor,
            5: counters.grant_epoch,
            6: counters.trust_version,
            7: {cti: [entry.manifest_digest, entry.uses, entry.expires] for cti, entry in counters.spent.items()},
            8: counters.nonce,
            9: counters.audit.to_list(),
            10: list(counters.erase_times),
            11: counters.failed_handshakes,
            12: counters.sealed and counters.sealed.to_list(),
            13: counters.previous and counters.previous.to_list(),
            14: counters.pending and counters.pending.to_list(),
            15: download and [download.manifest_digest, download.size, download.offset, download.erased],
            16: outcome and [outcome.manifest_digest, outcome.code, outcome.time],
            17: counters.settings_before,
            18: download and [download.dirty, _staging_list(download.staging)],
            19: counters.installed_manifest,
            20: counters.epoch_reset and list(counters.epoch_reset),
            21: counters.history_before,
        }
    )


def decode_counters(data: bytes) -> Counters:
    """The counters in `data`; `Refused("device.state")` for anything else."""
    value = fields.load(data, _WHAT)
    if isinstance(value, dict) and isinstance(value.get(0), int) and value[0] > FORMAT:
        raise Refused("device.state", "counters of a newer format than this devguard knows", "update devguard")
    known = value.get(0) if isinstance(value, dict) else None
    if type(known) is not int or known not in _LABELS:
        raise fields.damaged(_WHAT)
    parts = fields.fields(value, _LABELS[known], _WHAT)
    sealed = _header(parts[12])
    return Counters(
        security_version=fields.uint(parts[1], _WHAT, (1 << 31) - 1),
        installed_sequence=fields.uint(parts[2], _WHAT),
        installed_digest=_optional_digest(parts[3]),
        clock_floor=fields.uint(parts[4], _WHAT),
        grant_epoch=fields.uint(parts[5], _WHAT),
        trust_version=fields.uint(parts[6], _WHAT),
        spent=_spent(parts[7]),
        nonce=None if parts[8] is None else fields.blob(parts[8], _WHAT, *NONCE_SIZES),
        audit=AuditRing.from_list(parts[9]),
        erase_times=tuple(fields.uint(time, _WHAT) for time in fields.items(parts[10], _WHAT, limit=64)),
        failed_handshakes=fields.uint(parts[11], _WHAT),
        sealed=sealed,
        previous=_header(parts[13]),
        pending=_header(parts[14]),
        download=_download(parts[15], parts.get(18), known),
        outcome=_outcome(parts[16]),
        settings_before=_optional_digest(parts[17]),
        installed_manifest=_optional_digest(parts[19]) if known == FORMAT else _running(sealed, parts[2]),
        epoch_reset=_reset(parts.get(20)),
        history_before=_optional_digest(parts.get(21)),
    )


def _digest(value: Any) -> bytes:
    return fields.blob(value, _WHAT, 32, 48, 64)


def _optional_digest(value: Any) -> bytes | None:
    return None if value is None else _digest(value)


def _header(value: Any) -> SlotHeader | None:
    return None if value is None else SlotHeader.from_list(value)


def _reset(value: Any) -> tuple[int, int] | None:
    if value is None:
        return None
    version, epoch = fields.items(value, _WHAT, count=2)
    return fields.uint(version, _WHAT), fields.uint(epoch, _WHAT)


def _running(sealed: SlotHeader | None, installed: object) -> bytes | None:
    """What an earlier format says of the release confirmed last: its manifest digest while it is what runs."""
    return sealed.manifest_digest if sealed is not None and sealed.sequence == installed else None


def _spent(value: Any) -> MappingProxyType[bytes, Spent]:
    if not isinstance(value, dict) or len(value) > SPENT_LIMIT:
        raise fields.damaged(_WHAT)
    spent = {}
    for cti, entry in value.items():
        digest, uses, expires = fields.items(entry, _WHAT, count=3)
        spent[fields.blob(cti, _WHAT, limit=64)] = Spent(
            _digest(digest), fields.uint(uses, _WHAT), fields.uint(expires, _WHAT)
        )
    return MappingProxyType(spent)


def _staging_list(staging: Staging | None) -> list[object] | None:
    if staging is None:
        return None
    return [staging.encoding, staging.size, staging.digest, staging.offset, staging.erased]


def _download(value: Any, encoded: Any, known: int) -> Download | None:
    if value is None:
        if encoded is not None:
            raise fields.damaged(_WHAT)
        return None
    digest, size, offset, erased = fields.items(value, _WHAT, count=4)
    whole = fields.uint(size, _WHAT, _SIZE)
    plain = Download(_digest(digest), whole, fields.uint(offset, _WHAT, whole), fields.flag(erased, _WHAT))
    if known == 1:
        return plain
    dirty, staging = fields.items(encoded, _WHAT, count=2)
    return replace(plain, dirty=fields.flag(dirty, _WHAT), staging=_staging(staging))


def _staging(value: Any) -> Staging | None:
    if value is None:
        return None
    encoding, size, digest, offset, erased = fields.items(value, _WHAT, count=5)
    whole = fields.uint(size, _WHAT, _SIZE)
    return Staging(
        fields.uint(encoding, _WHAT, 255),
        whole,
        fields.blob(digest, _WHAT, 32),
        fields.uint(offset, _WHAT, whole),
        fields.flag(erased, _WHAT),
    )


def _outcome(value: Any) -> Outcome | None:
    if value is None:
        return None
    digest, code, time = fields.items(value, _WHAT, count=3)
    return Outcome(
        _digest(digest),
        None if code is None else fields.text(code, _WHAT, MAX_TEXT),
        fields.uint(time, _WHAT),
    )
