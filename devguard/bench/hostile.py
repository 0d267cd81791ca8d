"""What a hostile host can say to a device: scripts that skip every check of ours.

They can offer an envelope, play back what they recorded and say any message out of turn; they hold no `Release`, so no
image is ever sent as an update. Used to show that the device refuses by itself. No command line reaches them for
anything but an emulated device.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, TypeVar

from devguard.errors import DevguardError, DeviceRefused
from devguard.session.connect import ANSWER_SECONDS, Bench, Connected, connect, expect
from devguard.session.script import Flush, OpenPlain, Receive, Script, Send
from devguard.session.verbs import (
    Accept,
    Approve,
    Close,
    Done,
    Durable,
    EdhocFailure,
    Message,
    Offer,
    RefusedReply,
    decode_message,
    encode_message,
)

M = TypeVar("M")
T = TypeVar("T")
_LEAVE_SECONDS: Final = 0.5
Approval = Callable[[Connected], tuple[bytes, bytes]]
"""The second technician's word and grant, once the session is known."""


def offer_unjudged(bench: Bench, envelope: bytes) -> Script[Accept]:
    """Open a genuine session and offer an envelope nobody judged; raises the device's refusal."""
    yield from connect(bench)
    yield Send(encode_message(Offer(envelope)), sealed=True)
    try:
        return expect((yield Receive(sealed=True, timeout=ANSWER_SECONDS)), Accept, sealed=True)
    finally:
        yield Send(encode_message(Close()), sealed=True)
        yield Flush()


def taking_leave(script: Script[T]) -> Script[T]:
    """The script, and at a refusal that ends it the device's last word is acknowledged, for which it would wait."""
    try:
        return (yield from script)
    except DevguardError:
        with contextlib.suppress(DevguardError):
            yield Flush(_LEAVE_SECONDS)
        raise


def at_once(script: Script[T]) -> Script[T]:
    """A host that asks again at once where ours would wait for a device that backs off: raises what it was told."""
    value: Any = None
    failure: DevguardError | None = None
    while True:
        try:
            step = script.send(value) if failure is None else script.throw(failure)
        except StopIteration as done:
            result: T = done.value
            return result
        if isinstance(step, Receive) and step.optional and not step.sealed:
            raise DeviceRefused("device.busy", "the device backs off")
        value, failure = None, None
        try:
            value = yield step
        except DevguardError as error:
            failure = error


def ask(message: Message) -> Script[Message]:
    """Say one thing in an open session, whatever it is; the device's answer, words on what is durable left aside.
    Raises its refusal."""
    return (yield from ask_raw(encode_message(message)))


def ask_raw(data: bytes) -> Script[Message]:
    """The same, of bytes that need be no message."""
    yield Send(data, sealed=True)
    answer: Message = Durable(0)
    while isinstance(answer, Durable):
        answer = decode_message((yield Receive(sealed=True, timeout=ANSWER_SECONDS)), sealed=True)
    if isinstance(answer, RefusedReply):
        expect(encode_message(answer), Accept, sealed=True)
    return answer


def accepted(bench: Bench, envelope: bytes, approval: Approval | None = None) -> Script[Accept]:
    """Open a genuine session, bring the second technician's word where there is one, and offer an honest release."""
    session = yield from connect(bench)
    if approval is not None:
        yield from _expected(Approve(*approval(session)), Done)
    return (yield from _expected(Offer(envelope), Accept))


def _expected(message: Message, kind: type[M]) -> Script[M]:
    yield Send(encode_message(message), sealed=True)
    return expect((yield Receive(sealed=True, timeout=ANSWER_SECONDS)), kind, sealed=True)


def play_back(messages: Sequence[bytes]) -> Script[None]:
    """Play recorded plain messages in order, one for each answer; raises the device's refusal."""
    yield OpenPlain()
    for message in messages:
        yield Send(message, sealed=False)
        answer = yield Receive(sealed=False, timeout=ANSWER_SECONDS)
        if isinstance(decode_message(answer, sealed=False), EdhocFailure):
            expect(answer, Accept, sealed=False)


def say_plain(message: bytes, timeout: float = ANSWER_SECONDS) -> Script[bytes | None]:
    """Open the line, say one thing in clear and give back the answer, None for silence."""
    yield OpenPlain()
    yield Send(message, sealed=False)
    answer: bytes | None = yield Receive(sealed=False, timeout=timeout, optional=True)
    return answer


def refused_in_clear(message: bytes) -> Script[None]:
    """The same, for a message that has to be refused: raises the device's refusal."""
    answer = yield from say_plain(message)
    if answer is not None and isinstance(decode_message(answer, sealed=False), EdhocFailure):
        expect(answer, Accept, sealed=False)


def say_sealed(bench: Bench, messages: Iterable[bytes]) -> Script[tuple[Connected, list[bytes | None]]]:
    """Open a genuine session and say messages of one's own in it, one after each answer (None: silence)."""
    session = yield from connect(bench)
    answers: list[bytes | None] = []
    for message in messages:
        yield Send(message, sealed=True)
        answers.append((yield Receive(sealed=True, timeout=2.0, optional=True)))
    return session, answers
