"""The HTTP API, `/api/v1`: for programs, read-only. The same functions as the pages, the shapes of `--json`."""

from __future__ import annotations

import re
from typing import Annotated, Final

from fastapi import Path as InPath
from fastapi import Query
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from devguard.console import shapes, timeline
from devguard.console.apidoc import documented, openapi
from devguard.console.app import console_of
from devguard.console.inventory import Wish
from devguard.console.pages.campaigns import campaign_of, campaigns_of
from devguard.console.pages.devices import device_of, devices_of
from devguard.console.pages.evidence import incident_of, incidents_of, proof_of
from devguard.console.pages.people import grants_of, technicians_of
from devguard.console.pages.verify import command
from devguard.console.shapes import epoch
from devguard.console.uploads import uploaded
from devguard.errors import DevguardError, Malformed
from devguard.evidence.export import rfc3339

_INDEX: Final = 1 << 53
Serial = Annotated[str, InPath(min_length=1, max_length=200)]
Identifier = Annotated[str, InPath(min_length=1, max_length=100)]
Index = Annotated[int, InPath(ge=0, le=_INDEX)]


@documented(tag="about")
async def show_description(request: Request) -> Response:
    """This description, as JSON."""
    return JSONResponse(openapi(request.app, request.app.routes))


# devices


@documented(tag="devices")
async def list_devices(request: Request, asked: Annotated[shapes.DevicesAsked, Query()]) -> shapes.Devices:
    """Devices as of their last signed reports, a page at a time."""
    wish = Wish(
        words=asked.q,
        model=asked.model,
        site=asked.site,
        version=asked.version,
        state=asked.state,
        sort=asked.sort,
        down=asked.down,
        offset=asked.offset,
        limit=asked.limit,
    )
    found = await devices_of(console_of(request), wish)
    page = {"devices": found.rows, "total": found.total, "offset": wish.offset, "limit": wish.limit}
    note = None if found.error is None else found.error.code
    return shapes.Devices.model_validate({**page, "source": found.source, "note": note})


@documented(404, tag="devices")
async def show_device(request: Request, serial: Serial) -> shapes.DeviceWhole:
    """One device, with its last reports and pushes where there is a ledger."""
    found = await device_of(console_of(request), serial)
    if found is None:
        raise Malformed("console.missing", "no device of that serial number is on record here")
    row, source = found
    return shapes.DeviceWhole.model_validate({**row, "source": source})


# evidence


@documented(404, tag="evidence")
async def list_records(request: Request, asked: Annotated[shapes.RecordsAsked, Query()]) -> shapes.Records:
    """Records of the evidence log, newest first. Form is checked; whether the log holds says `/evidence/log`."""
    wish = timeline.Wish(
        device=asked.device,
        release=asked.release,
        actor=asked.actor,
        action=asked.action,
        code=asked.code,
        refused=asked.refused,
        since=epoch(asked.since),
        until=epoch(asked.until),
        before=asked.before,
        limit=asked.limit,
    )
    facts = console_of(request).facts
    page = await run_in_threadpool(timeline.read, facts.log, wish, facts.good())
    if page.error is not None and not page.rows:
        raise page.error
    rows = [{"index": index, **record.to_json()} for index, record in page.rows]
    data = {"records": rows, "older": page.older, "searched": page.searched, "error": _note(page.error)}
    return shapes.Records.model_validate(data)


@documented(tag="evidence")
async def show_log(request: Request) -> shapes.LogStanding:
    """Whether the evidence log holds. It is verified again where it changed; `running` says that this goes on."""
    found = await console_of(request).facts.watch.now()
    return shapes.LogStanding.model_validate(
        {
            "state": found.state,
            "time": None if found.time is None else rfc3339(int(found.time)),
            "current": found.current,
            "running": found.running,
            "records": found.records,
            "root": found.data.get("root"),
            "origin": found.data.get("origin"),
            "error": _note(found.error),
        }
    )


