"""Enrolled once over the line, erased once on two words: whole or not at all, and in between nobody gets anything.

Over real state directories, for what counts is what a power cut leaves on disk.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from builders import CAST, NOW, Seat, Vendor, make_signer
from devguard import wire
from devguard.cose.algorithms import Algorithm
from devguard.cose.keys import CoseKey
from devguard.cose.roles import RoleName
from devguard.cose.sign import sign1
from devguard.custody import files
from devguard.device import erase, storage, therapy_files
from devguard.device.models import Model, load_model
from devguard.device.node import DeviceNode, Surroundings
from devguard.device.storage import DeviceDirectory
from devguard.device.therapy import PumpTherapy
from devguard.device.therapy_loop import TherapyLoop
from devguard.device.unit import Unit
from devguard.errors import DevguardError, DeviceRefused, LinkError, LocalProtocolError, Malformed, Refused
from devguard.grant.claims import ANY, Action, Grant
from devguard.grant.credential import issue_credential
from devguard.session.approval import sign_approval
from devguard.session.connect import Bench, greet, identify
from devguard.session.enrolment import TYP, Name, enrol, read_request, sign_request
from devguard.session.erasure import Erased, decommission, fetch_erasure, read_erasure, sign_erasure
from devguard.session.factory_verbs import (
    Enrol,
    EnrolCredentials,
    EnrolKeys,
    EnrolTaken,
    EnrolTrust,
    Erasure,
)
from devguard.session.table import TABLE, State
from devguard.session.update import fetch_report
from devguard.session.verbs import (
    FACTORY,
    Decommission,
    Edhoc,
    EdhocFailure,
    Hello,
    HelloReply,
    Message,
    Verb,
    encode_message,
    verb_of,
)
from sim.bench import (
    PROGRAMMER,
    PUMP,
    TESS,
    TOM,
    Device,
    Pipe,
    bench_for,
    checked,
    entropy,
    grant,
    vendor_of,
)

TWO = (*CAST, Seat(RoleName.DEVICE_AUTHORITY, "Dora Depot", Algorithm.ESP256))
NAME = Name(PUMP, "revA", "IP-9", "ward-4")
ERASE = frozenset({Action.DECOMMISSION})


@dataclass
class Shop:
    """A device on disk and what is around it; as a `Device` for what the bench's helpers ask of one."""

    path: Path
    model: Model = field(default_factory=lambda: load_model(PUMP))
    vendor: Vendor = field(default_factory=vendor_of)
    serial: str = NAME.serial
    clock: int = NOW

    def __post_init__(self) -> None:
        self.random = entropy("shop")
        self.on()

    def on(self) -> None:
        self.directory = DeviceDirectory(self.path, self.model)
        self.loop = TherapyLoop(self.directory.load_therapy(), lambda: self.clock, self.directory.save_therapy)
        around = Surroundings(lambda: self.clock, lambda: 0.0, lambda: 90, self.random, lambda: True)
        self.node: Any = Unit(self.directory, around, self.loop)
        self.node.boot()

    def off(self) -> None:
        with contextlib.suppress(DevguardError):
            self.loop.stop()
        self.directory.close()

    def power_cycle(self) -> None:
        self.off()
        self.on()

    @property
    def counters(self) -> Any:
        return self.directory.counters.load()

    def view(self) -> Any:
        return replace(Device().view(), model=self.model.name, serial=self.serial, site=NAME.site)

    @property
    def boot_state(self) -> str:
        return Pipe(self).run(greet()).boot_state

    def proves(self, vendor: Vendor | None = None) -> str:
        """The serial it proves in a handshake."""
        bench = Bench((vendor or self.vendor).trust, NOW, entropy("who"))
        return Pipe(self).run(identify(bench))[0].serial

    def files(self) -> set[str]:
        return {path.name for path in self.path.iterdir()}

    def holds(self, secret: bytes) -> bool:
        return any(secret in path.read_bytes() for path in self.path.iterdir() if path.is_file())


@pytest.fixture
def shop(tmp_path: Path) -> Any:
    one = Shop(tmp_path / "device")
    yield one
    one.off()


def authorities(vendor: Vendor) -> list[Any]:
    return [signer for seat, signer in vendor.seats if seat.role is RoleName.DEVICE_AUTHORITY]


