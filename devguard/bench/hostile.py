"""What a hostile host can say to a device: scripts that skip every check of ours.

They can offer an envelope and play back what they recorded; they hold no `Release`, so no image is ever sent. Used to
show that the device refuses by itself. No command line reaches them for anything but an emulated device.
"""

from __future__ import annotations

from collections.abc import Sequence

from devguard.session.connect import ANSWER_SECONDS, Bench, connect, expect
from devguard.session.script import Flush, OpenPlain, Receive, Script, Send
from devguard.session.verbs import Accept, Close, EdhocFailure, Offer, decode_message, encode_message


def offer_unjudged(bench: Bench, envelope: bytes) -> Script[Accept]:
    """Open a genuine session and offer an envelope nobody judged; raises the device's refusal."""
    yield from connect(bench)
    yield Send(encode_message(Offer(envelope)), sealed=True)
    try:
        return expect((yield Receive(sealed=True, timeout=ANSWER_SECONDS)), Accept, sealed=True)
    finally:
        yield Send(encode_message(Close()), sealed=True)
        yield Flush()


def play_back(messages: Sequence[bytes]) -> Script[None]:
    """Play recorded plain messages in order, one for each answer; raises the device's refusal."""
    yield OpenPlain()
    for message in messages:
        yield Send(message, sealed=False)
        answer = yield Receive(sealed=False, timeout=ANSWER_SECONDS)
        if isinstance(decode_message(answer, sealed=False), EdhocFailure):
            expect(answer, Accept, sealed=False)
