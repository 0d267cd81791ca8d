"""`devguard mds2 export`: what hospitals ask of a device's security, answered from this home's configuration."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from devguard.cli.context import Command, Invocation, printed
from devguard.cli.times import iso
from devguard.errors import Refused

if TYPE_CHECKING:
    from devguard.cli.home import Home
    from devguard.sbom.mds2 import DeviceFacts, Facts, KeyFacts, TrustFacts

FORMAT: Final = 1
EXTRAS: Final = {
    "capture": "dpkt",
    "delta": "detools",
    "image": "bincopy",
    "pkcs11": "pkcs11",
    "qr": "segno",
    "sbom": "cyclonedx",
    "shelf": "tuf",
    "smp": "smp",
}


@click.group()
def mds2() -> None:
    """Security answers for buyers, by the section codes of ANSI/NEMA HN 1-2019 (MDS2)."""


@mds2.command("export", cls=Command)
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Write JSON to this file.")
@click.option(
    "--trust", "trust_file", type=click.Path(path_type=Path), help="The trust document (default: the home's)."
)
@click.option("--model", "models", multiple=True, help="Answer for this device model (several times; default: all).")
@click.pass_obj
def export(invocation: Invocation, out: Path | None, trust_file: Path | None, models: tuple[str, ...]) -> None:
    """Answer what follows from trust document, config.toml, evidence log, keys, extras and device models.

    Each answer is yes, no or not applicable, with what it stands on. An evidence log is verified first; one that does
    not hold answers nothing. What only people can answer is not asked: the form has more questions than these.
    """
    from devguard.sbom.mds2 import SECTIONS
    from devguard.sbom.mds2_rules import answers

    found = [one.to_json() for one in answers(_facts(invocation, trust_file, models))]
    data: dict[str, Any] = {
        "format": FORMAT,
        "made": iso(invocation.now()),
        "models": list(models),
        "sections": [
            {"code": code, "about": about, "answers": [one for one in found if one["section"] == code]}
            for code, about in SECTIONS.items()
        ],
    }
    if out is None:
        invocation.result(data, lambda: _print(data))
        return
    from devguard.custody.files import write_atomic

    write_atomic(out, (json.dumps(data, indent=1, ensure_ascii=False) + "\n").encode())
    shown = {"path": str(out), "answers": len(found), "format": FORMAT}
    invocation.result(shown, f"{out}: {len(found)} answers in {len(SECTIONS)} sections")


def _print(data: dict[str, Any]) -> None:
    lines = []
    for section in data["sections"]:
        lines.append(f"{section['code']}  {section['about']}")
        for one in section["answers"]:
            lines.append(f"  {one['answer']:14} {one['question']}")
            lines += [f"{'':17}{one['why']}"] if one["why"] else []
            lines.append(f"{'':17}by {'; '.join(one['evidence'])}")
    click.echo(printed("\n".join(lines)))


# what there is


def _facts(invocation: Invocation, trust_file: Path | None, models: tuple[str, ...]) -> Facts:
    from devguard.evidence.actions import ACTIONS
    from devguard.sbom.mds2 import Facts

    home = invocation.home
    return Facts(
        trust=_trust(home, trust_file),
        records=_records(invocation),
        actions=ACTIONS,
        keys=tuple(_keys(home)),
        packages={extra: importlib.util.find_spec(package) is not None for extra, package in EXTRAS.items()},
        settings=dict(_flat(home.config())),
        models=tuple(_models(models)),
        roster=home.technicians_file.is_file(),
        shelf=home.shelf_state.is_file(),
    )


def _trust(home: Home, given: Path | None) -> TrustFacts | None:
    """Of the document in use; None where the home has none. One that does not hold refuses."""
    from devguard.sbom.mds2 import TrustFacts

    try:
        document = home.trust(given)
    except Refused as error:
        if error.code != "trust.missing":
            raise
        return None
    return TrustFacts(
        version=document.version,
        expires=iso(document.expires),
        development=document.development,
        thresholds={name.value: (role.threshold, len(role.persons())) for name, role in document.roles.items()},
        require_sbom=document.require_sbom,
        require_device_nonce=document.require_device_nonce,
    )


def _records(invocation: Invocation) -> int | None:
    """Records of the home's own log, verified; None where none was ever kept. Raises as `evidence verify`."""
    from devguard.cli.evidence_keys import evidence_folder
    from devguard.evidence.verify import verify_log

    try:
        folder = evidence_folder(invocation)
    except Refused as error:
        if error.code != "log.missing":
            raise
        return None
    key = invocation.home.key_info(str(invocation.home.station_public())).key
    return verify_log(folder, key).records


def _keys(home: Home) -> Iterator[KeyFacts]:
    from devguard.custody.files import read_limited
    from devguard.custody.keyfile import MAX_KEY_FILE
    from devguard.custody.keytext import parse
    from devguard.sbom.mds2 import KeyFacts

    for path in home.private_keys():
        text = parse(read_limited(path, MAX_KEY_FILE))
        custody = "token" if text.token is not None else "passphrase" if text.encrypted else "open"
        yield KeyFacts(path.stem, text.info.role, custody, text.info.development)


def _flat(table: dict[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    """Names of settings, dotted, with their values as text."""
    for name, value in table.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", str(value)


def _models(wanted: tuple[str, ...]) -> Iterator[DeviceFacts]:
    from devguard.device.models import all_names, load_model
    from devguard.sbom.mds2 import DeviceFacts

    for name in wanted or all_names():
        model = load_model(name)
        end = None if model.end_of_support is None else iso(model.end_of_support)[:10]
        yield DeviceFacts(name, model.facts.technicians, model.smp.only, end)
