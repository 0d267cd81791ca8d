"""`devguard release sign`: one person's signature, made here or elsewhere, into an envelope nobody else is changing.

Who signs, and what, is on record before the envelope changes; so is every refusal, a wrong passphrase among them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from devguard.cli.context import Command, Invocation, passphrase_option
from devguard.cli.inside import check_inside, inside_options
from devguard.cli.record import Note, recorded

if TYPE_CHECKING:
    from devguard.cli.release_apart import Signer
    from devguard.manifest.envelope import Envelope
    from devguard.trust.document import TrustDocument
    from devguard.trust.quorum import ReleaseQuorum

Outcome = tuple[dict[str, Any], str]


@click.command("sign", cls=Command)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--key", "reference", metavar="KEY", help="A release or quality key, by file, name or pkcs11: URI.")
@click.option("--trust", "trust_file", type=click.Path(path_type=Path), help="To show what is still missing.")
@click.option("--digest-only", is_flag=True, help="Write what a signer elsewhere needs: digest and manifest, no image.")
@click.option("--attach", type=click.Path(path_type=Path), metavar="SIG", help="Add a signature made elsewhere.")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Write the signature (or the digest) to this file.")
@inside_options
@passphrase_option
@click.pass_obj
def sign(
    invocation: Invocation,
    /,
    file: Path,
    reference: str | None,
    trust_file: Path | None,
    digest_only: bool,
    attach: Path | None,
    out: Path | None,
    passphrase_fd: int | None,
    **inside: Any,
) -> None:
    """Add one person's signature to FILE and show what is still missing.

    Where the key is on a machine that never sees the release: --digest-only writes FILE.digest; there, sign it with
    --key and -o SIG; here, --attach SIG adds the signature after it has verified.

    With --known-exploited (or config.toml) nobody signs a release with a part that is known to be exploited.
    """
    if digest_only and attach is not None:
        raise click.UsageError("--digest-only and --attach are two different steps")
    if attach is not None and out is not None:
        raise click.UsageError("--attach writes into FILE; -o goes with a signature or a digest")
    if reference is None and attach is None and not digest_only:
        raise click.UsageError("Missing option '--key' / --digest-only / --attach")
    action = "release.digest" if digest_only else "release.sign"
    with recorded(invocation, action, only_where_kept=digest_only) as note:
        trust = trust_if_any(invocation, trust_file)
        if digest_only:
            done = _digest_only(invocation, note, file, reference, trust, out)
        elif attach is not None:
            done = _attach(invocation, note, file, attach, reference, trust)
        else:
            _look_inside(invocation, note, file, inside, trust)
            done = _with_key(invocation, note, file, reference or "", passphrase_fd, trust, out)
    invocation.result(*done)


def _look_inside(
    invocation: Invocation, note: Note, file: Path, wish: dict[str, Any], trust: TrustDocument | None
) -> None:
    from devguard.cli.files import open_input
    from devguard.manifest.envelope import read_envelope
    from devguard.manifest.release import release_facts

    if not any(wish.values()) and (trust is None or not trust.require_sbom):
        return
    with open_input(file) as stream:
        signed = release_facts(read_envelope(stream)).sbom_digest
    check_inside(invocation, note, file, wish, trust=trust, signed=signed, demanded=True)


def _with_key(
    invocation: Invocation,
    note: Note,
    file: Path,
    reference: str,
    fd: int | None,
    trust: TrustDocument | None,
    out: Path | None,
) -> Outcome:
    from devguard.cli.release_apart import whose

    signer = invocation.signer(reference, fd)
    who = whose(signer.key.thumbprint, signer.info, trust)

    def make(envelope: Envelope) -> bytes:
        from devguard.cose.sign import sign1
        from devguard.manifest.envelope import signature_payload

        return sign1(signer, signature_payload(envelope), typ=None, detached=True).encode()

    return Step(invocation, note, trust, who, make).add(file, out)


def _digest_only(
    invocation: Invocation,
    note: Note,
    file: Path,
    reference: str | None,
    trust: TrustDocument | None,
    out: Path | None,
) -> Outcome:
    from devguard.cli.files import open_input
    from devguard.cli.release_apart import summary, summary_lines, target, whose, without_payload
    from devguard.cli.release_blocks import refuse_second
    from devguard.custody.files import write_atomic
    from devguard.manifest.envelope import read_envelope

    with open_input(file) as stream:
        envelope = read_envelope(stream)
    facts = summary(envelope)
    note.manifest(envelope.manifest_digest)
    if reference is not None:
        info = invocation.home.key_info(reference)
        person, _, key = whose(info.key.thumbprint, info, trust)
        refuse_second(envelope, person, key, trust)
    path = target(file, out, ".digest")
    note.commit()
    write_atomic(path, without_payload(envelope))
    lines = [f"for a signer elsewhere: {path}", *summary_lines(facts)]
    lines.append(f"there: devguard release sign {path.name} --key KEY -o {path.stem}.sig")
    lines.append(f"then here: devguard release sign {file} --attach {path.stem}.sig")
    return {"path": str(path), **facts}, "\n".join(lines)


def _attach(
    invocation: Invocation, note: Note, file: Path, attach: Path, reference: str | None, trust: TrustDocument | None
) -> Outcome:
    from devguard.cli.release_apart import read_signature, signer_of
    from devguard.manifest.envelope import signature_payload

    block, message = read_signature(attach)
    who = signer_of(message, None if reference is None else invocation.home.key_info(reference), trust)

    def make(envelope: Envelope) -> bytes:
        message.verify(who[2], payload=signature_payload(envelope))
        return block

    return Step(invocation, note, trust, who, make).add(file, None)


@dataclass(frozen=True, slots=True)
class Step:
    """One signature of `who` (person, role, key) that `make` makes over an envelope, or has brought along."""

    invocation: Invocation
    note: Note
    trust: TrustDocument | None
    who: Signer
    make: Callable[[Envelope], bytes]

    def add(self, file: Path, out: Path | None) -> Outcome:
        """The signature goes into FILE or (with `out`) a file of its own; recorded before it takes effect."""
        from devguard.cli.release_apart import component_lines, components_of, summary_lines, target
        from devguard.cli.release_blocks import missing

        self.note.actor, role, key = self.who
        path = file if out is None else target(file, out, ".sig")
        signed, facts = (self._into(file), None) if out is None else self._beside(file, path)
        state = None if self.trust is None else missing(signed, self.trust, self.invocation.now())
        components = components_of(signed)
        result = {
            "path": str(path),
            "signed_by": {"person": self.who[0], "role": role, "alg": key.algorithm.label, "key": key.fingerprint},
            "signatures": len(signed.auth_blocks),
            "components": components,
            "complete": None if state is None else bool(state),
            "missing": None if state is None or state else state.explanation,
        }
        lines = [_signed_text(path, (self.who[0], role, key.algorithm.label), state)]
        if facts is None:
            lines += component_lines(components or {})
        else:
            result["signed"] = facts
            lines = [*summary_lines(facts), *lines, f"there: devguard release sign FILE.suit --attach {path.name}"]
        return result, "\n".join(lines)

    def _into(self, file: Path) -> Envelope:
        """FILE is read and put back under its lock: two people at once both get theirs in."""
        from devguard.cli.files import open_input
        from devguard.custody.locks import locked

        def waiting() -> None:
            self.invocation.note(f"another devguard is changing {file}; waiting for it ...")

        with locked(file, waiting=waiting), open_input(file) as stream:
            signed, _ = self._signed(stream)
            self.note.commit()
            _rewrite(file, stream, signed)
        return signed

    def _beside(self, file: Path, path: Path) -> tuple[Envelope, dict[str, Any]]:
        """The signature goes to `path`; FILE stays as it is."""
        from devguard.cli.files import open_input
        from devguard.cli.release_apart import summary
        from devguard.custody.files import write_atomic
        from devguard.manifest.envelope import read_envelope

        with open_input(file) as stream:
            facts = summary(read_envelope(stream))
            stream.seek(0)
            signed, block = self._signed(stream)
        self.note.commit()
        write_atomic(path, block)
        return signed, facts

    def _signed(self, stream: BinaryIO) -> tuple[Envelope, bytes]:
        from devguard.cli.release_blocks import refuse_second
        from devguard.manifest.envelope import add_signature, check_digest, read_envelope

        envelope = read_envelope(stream)
        check_digest(envelope)
        self.note.manifest(envelope.manifest_digest)
        envelope, false = refuse_second(envelope, self.who[0], self.who[2], self.trust)
        for person in false:
            self.invocation.note(
                f"a block that names {person}'s key does not hold; nobody takes the release until they sign it again"
            )
        block = self.make(envelope)
        return add_signature(envelope, block), block


def _signed_text(file: Path, who: tuple[str, str, str], state: ReleaseQuorum | None) -> str:
    lines = [f"{file}: signed by {who[0]} ({who[1]}, {who[2]})"]
    if state is None:
        lines.append("no trust document here to count against; give one with --trust to see what is missing")
    elif state:
        lines.append("all signatures the trust document asks for are there; next: devguard verify")
    else:
        lines.append(f"still missing: {state.explanation}")
    return "\n".join(lines)


def trust_if_any(invocation: Invocation, given: Path | None) -> TrustDocument | None:
    """The document that was named, or the home's; None where there is none."""
    if given is None and not invocation.home.trust_file.is_file():
        return None
    return invocation.home.trust(given)


def _rewrite(file: Path, stream: BinaryIO, envelope: Envelope) -> None:
    from devguard.cli.files import payload_reader
    from devguard.custody.files import write_streamed
    from devguard.manifest.envelope import write_envelope

    readers: dict[str, Any] = {name: payload_reader(stream, envelope, name) for name in envelope.payloads}
    write_streamed(file, lambda out: write_envelope(envelope, readers, out))
