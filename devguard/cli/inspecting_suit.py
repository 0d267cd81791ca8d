"""What `devguard inspect` finds in a SUIT envelope or a bare manifest, anybody's, not only devguard's.

draft-ietf-suit-manifest-37: the wrapper's digest, severed members, authentication blocks and integrated payloads are
compared with what the manifest says. A manifest outside devguard's release profile is described and no problem;
whether a release may be installed is `verify`'s answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from devguard.cli.inspecting import Keys, Report, Signed, check_signatures, read_small
from devguard.cli.inspecting_manifest import digest_fields, manifest_fields
from devguard.errors import DevguardError, Malformed
from devguard.image.kind import Kind
from devguard.image.measure import measure
from devguard.manifest.codec import MANIFEST_TAG, CommandSequence, Manifest, decode_manifest, read_manifest, resolve
from devguard.manifest.envelope import Envelope, check_digest, read_envelope, signature_payload
from devguard.manifest.suit import (
    HASHES,
    Command,
    Digest,
    Parameter,
    Section,
)

if TYPE_CHECKING:
    from devguard.cose.keys import CoseKey

_CODE: Final = "envelope.malformed"
_MAC_TAGS: Final = (b"\xd1", b"\xd8\x61")
_FETCHING: Final = (Section.DEPENDENCY_RESOLUTION, Section.PAYLOAD_FETCH, Section.INSTALL, Section.LOAD)


def describe(reader: BinaryIO, keys: Keys, report: Report) -> None:
    """Fields and problems of an envelope or manifest; `DevguardError` where nothing more can be read."""
    if report.kind is Kind.SUIT_MANIFEST:
        _bare_manifest(read_small(reader), report)
        check_signatures((), keys.cose, report)
        return
    envelope = read_envelope(reader)
    report.fields |= {
        "tagged": envelope.tagged,
        "manifest_digest": digest_fields(Digest(envelope.digest_algorithm, envelope.digest)),
    }
    if not envelope.tagged:
        report.problem(_CODE, "the envelope lacks its CBOR tag 107: `verify` refuses it", 0)
    manifest = _manifest(envelope, report)
    check_signatures(_signatures(envelope, report), keys.cose, report)
    if manifest is not None:
        _payloads(reader, envelope, manifest, report)
        if not report.problems:
            _profile(envelope, report)


def _bare_manifest(data: bytes, report: Report) -> None:
    tagged = data[:1] == b"\xd9"
    manifest = read_manifest(data) if tagged else decode_manifest(data)
    report.fields |= {"tagged": tagged, "manifest": manifest_fields(manifest)}
    report.fields["note"] = f"a manifest without envelope (tag {MANIFEST_TAG}): nobody has signed it"


def _manifest(envelope: Envelope, report: Report) -> Manifest | None:
    """The manifest as values, shown even where the wrapper does not cover it; None when it does not parse."""
    try:
        check_digest(envelope)
    except Malformed as error:
        report.error(error)
    try:
        manifest = decode_manifest(envelope.manifest)
    except DevguardError as error:
        report.error(error)
        return None
    try:
        manifest = resolve(manifest, envelope.severable)
    except DevguardError as error:
        report.error(error)
    report.fields["manifest"] = manifest_fields(manifest)
    return manifest


# signatures


def _signatures(envelope: Envelope, report: Report) -> list[Signed]:
    found: list[Signed] = []
    covered = signature_payload(envelope)
    for index, block in enumerate(envelope.auth_blocks):
        try:
            found += _block(block, covered, report)
        except Malformed as error:
            report.problem(error.code, f"authentication block {index}: {error.message}")
    return found


def _block(block: bytes, covered: bytes, report: Report) -> list[Signed]:
    """The signatures of a COSE_Sign1 or COSE_Sign block over the encoded digest; a MAC block is only noted."""
    from devguard.cose.sign import read_sign, read_sign1

    if block.startswith(_MAC_TAGS):
        report.fields["note"] = "an authentication block is a MAC, which this version does not check"
        return []
    if block.startswith(b"\xd8\x62"):
        many = read_sign(block, code=_CODE)
        _detached(many.payload)

        def one_of(index: int) -> Callable[[CoseKey], object]:
            return lambda key: many.verify_one(index, key, payload=covered, typ=None)

        return [Signed(one.kid, one.algorithm, one_of(index)) for index, one in enumerate(many.signatures)]
    single = read_sign1(block, code=_CODE)
    _detached(single.payload)
    return [Signed(single.kid, single.algorithm, lambda key: single.verify(key, payload=covered, typ=None))]


def _detached(payload: bytes | None) -> None:
    if payload is not None:
        raise Malformed(_CODE, "its payload is the digest in the wrapper and may not stand in the block")


# payloads


def _payloads(reader: BinaryIO, envelope: Envelope, manifest: Manifest, report: Report) -> None:
    """Measure every integrated payload and compare it with the digests the manifest fetches it under."""
    claims = fetched(manifest)
    rows: dict[str, Any] = {}
    for name, payload in envelope.payloads.items():
        expected = claims.get(name, [])
        algorithms = {digest.algorithm for digest, _ in expected} & set(HASHES) or {-16}
        row: dict[str, Any] = {"offset": payload.offset, "size": payload.size}
        reached = not expected
        for algorithm in sorted(algorithms, reverse=True):
            reader.seek(payload.offset)
            found = Digest(algorithm, measure(reader, payload.size, algorithm).digest)
            row[HASHES[algorithm]] = found.value.hex()
            reached = reached or any(one == found and size in (None, payload.size) for one, size in expected)
        rows[name] = row
        if expected:
            row["matches"] = reached
        if not reached:
            _mismatch(name, payload.offset, payload.size, expected, report)
        elif name not in claims and not _severed(manifest):
            report.problem(
                "image.digest", f"no command fetches payload {name}: nothing signed covers it", payload.offset
            )
    report.fields["payloads"] = rows


def _severed(manifest: Manifest) -> bool:
    return any(isinstance(manifest.section(section), Digest) for section in _FETCHING)


def _mismatch(name: str, offset: int, size: int, expected: list[tuple[Digest, int | None]], report: Report) -> None:
    if all(wanted not in (None, size) for _, wanted in expected):
        report.problem("image.size", f"payload {name} has {size} bytes, the manifest says {expected[0][1]}", offset)
    else:
        report.problem("image.digest", f"payload {name} is not the one whose digest the manifest holds", offset)


def fetched(manifest: Manifest) -> dict[str, list[tuple[Digest, int | None]]]:
    """What each URI is fetched as: (digest, size) of every branch that fetches it, where it sets a digest.

    A reader's walk, not an execution: all branches of a try-each are followed, each from where it stands. Enough to
    compare a payload with; what a device would do is the interpreter's to say.
    """
    found: dict[str, list[tuple[Digest, int | None]]] = {}
    count = len(manifest.common.components)
    start: list[dict[int, object]] = [{} for _ in range(count)]
    if manifest.common.shared is not None:
        _walk(manifest.common.shared, start, {}, tuple(range(count)))
    for section in _FETCHING:
        commands = manifest.section(section)
        if isinstance(commands, tuple):
            _walk(commands, [dict(one) for one in start], found, tuple(range(count)))
    return found


def _walk(
    sequence: CommandSequence,
    parameters: list[dict[int, object]],
    found: dict[str, list[tuple[Digest, int | None]]],
    selected: tuple[int, ...],
) -> None:
    for code, argument in sequence:
        if code == Command.DIRECTIVE_SET_COMPONENT_INDEX:
            selected = _selected(argument, len(parameters))
        elif code == Command.DIRECTIVE_OVERRIDE_PARAMETERS and isinstance(argument, Mapping):
            for index in selected:
                parameters[index].update(argument)
        elif code == Command.DIRECTIVE_RUN_SEQUENCE and isinstance(argument, tuple):
            _walk(argument, parameters, found, selected)
        elif code == Command.DIRECTIVE_TRY_EACH and isinstance(argument, tuple):
            for branch in argument:
                _walk(branch or (), parameters, found, selected)
        elif code == Command.DIRECTIVE_FETCH:
            for index in selected:
                _fetch(parameters[index], found)


def _selected(argument: object, count: int) -> tuple[int, ...]:
    if argument is True:
        return tuple(range(count))
    indices = argument if isinstance(argument, list) else [argument]
    return tuple(index for index in indices if type(index) is int and 0 <= index < count)


def _fetch(values: Mapping[int, object], found: dict[str, list[tuple[Digest, int | None]]]) -> None:
    uri, digest, size = (values.get(key) for key in (Parameter.URI, Parameter.IMAGE_DIGEST, Parameter.IMAGE_SIZE))
    if not isinstance(uri, str):
        return
    known = found.setdefault(uri, [])
    if isinstance(digest, bytes):
        claim = (Digest.decode(digest), size if type(size) is int else None)
        if claim not in known:
            known.append(claim)


def _profile(envelope: Envelope, report: Report) -> None:
    """What the release is, where the manifest is one of devguard's profile."""
    from devguard.manifest.release import release_facts

    try:
        facts = release_facts(envelope)
    except DevguardError as error:
        report.fields["release"] = None
        report.fields["profile"] = error.message
        return
    text = facts.text
    report.fields["release"] = {
        "vendor": None if text is None else text.vendor,
        "model": None if text is None else text.model,
        "revisions": None if text is None else list(text.revisions),
        "version": facts.version,
        "sequence": facts.sequence,
        "security_version": facts.security_version,
        "components": {one.id: {"digest": one.digest.hex(), "size": one.size} for one in facts.components},
        "serial_bound": bool(facts.device_ids),
        "use_before": facts.use_before,
        "minimum_battery_mwh": facts.minimum_battery_mwh,
        "therapy_idle": facts.therapy_idle,
        "two_technicians": facts.two_technicians,
        "requires_version": facts.requires_version,
        "sbom_digest": None if facts.sbom_digest is None else facts.sbom_digest.hex(),
        "test_report_digest": None if facts.test_report_digest is None else facts.test_report_digest.hex(),
    }
