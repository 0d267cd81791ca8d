"""The throw-away vendor of the attack bench: its people and their keys, its releases, its grants.

Keys lie in a home as a vendor's would, in production form, so that the rules of production are attacked; opening them
costs little, for they live as long as the bench does. Nothing here checks anything: whoever is attacked does.
"""

from __future__ import annotations

import functools
import hashlib
import io
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from devguard.bench.stage import Build, describe, split
from devguard.cose.algorithms import Algorithm
from devguard.cose.roles import RoleName
from devguard.cose.sign import Signer, sign1
from devguard.custody.keyfile import FileSigner, create_key, load_signer
from devguard.grant.claims import ANY, Action, Grant, Scope, issue_grant, read_grant
from devguard.image.measure import SHA_256, measure_stream
from devguard.manifest.build import build_envelope
from devguard.manifest.envelope import Envelope, add_signature, signature_payload, write_envelope
from devguard.manifest.model import ModelFacts

HOUR: Final = 3600
IMAGE_SIZE: Final = 9000
# name of the key file -> (person, role, algorithm)
PEOPLE: Final = {
    "root": ("Ada Root", RoleName.ROOT, Algorithm.ESP256),
    "root-2": ("Ann Root", RoleName.ROOT, Algorithm.ESP256),
    "release": ("Ben Release", RoleName.RELEASE, Algorithm.ESP256),
    "release-2": ("Bea Release", RoleName.RELEASE, Algorithm.ESP256),
    "release-3": ("Bob Release", RoleName.RELEASE, Algorithm.ED25519),
    "quality": ("Cleo Quality", RoleName.QUALITY, Algorithm.ML_DSA_65),
    "quality-2": ("Carl Quality", RoleName.QUALITY, Algorithm.ESP256),
    "authority": ("Dana Authority", RoleName.TECHNICIAN_AUTHORITY, Algorithm.ESP256),
    "factory": ("Emil Factory", RoleName.DEVICE_AUTHORITY, Algorithm.ESP256),
    "technician": ("Finn Technician", RoleName.TECHNICIAN, Algorithm.ESP256),
    "second": ("Gus Technician", RoleName.TECHNICIAN, Algorithm.ED25519),
}
TECHNICIANS: Final = ("technician", "second")
SIGNERS: Final = ("release", "release-2", "quality")
"""Who signs an honest release: two of three release persons, and quality with a post-quantum key."""
TRUST_OPTIONS: Final = (
    "--root", "root", "--root", "root-2", "--threshold", "2", "--role", "release=release,release-2,release-3:2",
    "--role", "quality=quality,quality-2:1", "--role", "technician-authority=authority:1",
    "--role", "device-authority=factory:1",
)  # fmt: skip


@dataclass(slots=True)
class Vendor:
    """Everybody's keys, in `home/keys`, under one `passphrase`. `signers` are opened once."""

    home: Path
    passphrase: str
    signers: dict[str, FileSigner] = field(default_factory=dict)

    @classmethod
    def make(cls, home: Path, passphrase: str | None = None) -> Vendor:
        """All keys of all people, under a passphrase of one run unless one is given, which costs less to open."""
        (home / "keys").mkdir(parents=True, mode=0o700)
        passes = 1 if passphrase is None else None
        passphrase = passphrase or secrets.token_urlsafe(12)
        for name, (person, role, algorithm) in PEOPLE.items():
            create_key(
                home / "keys" / f"{name}.key",
                name=name,
                person=person,
                role=role,
                algorithm=algorithm,
                development=False,
                passphrase=passphrase.encode(),
                parallel=passes,
            )
        return cls(home, passphrase)

    def signer(self, name: str) -> FileSigner:
        """The opened key of that name."""
        if name not in self.signers:
            self.signers[name] = load_signer(self.home / "keys" / f"{name}.key", self.passphrase.encode)
        return self.signers[name]

    def release(
        self,
        facts: ModelFacts,
        version: str,
        sequence: int,
        *,
        image: bytes | None = None,
        signers: Sequence[str | Signer] = SIGNERS,
        **described: Any,
    ) -> Build:
        """A release of the model, signed by `signers`: names of keys, or signers of an attacker's own.

        `described`: fields of its description; its security version is its sequence number unless given.
        """
        image = image_of(version) if image is None else image
        measured = measure_stream((name, io.BytesIO(piece), SHA_256) for name, piece in split(facts, image).items())
        fields = {"version": version, "sequence": sequence, "security_version": sequence, **described}
        envelope = build_envelope(describe(facts, **fields), facts, measured.parts)
        return Build(self.signed(envelope, signers), image, measured)

    def signed(self, envelope: Envelope, signers: Sequence[str | Signer]) -> Envelope:
        """The envelope with the signatures of these on it."""
        for one in signers:
            signer = self.signer(one) if isinstance(one, str) else one
            block = sign1(signer, signature_payload(envelope), typ=None, detached=True).encode()
            envelope = add_signature(envelope, block)
        return envelope

    def grant(self, model: str, serial: str, name: str, now: int, **fields: Any) -> Grant:
        """A grant by the authority to the technician of that name, for eight hours and any release.

        `fields` replace those of its scope, or of `issue_grant`: `signers`, `issuer`, `subject`, `holder`, `expires`,
        `not_before`, `cti`.
        """
        holder = self.signer(name)
        given: dict[str, Any] = {
            "signers": [self.signer("authority")],
            "issuer": PEOPLE["authority"][0],
            "subject": holder.info.person,
            "holder": holder.key,
            "now": now,
            "expires": now + 8 * HOUR,
            "not_before": None,
            "cti": os.urandom(16),
        }
        given |= {key: fields.pop(key) for key in list(fields) if key in given}
        scope: dict[str, Any] = {
            "models": frozenset({model}),
            "serials": frozenset({serial}),
            "sites": frozenset({ANY}),
            "actions": frozenset({Action.UPDATE}),
            "epoch": 0,
            "any_release": True,
        }
        return read_grant(issue_grant(given.pop("signers"), scope=Scope(**{**scope, **fields}), **given))


@functools.cache
def image_of(version: str, size: int = IMAGE_SIZE) -> bytes:
    """The image of a version: nothing can compress it, and no two are alike."""
    return hashlib.shake_256(f"attack bench/{version}".encode()).digest(size)


def write_release(build: Build, facts: ModelFacts, path: Path) -> Path:
    """A release as the file that a technician is given."""
    pieces = {f"#{name}": io.BytesIO(piece) for name, piece in split(facts, build.image).items()}
    with path.open("wb") as out:
        write_envelope(build.envelope, pieces, out)
    return path
