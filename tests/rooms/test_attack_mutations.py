"""The attack bench sees what it says it sees: each security check is broken in turn, and some row goes red.

Invariant: for every entry of `BROKEN` one of its rows, played with that check taken out of the running code (host and
device alike), is broken. A check that is made twice in different ways is taken out in both places. All of it runs under
`make check`; `make test` takes two.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from devguard.bench.attacks.registry import rows_named
from devguard.bench.attacks.row import Status
from devguard.bench.attacks.run import play_row, why_absent
from devguard.bench.attacks.world import World
from devguard.cli.in_process import CommandLine

PUMP, PROGRAMMER = "insulin-pump", "pacemaker-programmer"


def says(value: Any) -> Callable[..., Any]:
    """A check that looks at nothing."""
    return lambda *_args, **_more: value


@dataclass(frozen=True)
class Break:
    """`where`: names of what is replaced by `by`, as `module:name`. `rows`: one of them has to go red."""

    what: str
    where: tuple[str, ...]
    by: Any
    rows: tuple[str, ...]
    model: str = PUMP


BROKEN = (
    Break(
        "no signature is asked for",
        ("devguard.verdict.signatures:_signed", "devguard.verdict.signatures:_signatures"),
        says(""),
        ("A01",),
    ),
    Break("signatures are not verified", ("devguard.verdict.blocks:_fault",), says(None), ("A04",)),
    Break(
        "revoked keys and keys of other roles count",
        ("devguard.verdict.blocks:_standing", "devguard.trust.model:TrustDocument.is_revoked"),
        says(None),
        ("D04", "D06"),
    ),
    Break("a post-quantum signature is not asked for", ("devguard.verdict.signatures:_hybrid",), says(""), ("A03",)),
    Break("one signer is enough", ("devguard.verdict.signatures:_threshold",), says(""), ("D02",)),
    Break("bytes beside a signature are taken", ("devguard.verdict.blocks:_check_bare",), says(None), ("A03",)),
    Break("the sequence number is not compared", ("devguard.verdict.judge:check_sequence",), says(""), ("C01",)),
    Break(
        "the security version is not compared",
        ("devguard.verdict.judge:check_security_version",),
        says(""),
        ("C02", "C04"),
    ),
    Break("numbers may jump", ("devguard.verdict.versions:_step",), says(None), ("C04",)),
    Break("any vendor", ("devguard.verdict.judge:check_vendor",), says(""), ("A09",)),
    Break("any model", ("devguard.verdict.judge:check_class",), says(""), ("A09",)),
    Break("any serial", ("devguard.verdict.judge:check_device",), says(""), ("A09",)),
    Break("any components", ("devguard.verdict.judge:check_components",), says(""), ("C06",), PROGRAMMER),
    Break("the bench does not compare the image", ("devguard.verdict.judge:check_images",), says(""), ("A02", "A08")),
    Break(
        "the device does not compare the image", ("devguard.device.download:SlotWriter._reject",), says(None), ("A08",)
    ),
    Break(
        "the file itself is sent, not a copy",
        ("devguard.cli.files:private_copy",),
        lambda path: path.open("rb"),
        ("A08",),
    ),
    Break("a weak key is taken", ("devguard.cose.keys:check_edwards",), says(None), ("A04",)),
    Break(
        "test keys of the field are taken",
        ("devguard.grant.check:PUBLISHED_TEST_KEYS", "devguard.trust.codec:PUBLISHED_TEST_KEYS"),
        {},
        ("D03",),
    ),
    Break("who granted does not matter", ("devguard.grant.check:_check_authority",), says(None), ("D06", "E06")),
    Break(
        "grants live for ever",
        ("devguard.grant.check:_check_life", "devguard.grant.check:_check_expiry"),
        says(None),
        ("D05", "E03"),
    ),
    Break("grants of old epochs hold", ("devguard.grant.check:_check_epoch",), says(None), ("E03", "D05")),
    Break("any model, serial, site and hour", ("devguard.grant.check:_check_scope",), says(None), ("E02",)),
    Break("any action", ("devguard.grant.check:_check_action",), says(None), ("E02",)),
    Break(
        "uses are not counted",
        ("devguard.grant.check:check_use", "devguard.device.attendant:spend_use"),
        lambda _chain, spent, *_more: spent,
        ("E05",),
        PROGRAMMER,
    ),
    Break("nonces are not looked at", ("devguard.grant.check:_check_nonce",), says(None), ("E05",)),
    Break("one person may approve twice", ("devguard.device.attendant:check_pair",), says(None), ("E04",), PROGRAMMER),
    Break(
        "an approval of anything will do",
        ("devguard.device.attendant:check_approval",),
        says(None),
        ("E04",),
        PROGRAMMER,
    ),
    Break(
        "the handshake's signatures are not verified",
        ("devguard.session.handshake:Machine._check_proof",),
        says(None),
        ("F03", "F04"),
    ),
    Break("handshakes may be tried without end", ("devguard.device.node:handshake_delay",), says(0.0), ("F04",)),
    Break("a session never ends", ("devguard.device.emulator:EmulatedDevice._time_out",), says(None), ("F06",)),
    Break("anything may be a port", ("devguard.link.driver:check_terminal",), says(None), ("F08",)),
    Break("any adapter", ("devguard.bench.attacks.line_ends:check_adapter",), says(None), ("F08",)),
    Break("the device keeps no record of refusals", ("devguard.device.node:DeviceNode.refused",), says(None), ("A01",)),
    Break(
        "a trust document needs no predecessor's word", ("devguard.trust.chain:_check_version",), says(None), ("D04",)
    ),
    Break("the bench's clock may go back", ("devguard.cli.record:Note.recall",), says(None), ("C05",)),
    Break(
        "a changed device is nobody's business", ("devguard.cli.device_change:check_unchanged",), says(None), ("J03",)
    ),
    Break("the station remembers nothing", ("devguard.cli.record:Note.recall",), says(None), ("J01",)),
    Break(
        "what technicians and devices signed is not read",
        ("devguard.cli.evidence_devices:Devices._check_record", "devguard.cli.evidence_devices:Devices._check_claims"),
        says(None),
        ("J02",),
    ),
    Break("no rule looks at the records", ("devguard.evidence.rules:find",), says(()), ("J06",)),
    Break("heads may contradict each other", ("devguard.evidence.witness:compare",), says("same"), ("J05",)),
    Break(
        "a release may have two contents", ("devguard.cli.evidence_compare:Comparison._releases",), says(None), ("J05",)
    ),
    Break("an altered image boots", ("devguard.device.slots:Slots.whole",), says(True), ("G01",)),
    Break("a trial needs no self-test", ("devguard.device.bootloader:Bootloader.self_test",), says(True), ("G06",)),
    Break("any moment is one for an update", ("devguard.device.node:DeviceNode.check_ready",), says(None), ("I04",)),
    Break("offers erase as often as they come", ("devguard.device.slot_eraser:seconds_to_wait",), says(0), ("I02",)),
    Break("a download goes on anywhere", ("devguard.device.bootloader:Journal.resume",), says(None), ("I01",)),
    Break("any image boots", ("devguard.device.bootloader:Bootloader._refusal",), says(None), ("C02",)),
    Break("any security version boots", ("devguard.device.bootloader:Bootloader._allowed",), says(True), ("C02",)),
    Break("any word keeps a new key", ("devguard.custody.keyfile:check_strength",), says(None), ("E07",)),
    Break("known exploited parts are let through", ("devguard.sbom.judge:Inside.require",), says(None), ("C08",)),
    Break(
        "any two roles are filled",
        ("devguard.trust.quorum:seat",),
        lambda first, _: ((first.role, "anybody"),),
        ("D01",),
    ),
    Break("keys of a trust document are not looked at", ("devguard.trust.codec:check_keys",), says(None), ("D03",)),
    Break("any image may run", ("devguard.device.bootloader:Bootloader._allowed",), says(True), ("C02",)),
    Break("no image is refused at boot", ("devguard.device.bootloader:Bootloader._refusal",), says(None), ("C02",)),
    Break("the clock may stand anywhere", ("devguard.cli.memory:check_clock",), says(None), ("C05",)),
    Break("what is inside does not matter", ("devguard.sbom.judge:Inside.require",), says(None), ("C08",)),
    Break("any passphrase", ("devguard.custody.keyfile:check_strength",), says(None), ("E07",)),
    Break(
        "an image on trial may change settings",
        ("devguard.device.node:DeviceNode._tests_well",),
        lambda node: node.around.self_test(),
        ("E08",),
    ),
    Break("therapy and battery do not matter", ("devguard.device.node:DeviceNode.check_ready",), says(None), ("I04",)),
    Break("nothing is erased", ("devguard.device.erase:shred",), says(None), ("B04",)),
    Break(
        "any step in any state",
        ("devguard.session.device_side:DeviceConversation._following",),
        lambda self, _verb: self.state,
        ("E01", "H05"),
    ),
)
QUICK = frozenset({"the sequence number is not compared", "any adapter"})


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], World]]:
    """The world of a model, made when it is asked for, with every check in place."""
    made: dict[str, World] = {}

    def world(model: str) -> World:
        if model not in made:
            made[model] = World.make(model, CommandLine(), tmp_path_factory.mktemp("mutations"))
        return made[model]

    yield world
    for one in made.values():
        one.close()


def owner_of(name: str) -> tuple[Any, str]:
    """The module or class that holds what is named, and its name there."""
    module, _, path = name.partition(":")
    *holders, last = path.split(".")
    return pkgutil.resolve_name(":".join([module, ".".join(holders)]) if holders else module), last


@pytest.mark.parametrize(
    "broken", [pytest.param(one, marks=() if one.what in QUICK else pytest.mark.slow, id=one.what) for one in BROKEN]
)
def test_a_check_that_is_gone_turns_a_row_red(
    broken: Break, worlds: Callable[[str], World], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = worlds(broken.model)
    rows = [row for row in rows_named(broken.rows) if why_absent(row) is None]
    for name in broken.where:
        owner, last = owner_of(name)
        monkeypatch.setattr(owner, last, broken.by)
    found = []
    for row in rows:
        found.append(play_row(row, world))
        if found[-1].status is Status.BROKEN:
            break
    monkeypatch.undo()
    assert any(one.status is Status.BROKEN for one in found), [(one.id, one.why) for one in found]
