"""Every code of the architecture is in the table, each explained; exit statuses follow the contract."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from devguard._codes import CODE_ROWS
from devguard.errors import CODES, DevguardError, DeviceRefused, Exit, LinkError, Malformed, Refused

PACKAGE = Path(__file__).resolve().parents[2] / "devguard"

ARCHITECTURE_CODES = """
envelope.malformed envelope.not-deterministic signature.missing signature.invalid signature.threshold
signature.algorithm signature.hybrid key.unknown key.revoked key.purpose key.weak key.development
trust.expired trust.rollback trust.gap image.digest image.size image.format image.vendor image.class
image.device image.trailing version.rollback version.current version.exhausted release.expired release.revoked
release.vulnerable sbom.missing sbom.digest shelf.freeze shelf.mix shelf.endless grant.missing grant.malformed
grant.signature grant.expired grant.not-yet grant.revoked grant.scope grant.action grant.quorum grant.replay
grant.training session.handshake session.replay session.tampered session.timeout session.order device.identity
device.therapy-active device.battery device.slot device.busy device.unconfirmed link.timeout link.protocol
link.port packet.crc packet.length packet.unknown log.tampered log.truncated log.full
""".split()  # noqa: SIM905 (a page of codes, not a column)


def test_no_code_was_renamed() -> None:
    assert set(ARCHITECTURE_CODES) <= set(CODES)


def test_each_code_stands_once_and_says_why_and_what_to_do() -> None:
    assert len(CODE_ROWS) == len(CODES)
    for info in CODES.values():
        assert re.fullmatch(r"[a-z]+\.[a-z]+(-[a-z]+)*", info.code)
        assert len(info.cause) > 10
        assert len(info.remedy) > 8


@pytest.mark.parametrize(
    ("code", "status"), [("link.port", 4), ("log.full", 4), ("envelope.malformed", 3), ("image.digest", 1)]
)
def test_exit_statuses(code: str, status: int) -> None:
    assert DevguardError(code, "x").exit_status == status
    assert DeviceRefused(code, "x").exit_status == Exit.DEVICE


def test_all_link_codes_may_be_retried() -> None:
    for code, info in CODES.items():
        assert (info.exit is Exit.RETRY) == (
            code.startswith("link.")
            or code
            in {
                "log.full",
                "file.busy",
                "incident.unsent",
                "file.unreadable",
                "session.timeout",
                "device.state",
                "shelf.slow",
                "shelf.unreachable",
                "console.rate",
                "console.running",
                "console.bind",
                "console.upload-slow",
                "console.disk",
                "console.slow",
                "console.busy",
                "smp.malformed",
                "ledger.unreachable",
                "ledger.busy",
                "ledger.full",
            }
        )


def test_unknown_codes_of_a_newer_device_survive() -> None:
    error = DeviceRefused("device.quantum", "from the future")
    assert error.code == "device.quantum"
    assert error.hint
    assert error.exit_status == Exit.DEVICE


def test_the_hint_falls_back_to_the_table() -> None:
    assert Refused("image.digest", "x").hint == CODES["image.digest"].remedy
    assert Malformed("image.format", "x", hint="y").hint == "y"
    assert LinkError("link.port", "x").message == "x"


def test_every_code_raised_in_the_source_is_in_the_table() -> None:
    pattern = re.compile(
        r"(file|wire|capture|description|envelope|signature|key|trust|image|version|release|sbom|shelf|grant|session|device|link|packet|log|config|clock|smp|qr|incident|advisory|ledger|campaign|console|internal)\.[a-z]+(-[a-z]+)*"
    )
    unknown = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Call)
                and ast.unparse(node.func).split(".")[-1]
                in {"Refused", "Malformed", "LinkError", "RemoteProtocolError", "LocalProtocolError", "DevguardError"}
                and node.args
            ):
                first = node.args[0]
                if isinstance(first, ast.Constant) and isinstance(first.value, str):
                    assert pattern.fullmatch(first.value), f"{path}:{node.lineno} {first.value}"
                    if first.value not in CODES:
                        unknown.add(f"{path}:{node.lineno} {first.value}")
    assert not unknown