def issuing(vendor: Vendor, name: Name = NAME, signers: Sequence[Any] | None = None) -> Callable[..., list[bytes]]:
    """The factory's side: a credential for each key."""

    def issue(keys: Sequence[CoseKey], **change: Any) -> list[bytes]:
        given: dict[str, Any] = {
            "issuer": "Dana Factory", "vendor": load_model(PUMP).facts.vendor, "model": name.model,
            "revision": name.revision, "serial": name.serial, "now": NOW, **change,
        }  # fmt: skip
        signed_by = list(signers) if signers is not None else authorities(vendor)[:1]
        return [issue_credential(signed_by, key=key, **given) for key in keys]

    return issue


def enrolled(shop: Shop, vendor: Vendor | None = None, name: Name = NAME, **how: Any) -> tuple[CoseKey, ...]:
    vendor = vendor or shop.vendor
    issue = how.pop("issue", None) or issuing(vendor, name, **how)
    return Pipe(shop).run(enrol(name, vendor.trust_bytes, issue, entropy("factory")))


def private(shop: Shop) -> list[bytes]:
    """The private numbers of the device's keys, as they would stand anywhere in clear."""
    from devguard.device.keys import from_pem

    found = []
    for path in sorted(shop.path.glob("device-*.key")):
        key = from_pem(path.read_bytes()).private
        found.append(path.read_bytes().splitlines()[1])
        found.append(key.private_bytes_raw() if hasattr(key, "private_bytes_raw") else
                     key.private_numbers().private_value.to_bytes(32, "big"))  # fmt: skip
    return found


# enrolment


@pytest.mark.parametrize("model", [PUMP, PROGRAMMER])
def test_a_device_is_enrolled_over_the_line_and_proves_it(tmp_path: Path, model: str) -> None:
    shop = Shop(tmp_path / "d", load_model(model))
    name = replace(NAME, model=model)
    assert shop.boot_state == "unprovisioned"
    keys = enrolled(shop, name=name)
    assert isinstance(shop.node.now, DeviceNode)
    assert shop.boot_state == "empty"
    assert shop.proves() == name.serial
    assert shop.node.now.identity.site == "ward-4"
    assert {one.sign.key.thumbprint for one in shop.node.now.identity.credentials.values()} == {
        key.thumbprint for key in keys
    }
    assert shop.counters.audit.events[0].name == "enrolled"
    shop.power_cycle()
    assert shop.proves() == name.serial
    shop.off()


def test_only_public_keys_leave_the_device(shop: Shop) -> None:
    said: list[bytes] = []
    pipe = Pipe(shop)
    inner = pipe.deliver

    def deliver(message: bytes, *, sealed: bool) -> None:
        inner(message, sealed=sealed)
        said.extend(pipe.inbox[False])

    pipe.deliver = deliver
    pipe.run(enrol(NAME, shop.vendor.trust_bytes, issuing(shop.vendor), entropy("f")))
    assert len(private(shop)) == 4
    for secret in private(shop):
        assert not any(secret in message for message in said)


def test_once_and_never_again(shop: Shop) -> None:
    enrolled(shop)
    before = {path: path.read_bytes() for path in shop.path.iterdir() if path.suffix in (".key", ".cbor", ".trust")}
    for wish in (NAME, replace(NAME, serial="IP-10")):
        with pytest.raises(DeviceRefused) as refused:
            enrolled(shop, name=wish)
        assert refused.value.code == "device.provisioned"
    changed = [path.name for path, data in before.items() if path.read_bytes() != data]
    assert changed in ([], ["counters.cbor"])  # its own log has grown
    assert shop.proves() == NAME.serial


