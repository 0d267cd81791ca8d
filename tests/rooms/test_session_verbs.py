"""Messages of the update conversation: round trip, wrong channel, wrong fields, locked bytes; the table is total."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devguard import wire
from devguard.errors import DevguardError, RemoteProtocolError
from devguard.session import factory_verbs, verbs
from devguard.session.table import AFTER_REFUSAL, TABLE, State, diagram, following
from devguard.session.verbs import Verb, decode_message, encode_message, verb_of

EXAMPLES: dict[Verb, verbs.Message] = {
    Verb.HELLO: verbs.Hello((1,)),
    Verb.EDHOC: verbs.Edhoc(b"\x03\x02"),
    Verb.EDHOC_FAILURE: verbs.EdhocFailure(b"\x01", "grant.expired", "expired"),
    Verb.HELLO_REPLY: verbs.HelloReply(1, "confirmed", (3, 5, 1, 4), bytes(16)),
    Verb.APPROVE: verbs.Approve(b"a", b"g"),
    Verb.OFFER: verbs.Offer(b"e"),
    Verb.DATA: verbs.Data(4096, b"\xff" * 3),
    Verb.COMMIT: verbs.Commit(bytes(32)),
    Verb.REBOOT: verbs.Reboot(),
    Verb.REPORT: verbs.ReportRequest(bytes(16)),
    Verb.KEEP_ALIVE: verbs.KeepAlive(),
    Verb.CLOSE: verbs.Close(),
    Verb.TRUST_CHAIN: verbs.TrustChain(b"t", 2),
    Verb.TRANSFER: verbs.Transfer(1, 4096, bytes(32)),
    Verb.DONE: verbs.Done(13),
    Verb.ACCEPT: verbs.Accept(1, 16384, 4096, 0, bytes(32)),
    Verb.REFUSED: verbs.RefusedReply("version.rollback", "1.0 is older", "install the newest"),
    Verb.DURABLE: verbs.Durable(8192),
    Verb.REPORT_REPLY: verbs.ReportReply(b"r"),
    Verb.LOG_PIECE: verbs.LogPiece(300, b"l"),
    Verb.RECOVER: verbs.Recover(b"e"),
    Verb.LOG: verbs.LogRequest(bytes(16), 2048),
    Verb.CERTIFICATE: verbs.Certificate(b"c"),
    Verb.DECOMMISSION: verbs.Decommission(bytes(16)),
    Verb.ENROL: factory_verbs.Enrol("insulin-pump", "revA", "IP-1", "", bytes(16)),
    Verb.ENROL_KEYS: factory_verbs.EnrolKeys((b"k", b"l")),
    Verb.ENROL_TRUST: factory_verbs.EnrolTrust(b"t", 1),
    Verb.ENROL_CREDENTIALS: factory_verbs.EnrolCredentials((b"c", b"d")),
    Verb.ENROL_TAKEN: factory_verbs.EnrolTaken(43),
    Verb.ERASURE: factory_verbs.Erasure(),
    Verb.ERASURE_REPLY: factory_verbs.ErasureReply(b"c"),
}

# Locked: these bytes are added to, never changed.
LOCKED = {
    Verb.HELLO: "82008101",
    Verb.EDHOC: "8201420302",
    Verb.EDHOC_FAILURE: "840241016d6772616e742e657870697265646765787069726564",
    Verb.HELLO_REPLY: "85030169636f6e6669726d65648403050104" + "50" + "00" * 16,
    Verb.APPROVE: "830a41614167",
    Verb.OFFER: "820b4165",
    Verb.DATA: "830c19100043ffffff",
    Verb.COMMIT: "820d5820" + "00" * 32,
    Verb.REBOOT: "810e",
    Verb.REPORT: "820f50" + "00" * 16,
    Verb.KEEP_ALIVE: "8110",
    Verb.CLOSE: "8111",
    Verb.TRUST_CHAIN: "8312417402",
    Verb.TRANSFER: "841301191000" + "5820" + "00" * 32,
    Verb.DONE: "82140d",
    Verb.ACCEPT: "861501194000191000005820" + "00" * 32,
    Verb.REFUSED: "841670"
    + b"version.rollback".hex()
    + "6c"
    + b"1.0 is older".hex()
    + "72"
    + b"install the newest".hex(),
    Verb.DURABLE: "8217192000",
    Verb.REPORT_REPLY: "82181841" + "72",
    Verb.LOG_PIECE: "83181919012c416c",
    Verb.RECOVER: "82181e4165",
    Verb.LOG: "83181f50" + "00" * 16 + "190800",
    Verb.CERTIFICATE: "82181a4163",
    Verb.DECOMMISSION: "82182050" + "00" * 16,
    Verb.ENROL: "8618286c" + b"insulin-pump".hex() + "64" + b"revA".hex() + "64" + b"IP-1".hex() + "6050" + "00" * 16,
    Verb.ENROL_KEYS: "8218298241" + "6b" + "416c",
    Verb.ENROL_TRUST: "83182a417401",
    Verb.ENROL_CREDENTIALS: "82182b824163" + "4164",
    Verb.ENROL_TAKEN: "82182c182b",
    Verb.ERASURE: "81182d",
    Verb.ERASURE_REPLY: "82182e4163",
}


@pytest.mark.parametrize("verb", Verb)
def test_round_trip_and_locked_bytes(verb: Verb) -> None:
    message = EXAMPLES[verb]
    data = encode_message(message)
    assert verb_of(message) is verb
    assert data.hex() == LOCKED[verb]
    assert decode_message(data, sealed=verb not in verbs.PLAIN) == message


def test_accept_names_encodings_only_where_there_are_some() -> None:
    said = verbs.Accept(1, 16384, 4096, 0, bytes(32), (1, 2))
    assert encode_message(said).hex() == "871501194000191000005820" + "00" * 32 + "820102"
    assert decode_message(encode_message(said), sealed=True) == said
    items = wire.decode(encode_message(said))
    for wrong in ([], [-1], [1 << 17], ["delta"], 1, [[1]], list(range(17))):
        with pytest.raises(RemoteProtocolError):
            decode_message(wire.encode([*items[:-1], wrong]), sealed=True)
    with pytest.raises(RemoteProtocolError):
        decode_message(wire.encode([*items, 0]), sealed=True)


@pytest.mark.parametrize("verb", Verb)
def test_the_other_channel_refuses(verb: Verb) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        decode_message(encode_message(EXAMPLES[verb]), sealed=verb in verbs.PLAIN)
    assert caught.value.code == "session.order"


@pytest.mark.parametrize("verb", Verb)
def test_missing_surplus_and_wrong_fields_refuse(verb: Verb) -> None:
    items = wire.decode(encode_message(EXAMPLES[verb]))
    wrong = [[*items, 0], *([items[:-1]] if len(items) > 1 else [])]
    wrong += [[*items[:at], {}, *items[at + 1 :]] for at in range(1, len(items))]
    wrong += [[*items[:at], -1, *items[at + 1 :]] for at in range(1, len(items))]
    for fields in wrong:
        with pytest.raises(RemoteProtocolError):
            decode_message(wire.encode(fields), sealed=verb not in verbs.PLAIN)


@pytest.mark.parametrize("sealed", [True, False])
def test_verbs_nobody_knows_refuse(sealed: bool) -> None:
    known = {int(verb) for verb in Verb}
    for number in range(-3, 300):
        if number not in known:
            with pytest.raises(RemoteProtocolError) as caught:
                decode_message(wire.encode([number]), sealed=sealed)
            assert caught.value.code == "session.order"


@given(st.binary(max_size=120), st.booleans())
def test_garbage_parses_or_refuses(data: bytes, sealed: bool) -> None:
    try:
        message = decode_message(data, sealed=sealed)
    except DevguardError:
        return
    assert encode_message(message) == data


def test_no_verb_can_speak_of_therapy_or_memory() -> None:
    names = {name for message in EXAMPLES.values() for name in (f.name for f in dataclasses.fields(message))}
    assert not {
        name for name in names if any(word in name for word in ("setting", "basal", "dose", "address", "memory"))
    }


def test_everything_outside_the_table_is_out_of_order() -> None:
    for state in State:
        for verb in Verb:
            if (state, verb) in TABLE:
                assert following(state, verb) is TABLE[state, verb]
            else:
                with pytest.raises(RemoteProtocolError) as caught:
                    following(state, verb)
                assert caught.value.code == "session.order"


def test_the_table_lets_nothing_happen_before_authorisation() -> None:
    before = {State.WAITING, State.GREETED, State.ANSWERED}
    assert {verb for state, verb in TABLE if state in before} == {Verb.HELLO, Verb.EDHOC}
    nobody = {State.BLANK, State.NAMED}
    assert {verb for state, verb in TABLE if state in nobody} <= {Verb.HELLO, *verbs.FACTORY}
    assert {state for state, verb in TABLE if verb in verbs.FACTORY} == nobody
    assert {after for (state, _), after in TABLE.items() if state in nobody} == nobody | {State.CLOSED}
    assert all(state is not State.CLOSED for state, _ in TABLE)
    assert set(AFTER_REFUSAL) == set(State)


def test_data_only_follows_an_offer_and_reboot_only_a_commit() -> None:
    assert [s for s, v in TABLE if v is Verb.DATA] == [State.RECEIVING, State.STAGING]
    assert [s for s, v in TABLE if v is Verb.COMMIT] == [State.RECEIVING, State.STAGING]
    assert [s for s, v in TABLE if v is Verb.TRANSFER] == [State.RECEIVING]
    assert [(s, v) for (s, v), after in TABLE.items() if after is State.RECEIVING and v is not Verb.KEEP_ALIVE] == [
        (State.AUTHORISED, Verb.OFFER),
        (State.AUTHORISED, Verb.RECOVER),
        (State.RECEIVING, Verb.DATA),
    ]
    assert [s for s, v in TABLE if v is Verb.REBOOT] == [State.JUDGED]


def test_the_docs_show_the_table() -> None:
    from pathlib import Path

    page = (Path(__file__).resolve().parents[2] / "docs" / "conversation.md").read_text(encoding="utf-8")
    assert diagram() in page, "run tools/draw_states.py"
