"""What devices sign and store, locked: benches keep it for years, and a device reads what an older devguard stored.

Vectors are added here, never changed.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from builders import make_signer
from devguard.cose.algorithms import Algorithm
from devguard.cose.sign import Sign1, read_sign1
from devguard.device.settings import Anchor, What, seal, unseal
from devguard.device.therapy import Plan
from devguard.grant.claims import Action
from devguard.grant.uses import use_of
from devguard.session.enrolment import TYP, Name, read_request, sign_request
from devguard.session.erasure import Erased
from devguard.session.report import Report, RunningPart, read_report, sign_report

KEY = make_signer(Algorithm.ED25519, "locked")
REPORT = Report(
    model="insulin-pump",
    serial="IP-1",
    version="1.1.0",
    image_digest=bytes(32),
    manifest_digest=b"\x01" * 32,
    sequence=2,
    security_version=2,
    boot_state="confirmed",
    confirmed=True,
    flags=("settings-damaged",),
    trust_version=1,
    grant_epoch=3,
    clock_floor=1_800_000_000,
    spent_grants=1,
    settings_digest=b"\x02" * 32,
    settings_before=b"\x02" * 32,
    history_digest=b"\x03" * 32,
    battery_percent=90,
    log_head=b"\x04" * 32,
    challenge=bytes(16),
)
PARTS = (RunningPart("application", b"\x05" * 32, 10), RunningPart("telemetry", b"\x06" * 32, 20))
PUMP = "6c" + b"insulin-pump".hex()
SERIAL = "64" + b"IP-1".hex()
FIXED = (
    "01" + PUMP + SERIAL + "65" + b"1.1.0".hex() + "5820" + "00" * 32 + "5820" + "01" * 32 + "0202"
    "69" + b"confirmed".hex() + "f5" + "8170" + b"settings-damaged".hex() + "0103" + "1a6b49d200" + "01"
    "5820" + "02" * 32 + "5820" + "02" * 32 + "5820" + "03" * 32 + "185a" + "5820" + "04" * 32 + "50" + "00" * 16
)  # fmt: skip
COMPONENTS = (
    "82" + "836b" + b"application".hex() + "5820" + "05" * 32 + "0a" + "8369" + b"telemetry".hex()
    + "5820" + "06" * 32 + "14"
)  # fmt: skip
HISTORY = "5820" + "07" * 32


def payload(data: bytes) -> str:
    message: Sign1 = read_sign1(data)
    assert message.payload is not None
    return message.payload.hex()


@pytest.mark.parametrize(
    ("parts", "history", "tail"),
    [
        ((), None, "95" + FIXED),
        (PARTS, None, "96" + FIXED + COMPONENTS),
        ((), b"\x07" * 32, "96" + FIXED + HISTORY),
        (PARTS, b"\x07" * 32, "97" + FIXED + COMPONENTS + HISTORY),
    ],
    ids=["one", "several", "history", "both"],
)
def test_a_report_in_each_of_its_lengths(parts: tuple[RunningPart, ...], history: bytes | None, tail: str) -> None:
    report = replace(REPORT, components=parts, history_before=history)
    signed = sign_report(report, KEY)
    assert payload(signed) == tail
    assert read_report(signed, key=KEY.key, challenge=bytes(16), serial="IP-1") == report


def test_a_certificate_of_erasure_and_a_request_for_a_credential() -> None:
    erased = Erased(
        "insulin-pump", "revA", "IP-1", 1_800_000_000, bytes(16), ("keys",), 3, bytes(32), (b"\x01" * 32,), b"c"
    )
    who = PUMP + "64" + b"revA".hex() + SERIAL
    assert erased.encode().hex() == (
        "8b01" + who + "1a6b49d200" + "50" + "00" * 16 + "8164" + b"keys".hex() + "03" + "5820" + "00" * 32
        + "815820" + "01" * 32 + "4163"
    )  # fmt: skip
    name = Name("insulin-pump", "revA", "IP-1", "ward-4")
    request = sign_request(KEY, name, bytes(16))
    assert payload(request) == "8601" + who + "50" + "00" * 16 + "a301012006215820" + KEY.key.x.hex()
    assert TYP.encode() in request
    assert read_request(request, name, bytes(16)) == KEY.key


def test_therapy_settings_at_rest() -> None:
    anchor = Anchor(b"k" * 32, 4)
    settings = (
        "84010547" + b"content".hex() + "5820" + "8e9e042577adc178c5ed45dae5a12e5ead79d964e0026ef4a3050bebbb340718"
    )
    course = "84010047" + b"content".hex() + "5820" + "53f9c44a1445ebf6bdfd6158ef883028a971c5ef63525b54287b1a1bb47be7b2"
    assert seal(anchor, What.SETTINGS, b"content", 5).hex() == settings
    assert seal(anchor, What.COURSE, b"content").hex() == course
    assert unseal(anchor, What.SETTINGS, bytes.fromhex(settings)) == (b"content", 5)
    assert Anchor.decode(bytes.fromhex("83015820" + b"k".hex() * 32 + "04")) == anchor
    assert Plan({"a": 1}, ((0, 800),)).encode().hex() == "82a1616101818200190320"


@pytest.mark.parametrize(
    ("action", "use"),
    [
        (Action.UPDATE, "78" * 32),
        (Action.RECOVER, "1c666cc62a06ce835af784898113c0134bfa8b57e1ae6b592d2286a8e0702eac"),
        (Action.READ_LOG, "1a6aebf6529f0b6db0929eb9792b2d537391c5bf037b0a33dcefd6f169d1fd97"),
        (Action.DECOMMISSION, "4c54924e6f99cd8107d83efc94546d5453b57ef14f3bf0d85a88347328f6b6c2"),
    ],
)
def test_what_a_use_is_bound_to(action: Action, use: str) -> None:
    """A device remembers these for as long as a grant lives; a bench too."""
    assert use_of(action, b"x" * 32).hex() == use