def test_before_enrolment_no_handshake_no_update_no_therapy_verb(shop: Shop) -> None:
    for verb in Verb:
        pipe = Pipe(shop)
        pipe.open()
        if (State.BLANK, verb) in TABLE:
            continue
        message = wire.encode([int(verb)]) if verb not in (Verb.EDHOC,) else encode_message(Edhoc(b"\x03" * 40))
        answer = pipe.ask(message, sealed=False)
        assert isinstance(answer, EdhocFailure), verb
        expected = ("device.unprovisioned",) if verb is Verb.EDHOC else ("session.order", "wire.malformed")
        assert answer.code in expected, verb
        assert pipe.ask(Hello((3,)), sealed=False) is None
        pipe.open()
        assert pipe.ask(message, sealed=True) is None
    assert shop.files() <= {"lock", "flash.bin", "wear.bin", "counters.cbor"}
    with pytest.raises(DeviceRefused, match=r"device\.unprovisioned"):
        shop.proves()


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ([EnrolTrust(b"x", 1)], "session.order"),
        ([EnrolCredentials((b"x",))], "session.order"),
        ([Enrol(PUMP, "revA", "IP-9", "", bytes(16)), EnrolCredentials((b"x",))], "session.order"),
        ([Enrol(PUMP, "revA", "IP-9", "", bytes(16)), Enrol(PUMP, "revA", "IP-9", "", bytes(16))], "session.order"),
        ([Enrol(PUMP, "revA", "IP-9", "", bytes(16)), Hello((3,))], "device.unprovisioned"),
        ([Enrol(PROGRAMMER, "revA", "IP-9", "", bytes(16))], "image.class"),
        ([Enrol(PUMP, "revZ", "IP-9", "", bytes(16))], "image.class"),
        ([Enrol(PUMP, "revA", "IP-9", "", bytes(16)), EnrolTrust(b"x", 1), EnrolTrust(b"x", 1)], "trust.malformed"),
        (
            [Enrol(PUMP, "revA", "IP-9", "", bytes(16)), EnrolTrust(b"x", 1), EnrolCredentials((b"x",))],
            "wire.malformed",
        ),
        ([Erasure()], "device.unprovisioned"),
        ([EnrolKeys((b"x",))], "session.order"),
    ],
    ids=lambda one: one if isinstance(one, str) else "-".join(type(each).__name__ for each in one),
)
def test_anything_out_of_order_ends_the_attempt_and_leaves_nothing(shop: Shop, said: list[Message], code: str) -> None:
    pipe = Pipe(shop)
    pipe.open()
    answer = None
    for message in said:
        answer = pipe.ask(message, sealed=False)
    assert isinstance(answer, EdhocFailure)
    assert answer.code in (code, "trust.malformed") if code == "wire.malformed" else answer.code == code
    assert pipe.ask(Hello((3,)), sealed=False) is None
    assert not {name for name in shop.files() if name.endswith((".key", ".trust")) or name == "identity.cbor"}
    enrolled(shop)


def test_every_sequence_up_to_four_verbs_long_follows_the_table(shop: Shop) -> None:
    """The table is the model; what is out of it ends the attempt, and no sequence of pieces makes anybody of it."""
    words: list[Message] = [
        Hello((3,)), Erasure(), Enrol(PUMP, "revA", "IP-9", "", bytes(16)), EnrolTrust(b"x" * 900, 0),
        EnrolCredentials((b"x",)), Edhoc(b"\x03" * 40),
    ]  # fmt: skip
    count = 0
    for said in itertools.product(words, repeat=4):
        pipe = Pipe(shop)
        pipe.open()
        for message in said:
            state, verb = pipe.plain.state, verb_of(message)
            answer = pipe.ask(message, sealed=False)
            if state is State.CLOSED:
                assert answer is None
                break
            if (state, verb) in TABLE and not isinstance(answer, EdhocFailure):
                assert pipe.plain.state is TABLE[state, verb]
            else:
                assert isinstance(answer, EdhocFailure)
                assert pipe.plain.state is State.CLOSED
        count += 1
    assert count == len(words) ** 4
    assert shop.directory.identity is None
    assert not list(shop.path.glob("*.key"))


def test_a_trust_document_of_any_size_is_too_large_at_its_limit(shop: Shop) -> None:
    pipe = Pipe(shop)
    pipe.open()
    assert isinstance(pipe.ask(Enrol(PUMP, "revA", "IP-9", "", bytes(16)), sealed=False), EnrolKeys)
    for _ in range(16):
        assert pipe.ask(EnrolTrust(bytes(4096), 0), sealed=False) == EnrolTaken(int(Verb.ENROL_TRUST))
    answer = pipe.ask(EnrolTrust(b"\x00", 0), sealed=False)
    assert isinstance(answer, EdhocFailure)
    assert answer.code == "trust.malformed"


