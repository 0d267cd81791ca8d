"""Where a push over MCUmgr leaves the device when it ends early: what runs, what is safe, what the same push does next.

Said to whoever pushes with every failure and interruption, and kept in the evidence record. All of it is as far as the
device says; a device that was caught lying is for its own refusal code. Pure.
"""

from __future__ import annotations

import enum


class Standing(enum.Enum):
    """One place in a push. `left`: how it leaves the device; `onward`: what another push does."""

    UNTOUCHED = ("nothing of the image was sent: the device runs what it ran", "push again when you can")
    UPLOADING = ("the device runs what it ran", "the same push goes on where this one stopped")
    RECOVERING = ("the bootloader may hold half an image and has none that starts", "do the same push again")
    WAITING = ("the new image may start on trial at the device's next reset", "the same push goes on from here")
    CHOOSING = ("the bootloader chooses at the device's reset, without a trial", "do the same push again, it compares")
    ON_TRIAL = ("the new image runs on trial and goes at the next reset unless it is kept", "the same push keeps it")
    REPLACED = ("the new image runs, and there is no way back", "do the same push again, it compares")
    WENT_BACK = ("the device runs what it ran before, and nothing starts the new image", "ask the vendor first")
    KEPT = ("the new image runs and stays", "there is nothing left to do on the device")

    @property
    def left(self) -> str:
        """For people and for the record."""
        return self.value[0]

    @property
    def onward(self) -> str:
        """For people, where nothing speaks against another push."""
        return self.value[1]
