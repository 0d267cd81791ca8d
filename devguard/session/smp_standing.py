"""Where a push over MCUmgr leaves the device when it ends early: what runs, what is safe, what to do. Pure.

Said to whoever pushes with every failure and interruption, and kept in the evidence record. All of it is as far as the
device says; a device that was caught lying is for its own refusal code.
"""

from __future__ import annotations

import enum


class Standing(enum.StrEnum):
    """One place in a push; the value is the sentence for people."""

    UNTOUCHED = "nothing of the image was sent: the device runs what it ran"
    UPLOADING = "the device runs what it ran; the same push goes on where this one stopped"
    RECOVERING = "the bootloader may hold half an image and has none that starts: do the same push again"
    WAITING = "the new image may start on trial at the device's next reset; the same push goes on from here"
    CHOOSING = "the bootloader chooses at the device's reset, without a trial: do the same push again, it compares"
    ON_TRIAL = "the new image runs on trial and goes away at the next reset unless it is kept; the same push keeps it"
    REPLACED = "the new image runs, and there is no way back; do the same push again, it compares"
    WENT_BACK = "the device runs what it ran before, and nothing starts the new image"
    KEPT = "the new image runs and stays"
