"""The console in a real browser: coming in by link and by key, and every page for people who use it differently."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from browser import Start, Tabs, no_violations, reflows
from cli_support import ok, records
from test_serve import certificate


def test_the_link_the_languages_and_the_keyboard(serving: Start, tab: Tabs) -> None:
    served = serving()
    page = tab()
    page.goto(served.url)
    assert page.get_by_role("heading", level=1).inner_text() == "The bench"
    no_violations(page)
    reflows(page)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    small = page.evaluate(
        "[...document.querySelectorAll('a,button,input:not([type=hidden]),select')]"
        ".filter(e => !e.classList.contains('skip') && !e.closest('p')).map(e => e.getBoundingClientRect())"
        ".filter(r => r.width < 24 || r.height < 24).length"
    )
    assert small == 0
    page.get_by_role("button", name="Deutsch").click()
    assert page.get_by_role("heading", level=1).inner_text() == "Der Prüfplatz"
    assert page.locator("html").get_attribute("lang") == "de"
    tab.picture(page, "start-de")
    page.get_by_role("button", name="Abmelden").click()
    page.wait_for_url("**/sign-in")
    no_violations(page)
    page.goto(served.url)
    assert page.locator("code.code").inner_text() == "console.login"
    no_violations(page)
    assert served.stop() == 0


def authenticator(page: Any) -> Any:
    """A virtual authenticator of Chromium, which verifies its user at once."""
    devtools = page.context.new_cdp_session(page)
    devtools.send("WebAuthn.enable")
    options = {
        "protocol": "ctap2",
        "transport": "internal",
        "hasResidentKey": True,
        "hasUserVerification": True,
        "isUserVerified": True,
        "automaticPresenceSimulation": True,
    }
    return devtools, devtools.send("WebAuthn.addVirtualAuthenticator", {"options": options})["authenticatorId"]


def test_a_key_of_ones_own_over_tls(serving: Start, tab: Tabs, home: Path, tmp_path: Path) -> None:
    cert, key = certificate(tmp_path, "localhost")
    served = serving("--bind", "127.0.0.1", "--tls-cert", cert, "--tls-key", key)
    invited = ok("serve", "enrol", "Tess Technician", "--role", "viewer", "--home", home, "--json").json
    page = tab(ignore_https_errors=True)
    devtools, virtual = authenticator(page)
    page.goto(invited["url"])
    assert page.get_by_text("Tess Technician").is_visible()
    no_violations(page)
    page.get_by_role("button", name="Register my key").click()
    page.wait_for_url("**/sign-in")
    no_violations(page)
    assert records(home)[-1]["action"] == "console.register"
    credentials = devtools.send("WebAuthn.getCredentials", {"authenticatorId": virtual})["credentials"]
    assert [one["rpId"] for one in credentials] == ["localhost"]
    page.get_by_role("button", name="Sign in with my key").click()
    page.get_by_role("heading", name="The bench").wait_for()
    assert page.locator(".person").inner_text() == "Tess Technician"
    assert "viewer" in page.locator(".badge").first.inner_text()
    ok("serve", "remove", "Tess Technician", "--home", home)
    page.reload()
    assert page.locator("code.code").inner_text() == "console.login"
    stranger = tab(ignore_https_errors=True)
    devtools, virtual = authenticator(stranger)
    devtools.send("WebAuthn.addCredential", {"authenticatorId": virtual, "credential": credentials[0]})
    stranger.goto(f"{served.base}/sign-in")
    assert stranger.get_by_role("button", name="Sign in with my key").count() == 0  # nobody is registered any more
    assert served.stop() == 0
