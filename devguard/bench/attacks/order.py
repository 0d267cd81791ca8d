"""Class H, third part: genuine messages in every order but the right one."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

from devguard.bench.attacks.row import Attacker, Row
from devguard.bench.attacks.scene import By, Scene
from devguard.bench.attacks.state import ACCEPTED_OFFER
from devguard.bench.hostile import accepted, ask, play_back
from devguard.bench.stage import Build
from devguard.errors import DeviceRefused, RemoteProtocolError
from devguard.session.connect import connect
from devguard.session.script import Receive, Script, Send
from devguard.session.table import State, following
from devguard.session.verbs import (
    NONCE_SIZE,
    Approve,
    Commit,
    Data,
    Decommission,
    Done,
    Edhoc,
    Encoding,
    Hello,
    KeepAlive,
    LogRequest,
    Message,
    Offer,
    Reboot,
    Recover,
    ReportRequest,
    Transfer,
    TrustChain,
    Verb,
    encode_message,
    verb_of,
)

_PIECE: Final = 2048
_JUDGED: Final = (*ACCEPTED_OFFER, "boot")
_ORDER: Final = "session.order"
_ANY_TIME: Final = (Verb.APPROVE, Verb.REPORT, Verb.LOG, Verb.TRUST_CHAIN)
_LAST: Final = (Verb.CLOSE, Verb.REBOOT, Verb.DECOMMISSION)


@dataclass(frozen=True, slots=True)
class Expected:
    """What may be said next, told a second time and in other words than the device's own table.

    `proved`: 0 nothing, 1 greeted, 2 answered, 3 the technician's key. `over`: nobody listens any more.
    """

    proved: int = 0
    offered: bool = False
    encoded: bool = False
    committed: bool = False
    over: bool = False

    def may(self, verb: Verb) -> bool:
        """Whether it may be heard now."""
        if self.proved < 3:
            return verb is (Verb.HELLO if self.proved == 0 else Verb.EDHOC)
        if verb in (Verb.CLOSE, Verb.KEEP_ALIVE):
            return True
        if self.committed:
            return verb in (Verb.REBOOT, Verb.REPORT)
        if self.offered:
            return verb in (Verb.DATA, Verb.COMMIT) or (verb is Verb.TRANSFER and not self.encoded)
        return verb in (*_ANY_TIME, Verb.OFFER, Verb.RECOVER, Verb.DECOMMISSION)

    def after(self, verb: Verb) -> Expected:
        """What follows; of a step out of order: the end."""
        if not self.may(verb) or verb in _LAST:
            return replace(self, over=True)
        if self.proved < 3:
            return replace(self, proved=self.proved + 1)
        return replace(
            self,
            offered=self.offered or verb in (Verb.OFFER, Verb.RECOVER),
            encoded=self.encoded or verb is Verb.TRANSFER,
            committed=self.committed or verb is Verb.COMMIT,
        )


class OutOfOrder(Row):
    """Every message of a genuine session where it does not belong, and a second release offered over the first."""

    id = "H05"
    title = "Out-of-order protocol verbs"
    precedent = "CVE-2020-27252 (Medtronic), CVE-2020-6964 (GE MDhex); checked at one time, used at another"
    attacker = Attacker.OUTSIDER
    regulation = ("1.B1", "4.4")

    def play(self, scene: Scene) -> None:
        self._table(scene)
        hello, handshake = encode_message(Hello((1,))), encode_message(Edhoc(bytes(64)))
        for what, said in {"a handshake before hello": [handshake], "hello twice": [hello, hello]}.items():
            attempt = scene.hostile(functools.partial(play_back, said))
            scene.refuses(what, attempt, _ORDER, by=By.DEVICE_ALONE)
        cases = [(state, message) for state, message in self._cases(scene) if not state.may(verb_of(message))]
        third = len(scene.world.model.name) % 3
        for state, message in cases if scene.full else cases[third::3]:
            what = f"{verb_of(message).name.lower()}{_when(state)}"
            attempt = functools.partial(self._hurried, scene, state, message)
            scene.refuses(what, attempt, _ORDER, by=By.DEVICE_ALONE, allowed=_JUDGED)
            if state.committed:
                scene.again()
        self._second(scene)

    @staticmethod
    def _table(scene: Scene) -> None:
        """Sequences of any length: each pair of states that the two machines can be in together, and every verb."""
        todo, seen, apart = [(Expected(), State.WAITING)], set[tuple[Expected, State]](), []
        while todo:
            mine, theirs = pair = todo.pop()
            if pair in seen or mine.over:
                continue
            seen.add(pair)
            for verb in Verb:
                found = _after(theirs, verb)
                after = mine.after(verb)
                if (found is not None, found in (None, State.CLOSED)) != (mine.may(verb), after.over):
                    apart.append(f"{verb.name} while {theirs}")
                todo.append((after, found or State.CLOSED))
        steps = len(seen) * len(Verb)
        scene.holds(f"{steps} steps of the device's table are those of a second one; not {apart}", not apart)

    @staticmethod
    def _cases(scene: Scene) -> Iterator[tuple[Expected, Message]]:
        said: tuple[Message, ...] = (
            Hello((1,)), Edhoc(bytes(64)), Approve(b"x", b"x"), Offer(scene.offer(scene.next)), Data(0, bytes(256)),
            Commit(scene.next.envelope.manifest_digest), Reboot(), ReportRequest(bytes(NONCE_SIZE)),
            TrustChain(b"x", 2), Transfer(int(Encoding.COMPRESSED), 900, bytes(32)), Done(13),
            Decommission(bytes(NONCE_SIZE)),
            Recover(scene.offer(scene.current)), LogRequest(bytes(NONCE_SIZE), 0),
        )  # fmt: skip
        session = Expected(proved=3)
        offered = replace(session, offered=True)
        for state in (session, offered, replace(offered, encoded=True), replace(offered, committed=True)):
            for message in said:
                yield state, message

    @staticmethod
    def _hurried(scene: Scene, state: Expected, said: Message) -> str | None:
        with scene.device.hurry():
            return scene.hostile(functools.partial(_out_of_order, scene, state, said))()

    @staticmethod
    def _second(scene: Scene) -> None:
        """One release judged and committed, another offered on top of it: what was judged is no more in the slot."""
        other = scene.release("1.3.0", 4)
        committed, offered = Expected(3, offered=True, committed=True), Expected(3, offered=True)
        scene.goes_through("a release, committed", scene.hostile(lambda: _come_to(scene, committed, scene.next)))
        over = scene.hostile(lambda: _come_to(scene, offered, other, part=len(other.image) // 2))
        scene.goes_through("another one offered, half of it sent", over)
        scene.device.power_off()
        scene.device.power_on()
        scene.runs_whole("after a reset", scene.current)
        scene.goes_through("the other one, whole", scene.pushing(other))
        scene.runs_whole("afterwards", other)


def _after(state: State, verb: Verb) -> State | None:
    """By the device's table; None where it may not be heard."""
    try:
        return following(state, verb)
    except RemoteProtocolError:
        return None


