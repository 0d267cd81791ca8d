"""Signing where the release is not: a small file goes to the machine with the key, a signature comes back.

What travels is the envelope without its payloads: the digest that is signed, the manifest it covers, the text and
the signatures so far. The signing machine computes the digest and the summary from the manifest itself, so that what
a person reads there is what they sign; nothing is believed that came along as prose.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from devguard.errors import Malformed, Refused

if TYPE_CHECKING:
    from devguard.cose.keys import CoseKey
    from devguard.cose.sign import Sign1
    from devguard.custody.keyfile import KeyInfo
    from devguard.manifest.envelope import Envelope
    from devguard.trust.document import TrustDocument

SIGNATURE_LIMIT: Final = 16 * 1024
SIGNING_ROLES: Final = ("release", "quality")


def without_payload(envelope: Envelope) -> bytes:
    """The envelope as a signer elsewhere needs it: everything but the payloads."""
    from devguard.manifest.envelope import encode_envelope

    return encode_envelope(replace(envelope, payloads={}))


def summary(envelope: Envelope) -> dict[str, Any]:
    """What a signer is shown, computed from the manifest that the digest covers; `Malformed` outside the profile."""
    from devguard.manifest.envelope import check_digest, signature_payload
    from devguard.manifest.release import release_facts

    check_digest(envelope)
    facts = release_facts(envelope)
    return {
        "manifest_digest": envelope.manifest_digest.hex(),
        "signed_bytes": signature_payload(envelope).hex(),
        "model": None if facts.text is None else facts.text.model,
        "version": facts.version,
        "sequence": facts.sequence,
        "security_version": facts.security_version,
        "summary": None if facts.text is None else facts.text.summary,
        "components": {one.id: {"digest": one.digest.hex(), "size": one.size} for one in facts.components},
        "signatures": len(envelope.auth_blocks),
    }


def components_of(envelope: Envelope) -> dict[str, Any] | None:
    """Digest and size of each component that a signature covers; None for a manifest outside the profile."""
    try:
        found: dict[str, Any] = summary(envelope)["components"]
    except Malformed:
        return None
    return found


def component_lines(components: dict[str, Any]) -> list[str]:
    """The same for people."""
    return [f"  {name}: {one['size']} bytes, digest {one['digest']}" for name, one in components.items()]


def summary_lines(facts: dict[str, Any]) -> list[str]:
    """The same for people: numbers to compare with the description that was reviewed."""
    from devguard.custody.words import rows

    lines = [
        f"{facts['model'] or 'a model the envelope does not name'} {facts['version'] or '(no version)'}, "
        f"sequence {facts['sequence']}, security version {facts['security_version']}",
    ]
    lines += [f"  {facts['summary']}"] if facts["summary"] else []
    lines += component_lines(facts["components"])
    lines += [f"manifest digest {facts['manifest_digest']}", "in words, to read aloud:"]
    lines += [f"  {row}" for row in rows(bytes.fromhex(facts["manifest_digest"]))]
    return lines


def target(file: Path, out: Path | None, suffix: str) -> Path:
    """Where a file for or from the signer goes: never over the file it comes from."""
    path = out if out is not None else file.with_suffix(suffix)
    if path == file or (path.exists() and file.exists() and path.samefile(file)):
        raise click.UsageError(f"{path} is the file it would be made from; name another with -o")
    return path


def read_signature(path: Path) -> tuple[bytes, Sign1]:
    """A signature that came back: the block as it was made, and what it says; `Malformed("envelope.malformed")`."""
    from devguard.cose.sign import read_sign1
    from devguard.custody.files import read_limited

    data = read_limited(path, SIGNATURE_LIMIT)
    message = read_sign1(data, code="envelope.malformed")
    if message.payload is not None or message.unprotected:
        raise Malformed("envelope.malformed", f"{path} is not a detached signature as `release sign -o` makes it")
    if message.kid is None:
        raise Malformed("envelope.malformed", f"{path} does not name its key")
    return data, message


Signer = tuple[str, str, "CoseKey"]
"""Person, role and key."""


def signer_of(message: Sign1, known: KeyInfo | None, trust: TrustDocument | None) -> Signer:
    """Whose a signature is: as `whose`. Raises `Refused("key.unknown")` too when --key named another key."""
    if known is not None and known.key.thumbprint != message.kid:
        raise Refused("key.unknown", "that signature was made by another key than the one given with --key")
    return whose(message.kid or b"", known, trust)


def whose(thumbprint: bytes, known: KeyInfo | None, trust: TrustDocument | None) -> Signer:
    """Whose a key is: as the trust document lists it, else as its key file says.

    A key file's header informs; where the trust document knows the key, its person and role count. Raises `Refused`:
    `key.unknown`, `key.revoked`, `key.purpose`.
    """
    if trust is not None and trust.is_revoked(thumbprint):
        raise Refused("key.revoked", "the key of this signature has been revoked")
    entries = trust.find(thumbprint) if trust is not None else []
    if entries:
        role, entry = next((one for one in entries if one[0] in SIGNING_ROLES), entries[0])
        found = (entry.person, str(role), entry.key)
    elif known is not None:
        found = (known.person, known.role, known.key)
    else:
        raise Refused(
            "key.unknown",
            "nobody here knows the key of that signature",
            "give its public export with --key, or the trust document with --trust",
        )
    if found[1] not in SIGNING_ROLES:
        raise Refused(
            "key.purpose", f"{found[0]}'s key is a {found[1]} key; releases are signed by release and quality keys"
        )
    return found
