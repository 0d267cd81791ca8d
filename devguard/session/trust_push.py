"""The bench's side of the verb `trust`: hand a device the chain of trust documents it may lack.

The device judges the chain by root rules alone and takes all of it or nothing. Which version it holds is not known
before (a device whose trust has expired opens no other session), so the whole chain is sent; what the device has it
passes over. Sans-I/O. Source: devguard formats, "Session".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from devguard.errors import LocalProtocolError
from devguard.grant.credential import DeviceIdentity
from devguard.session.connect import ANSWER_SECONDS, Bench, connect, expect
from devguard.session.script import Flush, Receive, Script, Send
from devguard.session.verbs import MAX_DATA, Close, Done, Ending, TrustChain, encode_message


def pieces(chain: Sequence[bytes]) -> Iterator[TrustChain]:
    """The messages that carry `chain`, oldest document first."""
    for number, document in enumerate(chain, 1):
        for offset in range(0, len(document), MAX_DATA):
            piece = document[offset : offset + MAX_DATA]
            ending = Ending.PIECE
            if offset + MAX_DATA >= len(document):
                ending = Ending.CHAIN if number == len(chain) else Ending.DOCUMENT
            yield TrustChain(piece, int(ending))


def push_trust(bench: Bench, chain: Sequence[bytes]) -> Script[DeviceIdentity]:
    """Connect and give the device `chain`; the proven device, which holds the newest document of it on return.

    Raises `DeviceRefused` with the trust room's code when the device keeps what it has.
    """
    if not chain or not all(chain):
        raise LocalProtocolError("trust.missing", "a chain has at least one document")
    session = yield from connect(bench)
    for message in pieces(chain):
        yield Send(encode_message(message), sealed=True)
        expect((yield Receive(sealed=True, timeout=ANSWER_SECONDS)), Done, sealed=True)
    yield Send(encode_message(Close()), sealed=True)
    yield Flush()
    return session.identity
