"""Every way into the console, in one table: path, method, who may, what body it takes.

The guard (`console.guard`) looks here before anything else runs. A path that is not here does not exist, whatever the
application below would do with it; so a page that is forgotten here is a page nobody can open.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final


class Role(enum.IntEnum):
    """What a signed-in person is here for; each may what those before it may. A role opens pages, and no device: a push
    still takes a key, its passphrase and a grant."""

    VIEWER = 1
    TECHNICIAN = 2
    AUTHORITY = 3
    ADMIN = 4

    @property
    def label(self) -> str:
        """As on the command line."""
        return self.name.lower()

    @classmethod
    def named(cls, label: str) -> Role | None:
        """The role of that name."""
        return cls.__members__.get(label.upper())


ROLES: Final = tuple(role.label for role in Role)


class Body(enum.Enum):
    """What a request may carry. FORM: urlencoded, with the session's token in it. JSON: the token is in the header.
    UPLOAD: multipart with the token as its first part (or in the header), read by `console.uploads` and nobody else."""

    NONE = enum.auto()
    FORM = enum.auto()
    JSON = enum.auto()
    UPLOAD = enum.auto()


@dataclass(frozen=True, slots=True)
class Way:
    """One way in.

    handler: "module:function" in `devguard.console.pages`. role: the least that may; None: anybody, signed in or not.
    passive: what a page asks for by itself, which is no sign of a person and does not keep a session alive. api:
    described in OpenAPI, its refusals are JSON.
    """

    method: str
    path: str
    handler: str
    role: Role | None
    body: Body = Body.NONE
    passive: bool = False
    api: bool = False


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of the navigation; `name` is its key in the catalogue: `nav.NAME`."""

    name: str
    path: str
    role: Role


WAYS: Final[tuple[Way, ...]] = (
    Way("GET", "/static/{name}", "static:asset", None, passive=True),
    Way("GET", "/in", "entry:enter", None),
    Way("GET", "/sign-in", "entry:sign_in", None),
    Way("POST", "/sign-in/options", "entry:sign_in_options", None, Body.JSON),
    Way("POST", "/sign-in", "entry:signed_in", None, Body.JSON),
    Way("GET", "/enrol", "entry:enrol", None),
    Way("POST", "/enrol/options", "entry:enrol_options", None, Body.JSON),
    Way("POST", "/enrol", "entry:enrolled", None, Body.JSON),
    Way("POST", "/sign-out", "entry:sign_out", Role.VIEWER, Body.FORM),
    Way("POST", "/language", "entry:language", None, Body.FORM),
    Way("GET", "/", "start:show", Role.VIEWER),
    Way("GET", "/verify", "verify:show", Role.VIEWER),
    Way("POST", "/verify", "verify:verdict", Role.VIEWER, Body.UPLOAD),
    Way("GET", "/bench", "bench:show", Role.TECHNICIAN),
    Way("POST", "/bench/ports", "bench:look", Role.TECHNICIAN, Body.FORM),
    Way("POST", "/bench/push", "bench:push", Role.TECHNICIAN, Body.UPLOAD),
    Way("GET", "/bench/runs/{run}", "bench:run", Role.TECHNICIAN),
    Way("GET", "/bench/runs/{run}/events", "bench:events", Role.TECHNICIAN, passive=True),
    Way("POST", "/bench/runs/{run}/stop", "bench:stop", Role.TECHNICIAN, Body.FORM),
    Way("POST", "/bench/runs/{run}/approve", "bench:approve", Role.TECHNICIAN, Body.FORM),
    Way("POST", "/bench/runs/{run}/follow", "bench:follow", Role.TECHNICIAN, Body.FORM),
    Way("GET", "/devices", "devices:show", Role.VIEWER),
    Way("GET", "/devices/{serial}", "devices:show_one", Role.VIEWER),
    Way("POST", "/devices/{serial}", "live:compare", Role.TECHNICIAN, Body.FORM),
    Way("GET", "/evidence", "evidence:show", Role.VIEWER),
    Way("GET", "/evidence/{index}", "evidence:show_record", Role.VIEWER),
    Way("GET", "/evidence/{index}/proof", "evidence:proof", Role.VIEWER),
    Way("GET", "/incidents", "evidence:show_incidents", Role.VIEWER),
    Way("GET", "/incidents/{identifier}", "evidence:show_incident", Role.VIEWER),
    Way("GET", "/people", "people:show", Role.VIEWER),
    Way("POST", "/people/suspend", "people:suspend", Role.AUTHORITY, Body.FORM),
    Way("POST", "/people/reinstate", "people:reinstate", Role.AUTHORITY, Body.FORM),
    Way("POST", "/people/grants", "people:issue", Role.AUTHORITY, Body.FORM),
    Way("GET", "/people/grants/{name}", "people:fetch", Role.AUTHORITY),
    Way("GET", "/campaigns", "campaigns:show", Role.VIEWER),
    Way("GET", "/campaigns/{name}", "campaigns:show_one", Role.VIEWER),
    Way("POST", "/campaigns/{name}", "campaigns:order", Role.AUTHORITY, Body.FORM),
    Way("GET", "/metrics", "metrics:show_metrics", None, api=True),
    Way("GET", "/api/v1/openapi.json", "api:show_description", None, api=True),
    Way("GET", "/api/v1/devices", "api:list_devices", Role.VIEWER, api=True),
    Way("GET", "/api/v1/devices/{serial}", "api:show_device", Role.VIEWER, api=True),
    Way("GET", "/api/v1/evidence", "api:list_records", Role.VIEWER, api=True),
    Way("GET", "/api/v1/evidence/log", "api:show_log", Role.VIEWER, api=True),
    Way("GET", "/api/v1/evidence/{index}", "api:show_record", Role.VIEWER, api=True),
    Way("GET", "/api/v1/evidence/{index}/proof", "api:show_proof", Role.VIEWER, api=True),
    Way("GET", "/api/v1/incidents", "api:list_incidents", Role.VIEWER, api=True),
    Way("GET", "/api/v1/incidents/{identifier}", "api:show_incident", Role.VIEWER, api=True),
    Way("GET", "/api/v1/grants", "api:list_grants", Role.VIEWER, api=True),
    Way("GET", "/api/v1/technicians", "api:list_technicians", Role.VIEWER, api=True),
    Way("GET", "/api/v1/campaigns", "api:list_campaigns", Role.VIEWER, api=True),
    Way("GET", "/api/v1/campaigns/{name}", "api:show_campaign", Role.VIEWER, api=True),
    Way("POST", "/api/v1/verify", "api:verify_file", Role.VIEWER, Body.UPLOAD, api=True),
)

NAVIGATION: Final[tuple[Entry, ...]] = (
    Entry("start", "/", Role.VIEWER),
    Entry("verify", "/verify", Role.VIEWER),
    Entry("bench", "/bench", Role.TECHNICIAN),
    Entry("devices", "/devices", Role.VIEWER),
    Entry("evidence", "/evidence", Role.VIEWER),
    Entry("people", "/people", Role.VIEWER),
    Entry("campaigns", "/campaigns", Role.VIEWER),
)
