"""A device's therapy on disk: its settings and its course, each proven by a MAC before anybody delivers by it.

    protected.cbor  the anchor: this device's key and the lowest version of its settings that counts
    settings.cbor   settings and profile, with their version
    therapy.cbor    the course: delivered, under way, history

On real hardware the anchor lies in protected storage, as the counters do. What is not proven is left as it was found,
for whoever looks into it, and the device gives its safe therapy with an alarm (`therapy.safe_therapy`).
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from devguard.custody.files import write_atomic
from devguard.device.models import Model
from devguard.device.settings import KEY_SIZE, Anchor, Unproven, What, seal, unseal
from devguard.device.stored import read_file, unwrap, wrap
from devguard.device.therapy import UNPROVEN, Plan, Therapy, decode_plan, decode_therapy, new_therapy, safe_therapy
from devguard.errors import Refused

NAMES = ("protected.cbor", "settings.cbor", "therapy.cbor")


class TherapyFiles:
    """The three files of one device in its state directory."""

    def __init__(self, folder: Path, model: Model, random: Callable[[int], bytes] = os.urandom) -> None:
        self._protected, self._settings, self._course = (folder / name for name in NAMES)
        self._model = model
        self._random = random
        self._anchor: Anchor | None = None
        self._kept = True  # the anchor as it is here
        self._live = self._stale = False  # there are files; what ticks is of before an erasure
        self._ours = threading.Lock()  # of the files: the therapy's thread saves, an erasure takes them away

    def create(self, therapy: Therapy) -> None:
        """A new device's: a key of its own, and what the factory gave it."""
        anchor = Anchor(self._random(KEY_SIZE), 1)
        with self._ours:
            self._keep(anchor)
            self._write_settings(anchor, therapy.plan)
            self._write_course(therapy)
            self._live = True

    @contextlib.contextmanager
    def retired(self) -> Iterator[None]:
        """While the device is being erased nothing is saved, and afterwards nothing of what ticked before."""
        with self._ours:
            self._anchor, self._live, self._stale = None, False, True
            yield

    def load(self) -> Therapy:
        """The stored therapy; the model's safe one, its damage named, where any of it is not proven. Writes nothing."""
        self._anchor, self._live = self._read_anchor(), True
        flags: list[str] = []
        course, plan = new_therapy(self._model), None
        try:
            course = decode_therapy(unseal(self._anchor, What.COURSE, _read(self._course))[0], self._model)
        except Unproven as error:
            flags.append(error.flag)
        try:
            content, version = unseal(self._anchor, What.SETTINGS, _read(self._settings))
            plan = decode_plan(content, self._model)
        except Unproven as error:
            flags.append(error.flag)
        if flags or plan is None:
            return safe_therapy(course, self._model, (UNPROVEN, *sorted(flags)))
        if self._anchor is not None and version > self._anchor.version:
            self._anchor, self._kept = replace(self._anchor, version=version), False  # cut off before it was kept
        return course.with_plan(plan)

    def save(self, therapy: Therapy) -> Therapy | None:
        """Keep the course. Of a device that was erased since nothing is kept, and the factory's therapy is given back
        to go on with; of one that was never enrolled, neither."""
        with self._ours:
            if self._stale:
                self._stale = False
                return new_therapy(self._model)
            if self._live:
                self._write_course(therapy)
            return None

    def _write_course(self, therapy: Therapy) -> None:
        """A device whose anchor is lost begins a new one, which proves no settings of before."""
        anchor = self._anchor or Anchor(self._random(KEY_SIZE))
        if anchor != self._anchor or not self._kept:
            self._keep(anchor)
        write_atomic(self._course, seal(anchor, What.COURSE, therapy.encode()), 0o600)

    def enter(self, therapy: Therapy, plan: Plan) -> Therapy:
        """Settings made anew by the device's own keys: the next version, durable before it is in force."""
        before = self._anchor or Anchor(self._random(KEY_SIZE))
        anchor = replace(before, version=before.version + 1)
        # Settings first: cut off in between, they count, and the anchor follows at the next start.
        self._write_settings(anchor, plan)
        self._keep(anchor)
        fresh = therapy.with_plan(plan)
        fresh.note_damage(())
        self.save(fresh)
        return fresh

    def _write_settings(self, anchor: Anchor, plan: Plan) -> None:
        write_atomic(self._settings, seal(anchor, What.SETTINGS, plan.encode(), anchor.version), 0o600)

    def _keep(self, anchor: Anchor) -> None:
        write_atomic(self._protected, wrap(anchor.encode()), 0o600)
        self._anchor, self._kept = anchor, True

    def _read_anchor(self) -> Anchor | None:
        try:
            return Anchor.decode(unwrap(read_file(self._protected), "settings"))
        except Refused:
            return None


def _read(path: Path) -> bytes | None:
    try:
        return read_file(path)
    except Refused:
        return None
