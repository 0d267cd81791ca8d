"""The bench's side of the verb `approve`: ask a second technician, wait for the word, hand it to the device. Sans-I/O.

The device asks for it before an act of two persons; what is approved is named by `ApprovalRequest`. The session is kept
alive meanwhile. Source: devguard formats, "Session".
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Final

from devguard.errors import Refused
from devguard.grant.check import CheckedGrant
from devguard.session.approval import LIFETIME, ApprovalRequest, Asking
from devguard.session.connect import ANSWER_SECONDS, Bench, Connected, expect
from devguard.session.script import Receive, Script, Send
from devguard.session.verbs import Approve, Done, KeepAlive, encode_message

APPROVER_PAUSE: Final = 2.0
CLOCK_SLACK: Final = 60  # the device's clock may run behind ours, and refuses what seems to live too long

Approver = Callable[[ApprovalRequest], tuple[bytes, bytes] | None]
"""Asked until it returns (approval object, second grant); None: not yet."""


def second_approval(
    session: Connected, bench: Bench, grant: CheckedGrant, subject: bytes, approver: Approver
) -> Script[None]:
    """Have the act approved: `grant`'s action on `subject` (a manifest digest, or `use_of` the action and nothing).

    Raises `Refused("grant.quorum")` when nobody did while the request lived.
    """
    request = ApprovalRequest(
        session.session_id,
        session.identity.serial,
        subject,
        grant.action.value,
        hashlib.sha256(grant.grant.untagged).digest(),
        bench.now + LIFETIME - CLOCK_SLACK,
        Asking(grant.grant.subject, grant.holder.thumbprint),
    )
    waited = 0.0
    while (answer := approver(request)) is None:
        if waited >= LIFETIME - CLOCK_SLACK:
            raise Refused("grant.quorum", "nobody approved in time, and the request has expired", "push again, and ask")
        yield from said(KeepAlive())
        yield Receive(sealed=True, timeout=APPROVER_PAUSE, optional=True)
        waited += APPROVER_PAUSE
    yield from said(Approve(*answer))


def said(message: Approve | KeepAlive) -> Script[None]:
    """Say it, and have the device take it."""
    yield Send(encode_message(message), sealed=True)
    expect((yield Receive(sealed=True, timeout=ANSWER_SECONDS)), Done, sealed=True)
