"""A report as one HTML page that needs nothing else: page one for a ward, page two for an analyst. Pure.

Whatever comes from a record goes through `_text`, and what people typed is not shown at all (`export.shared`). The page
asks for nothing from anywhere: no script, no picture, no font; its own policy forbids them.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from devguard.errors import CODES
from devguard.evidence.export import excerpt, rfc3339, severity
from devguard.evidence.incident import Incident, clocks
from devguard.evidence.proof import InclusionProof
from devguard.evidence.record import Entry, Record
from devguard.evidence.rules import MEANING, OPEN, Kind

MOST: Final = 200  # records on a page
_WIDTH, _LEFT, _LANE = 720, 90, 34  # of the drawing, in its own units
_LANES: Final = (("done", "#2a7"), ("refused", "#c33"), ("incident", "#e80"))
_DOUBT: Final = ("device.changed", "device.self-test", "device.state", "device.log", "smp.state")
_STYLE: Final = """
body{font:15px/1.45 sans-serif;color:#111;max-width:46em;margin:2em auto;padding:0 1em}
h1{font-size:1.5em}h2{font-size:1.15em;margin-top:1.6em}table{border-collapse:collapse;width:100%;font-size:.82em}
td,th{border:1px solid #bbb;padding:.25em .4em;text-align:left;vertical-align:top}
code,pre{font:12px monospace;overflow-wrap:anywhere;white-space:pre-wrap}
.risk{border-left:.4em solid #c33;padding-left:.8em}
.calm{border-left:.4em solid #2a7;padding-left:.8em}.forensic{break-before:page}svg{width:100%;height:auto}
@media print{body{margin:0;max-width:none}a{color:inherit;text-decoration:none}}
"""


@dataclass(frozen=True, slots=True)
class Report:
    """What a page is of. subject: in words; proofs: of `entries`, in the same order and against one checkpoint;
    left_off: how many older records there are more; now: epoch seconds."""

    subject: str
    origin: str
    entries: Sequence[Entry]
    proofs: Sequence[InclusionProof]
    incidents: Sequence[Incident]
    now: int
    left_off: int = 0


def page(report: Report) -> str:
    """The whole page."""
    title = f"devguard: {report.subject}"
    return "\n".join(
        [
            '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">',
            "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">",
            f"<title>{_text(title)}</title><style>{_STYLE}</style></head><body>",
            f"<h1>{_text(report.subject)}</h1>",
            f"<p>Made on {rfc3339(report.now)} from the evidence log {_text(report.origin)}, verified whole.</p>",
            *_first_page(report),
            '<section class="forensic">',
            *_second_page(report),
            "</section></body></html>\n",
        ]
    )


def _text(value: object) -> str:
    return html.escape(str(value), quote=True)


# page one


def _first_page(report: Report) -> list[str]:
    records = [entry.record for entry in report.entries]
    doubts = _doubts(records, report.incidents)
    kind = "risk" if doubts else "calm"
    calm = (
        "Nothing in these records says so. An attempt that was refused left the device as it was: software, settings "
        "and therapy. devguard sees software and who changes it; what it sees replaces no look at the patient."
    )
    return [
        "<h2>What happened</h2>",
        *(f"<p>{_text(line)}</p>" for line in _happened(report, records)),
        _drawing(report.entries),
        f'<h2>Is anybody at risk?</h2><div class="{kind}">',
        *([f"<p>{_text(line)}</p>" for line in doubts] or [f"<p>{calm}</p>"]),
        "</div><h2>What to do</h2><ol>",
        *(f"<li>{_text(line)}</li>" for line in _to_do(records, report, bool(doubts))),
        "</ol>",
    ]


def _happened(report: Report, records: Sequence[Record]) -> list[str]:
    if not records:
        return ["No record is about this."]
    pushed = [one for one in records if one.action == "release.push" and one.ok and "dry-run" not in one.details]
    refused = [one for one in records if not one.ok]
    people = sorted({one.actor for one in records if one.actor != "devguard"})
    waiting = sum(one.open for one in report.incidents)
    lines = [
        f"From {rfc3339(records[0].time)} to {rfc3339(records[-1].time)}: {len(records)} records, "
        f"updates done: {len(pushed)}, attempts refused: {len(refused)}, incidents open: {waiting}.",
        f"Involved: {', '.join(people[:12])}{' and others' if len(people) > 12 else ''}.",
    ]
    lines += [f"{one.device}: now runs {one.release}, confirmed by the device itself." for one in pushed[-5:]]
    lines += [f"{rfc3339(one.time)}: {MEANING.get(one.kind, one.kind)} ({one.subject})." for one in report.incidents]
    return lines


def _doubts(records: Sequence[Record], incidents: Iterable[Incident]) -> list[str]:
    lines = [
        f"Perhaps: device {one.subject} fell silent in the middle of an update, and nobody has looked into it yet. Do "
        "not rely on it until it was asked what it runs."
        for one in incidents
        if one.open and one.kind == Kind.VANISHED
    ]
    ended = {one.request for one in records if one.action == "release.push"}
    lines += [
        f"Perhaps: an update of {one.device or 'a device'} began at {rfc3339(one.time)}, and none of these records "
        "says how it ended."
        for one in records
        if one.action == "release.push-begun" and one.request not in ended
    ]
    found = {(one.device or "a device", one.code) for one in records if one.code in _DOUBT}
    lines += [f"Perhaps: {device}: {CODES[code].cause}." for device, code in sorted(found) if code in CODES]
    return lines


def _to_do(records: Iterable[Record], report: Report, doubt: bool) -> list[str]:
    lines = ["Take the device named above out of use, and give the patient another."] if doubt else []
    lines += [
        f"Call the security officer: incident {one.id} is open (`devguard evidence incident show {one.id}`)."
        for one in report.incidents
        if one.open
    ]
    lines += [
        f"Incident {one.id}: by {rfc3339(clock.due)[:10]}: {clock.duty} ({clock.state})."
        for one in report.incidents
        for clock in clocks(one, report.now)
        if clock.state != "stopped"
    ]
    codes = dict.fromkeys(one.code for one in records if one.code in CODES)
    lines += [f"{CODES[code].cause}: {CODES[code].remedy}." for code in list(codes)[-6:] if code is not None]
    return lines or ["Nothing."]


# the drawing


def _drawing(entries: Sequence[Entry]) -> str:
    """Time from left to right, a lane each for what was done, refused and raised."""
    if not entries:
        return ""
    times = [entry.record.time for entry in entries]
    first, span = min(times), max(max(times) - min(times), 1)
    height = _LANE * len(_LANES) + 30
    parts = [f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="timeline">']
    for number, (name, colour) in enumerate(_LANES):
        y = _LANE * number + 20
        parts.append(f'<text x="0" y="{y + 4}" font-size="12" fill="{colour}">{name}</text>')
        parts.append(f'<line x1="{_LEFT}" y1="{y}" x2="{_WIDTH - 10}" y2="{y}" stroke="#ccc"/>')
    for entry in entries:
        record = entry.record
        lane = 2 if record.action == OPEN or record.action == "incident.new" else 0 if record.ok else 1
        x = _LEFT + 6 + (record.time - first) * (_WIDTH - _LEFT - 24) / span
        what = _text(f"{rfc3339(record.time)} {record.action} {record.code or 'ok'} {record.actor}")
        parts.append(
            f'<a href="#record-{entry.index}"><circle cx="{x:.1f}" cy="{_LANE * lane + 20}" r="{3 + severity(record)}" '
            f'fill="{_LANES[lane][1]}" fill-opacity=".7"><title>{what}</title></circle></a>'
        )
    ends = ((_LEFT, "start", times[0]), (_WIDTH - 10, "end", times[-1]))
    parts += [
        f'<text x="{x}" y="{height - 8}" font-size="11" text-anchor="{anchor}">{rfc3339(time)}</text>'
        for x, anchor, time in ends
    ]
    return "".join([*parts, "</svg>"])


# page two


def _second_page(report: Report) -> list[str]:
    lines = ["<h2>For the forensic analyst: records</h2>"]
    if report.left_off:
        lines.append(f"<p>{report.left_off} older records are left off; `devguard evidence export` has them all.</p>")
    lines.append("<table><tr><th>record</th><th>time</th><th>who</th><th>what</th><th>device, release</th></tr>")
    lines += [_row(entry) for entry in report.entries]
    lines.append("</table><h2>Digests, statements, proofs</h2>")
    lines.append(
        "<p>Leaf and path lead to the root of the checkpoint below (RFC 6962); `devguard evidence prove INDEX` gives "
        "the whole record as a file that verifies with the station's public key alone.</p>"
    )
    pairs = zip(report.entries, report.proofs, strict=True)
    lines += [_proof(entry, proof) for entry, proof in pairs]
    if report.proofs:
        lines.append(f'<h2 id="checkpoint">Checkpoint</h2><pre>{_text(report.proofs[0].note.decode())}</pre>')
    return lines


def _row(entry: Entry) -> str:
    record = entry.record
    where = " ".join(part for part in (record.device, record.release) if part)
    cells = [rfc3339(record.time), record.actor, f"{record.action}: {record.code or 'ok'}", where]
    link = f'<a href="#proof-{entry.index}">{entry.index}</a>'
    return (
        f'<tr id="record-{entry.index}"><td>{link}</td>' + "".join(f"<td>{_text(one)}</td>" for one in cells) + "</tr>"
    )


def _proof(entry: Entry, proof: InclusionProof) -> str:
    plain = excerpt(entry)
    rows: Mapping[str, object] = {
        "leaf": plain["leaf"],
        "path": " ".join(one.hex() for one in proof.path),
        "request": plain["request"],
        **plain["digests"],
        **plain["details"],
        **{name: f"{one['bytes']} bytes, SHA-256 {one['sha256']}" for name, one in plain["statements"].items()},
        "withheld": ", ".join(plain["withheld"]),
    }
    told = "\n".join(f"{name}: {value}" for name, value in rows.items() if value)
    back = f'<a href="#record-{entry.index}">record {entry.index}</a>, under the <a href="#checkpoint">checkpoint</a>'
    return f'<h3 id="proof-{entry.index}">{back}</h3><pre>{_text(told)}</pre>'