def test_credentials_that_do_not_fit_are_refused_and_leave_the_device_unprovisioned(shop: Shop) -> None:
    mallory, other = vendor_of("mallory"), make_signer(Algorithm.ESP256, "another key")
    good = issuing(shop.vendor)
    wrong: dict[str, tuple[Callable[..., list[bytes]], str]] = {
        "by nobody it knows": (issuing(shop.vendor, signers=authorities(mallory)), "key.unknown"),
        "by a key for something else": (
            issuing(shop.vendor, signers=[shop.vendor.signer(RoleName.TECHNICIAN_AUTHORITY)]), "key.purpose"),
        "another serial": (lambda keys: good(keys, serial="IP-10"), "device.identity"),
        "another model": (lambda keys: good(keys, model=PROGRAMMER), "device.identity"),
        "another key": (lambda keys: good([keys[0], other.key]), "device.identity"),
        "swapped": (lambda keys: good(keys)[::-1], "device.identity"),
        "one": (lambda keys: good(keys)[:1], "device.identity"),
        "garbage": (lambda keys: [b"\x00", b"\x01"], "session.handshake"),
    }  # fmt: skip
    for what, (issue, code) in wrong.items():
        with pytest.raises(DeviceRefused) as refused:
            enrolled(shop, issue=issue)
        assert refused.value.code == code, what
        assert shop.boot_state == "unprovisioned"
        assert not list(shop.path.glob("*.key"))
    enrolled(shop)


def test_a_trust_document_that_does_not_hold_enrols_nobody(shop: Shop) -> None:
    expired = vendor_of("old", issued=NOW - 9000, expires=NOW - 1000)
    programmer = Shop(shop.path.with_name("other"), load_model(PROGRAMMER))  # a device with a clock sees it
    with pytest.raises(DeviceRefused, match=r"trust\.expired"):
        enrolled(programmer, expired, replace(NAME, model=PROGRAMMER))
    programmer.off()
    broken = bytearray(shop.vendor.trust_bytes)
    broken[-1] ^= 1
    with pytest.raises(DeviceRefused, match=r"trust\.signature|signature\."):
        Pipe(shop).run(enrol(NAME, bytes(broken), issuing(shop.vendor), entropy("f")))
    assert shop.boot_state == "unprovisioned"


class Cut(Exception):
    """The power went."""


def cutting(monkeypatch: pytest.MonkeyPatch, at: int, after: bool) -> list[int]:
    """Every write and removal of the state directory is a step at which the power may go."""
    count = [0]

    def step(real: Callable[..., Any]) -> Callable[..., Any]:
        def stepped(*args: Any, **kwargs: Any) -> Any:
            count[0] += 1
            if count[0] == at:
                if after:
                    real(*args, **kwargs)
                raise Cut
            if count[0] > at:
                raise Cut
            return real(*args, **kwargs)

        return stepped

    for module in (storage, therapy_files, erase):
        monkeypatch.setattr(module, "write_atomic", step(files.write_atomic))
    shredder = step(erase.shred)
    monkeypatch.setattr(erase, "shred", shredder)
    monkeypatch.setattr(storage, "shred", shredder)
    return count


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("at", range(1, 11))
def test_a_power_cut_at_any_write_of_an_enrolment_leaves_nobody_or_somebody_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int, after: bool
) -> None:
    shop = Shop(tmp_path / "d")
    with monkeypatch.context() as patch:
        cutting(patch, at, after)
        with contextlib.suppress(Cut):
            enrolled(shop)
    shop.directory.close()
    shop.on()
    if shop.boot_state == "unprovisioned":
        assert not list(shop.path.glob("*.key"))
        with pytest.raises(DeviceRefused, match=r"device\.unprovisioned"):
            shop.proves()
        enrolled(shop)
    assert shop.proves() == NAME.serial
    assert shop.directory.load_therapy().damage == ()
    assert shop.counters.trust_version == shop.vendor.trust.version
    shop.off()


def test_requests_say_who_asks_and_are_fresh() -> None:
    key, challenge = make_signer(Algorithm.ESP256, "k"), bytes(range(16))
    good = sign_request(key, NAME, challenge)
    assert read_request(good, NAME, challenge) == key.key
    for name in (replace(NAME, serial="X"), replace(NAME, model=PROGRAMMER), replace(NAME, revision="revB")):
        with pytest.raises(Refused, match=r"device\.identity"):
            read_request(good, name, challenge)
    with pytest.raises(Refused, match=r"session\.replay"):
        read_request(good, NAME, bytes(16))
    stolen = wire.encode([1, NAME.model, NAME.revision, NAME.serial, challenge, key.key.to_map()])
    thief = make_signer(Algorithm.ESP256, "thief")
    with pytest.raises(Refused):  # somebody else's public key, signed by one's own
        read_request(sign1(thief, stolen, typ=TYP).encode(), NAME, challenge)
    for at in range(len(good)):
        with pytest.raises(DevguardError):
            read_request(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :], NAME, challenge)
    for items in ([2], [1, "a", "b", "c", b"", []], "x", {}):
        with pytest.raises((Malformed, Refused)):
            read_request(sign1(key, wire.encode(items), typ=TYP).encode(), NAME, challenge)


