"""`devguard evidence verify BUNDLE`: an incident from elsewhere, by the station's public key alone."""

from __future__ import annotations

import base64
import binascii
from pathlib import Path
from typing import TYPE_CHECKING, Any

from devguard.cli.context import Invocation
from devguard.cli.evidence_keys import station_of
from devguard.errors import DevguardError, Refused

if TYPE_CHECKING:
    from devguard.evidence.bundle import Bundle
    from devguard.evidence.witness import Demand


def verify_bundle(
    invocation: Invocation, data: bytes, reference: str | None, trust_file: Path | None, wanted: Demand | None
) -> None:
    """Verify a bundle and say what it is of; raises `log.tampered` naming the part that does not hold."""
    from devguard.evidence.bundle import read_bundle

    bundle = read_bundle(data)
    station = station_of(invocation, lambda: bundle.origin, reference, trust_file)
    entry, head = bundle.verify(station.key)
    found = wanted.met_by(bundle.seal.note) if wanted is not None else ()
    reports = _reports(bundle)
    one = bundle.section("incident")[0]
    records = bundle.section("record")
    result: dict[str, Any] = {
        "ok": True,
        "kind": "incident",
        "incident": one,
        "clocks": bundle.section("clock"),
        "timeline": [row["text"] for row in bundle.section("timeline")],
        "images": bundle.section("image"),
        "excerpts": sum(record["whole"] is None for record in records),
        "reports": reports,
        "sealed": entry.index,
        "origin": head.origin,
        "records": head.size,
        "root": head.root.hex(),
        "station": station.as_dict(),
        "witnesses": len(found),
    }
    lines = [
        f"good: incident {one['id']} of {one['time']}: {one['meaning']}",
        f"  {len(records)} records ({result['excerpts']} as excerpts) and {reports} device reports, sealed by record "
        f"{entry.index} of {head.size}",
        f"  risk {one['decision']}; due {', '.join(clock['due'][:10] for clock in result['clocks'])}",
        *(f"  {row}" for row in result["timeline"]),
    ]
    invocation.result(result, "\n".join(lines) + f"\nsigned by {head.origin}{station.text()}")


def _reports(bundle: Bundle) -> int:
    """How many device reports there are, each signed by the key of the credential beside it.

    Whether a device authority stands behind the credential takes its trust document, and `evidence verify --report`.
    """
    from devguard.grant.credential import read_credential
    from devguard.session.report import parse_report

    reports = bundle.section("report")
    for one in reports:
        try:
            signed, credential = base64.b64decode(one["signed"]), base64.b64decode(one["credential"])
            report = parse_report(signed, read_credential(credential).key)
        except (binascii.Error, KeyError, TypeError, DevguardError) as error:
            why = error.message if isinstance(error, DevguardError) else "it does not parse"
            raise Refused("log.tampered", f"the device report of record {one.get('record')}: {why}") from None
        if report.serial != one.get("device"):
            raise Refused("log.tampered", f"the device report of record {one.get('record')} is of {report.serial}")
    return len(reports)
