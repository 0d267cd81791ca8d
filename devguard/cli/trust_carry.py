"""`devguard trust follow|push|recover`: a newer trust document for this station, for a device, and after a restore."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from devguard.cli.context import Command, Invocation, passphrase_option
from devguard.cli.line import BAUD, choose_port
from devguard.cli.record import RECOVERY, Note, recorded
from devguard.cli.trust_folder import chain_in
from devguard.cli.trust_parts import lines_of, shown
from devguard.errors import DevguardError, Refused

if TYPE_CHECKING:
    from devguard.cli.home import Home
    from devguard.cli.memory import Memory
    from devguard.trust.document import TrustDocument


@click.command("follow", cls=Command)
@click.argument("sources", nargs=-1, required=True, metavar="DIR|FILE...", type=click.Path(path_type=Path))
@click.pass_obj
def follow(invocation: Invocation, sources: tuple[Path, ...]) -> None:
    """Take newer versions of this home's trust document, each vouched for by the roots before and after it."""
    with recorded(invocation, "trust.follow") as note:

        def followed(document: TrustDocument) -> None:
            note.document(document)
            note.commit()

        document = invocation.home.follow_trust(chain_in(sources), invocation.now(), followed)
        note.repeat(effect=True)
    invocation.result(shown(document), f"in use here: {lines_of(document, invocation.now())}")


@click.command("push", cls=Command)
@click.argument("sources", nargs=-1, metavar="[DIR|FILE...]", type=click.Path(path_type=Path))
@click.option("--port", help="Device path or URL (default: where exactly one device answers).")
@click.option("--key", metavar="TECH_KEY", help="A technician's key (default: the only one in the home).")
@click.option("--grant", "grant_file", type=click.Path(path_type=Path), required=True, help="The grant of that key.")
@click.option("--serial", help="Refuse any other proven serial.")
@click.option("--baud", type=click.IntRange(300, 4_000_000), default=BAUD, show_default=True, help="Line speed.")
@passphrase_option
@click.pass_obj
def push(invocation: Invocation, /, sources: tuple[Path, ...], **wish: Any) -> None:
    """Give a device the trust documents it lacks (default: the versions this home keeps).

    The grant may be by an authority that only the new document lists: for this one purpose the device lets it in.
    """
    from devguard.cli.device_words import Words
    from devguard.cli.files import read_grant_file
    from devguard.cli.line import runner_on
    from devguard.cli.standing import check_standing
    from devguard.link.driver import SerialDriver
    from devguard.session.connect import Bench
    from devguard.session.trust_push import push_trust
    from devguard.trust.document import read_trust

    home = invocation.home
    with recorded(invocation, "trust.push") as note:
        chain = chain_in(sources or [home.trust_file.parent])
        documents = [read_trust(data) for data in chain]
        signer = invocation.signer(wish["key"] or str(home.one_key("technician")), wish["passphrase_fd"])
        one = read_grant_file(wish["grant_file"])
        newest, older = documents[-1], tuple(documents[:-1])
        note.actor = one.subject
        note.document(newest)
        check_standing(note, one)
        note.digest("GRANT", hashlib.sha256(one.untagged).digest())
        bench = Words(note).on(Bench(newest, invocation.now(), os.urandom, one.untagged, signer, wish["serial"], older))
        note.commit(action="trust.push-begun")
        note.written = False
        with SerialDriver.open(choose_port(invocation, wish["port"]), wish["baud"], invocation.ticks) as driver:
            identity = runner_on(driver, baud=wish["baud"]).run(push_trust(bench, chain))
        note.device = identity.serial
        note.commit()
    data = {"model": identity.model, "serial": identity.serial, "version": newest.version, "ok": True}
    invocation.result(data, f"{identity.model} {identity.serial} holds trust document version {newest.version}")


@click.command("recover", cls=Command)
@click.option("--accept", "digest", required=True, metavar="DIGEST", help="Thumbprint of the trust document in use.")
@click.option("--person", required=True, help="Who vouches for it, for the record.")
@click.option("--reason", required=True, help="What happened, for the record.")
@click.pass_obj
def recover(invocation: Invocation, digest: str, person: str, reason: str) -> None:
    """Take this station's memory, list of technicians and clock as they stand, after a restore from backup or a clock
    that was ahead.

    DIGEST is what `devguard trust show` prints; compare it with the signed record of the ceremony, or with a colleague
    at another station, before you vouch for it. What was expected and what was found goes on record with the name.
    """
    from devguard.cli.memory import append
    from devguard.trust.document import read_trust

    home, now = invocation.home, invocation.now()
    if not home.trust_file.is_file():
        raise Refused("trust.missing", f"{home.trust_file} does not exist")
    document = read_trust(home.trust_file.read_bytes())
    if digest.lower() != document.digest.hex():
        raise Refused("trust.rollback", f"the trust document in use here is {document.digest.hex()}, not {digest[:64]}")
    log = home.evidence()
    note = Note(home, log, invocation.now, RECOVERY, person, os.urandom(8).hex())
    wrong = _wrong(note, document)
    note.document(document)
    note.details.update(reason=reason, found=wrong or "nothing wrong")
    memory = _accepted(home, log.checkpoint.origin, document, now)
    append(home, log, lambda after: note.record(None, None, after), now, accept=memory)
    home.keep_version(document.version, home.trust_file.read_bytes())
    invocation.result(
        {"ok": True, "found": wrong, "trust_version": document.version, "trust_digest": document.digest.hex()},
        f"remembered from here on: trust document version {document.version}, on the word of {person}",
    )


def _wrong(note: Note, document: TrustDocument) -> str | None:
    """What stands against the memory, the clock and the trust document in use."""
    from devguard.cli.memory import check_trust

    try:
        note.recall()
        check_trust(note.home, document)
    except DevguardError as error:
        if error.code == "log.tampered":
            raise
        return f"{error.code}: {error.message}"
    return None


def _accepted(home: Home, origin: str, document: TrustDocument, now: int) -> Memory:
    """What lies on disk, as far as it can be read, with the document in use, the list of technicians and the time as
    they stand."""
    from devguard.cli.memory import Memory, peek
    from devguard.cli.standing import digest_of

    found = peek(home) or Memory(origin)
    return replace(found.with_trust(document), latest=now, technicians=digest_of(home))


CARRYING: Final = (follow, push, recover)
