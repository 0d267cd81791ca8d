"""Every action that a record of this code can carry: what an auditor may expect to find, and what nothing writes.

A test reads the source and holds this list against the places that write records. `-begun` stands before an effect on a
device, the action without it after.
"""

from __future__ import annotations

from typing import Final

_BY_AREA: Final = {
    "advisory": "new",
    "campaign": "new open pause queue skip start stop work",
    "console": "enrol link register remove revoke serve token",
    "device": "acknowledge decommission decommission-begun enrol enrol-begun info log log-begun report",
    "evidence": "export format recover witness",
    "grant": "check delegate issue request revoke sign",
    "incident": "export new notify open release",
    "key": "ceremony ceremony-check check new",
    "ledger": "backup fetch migrate rebuild restore send update",
    "memory": "recover",
    "release": "approve check digest push push-begun recover recover-begun sign state verify",
    "shelf": "carry get init publish refresh renew rotate sign",
    "technician": "add change export import reinstate sign suspend",
    "trust": "check follow init push push-begun revoke rotate sign",
}
ACTIONS: Final = tuple(f"{area}.{name}" for area, names in _BY_AREA.items() for name in names.split())
