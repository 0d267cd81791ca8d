"""`devguard release check` and `devguard release state`: what a release is made of, and what is known of that."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from devguard.cli.context import Command, Invocation, VerdictExit, passphrase_option
from devguard.cli.inside import inside_options
from devguard.cli.record import recorded
from devguard.cli.times import Moment
from devguard.errors import CODES, DevguardError, Refused

if TYPE_CHECKING:
    from devguard.cli.support import Support
    from devguard.sbom.bom import Bill
    from devguard.sbom.judge import Finding, Inside

STATUSES = ("not_affected", "affected", "fixed", "under_investigation")
JUSTIFICATIONS = (
    "component_not_present",
    "vulnerable_code_not_present",
    "vulnerable_code_not_in_execute_path",
    "vulnerable_code_cannot_be_controlled_by_adversary",
    "inline_mitigations_already_exist",
)


@click.command("check", cls=Command)
@click.argument("file", metavar="FILE.suit|DESCRIPTION.toml", type=click.Path(path_type=Path))
@inside_options
@click.option("--trust", "trust_file", type=click.Path(path_type=Path), help="Whose statements count.")
@click.option("--now", type=Moment(), help="Judge as of this time (ISO 8601).")
@click.pass_obj
def check(invocation: Invocation, /, file: Path, trust_file: Path | None, now: int | None, **wish: Any) -> None:
    """Compare the parts of a release with what is known to be broken.

    A part that is known to be exploited refuses unless a quality key states that it is not affected, or fixed. Before
    a release is built, give its description; of an envelope the bill has to be the signed one.
    """
    if wish["known_exploited"] is None:
        raise click.UsageError("Missing option '--known-exploited'")
    at = invocation.now() if now is None else now
    shape: dict[str, Any] = {"file": str(file), "accepted": False, "code": None}
    try:
        with recorded(invocation, "release.check", only_where_kept=True) as note:
            from devguard.cli.inside import look
            from devguard.cli.release_sign import trust_if_any

            bill, support = bill_of_release(file, wish["sbom"])
            found = look(bill, wish, trust=trust_if_any(invocation, trust_file), now=at)
            shape |= _shown(found) | {"support": {**support.as_dict(at), "lines": support.lines(at)}}
            note.details |= {"file": str(file), "inside": f"{len(bill.parts)} parts"}
            found.require()
    except DevguardError as error:
        if "findings" not in shape:
            invocation.error(error, {**shape, "code": error.code})
        else:
            refused = {**shape, "code": error.code}
            invocation.result(refused, lambda: _print(refused))
        raise VerdictExit(error.exit_status) from error
    accepted = {**shape, "accepted": True}
    invocation.result(accepted, lambda: _print(accepted))


def bill_of_release(file: Path, given: Path | None) -> tuple[Bill, Support]:
    """The bill of a description, or of an envelope that signs it; and until when the release is supported."""
    from devguard.cli.files import inside, open_input
    from devguard.cli.inside import bill_of
    from devguard.cli.support import Support, support_of
    from devguard.custody.files import read_limited
    from devguard.device.supported import model_support
    from devguard.manifest.description import parse_description
    from devguard.manifest.envelope import read_envelope
    from devguard.manifest.release import release_facts
    from devguard.sbom.bom import MAX_BILL, read_bill
    from devguard.sbom.judge import signed_bill

    if file.suffix == ".toml":
        wanted = parse_description(read_limited(file, 1 << 20))
        named = wanted.sbom
        path = given if given is not None else inside(file.parent, named) if named is not None else None
        if path is None:
            raise Refused("sbom.missing", "the description names no bill of materials", "add [sbom] file = ...")
        name = f"{wanted.model} {wanted.version}"
        support = Support(name, wanted.end_of_support, model_support(wanted.model))
        return read_bill(read_limited(path, MAX_BILL)), support
    with open_input(file) as stream:
        envelope = read_envelope(stream)
        signed = release_facts(envelope).sbom_digest
    return signed_bill(bill_of(file, given), signed), support_of(envelope)


def _shown(found: Inside) -> dict[str, Any]:
    bill = found.bill
    return {
        "bill": {"digest": bill.digest.hex(), "of": bill.subject, "parts": len(bill.parts), "version": bill.version},
        "knowledge": list(found.knowledge),
        "findings": [_finding(one) for one in found.findings],
        "unsupported": list(found.unsupported),
        "undated": len(found.undated),
    }


def _finding(one: Finding) -> dict[str, Any]:
    said = one.statement
    return {
        "id": one.hole.id,
        "names": sorted(one.hole.names),
        "part": one.hole.part.ref,
        "exploited": one.hole.exploited,
        "why": one.hole.why,
        "status": None if said is None else said.status.word,
        "justification": None if said is None or said.justification is None else said.justification.word,
        "note": None if said is None else said.note,
        "by": None if said is None else said.by,
        "refuses": one.refuses,
        "text": one.text,
    }


def _print(data: dict[str, Any]) -> None:
    from devguard.cli.context import printed

    lines = [f"bill of materials of {data['bill']['of'] or 'an unnamed release'}: {data['bill']['parts']} parts"]
    lines += [f"judged by {one}" for one in data["knowledge"]]
    lines += [f"{'REFUSES' if one['refuses'] else 'known'}  {one['text']}" for one in data["findings"]]
    lines += data["support"]["lines"]
    lines += [f"support of {one} has ended" for one in data["unsupported"]]
    if data["undated"]:
        lines.append(f"{data['undated']} part(s) without an end of support (property devguard:end-of-support)")
    if data["accepted"]:
        lines.append("accepted: nothing in it is known to be exploited" + (" and open" if data["findings"] else ""))
    else:
        lines += [f"refused: {data['code']}", f"hint: {CODES[data['code']].remedy}"]
    click.echo(printed("\n".join(lines)))


@click.command("state", cls=Command)
@click.argument("hole", metavar="CVE")
@click.option("--sbom", type=click.Path(path_type=Path), required=True, help="The bill of materials it is about.")
@click.option("--part", required=True, metavar="REF", help="The part, by its bom-ref (or name@version).")
@click.option("--status", type=click.Choice(STATUSES), required=True)
@click.option("--justification", type=click.Choice(JUSTIFICATIONS), help="Goes with not_affected.")
@click.option("--note", "text", default="", help="One line for people.")
@click.option("--key", "reference", required=True, metavar="KEY", help="A quality key, by file, name or pkcs11: URI.")
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True, help="The signed statement to write.")
@passphrase_option
@click.pass_obj
def state(invocation: Invocation, /, **wish: Any) -> None:
    """Sign a statement (VEX) on one vulnerability and one part of a bill: not affected and why, affected, or fixed."""
    from devguard.custody.files import read_limited, write_atomic
    from devguard.sbom.bom import MAX_BILL, read_bill
    from devguard.sbom.vex import Justification, Statement, Status, sign_statements

    why = wish["justification"]
    if (why is not None) != (wish["status"] == "not_affected"):
        raise click.UsageError("--justification goes with --status not_affected, and not_affected with --justification")
    with recorded(invocation, "release.state") as note:
        bill = read_bill(read_limited(wish["sbom"], MAX_BILL))
        if wish["part"] not in {part.ref for part in bill.parts}:
            raise Refused("sbom.statement", f"the bill has no part {wish['part'][:80]!r}", _nearest(bill, wish["part"]))
        signer = invocation.signer(wish["reference"], wish["passphrase_fd"])
        if signer.info.role != "quality":
            raise Refused("key.purpose", f"{signer.info.name} is a key for {signer.info.role}, not for quality")
        reason = None if why is None else Justification[why.upper()]
        said = Statement(wish["hole"], wish["part"], Status[wish["status"].upper()], reason, wish["text"])
        data = sign_statements(signer, bill.digest, [said], invocation.now())
        note.actor = signer.info.person
        note.details |= {"hole": said.hole, "part": said.part, "status": said.status.word}
        note.commit()
        write_atomic(wish["out"], data)
    shown = {"path": str(wish["out"]), "hole": said.hole, "part": said.part, "status": said.status.word}
    text = f"{wish['out']}: {signer.info.person} states {said.hole} {said.status.word} for {said.part}"
    invocation.result({**shown, "by": signer.info.person, "bill": bill.digest.hex()}, text)


def _nearest(bill: Bill, ref: str) -> str:
    import difflib

    near = difflib.get_close_matches(ref, [part.ref for part in bill.parts], n=1, cutoff=0.3)
    return f"did you mean {near[0]}?" if near else "`devguard inspect` or the vendor's tool lists the parts"
