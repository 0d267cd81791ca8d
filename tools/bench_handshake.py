"""What a handshake costs each side, the grant judged in it, and with the release judged at the offer as well.

`rows()` is what `tools/bench.py` calls. Both ends run in this process with no line between them; each is timed by the
processor's time of what it does itself. The floor is the bare work of the same side with the `cryptography` package
alone, its key objects made: an ephemeral key, one agreement, one signature, two to verify (the other end's, and that of
whoever vouches for it). Keys are P-256, the release is signed by P-256 and ML-DSA-65. Nothing is kept between rounds.
"""

from __future__ import annotations

import gc
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

ROUNDS = 101
WARM = 10
AIM = 40e-3
SIZE = 8192
Row = tuple[str, str, str, str, str, bool | None]


@dataclass
class Split:
    """Processor time of one round: the bench's share and the device's, until message_4 and with the offer."""

    bench: float = 0.0
    device: float = 0.0
    judged: float = 0.0


@dataclass
class Scene:
    """A device and its bench, and what they say to each other."""

    stage: Any
    offer: bytes


def rows() -> list[Row]:
    """Median cost of each side in ms, beside the bare operations of the same run."""
    from devguard.bench.stage import Stage
    from devguard.device.models import load_model
    from devguard.manifest.envelope import sever

    stage = Stage(load_model("insulin-pump"), "handshake", lambda: 0.0)
    scene = Scene(stage, sever(stage.build(SIZE).envelope))
    bare = _bare()
    splits: list[Split] = []
    floors: list[float] = []
    gc.collect()
    for number in range(ROUNDS + WARM):
        found, floor = _round(scene), _timed(bare)
        if number >= WARM:
            splits.append(found)
            floors.append(floor)
    least = statistics.median(floors)
    return [
        _row("handshake, the bench's side", [one.bench for one in splits], least),
        _row("handshake, the device's side", [one.device for one in splits], least),
        _row("  and the offer judged", [one.device + one.judged for one in splits], least),
    ]


def _row(what: str, times: list[float], floor: float) -> Row:
    mine = statistics.median(times)
    return (
        what,
        f"{mine * 1e3:.2f} ms",
        f"bare {floor * 1e3:.2f} ms",
        f"{mine / floor:.2f}",
        "under 40 ms",
        mine < AIM,
    )


def _round(scene: Scene) -> Split:
    """Hello to message_4, then an offer; the device forgets what it was offered."""
    from devguard.device.counters import MemoryCounterStore
    from devguard.session.connect import connect
    from devguard.session.device_side import DeviceConversation, Reply
    from devguard.session.script import Receive, Send
    from devguard.session.verbs import Accept, Offer, decode_message, encode_message

    node, split = scene.stage.node, Split()
    before = node.store.load()
    conversation = DeviceConversation(node.attend(), node.around.random)
    script, value, waiting = connect(scene.stage.bench()), None, []
    while True:
        began = time.thread_time()
        try:
            step = script.send(value)
        except StopIteration:
            split.bench += time.thread_time() - began
            break
        split.bench += time.thread_time() - began
        value = None
        if isinstance(step, Send):
            began = time.thread_time()
            actions = conversation.heard(step.message, sealed=step.sealed)
            split.device += time.thread_time() - began
            waiting += [one.message for one in actions if isinstance(one, Reply)]
        elif isinstance(step, Receive):
            value = waiting.pop(0)
    began = time.thread_time()
    actions = conversation.heard(encode_message(Offer(scene.offer)), sealed=True)
    split.judged = time.thread_time() - began
    answer = decode_message(actions[0].message, sealed=True)
    if not isinstance(answer, Accept):
        raise SystemExit(f"the bench's offer was refused: {answer}")
    node.loader.pause()
    node.store = MemoryCounterStore(before)
    node.boot()
    return split


def _timed(work: Callable[[], object]) -> float:
    began = time.thread_time()
    work()
    return time.thread_time() - began


def _bare() -> Callable[[], object]:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    curve, scheme, message = ec.SECP256R1(), ec.ECDSA(hashes.SHA256()), bytes(600)
    mine, peer = ec.generate_private_key(curve), ec.generate_private_key(curve)
    signed, public = peer.sign(message, scheme), peer.public_key()

    def work() -> None:
        ephemeral = ec.generate_private_key(curve)
        ephemeral.exchange(ec.ECDH(), public)
        mine.sign(message, scheme)
        public.verify(signed, message, scheme)
        public.verify(signed, message, scheme)

    return work


if __name__ == "__main__":
    for row in rows():
        print(*row, sep="  ")
    sys.exit(0)