@documented(404, tag="evidence")
async def show_record(request: Request, index: Index) -> shapes.Record:
    """One record."""
    facts = console_of(request).facts
    record = await run_in_threadpool(timeline.one, facts.log, index, facts.good())
    if record is None:
        raise Malformed("console.missing", f"there is no record {index}")
    return shapes.Record.model_validate({"index": index, **record.to_json()})


@documented(404, text="text/plain", tag="evidence")
async def show_proof(request: Request, index: Index) -> Response:
    """A proof that the record is in the log, as `devguard evidence prove` writes it; the log is verified first."""
    return PlainTextResponse(await proof_of(console_of(request), index))


@documented(404, tag="incidents")
async def list_incidents(request: Request, asked: Annotated[shapes.IncidentsAsked, Query()]) -> shapes.Incidents:
    """Incidents that wait for an officer, oldest first."""
    rows = await incidents_of(console_of(request))
    return shapes.Incidents.model_validate({"incidents": [row for row in rows if asked.all or row["open"]]})


@documented(404, tag="incidents")
async def show_incident(request: Request, identifier: Identifier) -> shapes.IncidentWhole:
    """One incident with its records and clocks."""
    return shapes.IncidentWhole.model_validate(await incident_of(console_of(request), identifier))


# people


@documented(tag="people")
async def list_grants(request: Request) -> shapes.Grants:
    """Grants that are kept here, and those that were issued here and have not expired."""
    return shapes.Grants.model_validate(await grants_of(console_of(request)))


@documented(tag="people")
async def list_technicians(request: Request) -> shapes.Technicians:
    """Technicians, their training, and who is suspended."""
    return shapes.Technicians.model_validate(await technicians_of(console_of(request)))


# campaigns


@documented(tag="campaigns")
async def list_campaigns(request: Request) -> shapes.Campaigns:
    """Campaigns with their progress, the newest first."""
    return shapes.Campaigns.model_validate({"campaigns": await campaigns_of(console_of(request))})


@documented(404, tag="campaigns")
async def show_campaign(request: Request, name: Identifier) -> shapes.CampaignWhole:
    """One campaign: its rings, what stops it, when it goes on."""
    return shapes.CampaignWhole.model_validate(await campaign_of(console_of(request), name))


# verify

_PLAIN: Final = re.compile(r"[ -~]{0,128}")
_FIELDS: Final = ("model", "serial", "installed")
_TEXT: Final = {"type": "string", "pattern": "^[ -~]{0,128}$"}
_UPLOAD: Final = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["file"],
                "additionalProperties": False,
                "properties": {
                    "file": {
                        "type": "string",
                        "contentMediaType": "application/octet-stream",
                        "description": "The release, or a bare image.",
                    },
                    "envelope": {
                        "type": "string",
                        "contentMediaType": "application/octet-stream",
                        "description": "With a bare image.",
                    },
                    **dict.fromkeys(_FIELDS, _TEXT),
                },
            }
        }
    },
}


@documented(408, 413, 429, 507, body=_UPLOAD, tag="verify")
async def verify_file(request: Request) -> shapes.Verdict:
    """The verdict of `devguard verify` on a file that is gone afterwards. A refusal is a verdict too: 200."""
    console = console_of(request)
    async with uploaded(request, console.settings, ("file", "envelope")) as upload:
        if not all(name in _FIELDS and _PLAIN.fullmatch(value) for name, value in upload.fields.items()):
            raise Malformed("console.request", f"the fields are {', '.join(_FIELDS)}, each of plain characters")
        answer = await console.commands.ask(command(upload)[0])
    if not isinstance(answer.data.get("checks"), list):
        answer.require()
        raise Malformed("console.request", "the command gave no verdict")
    return shapes.Verdict.model_validate({**answer.data, "file": upload.one("file").name})


def _note(error: DevguardError | None) -> dict[str, str] | None:
    return None if error is None else {"code": error.code, "message": error.message, "hint": error.hint}
