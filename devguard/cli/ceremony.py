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
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from devguard.cli.context import PIN_VARIABLES, Command, Invocation, passphrase_option, passphrase_reader
from devguard.cli.record import Note, recorded
from devguard.cli.times import Moment, iso
from devguard.errors import DevguardError, Refused

if TYPE_CHECKING:
    from devguard.cli.ceremony_record import Officer
    from devguard.cose.roles import RoleName
    from devguard.custody.keyfile import FileSigner, KeyInfo
    from devguard.trust.document import Role, TrustDocument

SYSTEM: Final = Path("/")
MOST_OFFICERS: Final = 16
YEAR: Final = 365 * 86_400
LEAST_PASSPHRASE: Final = 12
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
        with recorded(invocation, "key.ceremony-check", only_where_kept=True) as note:
            found = ceremony_record.check(folder)
            note.digest("TRUST", bytes.fromhex(found["thumbprint"]))
        people = ", ".join(found["signed_by"])
        invocation.result(
            found, f"signed by {people}\ntrust thumbprint {found['thumbprint']}: compare it with the paper"
        )
        return
    if not sys.stdin.isatty():
        raise click.UsageError("a ceremony is led on a terminal, with people in front of it")
    with recorded(invocation, "key.ceremony", only_where_kept=True) as note:
        note.details.update(folder=str(folder), drill="yes" if drill else "no")
        result = _led(invocation, note, folder, drill, passphrase_fd)
    shown = "\n".join(
        [result.pop("record"), f"written to {folder}", "now: print ceremony.txt, sign it, and copy the keys"]
    )
    invocation.result({"path": str(folder), **result}, shown)


def _led(invocation: Invocation, note: Note, folder: Path, drill: bool, fd: int | None) -> dict[str, Any]:
    """The whole ceremony; the folder takes its name when the record of it is durable."""
    _check_place(folder)
    given = [one for one in PIN_VARIABLES if one in os.environ]
    if given and not drill and fd is None:
        raise Refused("key.passphrase", f"{given[0]} is set, but each officer chooses a secret alone", "unset it")
    interfaces = _offline(drill)
    with _staged(folder) as stage:
        led = Led(invocation, stage, drill, fd, interfaces)
        result = led.lead()
        note.digest("TRUST", bytes.fromhex(result["thumbprint"]))
        note.details.update(result["keys"])
        note.commit()
    return result