def test_a_device_that_asks_twice_for_one_key_gets_nothing(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    from devguard.device import blank

    one = blank.make_keys()[0]
    monkeypatch.setattr(blank, "make_keys", lambda: (one, one))
    with pytest.raises(Refused, match=r"device\.identity"):
        enrolled(shop)


def test_a_device_of_before_cannot_be_enrolled_over_a_line(shop: Shop) -> None:
    script = enrol(NAME, shop.vendor.trust_bytes, issuing(shop.vendor), entropy("f"))
    next(script)
    script.send(None)
    script.send(None)
    with pytest.raises(LinkError, match=r"link\.protocol"):
        script.send(encode_message(HelloReply(2, "unprovisioned", (3,), bytes(16))))


# decommissioning


def erases(shop: Shop, who: Any = TESS, **fields: Any) -> Grant:
    return grant(shop, who, actions=ERASE, sites=frozenset({ANY}), **fields)


def approver(shop: Shop, second: Grant | None = None, who: Any = TOM, **change: Any) -> Callable[[Any], Any]:
    second = second or erases(shop, who)
    digest = hashlib.sha256(second.untagged).digest()
    return lambda wish: (sign_approval(replace(wish, **change), who.signer, digest), second.untagged)


def erased(shop: Shop, one: Grant | None = None, yes: Any = None) -> tuple[Erased, bytes]:
    one = one or erases(shop)
    script = decommission(
        bench_for(shop, one),
        checked(shop, one, action=Action.DECOMMISSION),
        yes or approver(shop),
    )
    return Pipe(shop).run(script)


@pytest.fixture
def owned(tmp_path: Path) -> Any:
    one = Shop(tmp_path / "device")
    enrolled(one)
    yield one
    one.off()


@pytest.mark.parametrize("model", [PUMP, PROGRAMMER])
def test_what_made_it_ours_is_gone_and_it_has_signed_that(tmp_path: Path, model: str) -> None:
    shop = Shop(tmp_path / "d", load_model(model))
    keys = enrolled(shop, name=replace(NAME, model=model))
    shop.loop.change(lambda one: one.open_alarm("patient-marker-7", NOW))
    shop.loop._keep()
    secrets = [*private(shop), shop.vendor.trust_bytes[40:80], b"ward-4"]
    assert sum(shop.holds(secret) for secret in secrets) >= 4  # what is raw in `private` lies there as PEM
    anchor = (shop.path / "protected.cbor").read_bytes()[8:40]
    found, certificate = erased(shop)
    assert (found.serial, found.model, found.time) == (NAME.serial, model, shop.counters.clock_floor or NOW)
    assert set(found.keys) == {key.thumbprint for key in keys}
    assert found.log_head == shop.counters.audit.head
    assert shop.counters.audit.events[-1].name == "decommissioned"
    assert read_erasure(certificate, shop.vendor.trust, NOW + 10**8) == found
    assert shop.boot_state == "decommissioned"
    for secret in (*secrets, anchor, b"patient-marker-7"):
        assert not shop.holds(secret)
    assert shop.files() == {"lock", "flash.bin", "wear.bin", "counters.cbor", "erasure.cbor"}
    shop.loop.tick()
    shop.loop._keep()  # what ticks does not come back to disk
    assert shop.loop.alarms == ()
    shop.power_cycle()
    assert shop.files() == {"lock", "flash.bin", "wear.bin", "counters.cbor", "erasure.cbor"}
    assert shop.boot_state == "decommissioned"
    shop.off()


def test_afterwards_every_session_is_refused_and_the_certificate_is_there_for_whoever_missed_it(owned: Shop) -> None:
    one = erases(owned)
    found, certificate = erased(owned, one)
    for _ in range(2):
        with pytest.raises(DeviceRefused) as refused:
            Pipe(owned).connect(one)
        assert refused.value.code == "device.decommissioned"
        with pytest.raises(DeviceRefused, match=r"device\.decommissioned"):
            owned.proves()
        again = Pipe(owned).run(fetch_erasure(owned.vendor.trust, NOW))
        assert again == (found, certificate)
        owned.power_cycle()
    with pytest.raises(DeviceRefused, match=r"device\.unprovisioned"):
        other = Shop(owned.path.with_name("new"))
        Pipe(other).run(fetch_erasure(owned.vendor.trust, NOW))


def test_one_person_erases_nothing_whatever_the_model(owned: Shop) -> None:
    before = owned.files()
    pipe = Pipe(owned)
    pipe.connect(erases(owned))
    answer = pipe.ask(Decommission(bytes(16)))
    assert answer.code == "grant.quorum"
    same = erases(owned, TESS)
    digest = hashlib.sha256(same.untagged).digest()
    for yes in (
        lambda wish: (sign_approval(wish, TESS.signer, digest), same.untagged),
        approver(owned, action="update"),
        approver(owned, manifest_digest=bytes(32)),
        approver(owned, session_id=bytes(32)),
        approver(owned, grant(owned, TOM, sites=frozenset({ANY}))),
    ):
        with pytest.raises(DeviceRefused, match=r"grant\.quorum"):
            erased(owned, yes=yes)
    assert owned.files() == before
    assert owned.proves() == NAME.serial


@pytest.mark.parametrize("action", [one for one in Action if one is not Action.DECOMMISSION])
def test_a_grant_for_anything_else_erases_nothing(owned: Shop, action: Action) -> None:
    one = grant(owned, actions=frozenset({action}), sites=frozenset({ANY}))
    with pytest.raises(Refused, match=r"grant\.action"):
        checked(owned, one, action=Action.DECOMMISSION)
    pipe = Pipe(owned)
    pipe.connect(one)
    answer = pipe.ask(Decommission(bytes(16)))
    assert answer.code == "grant.action"
    with pytest.raises(LocalProtocolError):
        next(decommission(bench_for(owned, one), checked(owned, one, action=action), approver(owned)))


def test_nobody_is_erased_out_of_a_therapy(owned: Shop) -> None:
    owned.loop.change(lambda one: one.start_bolus(1000, NOW) if isinstance(one, PumpTherapy) else None)
    with pytest.raises(DeviceRefused, match=r"device\.therapy-active"):
        erased(owned)
    owned.loop.change(lambda one: one.stop_bolus(NOW + 1) if isinstance(one, PumpTherapy) else None)
    erased(owned)


def test_a_use_is_spent_and_a_replayed_word_is_worth_nothing(owned: Shop) -> None:
    once = erases(owned, max_uses=1)
    owned.loop.change(lambda one: one.start_bolus(1000, NOW) if isinstance(one, PumpTherapy) else None)
    with pytest.raises(DeviceRefused, match=r"device\.therapy-active"):
        erased(owned, once)  # refused before anything is spent
    owned.loop.change(lambda one: one.stop_bolus(NOW + 1) if isinstance(one, PumpTherapy) else None)
    erased(owned, once)
    assert once.cti in owned.counters.spent


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("at", range(1, 16))
def test_a_power_cut_at_any_step_of_an_erasure_is_followed_by_the_device_as_it_was_or_by_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int, after: bool
) -> None:
    shop = Shop(tmp_path / "d")
    enrolled(shop)
    secrets = private(shop)
    with monkeypatch.context() as patch:
        cutting(patch, at, after)
        with contextlib.suppress(Cut):
            erased(shop)
    shop.directory.close()
    shop.on()
    if shop.boot_state == "empty":
        assert shop.proves() == NAME.serial
        assert shop.directory.load_therapy().damage == ()
        found, certificate = erased(shop)
    else:
        found, certificate = Pipe(shop).run(fetch_erasure(shop.vendor.trust, NOW))
    assert shop.boot_state == "decommissioned"
    assert read_erasure(certificate, shop.vendor.trust, NOW) == found
    assert not any(shop.holds(secret) for secret in secrets)
    assert shop.files() == {"lock", "flash.bin", "wear.bin", "counters.cbor", "erasure.cbor"}
    shop.off()


