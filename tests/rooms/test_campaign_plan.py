"""Which devices a campaign chooses, and the ring of each; the plan as a file and as it is kept."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from campaign_support import DIGEST, GOAL, PUMP, TEXT, by_itself, candidate, fleet, plan
from devguard.campaign.plan import Candidate, Chosen, Limit, Opening, Ring, assign, choose
from devguard.campaign.plan_file import parse_plan, plan_from_json, plan_to_json
from devguard.errors import DevguardError, Malformed, Refused
from devguard.manifest.fields import MAX_SIZE

SITES = st.frozensets(st.sampled_from(["a", "b", "c"]), max_size=2)
DEVICES = st.lists(SITES, min_size=1, max_size=40).map(
    lambda found: [candidate(number, sites=sites) for number, sites in enumerate(found)]
)
RINGS = st.lists(
    st.builds(
        Ring,
        st.sampled_from(["x", "y"]),
        sites=st.frozensets(st.sampled_from(["a", "b"]), max_size=1),
        serials=st.frozensets(st.sampled_from(["IP-0", "IP-1", "IP-7"]), max_size=2),
        share=st.integers(1, 100),
    ),
    max_size=3,
)


def refusal(act: object, *arguments: object) -> str:
    with pytest.raises(DevguardError) as caught:
        act(*arguments)  # type: ignore[operator]
    return caught.value.code


def test_it_chooses_who_runs_something_older_of_that_model() -> None:
    found = [
        candidate(0),
        candidate(1, sequence=2, version="1.1.0", digest=DIGEST),
        candidate(2, sequence=3, version="1.2.0"),
        candidate(3, model="other"),
        candidate(4, sequence=None, version=None, digest=None),
        candidate(5, sequence=1, digest=DIGEST),
    ]
    assert [one.serial for one in choose(plan(), GOAL, found)] == ["IP-0", "IP-4"]


@pytest.mark.parametrize(
    ("chosen", "serials"),
    [
        (Chosen(PUMP, sites=frozenset({"ward-1"})), ["IP-1", "IP-3"]),
        (Chosen(PUMP, serials=frozenset({"IP-2", "IP-9"})), ["IP-2"]),
        (Chosen(PUMP, versions=frozenset({"0.9.0"})), ["IP-4"]),
    ],
)
def test_sites_serials_and_versions_narrow_it(chosen: Chosen, serials: list[str]) -> None:
    found = [*fleet(4), candidate(4, version="0.9.0", sequence=0)]
    assert [one.serial for one in choose(plan(chosen=chosen), GOAL, found)] == serials


def test_nobody_and_another_model_refuse() -> None:
    assert refusal(choose, plan(), GOAL, []) == "campaign.empty"
    assert refusal(choose, plan(chosen=Chosen("other")), GOAL, fleet(1)) == "campaign.release"


def test_a_device_is_of_the_first_ring_that_takes_it() -> None:
    rings = (Ring("bench", serials=frozenset({"IP-1"})), Ring("ward", sites=frozenset({"ward-1"})), Ring("all"))
    assert assign(plan(*rings), fleet(4)) == {"IP-0": 2, "IP-1": 0, "IP-2": 2, "IP-3": 1}


def test_a_device_in_no_ring_refuses_instead_of_being_forgotten() -> None:
    assert refusal(assign, plan(Ring("ward", sites=frozenset({"ward-1"}))), fleet(2)) == "campaign.rings"
    assert refusal(assign, plan(Ring("some", share=50)), fleet(2)) == "campaign.rings"


@given(DEVICES, RINGS)
def test_every_device_is_in_exactly_one_ring_whatever_the_order_of_the_inventory(
    devices: list[Candidate], rings: list[Ring]
) -> None:
    whole = plan(*rings, Ring("rest"))
    placed = assign(whole, devices)
    assert placed == assign(whole, devices[::-1])
    assert placed.keys() == {one.serial for one in devices}
    for number, ring in enumerate(whole.rings):
        taken = [one for one in devices if placed[one.serial] == number]
        assert all(ring.takes(one) for one in taken)
        assert len(taken) * 100 < len(devices) * ring.share + 100


def test_a_share_is_of_the_whole_campaign() -> None:
    placed = assign(plan(Ring("tenth", share=10), Ring("half", share=50), Ring("all")), fleet(100))
    assert [sum(at == ring for at in placed.values()) for ring in range(3)] == [10, 50, 40]


@pytest.mark.parametrize(
    ("limit", "found", "devices", "reached"),
    [
        (Limit(count=3), 2, 10, False),
        (Limit(count=3), 3, 10, True),
        (Limit(percent=5), 0, 0, False),
        (Limit(percent=5), 4, 100, False),
        (Limit(percent=5), 5, 100, True),
        (Limit(percent=5), 1, 20, True),
        (Limit(), 9, 9, False),
    ],
)
def test_limits(limit: Limit, found: int, devices: int, reached: bool) -> None:
    assert limit.reached(found, devices) is reached


def test_the_file_says_what_the_plan_says() -> None:
    found = parse_plan(TEXT.encode())
    assert (found.name, found.chosen, found.release) == ("pump-1-1-0", Chosen(PUMP), "pump.suit")
    assert [ring.name for ring in found.rings] == ["bench", "ward", "all"]
    assert found.rings[1].opening == Opening(1, 3600)
    assert (found.stop.failures, found.stop.refusals) == (Limit(count=2), Limit(percent=50))
    assert found.window is None


WINDOW = '[window]\nzone = "Europe/Berlin"\ndays = ["mon", "sun"]\nhours = ["22:00-05:00", "12:00-13:00"]\n'


def test_what_is_kept_is_the_same_plan() -> None:
    found = parse_plan((TEXT + WINDOW).encode())
    assert found.window is not None
    assert plan_from_json(json.loads(json.dumps(plan_to_json(found)))) == found
    bare = replace(found, window=None, rings=(Ring("x"), by_itself("y", 3, 60)))
    assert plan_from_json(plan_to_json(bare)) == bare


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('name = "pump-1-1-0"', 'name = "Pump 1"'),
        ('model = "insulin-pump"', "model = 3"),
        ('release = "pump.suit"', 'release = "\\u001b[2J"'),
        ('opens = "confirmed"', 'opens = "soon"'),
        ("confirmed = 1", "confirmed = 0"),
        ("wait_minutes = 60", "wait_minutes = -1"),
        ('failures = "2"', 'failures = "200%"'),
        ('failures = "2"', "failures = 2"),
        ('failures = "2"', 'failures = "0"'),
        ('name = "ward"', 'name = "bench"'),
        ('name = "ward"', 'nam = "ward"'),
        ('serials = ["IP-0"]', 'opens = "confirmed"\nconfirmed = 1\nwait_minutes = 0'),
        ('serials = ["IP-0"]', "confirmed = 1"),
        ('serials = ["IP-0"]', "share = 0"),
        ("[stop]", "[strop]"),
        ("[stop]", '[window]\nzone = "Nowhere/At"\nhours = ["22:00-05:00"]\n[stop]'),
        ("[stop]", '[window]\nzone = "../../etc/passwd"\nhours = ["22:00-05:00"]\n[stop]'),
        ("[stop]", '[window]\nzone = "UTC"\nhours = ["22:00-25:00"]\n[stop]'),
        ("[stop]", '[window]\nzone = "UTC"\nhours = []\n[stop]'),
        ("[stop]", '[window]\nzone = "UTC"\ndays = ["monday"]\nhours = ["22:00-23:00"]\n[stop]'),
    ],
)
def test_what_breaks_the_format_is_refused(old: str, new: str) -> None:
    assert old in TEXT
    assert refusal(parse_plan, TEXT.replace(old, new, 1).encode()) == "campaign.malformed"


@pytest.mark.parametrize(
    "data",
    [b"", b"\xff", b"x" * (MAX_SIZE + 1), b"a." * 40_000 + b"b = 1", b"x = " + b"[" * 5000, b"ring = 1", b"[[ring]]"],
)
def test_garbage_is_refused(data: bytes) -> None:
    assert refusal(parse_plan, data) == "campaign.malformed"


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_parse_or_are_refused_by_their_code(data: bytes) -> None:
    code = None
    try:
        parse_plan(data)
    except Malformed as error:
        code = error.code
    assert code in (None, "campaign.malformed")


@pytest.mark.parametrize("data", [None, [], {"campaign": []}, {"campaign": {"name": 1}}, {"ring": [1]}])
def test_a_kept_plan_that_is_none_is_refused(data: object) -> None:
    assert refusal(plan_from_json, data) == "campaign.malformed"


def test_refusals_are_of_their_kind() -> None:
    with pytest.raises(Refused):
        choose(plan(), GOAL, [])