def _check_place(folder: Path) -> None:
    """What is made takes the folder's name at the very end; what would stand in the way is told now."""
    if folder.is_symlink() or os.path.ismount(folder):
        raise Refused("key.exists", f"{folder} is a link or a mount point", "name a new folder inside it")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise Refused("key.exists", f"{folder} is there already; a ceremony begins with an empty folder")


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
class Once:
    """A passphrase or PIN, asked for when it is first needed and not again."""

    ask: Callable[[], bytes]
    said: bytes | None = field(default=None, repr=False)

    def __call__(self) -> bytes:
        """The same answer every time."""
        if self.said is None:
            self.said = self.ask()
        return self.said


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
    on_tokens: list[str] = field(default_factory=list)

    def lead(self) -> dict[str, Any]:
        """All steps in order; what was made, with the record's text under `record`."""
        from devguard.custody.files import write_new
        from devguard.trust.document import build_trust, read_trust

        started = self._clock()
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
                self._officer(number, witness, last=number == count)
            if not any(one.algorithm.is_post_quantum for one in self.signers):
                _tell("note: no root key is ML-DSA; this root does not outlive a quantum computer")
            payload = self._document(started, threshold)
            _compared(
                f"Thumbprint of the trust document, {threshold} of {count}, expires {iso(payload.expires)}:",
                payload.digest,
            )
            if not self.drill:
                _offline(self.drill)  # it has been a while: nobody plugged a cable in meanwhile
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

    def _clock(self) -> int:
        """The time, which people have looked at: a machine that was never on a network has nobody else to tell it."""
        from devguard.cli.doctor_checks import EARLIEST, LATEST

        now = self.invocation.now()
        if not EARLIEST <= now < LATEST:
            raise Refused("trust.not-yet", f"this machine's clock says {iso(now)}, which cannot be", "set the clock")
        _tell(f"This machine's clock says {iso(now)}; in a wrong hour, devices and benches refuse what is made here.")
        click.confirm("Is that right, in UTC?", abort=True, err=True)
        return now

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

    def _officer(self, number: int, witness: str, *, last: bool) -> None:
        """One officer makes a key: in a file that is read back, or on a token."""
        from devguard.cli.ceremony_record import Officer
        from devguard.custody.files import write_new
        from devguard.custody.keyfile import export_public, load_signer

        _tell(f"\nOfficer {number}: the others turn away.")
        person = self._person(witness)
        path = self.stage / "keys" / f"root-{number}.key"
        default = "ML-DSA-65" if last and number > 1 else "ESP384"
        while True:
            label = _ask("Algorithm", type=click.Choice(ALGORITHMS), default=default)
            where = str(_ask("Where: file, or the pkcs11: URI of a token", default="file")).strip()
            where = "file" if where.lower() == "file" else where
            what = f"{path.stem}, " + (f"chosen by {person}" if where == "file" else f"of {person}'s token")
            secret = Once(passphrase_reader(self.fd, what, confirm=where == "file", pin=where != "file"))
            try:
                place = self._make(path, where, person, label, secret)
            except DevguardError as error:
                if not error.code.startswith(("key.", "signature.")):
                    raise
                # A person's slip costs that person another answer, not the others their morning. A PIN is not tried
                # again by itself: whoever types it decides, and the attempt that could lock a token is never made.
                _tell(f"{error}\nnothing was made; once more")
                continue
            break
        signer = load_signer(path, secret)
        write_new(path.with_suffix(".pub"), export_public(signer.info))
        self.signers.append(signer)
        self.officers.append(Officer(signer.info, place))
        _compared(f"{person}, {label}, {place}:", signer.key.thumbprint)

    def _person(self, witness: str) -> str:
        from devguard.trust.model import same_person

        taken = {same_person(witness), *(same_person(one.info.person) for one in self.officers)}
        while same_person(person := self._text("Full name")) in taken:
            _tell("each officer is another person, and none is the witness")
        return person

    def _make(self, path: Path, where: str, person: str, label: str, secret: Once) -> str:
        from devguard.cose.algorithms import algorithm_named
        from devguard.custody.keyfile import create_key, create_token_key
        from devguard.custody.uri import parse_uri

        facts: dict[str, Any] = {"name": path.stem, "person": person, "role": "root", "development": self.drill}
        facts["algorithm"] = algorithm_named(label)
        if where != "file":
            _, uri = create_token_key(path, parse_uri(where), **facts, pin=secret)
            self.on_tokens.append(f"{path.stem}, on {uri}")
            return str(uri)
        if len(secret()) < LEAST_PASSPHRASE and not self.drill:
            raise Refused("key.passphrase", f"a root key's passphrase has {LEAST_PASSPHRASE} bytes or more")
        create_key(path, **facts, passphrase=secret())
        return f"keys/{path.name}, sha256 {hashlib.sha256(path.read_bytes()).hexdigest()}"

    def _document(self, started: int, threshold: int) -> TrustDocument:
        """The trust document, unsigned: each answer is judged when it is given, by the rules of the whole."""
        from devguard.cose.roles import RoleName
        from devguard.trust.document import trust_payload
        from devguard.trust.quorum import count_release

        roles = {RoleName.ROOT: self._role([one.info for one in self.officers], threshold)}

        def drafted(expires: int) -> TrustDocument:
            return trust_payload(version=1, issued=started, expires=expires, roles=roles, development=self.drill)

        for name in map(RoleName, OTHER_ROLES):
            self._other(name, roles, lambda: drafted(started + YEAR))
        default = datetime.fromtimestamp(started + YEAR, UTC).strftime("%Y-%m-%d")
        while True:
            try:
                document = drafted(_ask("The trust document expires", type=Moment(), default=default))
            except DevguardError as error:
                _tell(error.message)
                continue
            break
        if document.expires > started + 2 * YEAR:
            _tell("note: more than two years; until then, who steals enough keys is believed")
        every = [(one.thumbprint, int(one.key.algorithm)) for role in roles.values() for one in role.keys]
        if not (quorum := count_release(document, every, started)):
            why = quorum.explanation if quorum.hybrid else f"{quorum.explanation}; classical and ML-DSA are both needed"
            _tell(f"note: no release could be signed under this document: {why}")
        return document

    @staticmethod
    def _role(infos: list[KeyInfo], threshold: int) -> Role:
        from devguard.trust.document import KeyEntry, Role

        return Role(threshold, tuple(KeyEntry(one.key, one.person, one.development) for one in infos))

    def _other(self, name: RoleName, roles: dict[RoleName, Role], judged: Callable[[], object]) -> None:
        """One more role, from public exports that its holders brought; none where nobody brought one."""
        while infos := self._exports(name):
            roles[name] = self._role(infos, 1)
            try:
                judged()
            except DevguardError as error:  # a development key, a key that has a role already, one that is weak
                del roles[name]
                _tell(error.message)
                continue
            for info in infos:
                _compared(f"{name}: {info.person}, {info.algorithm.label}:", info.key.thumbprint)
            most = click.IntRange(1, len(roles[name].persons()))
            roles[name] = self._role(infos, _ask(f"How many {name} holders must sign", type=most, default=1))
            return

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
        for place in self.on_tokens:
            _tell(f"the key {place} was made and stays there; destroy it with the token's own tool")
