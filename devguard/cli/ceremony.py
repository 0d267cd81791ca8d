"""`devguard key ceremony`: a vendor's root comes into being, in one room, offline, k of n officers.

It leads people step by step and writes nothing until the last step: keys, trust document and signed record appear
together in DIR or not at all (a key made on a token stays there; the message says so). It refuses on a machine that
is on a network, unless told that this is a drill; then everything it makes is marked for development.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from devguard.cli.context import Command, Invocation, passphrase_option, passphrase_reader
from devguard.cli.times import Moment, iso
from devguard.errors import DevguardError, Refused

if TYPE_CHECKING:
    from devguard.cli.ceremony_record import Officer
    from devguard.cose.roles import RoleName
    from devguard.custody.keyfile import FileSigner, KeyInfo
    from devguard.trust.document import Role

SYSTEM: Final = Path("/")
MOST_OFFICERS: Final = 16
YEAR: Final = 365 * 86_400
OTHER_ROLES: Final = ("release", "quality", "technician-authority", "device-authority")
ALGORITHMS: Final = ("ESP256", "ESP384", "Ed25519", "ML-DSA-44", "ML-DSA-65", "ML-DSA-87")


@click.command("ceremony", cls=Command)
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--online-drill", "drill", is_flag=True, help="Practise, network or not: everything is marked development."
)
@click.option("--check", "checking", is_flag=True, help="Check the record of a ceremony that DIR holds instead.")
@passphrase_option
@click.pass_obj
def ceremony(invocation: Invocation, folder: Path, drill: bool, checking: bool, passphrase_fd: int | None) -> None:
    """Lead officers through the making of a root, offline; keys, trust document and signed record go to DIR."""
    from devguard.cli import ceremony_record

    if checking:
        found = ceremony_record.check(folder)
        people = ", ".join(found["signed_by"])
        invocation.result(
            found, f"signed by {people}\ntrust thumbprint {found['thumbprint']}: compare it with the paper"
        )
        return
    if not sys.stdin.isatty():
        raise click.UsageError("a ceremony is led on a terminal, with people in front of it")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise Refused("key.exists", f"{folder} is there already; a ceremony begins with an empty folder")
    if not drill and passphrase_fd is None and "DEVGUARD_PASSPHRASE" in os.environ:
        raise Refused(
            "key.passphrase", "DEVGUARD_PASSPHRASE is set, but each officer chooses a passphrase alone", "unset it"
        )
    interfaces = _offline(drill)
    with _staged(folder) as stage:
        led = Led(invocation, stage, drill, passphrase_fd, interfaces)
        result = led.lead()
    shown = "\n".join(
        [result.pop("record"), f"written to {folder}", "now: print ceremony.txt, sign it, and copy the keys"]
    )
    invocation.result({"path": str(folder), **result}, shown)


def _offline(drill: bool) -> tuple[str, ...]:
    from devguard.custody.offline import check_offline

    if not drill:
        return check_offline(SYSTEM)
    _tell("DRILL: the network is not asked about, and no production trust will take what is made here.")
    return ()


@contextlib.contextmanager
def _staged(folder: Path) -> Iterator[Path]:
    """A folder beside DIR that takes its name when all went well, and is gone otherwise."""
    from devguard.custody.files import file_error, sync_folder

    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        stage = Path(tempfile.mkdtemp(prefix=".ceremony-", dir=folder.parent))
        (stage / "keys").mkdir(mode=0o700)
    except OSError as error:
        raise file_error(folder, error) from None
    try:
        yield stage
        try:
            os.replace(stage, folder)
            sync_folder(folder.parent)
        except OSError as error:
            raise file_error(folder, error) from None
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _tell(text: str) -> None:
    click.echo(text, err=True)


def _ask(question: str, **options: Any) -> Any:
    return click.prompt(question, err=True, **options)


def _compared(what: str, thumbprint: bytes) -> None:
    """Show a fingerprint in both forms and go on only when people say that they compared it."""
    from devguard.custody.words import rows

    _tell(f"\n{what}\n  {thumbprint.hex()}\n" + "\n".join(f"  {row}" for row in rows(thumbprint)))
    click.confirm("Read it aloud. Has everybody compared it?", abort=True, err=True)


@dataclass(slots=True)
class Led:
    """One ceremony while it is led."""

    invocation: Invocation
    stage: Path
    drill: bool
    fd: int | None
    interfaces: tuple[str, ...]
    signers: list[FileSigner] = field(default_factory=list)
    officers: list[Officer] = field(default_factory=list)

    def lead(self) -> dict[str, Any]:
        """All steps in order; what was made, with the record's text under `record`."""
        from devguard.cose.roles import RoleName
        from devguard.custody.files import write_new
        from devguard.trust.document import build_trust, read_trust, trust_payload

        started = self.invocation.now()
        vendor, witness = self._text("Vendor"), self._text("Witness, who types nothing: full name")
        count = _ask(
            "How many officers hold a root key", type=click.IntRange(1 if self.drill else 2, MOST_OFFICERS), default=3
        )
        least = 1 if self.drill else 2
        threshold = _ask("How many of them must sign", type=click.IntRange(least, count), default=min(2, count))
        if threshold == count:
            _tell("note: every one of them will be needed; one lost key loses the root")
        try:
            for number in range(1, count + 1):
                self._officer(number, last=number == count)
            if not any(one.algorithm.is_post_quantum for one in self.signers):
                _tell("note: no root key is ML-DSA; this root does not outlive a quantum computer")
            roles = {RoleName.ROOT: self._role([one.info for one in self.officers], threshold), **self._others()}
            default = datetime.fromtimestamp(started + YEAR, UTC).strftime("%Y-%m-%d")
            expires = _ask("The trust document expires", type=Moment(), default=default)
            payload = trust_payload(version=1, issued=started, expires=expires, roles=roles, development=self.drill)
            _compared(
                f"Thumbprint of the trust document, {threshold} of {count}, expires {iso(expires)}:", payload.digest
            )
            data = build_trust(payload, self.signers)
            document = read_trust(data)
            for name in ("1.trust", "current.trust"):
                write_new(self.stage / name, data)
            record = self._record(vendor, witness, started, data)
        except (DevguardError, click.Abort, KeyboardInterrupt):
            self._left_on_tokens()
            raise
        return {
            "thumbprint": document.digest.hex(),
            "threshold": threshold,
            "development": self.drill,
            "keys": {one.info.name: one.info.key.fingerprint for one in self.officers},
            "record": record,
        }

    @staticmethod
    def _text(question: str) -> str:
        from devguard.custody.keytext import check_texts

        while True:
            answer = str(_ask(question)).strip()
            try:
                check_texts("name", answer, "root")
            except DevguardError as error:
                _tell(error.message)
                continue
            return answer

    def _officer(self, number: int, *, last: bool) -> None:
        """One officer makes a key: in a file that is read back, or on a token."""
        from devguard.cli.ceremony_record import Officer
        from devguard.cose.algorithms import algorithm_named
        from devguard.custody.keyfile import load_signer
        from devguard.trust.model import same_person

        _tell(f"\nOfficer {number}: the others turn away.")
        while True:
            person = self._text("Full name")
            if all(same_person(one.info.person) != same_person(person) for one in self.officers):
                break
            _tell("each officer is another person")
        label = _ask(
            "Algorithm", type=click.Choice(ALGORITHMS), default="ML-DSA-65" if last and number > 1 else "ESP384"
        )
        where = str(_ask("Where: file, or the pkcs11: URI of a token", default="file")).strip()
        name = f"root-{number}"
        path = self.stage / "keys" / f"{name}.key"
        secret = passphrase_reader(self.fd, f"{name}, chosen by {person}", confirm=where == "file")()
        place = self._make(path, where, name, person, algorithm_named(label), secret)
        signer = load_signer(path, lambda: secret)
        self.signers.append(signer)
        self.officers.append(Officer(signer.info, place))
        _compared(f"{person}, {label}, {place}:", signer.key.thumbprint)

    def _make(self, path: Path, where: str, name: str, person: str, algorithm: Any, secret: bytes) -> str:
        from devguard.custody.files import write_new
        from devguard.custody.keyfile import create_key, create_token_key, export_public
        from devguard.custody.uri import parse_uri

        facts: dict[str, Any] = {"name": name, "person": person, "role": "root", "development": self.drill}
        if where == "file":
            info = create_key(path, **facts, algorithm=algorithm, passphrase=secret)
            place = f"keys/{path.name}, sha256 {hashlib.sha256(path.read_bytes()).hexdigest()}"
        else:
            info, uri = create_token_key(path, parse_uri(where), **facts, algorithm=algorithm, pin=lambda: secret)
            place = str(uri)
        write_new(path.with_suffix(".pub"), export_public(info))
        return place

    @staticmethod
    def _role(infos: list[KeyInfo], threshold: int) -> Role:
        from devguard.trust.document import KeyEntry, Role

        return Role(threshold, tuple(KeyEntry(one.key, one.person, one.development) for one in infos))

    def _others(self) -> dict[RoleName, Role]:
        """The other roles, from public exports that their holders brought."""
        from devguard.cose.roles import RoleName

        found: dict[RoleName, Role] = {}
        for name in OTHER_ROLES:
            infos = self._exports(name)
            for info in infos:
                _compared(f"{name}: {info.person}, {info.algorithm.label}:", info.key.thumbprint)
            if infos:
                threshold = _ask(f"How many {name} holders must sign", type=click.IntRange(1, len(infos)), default=1)
                found[RoleName(name)] = self._role(infos, threshold)
        return found

    @staticmethod
    def _exports(name: str) -> list[KeyInfo]:
        from devguard.custody.keyfile import read_info

        while True:
            answer = str(
                _ask(f"\nPublic exports of {name} keys, with commas (empty: none)", default="", show_default=False)
            )
            try:
                infos = [read_info(Path(one.strip())) for one in answer.split(",") if one.strip()]
            except DevguardError as error:
                _tell(str(error))
                continue
            wrong = [one.name for one in infos if one.role != name]
            if not wrong:
                return infos
            _tell(f"not of role {name}: {', '.join(wrong)}")

    def _record(self, vendor: str, witness: str, started: int, data: bytes) -> str:
        from devguard.cli import ceremony_record as records
        from devguard.custody.files import write_new
        from devguard.trust.document import read_trust

        told = records.Ceremony(
            vendor, witness, self.drill, started, self.invocation.now(), self.interfaces, self.officers
        )
        record = records.text(told, read_trust(data), data)
        write_new(self.stage / records.RECORD, record)
        write_new(self.stage / records.SIGNATURES, records.sign(record, self.signers))
        records.check(self.stage)
        return record.decode()

    def _left_on_tokens(self) -> None:
        for one in self.officers:
            if one.place.startswith("pkcs11:"):
                _tell(
                    f"the key {one.info.name} was made and stays on {one.place}; destroy it with the token's own tool"
                )
