"""An update over MCUmgr, from a judged release and a checked grant to a confirmed image: upload, test, reset, confirm.

The device is believed in nothing that it can be asked twice about. After every step its state is read back: the hash in
the slot has to be the judged image's before the trial and before it is confirmed, and the flags have to say what the
device said it did. Each step can be done again, so a lost link is followed by another push that goes on where this one
stopped. Only the reset is sent once, for a second one would end the trial. A device in its bootloader's serial recovery
(no image is active) takes the image without a trial, and so does one whose bootloader starts the newest version by
itself and knows no trials; what runs afterwards is read all the same.

Sans-I/O: the methods are scripts (see `smp_script`). It needs a `Release` and `CheckedGrant`s, as `UpdateSession` does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from devguard.errors import DevguardError, DeviceRefused, LinkError, LocalProtocolError, Refused
from devguard.grant.check import CheckedGrant, check_pair
from devguard.session import smp_requests as requests
from devguard.session.smp_answers import (
    NOT_SUPPORTED,
    Parameters,
    SlotState,
    error_of,
    good,
    parameters,
    slot_states,
)
from devguard.session.smp_image import JudgedImage
from devguard.session.smp_script import Ask, Now, Pause, Reopen, Script, Stream
from devguard.session.smp_standing import Standing
from devguard.session.smp_upload import Progress, Upload, Window
from devguard.verdict.release import Release

STATE_PATIENCE: Final = 30.0
RESET_PATIENCE: Final = 5.0
BOOT_SECONDS: Final = 180.0
BOOT_POLL: Final = 1.0
POLL_PATIENCE: Final = 3.0
RECOVERY_SECONDS: Final = 20.0  # a bootloader that still answers then has nothing it would start
RESET_AGAIN: Final = 15.0  # a device that still answers from before the reset, by then, has not been reset
RESET_UNHEARD: Final = 5.0  # the same, of a reset that got no answer
MAX_RESETS: Final = 3
UPLOADS: Final = 3  # of one image, where the answer to its last piece was lost and the slot does not hold it
LIED: Final = "smp.state"


@dataclass(frozen=True, slots=True)
class Survey:
    """What the device said before anything was sent. `recovery`: its bootloader answers, no image runs."""

    parameters: Parameters | None
    states: tuple[SlotState, ...]

    @property
    def recovery(self) -> bool:
        """Whether a bootloader answers instead of firmware."""
        return not any(one.active for one in self.states)

    def running(self, image: int) -> SlotState | None:
        """The image that runs as that number; in recovery the one that would."""
        own = [one for one in self.states if one.image == image]
        return next((one for one in own if one.active or (self.recovery and one.slot == 0)), None)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the push. `sent`: bytes of images sent; `resumed`: bytes that were there already; `trial`: whether
    there was a way back until the images were confirmed."""

    states: tuple[SlotState, ...]
    sent: int
    resumed: int
    trial: bool


def survey() -> Script[Survey]:
    """Parameters and slots of the device; a server without the parameters command is one of its own kind, no error."""
    try:
        found: Parameters | None = parameters((yield Ask(requests.parameters(), STATE_PATIENCE)))
    except DeviceRefused:
        found = None
    return Survey(found, (yield from _states(STATE_PATIENCE)))


def _states(patience: float) -> Script[tuple[SlotState, ...]]:
    return slot_states((yield Ask(requests.image_state(), patience)))