def _when(state: Expected) -> str:
    if state.committed:
        return " after the commit"
    if state.encoded:
        return " while an encoded image comes"
    return " while an image comes" if state.offered else " before any offer"


def _come_to(scene: Scene, state: Expected, build: Build, part: int | None = None) -> Script[None]:
    """A genuine session, come so far with a release; `part`: bytes of its image to send, all that are needed unless
    given."""
    first = scene.grant()
    if not state.offered:
        yield from connect(scene.bench(first))
        return
    yield from accepted(scene.bench(first), scene.offer(build), scene.approval(build, first))
    if state.encoded:
        yield Send(encode_message(Transfer(int(Encoding.COMPRESSED), 900, bytes(32))), sealed=True)
        yield Receive(sealed=True, timeout=5.0)
    size = len(build.image) if state.committed else 0
    for at in range(0, size if part is None else part, _PIECE):
        yield Send(encode_message(Data(at, build.image[at : at + _PIECE])), sealed=True)
    if state.committed:
        yield from ask(Commit(build.envelope.manifest_digest))


def _out_of_order(scene: Scene, state: Expected, said: Message) -> Script[Any]:
    """It is refused, and then nobody listens: a word that always has an answer gets none."""
    yield from _come_to(scene, state, scene.next)
    try:
        yield from ask(said)
    except DeviceRefused:
        yield Send(encode_message(KeepAlive()), sealed=True)
        if (yield Receive(sealed=True, timeout=1.0, optional=True)) is not None:
            scene.broken.append("the session went on after a step out of its order")
        raise


ROWS: Final[tuple[type[Row], ...]] = (OutOfOrder,)
