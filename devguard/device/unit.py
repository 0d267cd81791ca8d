"""A device as it is switched on: somebody, with all its rules, or nobody, who can be enrolled. It may change at a boot.

What serves a line holds a unit (or a node, where nobody is ever enrolled or erased) and asks it anew after each boot.
"""

from __future__ import annotations

from collections.abc import Callable

from devguard.device.blank import Blank
from devguard.device.flash import Fault
from devguard.device.models import Model
from devguard.device.node import DeviceNode, Surroundings
from devguard.device.provision import open_node
from devguard.device.storage import DeviceDirectory
from devguard.device.therapy import TherapyView
from devguard.errors import DevguardError, LocalProtocolError
from devguard.session.conversation import Conversation


class Unit:
    """One powered device over its state directory; `boot` first."""

    def __init__(
        self,
        directory: DeviceDirectory,
        around: Surroundings,
        therapy: TherapyView,
        fault: Fault | None = None,
    ) -> None:
        self._directory = directory
        self._around = around
        self._therapy = therapy
        self._fault = fault
        self._now: DeviceNode | Blank | None = None

    @property
    def model(self) -> Model:
        """What kind of device it is."""
        return self._directory.model

    @property
    def now(self) -> DeviceNode | Blank:
        """What it is since its last boot."""
        if self._now is None:
            raise LocalProtocolError("session.order", "the device has not booted")
        return self._now

    def boot(self) -> None:
        """Reset: it is what its directory says."""
        if self._directory.identity is None:
            self._now = Blank(self._directory, self._around)
            return
        node = open_node(self._directory, self._around, self._therapy, self._fault)
        node.boot()
        self._now = node

    def converse(self, random: Callable[[int], bytes]) -> Conversation:
        """Its side of one connection."""
        return self.now.converse(random)

    def lost(self) -> None:
        """The link is gone."""
        self.now.lost()

    def refused(self, error: DevguardError, *, proved: bool = True) -> None:
        """Note what the line refused."""
        self.now.refused(error, proved=proved)
