"""First paint of the console's pages on loopback, in Debian's headless Chromium: median and worst of several visits.

    tools/bench_console.py [--visits 10] [--devices 20000]

Each visit is a new browser context, so nothing is cached. Milliseconds from the start of the navigation to the first
contentful paint (Paint Timing, W3C), as the browser itself says. The home is empty and gone afterwards; with
--devices its ledger has so many.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PAGES = ("/", "/verify", "/bench", "/devices", "/evidence", "/people", "/campaigns")
PAINTED = """() => new Promise((done) => new PerformanceObserver((list) => {
  for (const one of list.getEntriesByName("first-contentful-paint")) done(one.startTime);
}).observe({ type: "paint", buffered: true }))"""


def main() -> None:
    """Measure and print one line for each page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--visits", type=int, default=10)
    parser.add_argument("--browser", default="/usr/bin/chromium")
    parser.add_argument("--devices", type=int, default=0)
    wish = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        if wish.devices:
            fill(Path(home), wish.devices)
        command = [sys.executable, "-m", "devguard.cli.main", "serve", "--json", "--home", home]
        served = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        try:
            line = served.stdout.readline() if served.stdout is not None else ""
            for path, times in measured(json.loads(line), wish.browser, wish.visits).items():
                print(f"{path:10} median {statistics.median(times):6.0f} ms   worst {max(times):6.0f} ms")
        finally:
            served.terminate()
            served.wait(20)


def fill(home: Path, count: int) -> None:
    """A ledger with so many devices, as if two stations had met them."""
    from devguard.ledger import schema
    from devguard.ledger.store import Store, store_url

    now = int(time.time())
    facts = {
        "station": "bench",
        "seen": now,
        "reported": now,
        "boot_state": "confirmed",
        "confirmed": True,
        "flags": "",
    }
    rows = [
        {**facts, "serial": f"IP-{one:06}", "model": ("insulin-pump", "pacemaker-programmer")[one % 2], "index": one,
         "version": f"1.{one // 40 % 5}.0", "sequence": one // 40 % 5, "site": f"ward-{one % 40}", "report_index": one}
        for one in range(count)
    ]  # fmt: skip
    known = [
        {"model": model, "version": f"1.{one}.0", "sequence": one, "since": now, "revoked": False}
        for model in ("insulin-pump", "pacemaker-programmer") for one in range(5)
    ]  # fmt: skip
    empty = {"key": b"k", "thumbprint": b"t", "records": 0, "root": b"", "frontier": b"", "seen": now}
    with Store.open(store_url(home, {})) as store, store.begin() as conn:
        conn.execute(schema.stations.insert(), [{"origin": "bench", **empty}])
        conn.execute(schema.devices.insert(), rows)
        conn.execute(schema.releases.insert(), known)


def measured(said: dict[str, object], program: str, visits: int) -> dict[str, list[float]]:
    """Milliseconds to the first contentful paint, by page."""
    from playwright.sync_api import sync_playwright

    times: dict[str, list[float]] = {path: [] for path in PAGES}
    root = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=root)
        first = browser.new_context()
        first.new_page().goto(str(said["url"]))
        cookies = first.cookies()
        base = str(said["url"]).partition("/in")[0]
        for _ in range(visits):
            for path in PAGES:
                context = browser.new_context()
                context.add_cookies(cookies)  # type: ignore[arg-type]
                page = context.new_page()
                page.goto(base + path)
                times[path].append(float(page.evaluate(PAINTED)))
                context.close()
        browser.close()
    return times


if __name__ == "__main__":
    main()