@dataclass(slots=True)
class SmpUpdate:
    """One push of one release to one device that speaks only MCUmgr.

    `second`: the second technician's grant where `technicians` or the release asks for two. `clock`: seconds since the
    epoch, by which grants run out. Raises `LocalProtocolError` when built from anything but proof, `Refused` when the
    grants do not cover the release or two technicians are needed and one has approved.
    """

    release: Release
    grant: CheckedGrant
    images: tuple[JudgedImage, ...]
    clock: Callable[[], int]
    second: CheckedGrant | None = None
    technicians: int = 1
    progress: Progress = lambda _done, _whole: None
    sent: int = field(default=0, init=False)
    resumed: int = field(default=0, init=False)
    trial: bool = field(default=True, init=False)
    standing: Standing = field(default=Standing.UNTOUCHED, init=False)
    _done: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if not isinstance(self.release, Release) or not isinstance(self.grant, CheckedGrant):
            raise LocalProtocolError("session.order", "an update needs a judged release and a checked grant")
        if not self.release.payload_checked:
            raise LocalProtocolError("session.order", "the release's payload was not measured")
        if [(one.component, one.size) for one in self.images] != [(c.id, c.size) for c in self.release.components]:
            raise LocalProtocolError("session.order", "the images are not those of the release")
        self.grant.covers(self.release)
        if self.second is not None:
            check_pair(self.grant, self.second)
            self.second.covers(self.release)
        elif self.technicians > 1 or self.release.requirements.two_technicians:
            raise Refused("grant.quorum", "two different technicians must approve; one has")

    def _still_granted(self) -> None:
        now = self.clock()
        for one in (self.grant, self.second):
            if one is not None:
                one.still_valid(now)

    def check(self, before: Survey) -> None:
        """What stands before the first byte. `Refused`: version.current (it runs already), version.rollback (the same
        version of a later build runs), grant.expired."""
        self._still_granted()
        if self._runs(before.states) and all(self._of(before.states, one, "confirmed") for one in self.images):
            raise Refused("version.current", "the device runs this very image already, and has kept it")
        running = None if before.recovery else before.running(self.images[0].number)
        found, ours = version_of(running.version) if running is not None else None, self.images[0].version
        if found is not None and found[:3] == ours[:3] and found > ours:
            raise Refused("version.rollback", f"build {found[3]} of this version runs, the image is build {ours[3]}")

    def push(self, before: Survey) -> Script[Outcome]:
        """Upload what is missing, try it, and keep it once it runs. `before`: the survey of this very device.

        Raises what `check` raises, and `Refused`: image.digest (another hash than the judged one),
        device.self-test (the device went back to what it had), smp.state (the device's word and its state differ),
        `grant.expired`; `DeviceRefused("smp.refused")`, `LinkError`, `RemoteProtocolError("smp.malformed")`.
        """
        self.check(before)
        states = before.states
        self.trial = not before.recovery
        if not self._runs(states):
            window = Window.of(before.parameters)
            for image in self.images:
                states = yield from self._fill(image, states, window, recovery=before.recovery)
            if not before.recovery:
                states = yield from self._try(states)
            states = yield from self._restart()
        self.standing = Standing.ON_TRIAL if self.trial else Standing.REPLACED
        states = yield from self._keep(states)
        self.standing = Standing.KEPT
        return Outcome(states, self.sent, self.resumed, self.trial)

    # what the slots hold

    def _runs(self, states: tuple[SlotState, ...]) -> bool:
        """Whether every judged image is the one that runs as its number."""
        return all(self._of(states, image, "active") for image in self.images)

    @staticmethod
    def _held(states: tuple[SlotState, ...], image: JudgedImage) -> list[SlotState]:
        return [one for one in states if one.image == image.number and one.hash == image.hash]

    def _of(self, states: tuple[SlotState, ...], image: JudgedImage, flag: str) -> bool:
        """Whether the judged image stands in a slot with `flag` set; of `confirmed`, in the slot that runs."""
        held = self._held(states, image)
        return any(getattr(one, flag) and (flag != "confirmed" or one.active) for one in held)

    # steps

    def _fill(
        self, image: JudgedImage, states: tuple[SlotState, ...], window: Window, *, recovery: bool
    ) -> Script[tuple[SlotState, ...]]:
        """Upload one image, unless it stands in its slot already, and compare the slot's hash with the judged one."""
        if self._held(states, image) and not recovery:
            self._count(image.size)
            self.resumed += image.size
            return states
        before, self.standing = self.standing, Standing.RECOVERING if recovery else Standing.UPLOADING
        for _ in range(UPLOADS):
            upload = Upload(image, window, lambda done, _whole: self.progress(self._done + done, self.release.size))
            try:
                yield Stream(upload)
            except DeviceRefused:
                self.standing = self.standing if upload.begun else before
                raise
            self.sent += upload.sent
            self.resumed += upload.resumed
            states = yield from _states(STATE_PATIENCE)
            if self._held(states, image) or not upload.unsure:
                break
        self._count(image.size)
        if not self._held(states, image):
            found = {one.slot: one.hash for one in states if one.image == image.number and not one.active}
            if recovery and set(found.values()) <= {None}:
                return states  # a bootloader may keep what it holds to itself; what runs is compared after the reset
            said = ", ".join(f"slot {slot}: {(digest or b'').hex() or 'no hash'}" for slot, digest in found.items())
            what = f"after the upload the device holds {said or 'nothing'}, the judged image is {image.hash.hex()}"
            raise Refused("image.digest", what)
        return states

    def _count(self, size: int) -> None:
        self._done += size
        self.progress(self._done, self.release.size)

    def _try(self, states: tuple[SlotState, ...]) -> Script[tuple[SlotState, ...]]:
        """Set every image for a trial at the next start."""
        self._still_granted()
        self.standing = Standing.WAITING  # from the first question on, whether its answer is heard or not
        for image in self.images:
            if self._of(states, image, "pending") or self._of(states, image, "active"):
                continue
            answer = yield Ask(requests.try_image(image.hash), STATE_PATIENCE)
            if error_of(answer.values) == (None, NOT_SUPPORTED):
                self.trial = False
                return states
            good(answer)
        states = yield from _states(STATE_PATIENCE)
        for image in self.images:
            held = [one for one in self._held(states, image) if not one.active]
            if self._of(states, image, "active"):
                continue
            if not any(one.pending for one in held):
                what = f"the device said it would try image {image.number}, and its state does not say so"
                raise Refused(LIED, what)
            if any(one.permanent for one in held):
                raise Refused(LIED, f"the device would keep image {image.number} without a trial; it was not asked to")
        return states

    def _restart(self) -> Script[tuple[SlotState, ...]]:
        """Reset, and wait until the device says what runs now."""
        self.standing = Standing.WAITING if self.trial else Standing.CHOOSING
        heard = yield from self._reset()
        began = latest = yield Now()
        resets = int(heard)
        while True:
            yield Pause(BOOT_POLL)
            states = yield from self._look()
            now = yield Now()
            if states is not None and self._runs(states):
                return states
            if now - began > BOOT_SECONDS:
                hint = "look at the device; push again when it answers, that goes on where this stopped"
                raise LinkError("link.timeout", "the device has not come back from its reset", hint)
            if states is None:
                continue
            if self._settled(states, now - began):
                raise self._gone_back(states)
            if now - latest > (RESET_AGAIN if heard else RESET_UNHEARD):
                if resets == MAX_RESETS:
                    raise Refused(LIED, "the device says it has been reset, and its state says it has not")
                heard = yield from self._reset()
                resets, latest = resets + heard, (yield Now())

    def _reset(self) -> Script[bool]:
        """Ask once; whether an answer came. Whether it happened is for the state to say: the answer may go down with
        the device."""
        try:
            good((yield Ask(requests.reset(), RESET_PATIENCE, once=True)))
        except DeviceRefused:
            raise
        except DevguardError as error:
            if error.code not in ("link.timeout", "link.port", "smp.malformed"):
                raise
            return False
        return True

    def _look(self) -> Script[tuple[SlotState, ...] | None]:
        """The state of a device that may be starting: None while it does not answer."""
        try:
            return (yield from _states(POLL_PATIENCE))
        except LinkError as error:
            if error.code == "link.port":
                try:
                    yield Reopen()
                except LinkError:
                    return None  # its port is not back yet
            return None

    def _settled(self, states: tuple[SlotState, ...], waited: float) -> bool:
        """Whether a device that does not run the judged images will not do so any more. Without a trial nothing in its
        state says that it has been reset."""
        if not self.trial:
            return waited > RECOVERY_SECONDS
        return not any(self._of(states, image, "pending") for image in self.images)

    def _gone_back(self, states: tuple[SlotState, ...]) -> Refused:
        running = next((one for one in states if one.active), None)
        self.standing = Standing.WENT_BACK if running is not None else Standing.RECOVERING
        if running is None:
            return Refused("device.self-test", "the bootloader starts nothing; it still waits for an image it would")
        digest = (running.hash or b"").hex()
        what = f"after the reset the device runs {running.version or 'another image'}, hash {digest}"
        why = "it refused the new image or went back from it" if self.trial else "its bootloader did not choose the new"
        return Refused("device.self-test", f"{what}: {why}")

    def _keep(self, states: tuple[SlotState, ...]) -> Script[tuple[SlotState, ...]]:
        """The judged images run: keep them, and read back that they are kept."""
        self._still_granted()
        self._check_versions(states)
        for image in self.images:
            if not self._of(states, image, "confirmed"):
                good((yield Ask(requests.confirm_image(image.hash), STATE_PATIENCE)))
        states = yield from _states(STATE_PATIENCE)
        if not self._runs(states):
            raise Refused("image.digest", "the device was told to keep the judged image, and now says another one runs")
        for image in self.images:
            if not self._of(states, image, "confirmed"):
                raise Refused(LIED, f"the device said it keeps image {image.number}, and its state does not say so")
            if any(one.pending for one in states if one.image == image.number and one.hash != image.hash):
                raise Refused(LIED, f"the device would start another image {image.number} at its next reset")
        return states

    def _check_versions(self, states: tuple[SlotState, ...]) -> None:
        """One hash has one version: a device that names another one made its answer up."""
        for image in self.images:
            for one in self._held(states, image):
                said = version_of(one.version)
                if said is not None and said != image.version:
                    wanted = ".".join(map(str, image.version))
                    what = f"the device calls the judged image {one.version}, its header says {wanted}"
                    raise Refused(LIED, what)


def version_of(text: str) -> tuple[int, int, int, int] | None:
    """Major, minor, revision, build of a version as MCUmgr devices write it; None for any other text."""
    parts = text.replace("+", ".").split(".")
    if len(parts) not in (3, 4) or not all(part.isascii() and part.isdigit() and len(part) < 11 for part in parts):
        return None
    major, minor, revision, *build = map(int, parts)
    return major, minor, revision, build[0] if build else 0
