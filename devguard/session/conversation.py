"""What serves a line needs of a device's side of a conversation, whoever the device is."""

from __future__ import annotations

from typing import Protocol

from devguard.session.device_side import Action
from devguard.session.table import State


class Conversation(Protocol):
    """One connection's conversation: messages in, actions out."""

    @property
    def state(self) -> State: ...
    def heard(self, data: bytes, *, sealed: bool) -> list[Action]: ...
