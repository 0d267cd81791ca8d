"""`devguard release new|build|sign`: from a description a person reviewed to an envelope people have signed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from devguard.cli.context import Command, Invocation, passphrase_option
from devguard.cli.publish import publish
from devguard.cli.record import recorded
from devguard.errors import DevguardError, Malformed, Refused

if TYPE_CHECKING:
    from devguard.cose.keys import CoseKey
    from devguard.custody.keyfile import KeyInfo
    from devguard.image.flat import FlatImage
    from devguard.image.measure import Measured
    from devguard.manifest.description import ComponentDescription, ReleaseDescription
    from devguard.manifest.envelope import Envelope
    from devguard.trust.document import TrustDocument
    from devguard.trust.quorum import ReleaseQuorum

DESCRIPTION_LIMIT = 256 * 1024
MANIFESTS = Path("firmware_manifests")


@click.group()
def release() -> None:
    """Describe, build and sign a release."""


@release.command("new", cls=Command)
@click.argument("model")
@click.argument("version")
@click.pass_obj
def new(invocation: Invocation, model: str, version: str) -> None:
    """Scaffold firmware_manifests/MODEL/VERSION.toml for a person to complete."""
    from devguard.custody.files import write_new
    from devguard.device.models import load_model
    from devguard.manifest.description import parse_description, scaffold

    known = load_model(model)
    text = scaffold(model, version, known.facts.vendor, known.default_revision).encode()
    parse_description(text)
    path = MANIFESTS / model / f"{version}.toml"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Refused("file.unreadable", f"cannot create {path.parent}: {error.strerror}") from error
    write_new(path, text, exists="release.duplicate")
    invocation.result(
        {"path": str(path), "model": model, "version": version},
        f"written to {path}\nnext: put the image beside it, complete the file, "
        f"then devguard release build {path} -o FILE.suit",
    )


def _image(
    folder: Path, component: ComponentDescription, description: ReleaseDescription, stack: ExitStack
) -> FlatImage:
    """The flat image of one component, open at position 0, and what a person should know of how it was read."""
    from devguard.cli.files import inside, open_input
    from devguard.device.models import load_model
    from devguard.image.flat import flatten

    file = stack.enter_context(open_input(inside(folder, component.path)))
    facts = load_model(description.model).facts
    return flatten(file, fmt=component.format, flash=facts.flash, ignore=component.ignore_ranges)


def _sbom(folder: Path, description: ReleaseDescription, stack: ExitStack) -> Measured | None:
    """What was measured of the bill of materials that the description names."""
    from devguard.cli.files import inside, open_input
    from devguard.image.measure import measure

    if description.sbom is None:
        return None
    return measure(stack.enter_context(open_input(inside(folder, description.sbom))))


@release.command("build", cls=Command)
@click.argument("description", type=click.Path(path_type=Path))
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True, help="The envelope to write.")
@click.option("--detached", is_flag=True, help="Leave the image out of the envelope; it travels beside it.")
@click.pass_obj
def build(invocation: Invocation, description: Path, out: Path, detached: bool) -> None:
    """Build an unsigned envelope FILE.suit from a DESCRIPTION.toml."""
    from devguard.custody.files import read_limited, write_streamed
    from devguard.device.models import load_model
    from devguard.image.measure import measure
    from devguard.manifest.build import build_envelope
    from devguard.manifest.description import parse_description
    from devguard.manifest.envelope import write_envelope

    described = parse_description(read_limited(description, DESCRIPTION_LIMIT))
    facts = load_model(described.model).facts
    with ExitStack() as stack:
        readers: dict[str, BinaryIO] = {}
        measured: dict[str, Measured] = {}
        notes: list[str] = []
        for component in described.components:
            image = _image(description.parent, component, described, stack)
            readers[f"#{component.id}"] = image.reader
            measured[component.id] = measure(image.reader)
            image.reader.seek(0)
            notes += [f"{component.id}: {note}" for note in image.notes]
        sbom = _sbom(description.parent, described, stack)
        envelope = build_envelope(described, facts, measured, detached=detached, sbom=sbom)
        write_streamed(out, lambda file: write_envelope(envelope, {} if detached else readers, file))
    result = {
        "path": str(out),
        "model": described.model,
        "version": described.version,
        "sequence": described.sequence,
        "manifest_digest": envelope.manifest_digest.hex(),
        "signing": dict(described.thresholds),
        "notes": notes,
        "components": {name: {"digest": one.digest.hex(), "size": one.size} for name, one in measured.items()},
    }
    lines = [f"{described.model} {described.version} (sequence {described.sequence}) built: {out}, not signed yet"]
    lines += [f"  {name}: {one.size} bytes, sha256 {one.digest.hex()}" for name, one in measured.items()]
    lines += [f"  note, {note}" for note in notes]
    asked = ", ".join(f"{count} {role}" for role, count in described.thresholds.items())
    lines += [f"  asks for signatures: {asked}; the trust document decides"] if asked else []
    lines += [f"  manifest digest {envelope.manifest_digest.hex()}", f"next: devguard release sign {out} --key KEY"]
    invocation.result(result, "\n".join(lines))


@release.command("sign", cls=Command)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--key", "reference", metavar="KEY", help="A release or quality key, by file, name or pkcs11: URI.")
@click.option("--trust", "trust_file", type=click.Path(path_type=Path), help="To show what is still missing.")
@click.option("--digest-only", is_flag=True, help="Write what a signer elsewhere needs: digest and manifest, no image.")
@click.option("--attach", type=click.Path(path_type=Path), metavar="SIG", help="Add a signature made elsewhere.")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Write the signature (or the digest) to this file.")
@passphrase_option
@click.pass_obj
def sign(
    invocation: Invocation,
    file: Path,
    reference: str | None,
    trust_file: Path | None,
    digest_only: bool,
    attach: Path | None,
    out: Path | None,
    passphrase_fd: int | None,
) -> None:
    """Add one person's signature to FILE and show what is still missing.

    Where the key is on a machine that never sees the release: --digest-only writes FILE.digest; there, sign it with
    --key and -o SIG; here, --attach SIG adds the signature after it has verified.
    """
    if digest_only and attach is not None:
        raise click.UsageError("--digest-only and --attach are two different steps")
    trust = _trust_if_any(invocation, trust_file)
    if digest_only:
        _digest_only(invocation, file, reference, trust, out)
        return
    if attach is not None:
        if out is not None:
            raise click.UsageError("--attach writes into FILE; -o goes with a signature or a digest")
        _attach(invocation, file, attach, reference, trust)
        return
    if reference is None:
        raise click.UsageError("Missing option '--key' / --digest-only / --attach")
    signer = invocation.signer(reference, passphrase_fd)
    _check_role(reference, signer.info)

    def make(envelope: Envelope) -> bytes:
        from devguard.cose.sign import sign1
        from devguard.manifest.envelope import signature_payload

        _refuse_second(envelope, signer.key.thumbprint, signer.info.person, trust)
        return sign1(signer, signature_payload(envelope), typ=None, detached=True).encode()

    who = (signer.info.person, signer.info.role, signer.key)
    _add(invocation, file, who, trust, make, out)


def _check_role(reference: str, info: KeyInfo) -> None:
    if info.role not in ("release", "quality"):
        raise Refused(
            "key.purpose", f"{reference} is a {info.role} key; releases are signed by release and quality keys"
        )


def _digest_only(
    invocation: Invocation, file: Path, reference: str | None, trust: TrustDocument | None, out: Path | None
) -> None:
    from devguard.cli.files import open_input
    from devguard.cli.release_apart import summary, summary_lines, target, without_payload
    from devguard.custody.files import write_atomic
    from devguard.manifest.envelope import read_envelope

    with open_input(file) as stream:
        envelope = read_envelope(stream)
    facts = summary(envelope)
    if reference is not None:
        info = invocation.home.key_info(reference)
        _check_role(reference, info)
        _refuse_second(envelope, info.key.thumbprint, info.person, trust)
    path = target(file, out, ".digest")
    write_atomic(path, without_payload(envelope))
    lines = [f"for a signer elsewhere: {path}", *summary_lines(facts)]
    lines.append(f"there: devguard release sign {path.name} --key KEY -o {path.stem}.sig")
    lines.append(f"then here: devguard release sign {file} --attach {path.stem}.sig")
    invocation.result({"path": str(path), **facts}, "\n".join(lines))


def _attach(
    invocation: Invocation, file: Path, attach: Path, reference: str | None, trust: TrustDocument | None
) -> None:
    from devguard.cli.release_apart import read_signature, signer_of
    from devguard.manifest.envelope import signature_payload

    block, message = read_signature(attach)
    given = None if reference is None else invocation.home.key_info(reference)
    who = signer_of(message, None if given is None else (given.person, given.role, given.key), trust)

    def make(envelope: Envelope) -> bytes:
        _refuse_second(envelope, who[2].thumbprint, who[0], trust)
        message.verify(who[2], payload=signature_payload(envelope))
        return block

    _add(invocation, file, who, trust, make, None)


def _add(
    invocation: Invocation,
    file: Path,
    who: tuple[str, str, CoseKey],
    trust: TrustDocument | None,
    make: Callable[[Envelope], bytes],
    out: Path | None,
) -> None:
    """Make one signature of `who`, into FILE or (with `out`) a file of its own; recorded before it takes effect."""
    from devguard.cli.files import open_input
    from devguard.cli.release_apart import summary, summary_lines, target
    from devguard.custody.files import write_atomic
    from devguard.manifest.envelope import add_signature, check_digest, read_envelope

    with recorded(invocation, "release.sign", actor=who[0]) as note, open_input(file) as stream:
        envelope = read_envelope(stream)
        check_digest(envelope)
        note.manifest(envelope.manifest_digest)
        facts = None if out is None else summary(envelope)
        path = file if out is None else target(file, out, ".sig")
        block = make(envelope)
        signed = add_signature(envelope, block)
        note.commit()
        if out is None:
            _rewrite(file, stream, signed)
        else:
            write_atomic(path, block)
    state = _missing(signed, trust, invocation.now()) if trust is not None else None
    person, role, key = who
    result = {
        "path": str(path),
        "signed_by": {"person": person, "role": role, "alg": key.algorithm.label, "key": key.fingerprint},
        "signatures": len(signed.auth_blocks),
        "complete": None if state is None else bool(state),
        "missing": None if state is None or state else state.explanation,
    }
    text = _signed_text(path, (person, role, key.algorithm.label), state)
    if facts is not None:
        result["signed"] = facts
        text = "\n".join([*summary_lines(facts), text, f"there: devguard release sign FILE.suit --attach {path.name}"])
    invocation.result(result, text)


def _signed_text(file: Path, who: tuple[str, str, str], state: ReleaseQuorum | None) -> str:
    lines = [f"{file}: signed by {who[0]} ({who[1]}, {who[2]})"]
    if state is None:
        lines.append("no trust document here to count against; give one with --trust to see what is missing")
    elif state:
        lines.append("all signatures the trust document asks for are there; next: devguard verify")
    else:
        lines.append(f"still missing: {state.explanation}")
    return "\n".join(lines)


def _trust_if_any(invocation: Invocation, given: Path | None) -> TrustDocument | None:
    if given is None and not invocation.home.trust_file.is_file():
        return None
    return invocation.home.trust(given)


def _kids(envelope: Envelope) -> list[bytes]:
    from devguard.cose.sign import read_sign1

    found = []
    for block in envelope.auth_blocks:
        try:
            kid = read_sign1(block).kid
        except DevguardError as error:
            raise Malformed("envelope.malformed", f"an authentication block does not parse: {error.message}") from error
        if kid is not None:
            found.append(kid)
    return found


def _refuse_second(envelope: Envelope, thumbprint: bytes, person: str, trust: TrustDocument | None) -> None:
    """The same key twice never helps; the same person twice helps no role."""
    from devguard.trust.model import same_person

    kids = _kids(envelope)
    if thumbprint in kids:
        raise Refused("release.duplicate", "this key has signed the release already")
    if trust is not None:
        for kid in kids:
            if any(same_person(entry.person) == same_person(person) for _, entry in trust.find(kid)):
                raise Refused("release.duplicate", f"{person} has signed the release already with another key")


def _missing(envelope: Envelope, trust: TrustDocument, now: int) -> ReleaseQuorum:
    """How far the signatures have come; those that do not verify are not counted."""
    from devguard.cose.sign import read_sign1
    from devguard.manifest.envelope import signature_payload
    from devguard.trust.quorum import count_release

    verified = []
    for block in envelope.auth_blocks:
        message = read_sign1(block)
        entries = trust.find(message.kid) if message.kid is not None else []
        for _, entry in entries[:1]:
            try:
                message.verify(entry.key, payload=signature_payload(envelope))
            except Refused:
                continue
            verified.append((entry.thumbprint, message.algorithm))
    return count_release(trust, verified, now)


def _rewrite(file: Path, stream: BinaryIO, envelope: Envelope) -> None:
    from devguard.cli.files import payload_reader
    from devguard.custody.files import write_streamed
    from devguard.manifest.envelope import write_envelope

    readers: dict[str, Any] = {name: payload_reader(stream, envelope, name) for name in envelope.payloads}
    write_streamed(file, lambda out: write_envelope(envelope, readers, out))


release.add_command(publish)
