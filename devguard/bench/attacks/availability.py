"""Class I: power, cable, battery, and who believes what afterwards. Power is in `cuts`, the last in `last_word`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Final

from devguard.bench.attacks import cuts, last_word
from devguard.bench.attacks.device import BenchDevice
from devguard.bench.attacks.row import Attacker, Row
from devguard.bench.attacks.scene import By, Scene
from devguard.bench.attacks.state import ACCEPTED_OFFER
from devguard.bench.attacks.vendor import HOUR
from devguard.bench.hostile import accepted, ask, at_once, say_plain
from devguard.bench.stage import Build
from devguard.cose.algorithms import Algorithm
from devguard.custody.memory import MemorySigner
from devguard.device.flash import Operation
from devguard.device.node import COUNTED_HANDSHAKES, MAX_DELAY, NOTED_REFUSALS
from devguard.grant.claims import Grant
from devguard.manifest.description import Safety
from devguard.session.connect import connect
from devguard.session.script import Flush, Script, Send
from devguard.session.update import fetch_report
from devguard.session.verbs import Close, Commit, Data, Hello, KeepAlive, Reboot, encode_message

_PIECE: Final = 2048
_PATIENCE: Final = 5
_FREE: Final = 8  # handshakes in a row that fail before the device waits its longest between two
_NOTED: Final = 2 * COUNTED_HANDSHAKES + NOTED_REFUSALS
_HANDSHAKE_MILLIJOULES: Final = 15  # of a small microcontroller: an agreement, a signature and two checks on P-256
Trouble = Callable[[BenchDevice], object]


class Interlock(Row):
    """Every moment that is none for an update, at the offer, at the commit, at the reboot, and at a boot nobody
    ordered."""

    id = "I04"
    title = "Update started while therapy is running or battery low"
    precedent = "Abbott 2017: update in the clinic only, in backup mode; B. Braun: no upload during therapy"
    attacker = Attacker.INSIDER
    regulation = ("5.1",)

    def play(self, scene: Scene) -> None:
        for code, (what, trouble) in _TROUBLE.items():
            trouble(scene.device)
            scene.refuses(what, scene.pushing(scene.next), code, by=By.DEVICE)
            offer = scene.hostile(functools.partial(_begun, scene))
            scene.refuses(f"{what}, by a host that checks nothing", offer, code, by=By.DEVICE_ALONE)
            _over(scene.device)
            for moment in ("commit", "reboot"):
                attempt = scene.hostile(functools.partial(_meanwhile, scene, moment, trouble))
                # The data that come meanwhile are taken: they go into the idle slot. That the therapy began is history.
                scene.refuses(f"{what}, since the offer: {moment}", attempt, code, by=By.DEVICE_ALONE,
                              allowed=(*ACCEPTED_OFFER, "boot", "history"))  # fmt: skip
                if moment == "reboot" and (scene.full or trouble is BenchDevice.busy):
                    self._switched_off(scene, what, code)
                _over(scene.device)
            scene.again()
        careless = scene.release(safety=Safety(None, False, False))
        scene.device.busy()
        attempt = scene.pushing(careless)
        scene.refuses("a release that does not ask for it", attempt, "device.therapy-active", by=By.DEVICE)
        _over(scene.device)
        hungry = scene.release(safety=Safety(scene.device.battery + 1, True, False))
        scene.refuses("a release that asks for more battery", scene.pushing(hungry), "device.battery", by=By.DEVICE)
        scene.goes_through("the honest release, in a quiet moment", scene.pushing(scene.next))
        scene.runs_whole("afterwards", scene.next)

    @staticmethod
    def _switched_off(scene: Scene, what: str, code: str) -> None:
        """The committed image waits for a boot in a better moment, however often somebody switches."""
        device = scene.device
        for _ in range(2):
            device.power_off()
            device.power_on()
        running = device.node.loader.result
        digest = None if running.header is None else running.header.manifest_digest
        waits = digest == scene.current.envelope.manifest_digest and "update.waiting" in running.flags
        scene.holds(f"{what}: the image waits", waits)
        said = [event.code for event in device.counters.audit.events if event.name == "update-waits"]
        scene.holds(f"{what}: and the device says once why", said == [code])
        _over(device)
        device.power_off()
        device.power_on()
        scene.runs_whole(f"{what}: when it is over", scene.next)


def _over(device: BenchDevice) -> None:
    """Nothing stands against an update any more."""
    device.battery, device.charging = device.model.battery_percent, False
    device.idle()


def _low(device: BenchDevice) -> None:
    device.battery = device.model.minimum_battery_percent - 1


def _plugged(device: BenchDevice) -> None:
    device.charging = True


def _alarmed(device: BenchDevice) -> None:
    device.pressed(lambda therapy, now: therapy.open_alarm("occlusion", now))


_TROUBLE: Final[dict[str, tuple[str, Trouble]]] = {
    "device.therapy-active": ("a therapy under way", BenchDevice.busy),
    "device.battery": ("a low battery", _low),
    "device.charging": ("power from the charger", _plugged),
    "device.alarm": ("an open alarm", _alarmed),
}


def _begun(scene: Scene) -> Script[int]:
    """An honest offer; the offset from which the device wants the image."""
    first, build = scene.grant(), scene.next
    accept = yield from accepted(scene.bench(first), scene.offer(build), scene.approval(build, first))
    return accept.resume_offset


def _sent(scene: Scene, start: int, end: int) -> Script[None]:
    for at in range(start, end, _PIECE):
        yield Send(encode_message(Data(at, scene.next.image[at : min(at + _PIECE, end)])), sealed=True)
    yield from ask(KeepAlive())


def _meanwhile(scene: Scene, moment: str, trouble: Trouble) -> Script[Any]:
    """The trouble begins in the middle of the data, or after the commit."""
    start, size = (yield from _begun(scene)), len(scene.next.image)
    yield from _sent(scene, start, start + (size - start) // 2)
    if moment == "commit":
        trouble(scene.device)
    yield from _sent(scene, start + (size - start) // 2, size)
    yield from ask(Commit(scene.next.envelope.manifest_digest))
    trouble(scene.device)
    yield from ask(Reboot())


class Drain(Row):
    """Greetings, handshakes with a wrong key, and offers taken back, as fast as they go; then somebody who may."""

    id = "I02"
    title = "Battery drain and lockout by repeated wake, auth or erase"
    precedent = "CVE-2017-12714 (Abbott: no limit on wake-up); wear of flash"
    attacker = Attacker.OUTSIDER
    regulation = ("1.A4", "5.1")

    def play(self, scene: Scene) -> None:
        erased: list[int] = []
        scene.device.power_off()
        scene.device.fault = functools.partial(_counting, erased)
        scene.device.power_on()
        count, before = 10_000 if scene.full else 60, scene.device.saves
        greeting = encode_message(Hello((1,)))
        scene.comes_to_nothing(f"{count} greetings", lambda: [scene.play(say_plain(greeting)) for _ in range(count)])
        scene.holds("of which the device keeps nothing", scene.device.saves == before)
        self._handshakes(scene)
        scene.holds("nobody without a grant has had a sector erased", not erased)
        scene.world.clock.advance(_PATIENCE)
        scene.goes_through("somebody who may, five seconds later", scene.hostile(lambda: fetch_report(scene.bench())))
        self._offers(scene, erased)

    @staticmethod
    def _handshakes(scene: Scene) -> None:
        """Wrong keys, four a second: what they make the device do, in an hour of it."""
        count, before = 10_000 if scene.full else 60, scene.device.saves
        thief, first = MemorySigner.generate(Algorithm.ESP256), scene.grant()
        codes = []
        for _ in range(count):
            scene.world.clock.advance(0.25)
            codes.append(scene.hostile(lambda: at_once(connect(scene.bench(first, signer=thief))))())
        scene.holds("none is let in", set(codes) == {"session.handshake", "device.busy"})
        judged, seconds = codes.count("session.handshake"), count / 4
        most = _FREE + seconds / MAX_DELAY
        scene.holds(f"in {seconds:g} s of it {judged} of {count} handshakes were looked at", judged <= most)
        hour = (_FREE + HOUR / MAX_DELAY) * _HANDSHAKE_MILLIJOULES / 3600
        share = hour / scene.world.model.facts.battery_capacity_mwh
        scene.holds(f"an hour of it costs {share:.2%} of the battery", share < 0.01)
        scene.holds("and the device has written down few of them", scene.device.saves - before <= _NOTED)

    @staticmethod
    def _offers(scene: Scene, erased: list[int]) -> None:
        """A technician's genuine grants: two releases offered in turn and taken back."""
        model, builds = scene.world.model, (scene.next, scene.release("1.3.0", 4))
        grants: dict[int, Grant] = {}
        codes = []
        for number in range(1000 if scene.full else 12):
            one = grants.setdefault(number % 2, scene.grant())  # without a clock each is of the nonce of its time
            codes.append(scene.hostile(functools.partial(_taken_back, scene, builds[number % 2], one))())
        scene.holds(f"of {len(codes)} offers {codes.count(None)} were taken", set(codes) == {None, "device.busy"})
        times, budget = erased.count(model.layout.secondary.header), model.erase_budget_per_hour
        scene.holds(f"and the slot was erased {times} times for them", 0 < times <= budget)
        scene.world.clock.advance(_PATIENCE)
        scene.goes_through("somebody who may, five seconds later", scene.hostile(lambda: fetch_report(scene.bench())))
        scene.goes_through("the release begun last", scene.pushing(builds[0]))
        scene.runs_whole("the release begun last", builds[0])
        scene.world.clock.advance(HOUR)
        scene.goes_through("the other one, an hour later", scene.pushing(builds[1]))
        scene.runs_whole("the other one, an hour later", builds[1])


def _counting(erased: list[int], operation: Operation, address: int, _length: int) -> None:
    if operation is Operation.ERASE:
        erased.append(address)


def _taken_back(scene: Scene, build: Build, one: Grant) -> Script[None]:
    yield from accepted(scene.bench(one), scene.offer(build), scene.approval(build, one))
    yield Send(encode_message(Close()), sealed=True)
    yield Flush()


ROWS: Final[tuple[type[Row], ...]] = (Drain, Interlock, *cuts.ROWS, *last_word.ROWS)
