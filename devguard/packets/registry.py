"""The families by name. Each file of `families/` gives `FAMILIES`, a tuple of `Family`; they are read on demand."""

from __future__ import annotations

import difflib
import importlib
from typing import Final

from devguard.errors import Refused
from devguard.packets.family import Family

MODULES: Final = {
    "minimed_rf": "minimed_rf",
    "minimed_rf_4b6b": "minimed_rf",
    "minimed_rf_message": "minimed_message",
    "carelink_usb": "carelink",
    "omnipod_eros": "omnipod_eros",
    "omnipod_message": "omnipod",
    "omnipod_dash": "omnipod",
    "omnipod_dash_ble": "omnipod_ble",
    "tandem_ble": "tandem",
    "dana_rs_ble": "dana_rs",
    "dana_r_serial": "dana_r",
    "medtrum_ble": "medtrum",
    "medtrum_payload": "medtrum",
    "combo_frame": "combo",
    "combo_transport": "combo",
    "minimed700_sake": "minimed700",
    "lifescan_binary": "lifescan",
    "taidoc_td42xx": "taidoc",
    "sd_codefree": "codefree",
    "dexcom_g4_serial": "dexcom_g4",
    "dexcom_g5g6_ble": "dexcom_ble",
    "ieee11073_20601": "ieee11073",
    "ble_e2e": "ble_e2e",
    "smp_frame": "smp",
    "smp_serial": "smp",
    "pacemaker_3k04": "pacemaker",
    "devguard_link": "devguard_link",
}
"""Family name -> file in `families/`. The first 26 names are those of the vectors; the last is our own wire."""


def family_named(name: str) -> Family:
    """The family of that name; `Refused("packet.unknown")` names the nearest one."""
    if name not in MODULES:
        near = difflib.get_close_matches(name, MODULES, 1)
        hint = f"did you mean {near[0]}?" if near else "`devguard packets families` lists them"
        raise Refused("packet.unknown", f"no packet family {name!r}", hint)
    module = importlib.import_module(f"devguard.packets.families.{MODULES[name]}")
    known: tuple[Family, ...] = module.FAMILIES
    return {family.name: family for family in known}[name]


def families() -> list[Family]:
    """All families, in the order of `MODULES`."""
    return [family_named(name) for name in MODULES]