def test_enrolled_anew_by_two_persons_and_by_no_single_one(owned: Shop) -> None:
    erased(owned)
    sequence, spent = owned.counters.installed_sequence, dict(owned.counters.spent)
    new = vendor_of("new owner", cast=TWO)
    name = replace(NAME, serial="IP-10", site=None)
    with pytest.raises(DeviceRefused) as refused:
        enrolled(owned, new, name)
    assert refused.value.code == "signature.threshold"
    assert owned.boot_state == "decommissioned"
    enrolled(owned, new, name, signers=authorities(new))
    assert owned.proves(new) == "IP-10"
    owned.power_cycle()
    assert owned.proves(new) == "IP-10"
    assert "erasure.cbor" not in owned.files()
    counters = owned.counters
    assert (counters.trust_version, counters.grant_epoch) == (new.trust.version, 0)
    assert (counters.installed_sequence, dict(counters.spent)) == (sequence, spent)
    assert [event.name for event in counters.audit.events][-1] == "enrolled"
    old = grant(owned, sites=frozenset({ANY}))
    with pytest.raises(DevguardError):
        Pipe(owned).run(fetch_report(bench_for(owned, old)))


@pytest.mark.parametrize("at", range(1, 12))
def test_a_power_cut_while_it_is_enrolled_anew_leaves_it_decommissioned_or_somebody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    shop = Shop(tmp_path / "d")
    enrolled(shop)
    erased(shop)
    new = vendor_of("new owner", cast=TWO)
    with monkeypatch.context() as patch:
        cutting(patch, at, after=False)
        with contextlib.suppress(Cut):
            enrolled(shop, new, signers=authorities(new))
    shop.directory.close()
    shop.on()
    if shop.boot_state == "decommissioned":
        assert not list(shop.path.glob("*.key"))
        found, _ = Pipe(shop).run(fetch_erasure(shop.vendor.trust, NOW))
        assert found.serial == NAME.serial
        enrolled(shop, new, signers=authorities(new))
    assert shop.proves(new) == NAME.serial
    assert "erasure.cbor" not in shop.files()
    shop.off()


