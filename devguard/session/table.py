"""The device's side of the conversation as a table: in which state which verb may be heard, and what follows.

This table is the law: the device looks every message up here before it looks at its content, and the diagram
in docs/conversation.md is drawn from it. Whatever is not in the table ends the session with `session.order`.
"""

from __future__ import annotations

import enum
from typing import Final

from devguard.errors import RemoteProtocolError
from devguard.grant.claims import Action
from devguard.session.verbs import Verb


class State(enum.StrEnum):
    """Where one conversation stands on the device."""

    WAITING = "waiting"
    GREETED = "greeted"
    ANSWERED = "answered"
    AUTHORISED = "authorised"
    LIMITED = "limited"
    RECEIVING = "receiving"
    STAGING = "staging"
    JUDGED = "judged"
    CLOSED = "closed"
    BLANK = "blank"
    NAMED = "named"


TABLE: Final[dict[tuple[State, Verb], State]] = {
    (State.WAITING, Verb.HELLO): State.GREETED,
    (State.GREETED, Verb.EDHOC): State.ANSWERED,  # message_1 in, message_2 out
    (State.ANSWERED, Verb.EDHOC): State.AUTHORISED,  # message_3 (the grant) in, message_4 out
    (State.AUTHORISED, Verb.APPROVE): State.AUTHORISED,
    (State.AUTHORISED, Verb.OFFER): State.RECEIVING,
    (State.AUTHORISED, Verb.RECOVER): State.RECEIVING,
    (State.AUTHORISED, Verb.LOG): State.AUTHORISED,
    (State.AUTHORISED, Verb.DECOMMISSION): State.CLOSED,
    (State.AUTHORISED, Verb.REPORT): State.AUTHORISED,
    (State.AUTHORISED, Verb.KEEP_ALIVE): State.AUTHORISED,
    (State.AUTHORISED, Verb.TRUST_CHAIN): State.AUTHORISED,
    (State.AUTHORISED, Verb.CLOSE): State.CLOSED,
    (State.LIMITED, Verb.TRUST_CHAIN): State.LIMITED,
    (State.LIMITED, Verb.CLOSE): State.CLOSED,
    (State.RECEIVING, Verb.DATA): State.RECEIVING,
    (State.RECEIVING, Verb.KEEP_ALIVE): State.RECEIVING,
    (State.RECEIVING, Verb.COMMIT): State.JUDGED,
    (State.RECEIVING, Verb.TRANSFER): State.STAGING,
    (State.RECEIVING, Verb.CLOSE): State.CLOSED,
    (State.STAGING, Verb.DATA): State.STAGING,
    (State.STAGING, Verb.KEEP_ALIVE): State.STAGING,
    (State.STAGING, Verb.COMMIT): State.JUDGED,
    (State.STAGING, Verb.CLOSE): State.CLOSED,
    (State.JUDGED, Verb.REBOOT): State.CLOSED,
    (State.JUDGED, Verb.REPORT): State.JUDGED,
    (State.JUDGED, Verb.KEEP_ALIVE): State.JUDGED,
    (State.JUDGED, Verb.CLOSE): State.CLOSED,
    # A device that is not enrolled, or no more, begins here, and this is all it hears.
    (State.BLANK, Verb.HELLO): State.BLANK,
    (State.BLANK, Verb.ERASURE): State.BLANK,
    (State.BLANK, Verb.ENROL): State.NAMED,
    (State.NAMED, Verb.ENROL_TRUST): State.NAMED,
    (State.NAMED, Verb.ENROL_CREDENTIALS): State.CLOSED,
}

# What a grant has to allow for a verb, else `grant.action`. Every other verb of a session is good under any grant.
ACTION_OF: Final[dict[Verb, Action]] = {
    Verb.OFFER: Action.UPDATE,
    Verb.RECOVER: Action.RECOVER,
    Verb.LOG: Action.READ_LOG,
    Verb.DECOMMISSION: Action.DECOMMISSION,
}

# A grant that fails only because the trust document is too old opens a session for the newer one and nothing else;
# when that has come, the grant is judged again.
LIMITED_AFTER: Final = (State.ANSWERED, Verb.EDHOC)
AUTHORISED_AFTER: Final = (State.LIMITED, Verb.TRUST_CHAIN)

# Where a refusal leads: an offer may be made again, a broken download or handshake may not go on. An encoded image
# that comes to nothing leads back to the offer, so that the whole image can be sent in the same session.
AFTER_REFUSAL: Final[dict[State, State]] = {
    State.WAITING: State.CLOSED,
    State.GREETED: State.CLOSED,
    State.ANSWERED: State.CLOSED,
    State.AUTHORISED: State.AUTHORISED,
    State.LIMITED: State.LIMITED,
    State.RECEIVING: State.CLOSED,
    State.STAGING: State.AUTHORISED,
    State.JUDGED: State.CLOSED,
    State.CLOSED: State.CLOSED,
    State.BLANK: State.CLOSED,
    State.NAMED: State.CLOSED,
}
AFTER_REFUSED_VERB: Final[dict[tuple[State, Verb], State]] = {
    (State.RECEIVING, Verb.TRANSFER): State.AUTHORISED,
}


def following(state: State, verb: Verb) -> State:
    """The state after `verb` took effect in `state`; `RemoteProtocolError("session.order")` if it may not be heard."""
    try:
        return TABLE[state, verb]
    except KeyError:
        raise RemoteProtocolError("session.order", f"{verb.name} may not be heard while {state.value}") from None


def after_refusal(state: State, verb: Verb | None) -> State:
    """The state after a refusal of `verb` (None: of something that was no message) in `state`."""
    if verb is not None and (state, verb) in AFTER_REFUSED_VERB:
        return AFTER_REFUSED_VERB[state, verb]
    return AFTER_REFUSAL[state]


def diagram() -> str:
    """The table as a Mermaid state diagram."""
    lines = ["stateDiagram-v2", f"    [*] --> {State.WAITING}", f"    [*] --> {State.BLANK}: not enrolled"]
    lines += [f"    {state} --> {after}: {verb.name.lower()}" for (state, verb), after in TABLE.items()]
    lines.append(f"    {LIMITED_AFTER[0]} --> {State.LIMITED}: {LIMITED_AFTER[1].name.lower()}, trust too old")
    lines.append(
        f"    {AUTHORISED_AFTER[0]} --> {State.AUTHORISED}: {AUTHORISED_AFTER[1].name.lower()}, grant good now"
    )
    lines += [
        f"    {state} --> {after}: refused"
        for state, after in AFTER_REFUSAL.items()
        if state is not State.CLOSED and after is not state
    ]
    lines += [
        f"    {state} --> {after}: {verb.name.lower()} refused" for (state, verb), after in AFTER_REFUSED_VERB.items()
    ]
    lines.append(f"    {State.CLOSED} --> [*]")
    return "\n".join(lines) + "\n"
