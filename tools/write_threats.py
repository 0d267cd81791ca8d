"""Write the generated parts of docs/threat-model.md from the attack catalogue: rows by attacker, rows that cannot
apply, and the items of regulation that rows give evidence for. A test fails when page and catalogue differ.

The codes of a row are those that its class names, itself or through what it uses of its own module.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from devguard.bench.attacks.registry import ROWS
from devguard.bench.attacks.row import Attacker, Row
from devguard.errors import CODES

PAGE = Path(__file__).resolve().parent.parent / "docs" / "threat-model.md"
PART = re.compile(r"(<!-- (rows|absent|items)(?:: ([^>]+?))? -->\n).*?(<!-- end -->)", re.DOTALL)
FDA, CYBER, AFTER = "FDA premarket guidance, appendix 1", "FD&C Act 524B", "FDA postmarket guidance"
LIFE, RISK, EU = "IEC 81001-5-1, IEC 62304", "ISO 14971, AAMI SW96", "EU MDR, MDCG 2019-16"
FIRMWARE, SIGNING, FRAME = "NIST SP 800-193, 800-147, 800-155", "SP 800-208, FIPS 204, CNSA 2.0", "NIST CSF 2.0"
DIABETES, SHARING, HOSPITAL = "IEEE/UL 2621", "MDS2, CSAF, KEV", "HIPAA, 21 CFR 11"
PRESENT = [row for row in ROWS if row.absent is None]
MANY = 6
ITEMS = {
    "1.A1": (FDA, "the device itself authenticates people, commands and updates"),
    "1.A2": (FDA, "more than one factor for what is privileged"),
    "1.A3": (FDA, "no credential that is hard-coded, default or implied"),
    "1.A4": (FDA, "critical commands cannot be replayed; sessions are mutual and end"),
    "1.A5": (FDA, "a CRC is no protection of integrity or origin"),
    "1.B1": (FDA, "least privilege by role and function, denied by default"),
    "1.B2": (FDA, "sessions end by themselves"),
    "1.C1": (FDA, "recommended algorithms, none that is deprecated"),
    "1.C2": (FDA, "one opened device reveals no other's keys"),
    "1.C3": (FDA, "no downgrade of protocol or version"),
    "1.D1": (FDA, "firmware signed with its version and metadata, refused without"),
    "1.D2": (FDA, "authenticity checked before execution, not only at install"),
    "1.D3": (FDA, "test and debug ports closed, tampering evident"),
    "1.D4": (FDA, "data from outside well-formed and in range"),
    "1.D5": (FDA, "critical configuration protected"),
    "1.D6": (FDA, "integrity of execution"),
    "1.E1": (FDA, "confidentiality of keys, patient data and, where risk says so, firmware"),
    "1.F1": (FDA, "detect, log, time and act"),
    "1.F2": (FDA, "records kept for forensics, off the device, machine-readable"),
    "1.F3": (FDA, "the user is told"),
    "1.G1": (FDA, "the critical function goes on when partly compromised"),
    "1.G2": (FDA, "authenticated recovery of a trusted configuration"),
    "1.G3": (FDA, "resistance to denial of service"),
    "1.H1": (FDA, "patches verified, validated and deployed quickly"),
    "1.H2": (FDA, "old releases can be built again"),
    "1.H3": (FDA, "an interrupted update is safe, with all its parts"),
    "2.1": (CYBER, "vulnerabilities handled by a plan, disclosure coordinated"),
    "2.2": (CYBER, "updates on a regular cycle"),
    "2.3": (CYBER, "updates out of cycle for critical vulnerabilities"),
    "2.4": (CYBER, "a software bill of materials"),
    "2.5": (CYBER, "support level and end of support of each component"),
    "2.6": (CYBER, "evidence complete at submission"),
    "3.1": (AFTER, "customers told within 30 days, fixed within 60"),
    "3.2": (AFTER, "controlled or uncontrolled risk, by exploitability and harm"),
    "3.3": (AFTER, "evidence for reports"),
    "4.1": (LIFE, "an update policy with time frames"),
    "4.2": (LIFE, "an update fixes what it should and breaks nothing"),
    "4.3": (LIFE, "what an update is compatible with"),
    "4.4": (LIFE, "every update can be verified by its user"),
    "4.5": (LIFE, "a threat model with ports, reviewed"),
    "4.6": (LIFE, "residual risks told"),
    "4.7": (LIFE, "file integrity and control of private keys at release"),
    "4.8": (LIFE, "configuration management, repeatable releases"),
    "4.9": (LIFE, "software of unknown provenance listed"),
    "5.1": (RISK, "security controls traced to hazards and verified"),
    "5.2": (RISK, "the update itself is a hazard"),
    "5.3": (RISK, "controls do not stand in the way of urgent care"),
    "6.1": ("IMDRF N60", "integrity, authentication, maintenance, physical access"),
    "6.2": ("IMDRF N70", "support ends, and customers know when"),
    "6.3": ("IMDRF N73", "bills of materials made, shared and used"),
    "7.1": (EU, "state of the art over the life cycle"),
    "7.2": (EU, "what the user's machine must have"),
    "7.3": (EU, "vigilance after incidents"),
    "7.4": (EU, "a list of security capabilities"),
    "8.1": (FIRMWARE, "updates authenticated on one path that cannot be passed by"),
    "8.2": (FIRMWARE, "corrupted code and critical data detected at boot"),
    "8.3": (FIRMWARE, "recovery of code and critical data"),
    "8.4": (FIRMWARE, "recovery images obey the update policy"),
    "8.5": (FIRMWARE, "a local update needs presence and authorisation"),
    "8.6": (FIRMWARE, "reports are fresh and signed"),
    "9.1": (SIGNING, "post-quantum signatures for firmware"),
    "9.2": (SIGNING, "one-time keys never used again"),
    "9.3": (SIGNING, "exclusive use from about 2030"),
    "9.4": (SIGNING, "algorithms can be changed during a device's life"),
    "10.1": (FRAME, "roles, supply chain, inventory"),
    "10.2": (FRAME, "identity and training"),
    "10.3": (FRAME, "detect, respond, recover"),
    "11.1": (DIABETES, "a protection profile"),
    "11.2": (DIABETES, "verified updates, pairing that is not spoofed, authorised commands"),
    "11.3": (DIABETES, "the controlling computer is not trusted"),
    "12.1": ("IEEE 11073-40101", "threats modelled by a process"),
    "12.2": ("IEEE 11073-40102", "a toolbox with test vectors"),
    "13.1": (SHARING, "the disclosure statement"),
    "13.2": (SHARING, "upgrades, roadmap, bill of materials, guidance"),
    "13.3": (SHARING, "audit, authorisation, authentication, emergency access, logoff"),
    "13.4": (SHARING, "integrity, confidentiality, configuration, hardening"),
    "13.5": (SHARING, "product security maturity"),
    "13.6": (SHARING, "advisories with status and justification"),
    "13.7": (SHARING, "known exploited first"),
    "14.1": (HOSPITAL, "audit controls, integrity, retention"),
    "14.2": (HOSPITAL, "clearance, training and leavers"),
    "14.3": (HOSPITAL, "disposal of devices"),
    "14.4": (HOSPITAL, "attributable records with a signed meaning"),
}


def codes_of(row: type[Row]) -> list[str]:
    """The refusal codes a row names, in the order of the table of codes."""
    module = sys.modules[row.__module__]
    found = set(_codes_in(row, module, set()))
    return [code for code in CODES if code in found]


def _codes_in(thing: Any, module: ModuleType, seen: set[int]) -> Iterator[str]:
    if id(thing) in seen:
        return
    seen.add(id(thing))
    tree = ast.parse(inspect.cleandoc("\n" + inspect.getsource(thing)))
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and node.value in CODES:
            yield str(node.value)
        elif isinstance(node, ast.Name):
            yield from _codes_named(getattr(module, node.id, None), module, seen)


def _codes_named(value: Any, module: ModuleType, seen: set[int]) -> Iterator[str]:
    if isinstance(value, str):
        yield from (value,) if value in CODES else ()
    elif isinstance(value, (tuple, frozenset, list)):
        yield from (one for one in value if isinstance(one, str) and one in CODES)
    elif isinstance(value, (FunctionType, type)) and value.__module__ == module.__name__:
        yield from _codes_in(value, module, seen)


def sentence(row: type[Row]) -> str:
    """The first sentence of what the row says it does."""
    text = " ".join((row.__doc__ or "").split())
    return text.partition(". ")[0].rstrip(".")


def _rows_of(attacker: str) -> Iterable[str]:
    rows = [row for row in PRESENT if row.attacker == Attacker(attacker)]
    yield "| row | attack | tried | refused with | evidence for |\n|---|---|---|---|---|\n"
    for row in rows:
        items = ", ".join(row.regulation)
        yield f"| {row.id} | {_cell(row.title)} | {_cell(sentence(row))} | {_shown(codes_of(row))} | {items} |\n"


def _shown(codes: list[str]) -> str:
    """Codes as a cell; of many only their rooms."""
    if len(codes) > MANY:
        codes = list(dict.fromkeys(f"{code.partition('.')[0]}.*" for code in codes))
    return " ".join(f"`{code}`" for code in codes) or "nobody: it comes to nothing"


def _absent() -> Iterable[str]:
    yield "| row | attack | why it cannot apply |\n|---|---|---|\n"
    for row in ROWS:
        if row.absent is not None:
            yield f"| {row.id} | {_cell(row.title)} | {_cell(row.absent)} |\n"


def _items() -> Iterable[str]:
    used: dict[str, list[str]] = {}
    for row in PRESENT:
        for item in row.regulation:
            used.setdefault(item, []).append(row.id)
    yield "| item | source | asks for | rows |\n|---|---|---|---|\n"
    for item, (source, asks) in ITEMS.items():
        if item in used:
            yield f"| {item} | {source} | {asks} | {', '.join(used.pop(item))} |\n"
    if used:
        raise KeyError(f"items that ITEMS does not have: {', '.join(used)}")


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def page(text: str) -> str:
    """The page with its generated parts written anew."""

    def part(found: re.Match[str]) -> str:
        kind, attacker = found[2], found[3]
        lines = _rows_of(attacker) if kind == "rows" else _absent() if kind == "absent" else _items()
        return f"{found[1]}\n{''.join(lines)}\n{found[4]}"

    return PART.sub(part, text)


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
