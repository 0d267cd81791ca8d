"""What is inside a release, for the commands that ask: bill, snapshots and statements read from files and judged.

`release check` shows all of it; `release sign` and `push` ask only whether it refuses. The files come from options,
which `config.toml` may give once and for all.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from devguard.cli.context import Invocation
from devguard.errors import Refused

if TYPE_CHECKING:
    from devguard.cli.record import Note
    from devguard.sbom.bom import Bill
    from devguard.sbom.judge import Inside
    from devguard.trust.document import TrustDocument

F = TypeVar("F", bound=Callable[..., Any])
BESIDE: Final = ".cdx.json"
_FILE: Final = click.Path(path_type=Path)
OPTIONS: Final = ("sbom", "known_exploited", "known", "vex")


def inside_options(command: F) -> F:
    """The options that say by which knowledge a release is looked into."""
    options = (
        click.option("--sbom", type=_FILE, help=f"The release's bill of materials (default: FILE{BESIDE} beside it)."),
        click.option(
            "--known-exploited", type=_FILE, help="CISA's catalogue of known exploited vulnerabilities, JSON."
        ),
        click.option("--known", type=_FILE, multiple=True, help="OSV records, JSON (several times)."),
        click.option("--vex", type=_FILE, multiple=True, help="Signed statements on vulnerabilities (several times)."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def beside(file: Path) -> Path:
    """Where the bill of materials of an envelope lies by default: pump.suit has pump.cdx.json beside it."""
    return file.with_suffix(BESIDE)


def bill_of(file: Path, given: Path | None) -> Bill | None:
    """The bill that was named, or the one beside `file`; None where neither is there."""
    from devguard.custody.files import read_limited
    from devguard.sbom.bom import MAX_BILL, read_bill

    path = given if given is not None else beside(file)
    if given is None and not path.is_file():
        return None
    return read_bill(read_limited(path, MAX_BILL))


def look(bill: Bill, wish: dict[str, Any], *, trust: TrustDocument | None, now: int) -> Inside:
    """`bill` judged by the files of `wish` (the values of `inside_options`), `known_exploited` among them.

    Statements count by the keys of `trust`; without one they are refused (`key.unknown`).
    """
    from devguard.custody.files import read_limited
    from devguard.sbom.judge import look_inside
    from devguard.sbom.snapshot import MAX_SNAPSHOT, read_advisories, read_catalogue
    from devguard.sbom.vex import MAX_FILE, read_statements

    if wish["vex"] and trust is None:
        raise Refused("key.unknown", "without a trust document nobody's statements count", "give it: --trust FILE")
    statements = [
        one
        for path in wish["vex"]
        if trust is not None
        for one in read_statements(read_limited(path, MAX_FILE), trust=trust, bill_digest=bill.digest, now=now)
    ]
    return look_inside(
        bill,
        read_catalogue(read_limited(wish["known_exploited"], MAX_SNAPSHOT)),
        now=now,
        advisories=[read_advisories(read_limited(path, MAX_SNAPSHOT)) for path in wish["known"]],
        statements=statements,
    )


def check_inside(
    invocation: Invocation,
    note: Note,
    file: Path,
    wish: dict[str, Any],
    *,
    trust: TrustDocument | None,
    signed: bytes | None,
    demanded: bool,
) -> None:
    """Refuse a release that is known to be broken, or whose bill is not the signed one.

    `signed`: the bill's SHA-256 in the manifest, or None. `demanded`: a release whose trust document asks for bills is
    not looked over without a snapshot. Raises `Refused`: `sbom.*`, `release.vulnerable`; what reading the files raises.
    """
    from devguard.cli.support import note_parts
    from devguard.sbom.judge import signed_bill

    asks = trust is not None and trust.require_sbom
    if wish["known_exploited"] is None:
        if demanded and asks:
            raise Refused(
                "sbom.stale",
                "the trust document asks for bills of materials, and nothing here says what is known to be exploited",
                "bring CISA's catalogue: --known-exploited FILE, or config.toml",
            )
        if wish["known"] or wish["vex"] or wish["sbom"]:
            raise click.UsageError("--sbom, --known and --vex go with --known-exploited")
        return
    bill = bill_of(file, wish["sbom"])
    if bill is None and signed is None and not asks:
        invocation.note("no bill of materials is signed in this release: nothing says what is inside")
        return
    inside = signed_bill(bill, signed)
    note_parts(note, inside)
    found = look(inside, wish, trust=trust, now=invocation.now())
    note.details["inside"] = f"{len(inside.parts)} parts by {'; '.join(found.knowledge)}"[:200]
    for one in found.findings:
        invocation.note(("refused: " if one.refuses else "known: ") + one.text)
    found.require()