# the certificate


def test_a_certificate_that_is_not_that_devices_word_is_refused(owned: Shop) -> None:
    _, certificate = erased(owned)
    trust = owned.vendor.trust
    for at in range(0, len(certificate), 7):
        with pytest.raises(DevguardError):
            read_erasure(certificate[:at] + bytes([certificate[at] ^ 1]) + certificate[at + 1 :], trust, NOW)
        with pytest.raises(DevguardError):
            read_erasure(certificate[:at], trust, NOW)
    with pytest.raises(Refused, match=r"key\.unknown"):
        read_erasure(certificate, vendor_of("mallory").trust, NOW)
    found = read_erasure(certificate, trust, NOW)
    with pytest.raises(Refused, match=r"key\.revoked"):
        read_erasure(certificate, replace(trust, revoked=trust.revoked | set(found.keys)), NOW)
    thief = make_signer(Algorithm.ESP256, "thief")
    for forged in (found, replace(found, serial="IP-1"), replace(found, keys=())):
        with pytest.raises(DevguardError):
            read_erasure(sign_erasure(forged.encode(), thief), trust, NOW)
    for items in ([1], "x", {}, [2, *wire.decode(found.encode())[1:]], [*wire.decode(found.encode()), 0]):
        with pytest.raises(Malformed):
            read_erasure(sign_erasure(wire.encode(items), thief), trust, NOW)


def test_an_answer_to_another_question_is_no_certificate(owned: Shop) -> None:
    one = erases(owned)
    pipe = Pipe(owned)
    inner = pipe.deliver

    def deliver(message: bytes, *, sealed: bool) -> None:
        if message[1:3] == bytes([0x18, Verb.DECOMMISSION]):
            message = encode_message(Decommission(bytes(16)))
        inner(message, sealed=sealed)

    pipe.deliver = deliver
    with pytest.raises(Refused, match=r"session\.replay"):
        pipe.run(decommission(bench_for(owned, one), checked(owned, one, action=Action.DECOMMISSION), approver(owned)))


def test_a_device_in_memory_keeps_nothing_that_could_be_erased_and_a_node_that_erased_itself_opens_nothing() -> None:
    device = Device()
    with pytest.raises(Refused, match=r"device\.state"):
        device.node.decommission(bytes(16))
    device.node._erase = bytes
    device.node.decommission(bytes(16))
    with pytest.raises(DeviceRefused, match=r"device\.decommissioned"):
        Pipe(device).connect(grant(device))


def test_factory_verbs_are_plain_and_of_nobody() -> None:
    assert {verb for verb in Verb if int(verb) >= 40} == FACTORY
