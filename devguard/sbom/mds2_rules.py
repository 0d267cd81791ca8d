"""The questions of `devguard mds2 export` and the rule behind each answer: data, one function a question.

A rule looks at the facts wherever the configuration can change the answer; where the code alone decides, it names the
page that says so and the test that fails without it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from devguard.sbom.mds2 import SECTIONS, Answer, Facts, Rule, Said, absent, no, yes

RULES: Final[list[tuple[str, str, str, Rule]]] = []
_NO_TRUST: Final = "this home has no trust document, so nobody is listed who may sign or grant anything"
_TRUST: Final = "page docs/trust.md"


def _rule(section: str, name: str, question: str) -> Callable[[Rule], Rule]:
    def keep(rule: Rule) -> Rule:
        RULES.append((section, name, question, rule))
        return rule

    return keep


def _fixed(section: str, name: str, question: str, said: Said) -> None:
    """An answer that no configuration changes."""
    RULES.append((section, name, question, lambda _: said))


def _threshold(facts: Facts, role: str, what: str) -> Said:
    if facts.trust is None:
        return no(_NO_TRUST, _TRUST)
    wanted, persons = facts.trust.thresholds.get(role, (0, 0))
    evidence = f"trust roles.{role} {wanted} of {persons}, version {facts.trust.version}"
    if not wanted:
        return no(f"the trust document lists nobody for {role}", evidence)
    return yes(f"{what}: {wanted} of {persons} persons", evidence)


_fixed("MPII", "stored", "Does it keep data of patients?", absent(
    "devguard reads device packets and pushes firmware; its records carry serial numbers and staff names, no patient",
    "page docs/evidence.md", "test tests/cli/test_packets_masked.py"))  # fmt: skip
_fixed("MPII", "shown", "Can it show readings or doses of a patient?", yes(
    "packets that are decoded may hold them; they are masked unless --show-patient-data asks, and never recorded",
    "page docs/packets.md", "test tests/cli/test_packets_masked.py"))  # fmt: skip
_fixed("ALOF", "session", "Does a session with a device end by itself when nothing happens?", yes(
    "a device ends a silent session after thirty seconds and erases its keys",
    "page docs/conversation.md", "test tests/rooms/test_device_sessions.py"))  # fmt: skip
_fixed("ALOF", "login", "Does a user who walks away stay logged in?", absent(
    "nobody logs in: each command asks for the passphrase or PIN of the key it needs and forgets it at its end",
    "page docs/key-files.md"))  # fmt: skip


@_rule("AUDT", "kept", "Is there a log of what was done, by whom, to which device?")
def _audit(facts: Facts) -> Said:
    if facts.records is None:
        return no("this home keeps no evidence log yet; the first command that pushes or signs begins one",
                  "page docs/evidence.md")  # fmt: skip
    return yes("append-only, each record sealed by the station's key", f"records {facts.records}", "file evidence/")


@_rule("AUDT", "actions", "Which actions are recorded?")
def _actions(facts: Facts) -> Said:
    return yes(", ".join(facts.actions), "page docs/evidence.md", "test tests/test_docs.py")


@_rule("AUDT", "witness", "Does anybody else vouch that the log was not rewritten?")
def _witness(facts: Facts) -> Said:
    return _threshold(facts, "witness", "cosigned checkpoints")


_fixed("AUDT", "export", "Can the log be read by other systems?", yes(
    "`evidence export` writes it out; proofs of single records verify with the public key alone",
    "page docs/evidence-proofs.md", "test tests/cli/test_evidence_carried.py"))  # fmt: skip


@_rule("AUTH", "grant", "Is each service action allowed person by person?")
def _grants(facts: Facts) -> Said:
    return _threshold(facts, "technician-authority", "signed grants name person, model, serial, action and hours")


@_rule("AUTH", "list", "Is there a list of who may be granted anything?")
def _listed(facts: Facts) -> Said:
    if facts.roster:
        return yes("what the list does not say is denied", "file technicians.cbor", "page docs/technicians.md")
    return no("no list is kept here: an authority may grant to any key", "page docs/technicians.md")


@_rule("AUTH", "two", "Do some models take two persons for one update?")
def _two(facts: Facts) -> Said:
    found = [f"model {one.name}" for one in facts.models if one.technicians > 1]
    if not found:
        return no("no model known here asks for two technicians", "page docs/approval.md")
    return yes("each with a key and a grant of their own", *found, "page docs/approval.md")


@_rule("CSUP", "release", "Must the maker sign a release before it installs?")
def _signed(facts: Facts) -> Said:
    return _threshold(facts, "release", "signatures of the role release")


@_rule("CSUP", "quality", "Must somebody other than its maker sign a release too?")
def _quality(facts: Facts) -> Said:
    return _threshold(facts, "quality", "signatures of the role quality")


@_rule("CSUP", "downgrade", "Is an older release refused?")
def _downgrade(facts: Facts) -> Said:
    old = [f"model {one.name}" for one in facts.models if one.only_smp]
    why = "by sequence number and by a counter the device burns"
    if old:
        return yes(f"{why}; not on models that speak MCUmgr alone, which take what anybody sends",
                   *old, "page docs/smp.md", "test tests/rooms/test_device_boot.py")  # fmt: skip
    return yes(why, "page docs/flash-and-boot.md", "test tests/rooms/test_device_boot.py")


@_rule("CSUP", "found", "Does a station learn of new releases by itself?")
def _shelf(facts: Facts) -> Said:
    if facts.shelf:
        return yes("it follows a shelf (TUF), over a network or a stick", "file shelf/", "page docs/shelf.md")
    return no("this home follows no shelf; releases come by hand", "page docs/shelf.md")


_fixed("DTBK", "patient", "Are data of patients backed up?", absent(
    "there are none; therapy settings stay on the device and an update may not change them",
    "page docs/flash-and-boot.md", "test tests/rooms/test_device_therapy.py"))  # fmt: skip


@_rule("DTBK", "log", "Can the log be kept elsewhere, and what came back be told from what was?")
def _copy(facts: Facts) -> Said:
    if facts.records is None:
        return absent("this home keeps no evidence log yet", "page docs/evidence.md")
    return yes("copies verify; one that was put back is told by checkpoints, devices and the station's memory",
               "page docs/evidence-proofs.md", "test tests/cli/test_evidence_story.py")  # fmt: skip


_fixed("EMRG", "bypass", "Is there a way around the checks in an emergency?", no(
    "none: no flag skips a signature, a grant or a device's check; therapy never waits for an update",
    "page docs/threat-model.md", "test tests/rooms/test_device_interlock.py"))  # fmt: skip
_fixed("EMRG", "recover", "Can a damaged device be put right at once?", yes(
    "`device recover` puts back the release confirmed last, under a grant for that",
    "page docs/grant.md", "test tests/cli/test_cli_actions.py"))  # fmt: skip


@_rule("IGAU", "log", "Is a change of the log found?")
def _tampering(facts: Facts) -> Said:
    if facts.records is None:
        return absent("this home keeps no evidence log yet", "page docs/evidence.md")
    return yes("`evidence verify` names the first record that was changed", f"records {facts.records}",
               "test tests/rooms/test_evidence_verify.py")  # fmt: skip


_fixed("IGAU", "firmware", "Does a device check its firmware at every start?", yes(
    "the boot refuses an image that is not the one that was signed",
    "page docs/flash-and-boot.md", "test tests/rooms/test_device_boot.py"))  # fmt: skip
_fixed("IGAU", "settings", "Is a change of therapy settings at rest found?", yes(
    "they carry a MAC of the device; damaged ones give the safe therapy and an alarm",
    "page docs/flash-and-boot.md", "test tests/rooms/test_therapy_files.py"))  # fmt: skip
_fixed("MLDP", "scanner", "Is there a scanner for malicious software?", absent(
    "devices run nothing but signed images; on a station that is the hospital's to choose",
    "page docs/flash-and-boot.md"))  # fmt: skip
_fixed("MLDP", "ports", "Is a port refused that is more than a serial adapter?", yes(
    "an adapter that is also a keyboard, a disk or a hub is refused before it is opened",
    "page docs/threat-model.md", "test tests/rooms/test_link_adapters.py"))  # fmt: skip


@_rule("NAUT", "device", "Does a device prove who it is?")
def _device(facts: Facts) -> Said:
    return _threshold(facts, "device-authority", "each device has a key of its own and a credential")


_fixed("NAUT", "station", "Does a device know who it talks to?", yes(
    "the key exchange proves the technician's key; without it a device answers with its name and no more",
    "page docs/edhoc-profile.md", "test tests/rooms/test_session_edhoc.py"))  # fmt: skip


@_rule("NAUT", "nonce", "Is a grant bound to one device and one moment by the device's own number?")
def _nonce(facts: Facts) -> Said:
    if facts.trust is None:
        return no(_NO_TRUST, _TRUST)
    evidence = f"trust require_device_nonce {str(facts.trust.require_device_nonce).lower()}"
    if facts.trust.require_device_nonce:
        return yes("the trust document asks for it", evidence)
    return no("the trust document does not ask for it; grants are bound by serial, use count and hours", evidence)


_fixed(
    "CONN",
    "network",
    "Does the device side have a network interface?",
    absent(
        "devices are reached over a serial line; a station needs a network for a shelf at most", "page docs/link.md"
    ),
)
_fixed("CONN", "line", "Is what comes over the line treated as hostile?", yes(
    "lengths, order and checksums are judged before anything is kept; a frame that was forged ends the session",
    "page docs/link.md", "test tests/rooms/test_link_attacks.py"))  # fmt: skip


@_rule("PAUT", "token", "Are private keys on hardware tokens?")
def _tokens(facts: Facts) -> Said:
    if not facts.keys:
        return absent("this home holds no private keys", "file keys/")
    own = [one for one in facts.keys if one.role != "station"]
    on = [f"key {one.name} token" for one in own if one.custody == "token"]
    off = [f"key {one.name} {one.custody}" for one in own if one.custody != "token"]
    if off:
        what = f"{len(off)} of {len(own)} keys of persons are files"
        why = what if facts.packages.get("pkcs11") else f"{what}, and the extra pkcs11 is not installed"
        return no(why, *on, *off)
    if not own:
        return absent("this home holds the station's own key alone", "file keys/station.key")
    return yes("all keys of persons", *on)


@_rule("PAUT", "passphrase", "Does each private key of a person ask for a passphrase or a PIN?")
def _passphrases(facts: Facts) -> Said:
    own = [one for one in facts.keys if one.role != "station"]
    if not own:
        return absent("this home holds no private key of a person", "file keys/")
    open_ = [one.name for one in own if one.custody == "open"]
    evidence = tuple(f"key {one.name} {one.custody}" for one in own)
    if open_:
        return no(f"nothing protects {', '.join(open_)}", *evidence)
    return yes("", *evidence)


@_rule("PAUT", "development", "Are all keys for production?")
def _production(facts: Facts) -> Said:
    marked = [f"key {one.name} development" for one in facts.keys if one.development]
    if facts.trust is not None and facts.trust.development:
        marked.append("trust development true")
    if marked:
        return no("keys or a trust document for development are in use here", *marked)
    return yes("none is marked for development", "file keys/", _TRUST)


_fixed("PLOK", "case", "Is there a lock on the case or the port?", absent(
    "that is the hardware maker's, and none is counted on: who is at the port still needs key and grant",
    "page docs/threat-model.md"))  # fmt: skip


@_rule("RDMP", "models", "Does each model say until when it is supported?")
def _supported(facts: Facts) -> Said:
    dated = [f"model {one.name} until {one.end_of_support}" for one in facts.models if one.end_of_support]
    undated = [one.name for one in facts.models if not one.end_of_support]
    if undated:
        return no(f"not {', '.join(undated)}", *dated, "page docs/sbom.md")
    return yes("", *dated, "page docs/sbom.md")


_fixed(
    "RDMP",
    "push",
    "Is a release that is no longer supported held back?",
    yes("unless somebody answers for it by name, on record", "page docs/sbom.md", "test tests/cli/test_fleet.py"),
)


@_rule("SBOM", "demanded", "Is a release without a signed bill of materials refused?")
def _bill(facts: Facts) -> Said:
    if facts.trust is None:
        return no(_NO_TRUST, _TRUST)
    evidence = f"trust require_sbom {str(facts.trust.require_sbom).lower()}"
    if facts.trust.require_sbom:
        return yes("by stations and devices", evidence, "page docs/sbom.md")
    return no("the trust document does not ask for one", evidence)


@_rule("SBOM", "known", "Is a release held back for a part that is known to be exploited?")
def _known(facts: Facts) -> Said:
    wanted = ("push.known-exploited", "release.sign.known-exploited")
    there = [f"config {name}" for name in wanted if name in facts.settings]
    if not facts.packages.get("sbom"):
        return no("the extra sbom is not installed: bills cannot be read here", "extra sbom")
    if len(there) < len(wanted):
        return no("only where --known-exploited is given each time: config.toml names no catalogue for both",
                  *there, "page docs/sbom.md")  # fmt: skip
    return yes("at signing and at pushing", *there, "test tests/cli/test_release_check.py")


_fixed("SAHD", "debug", "Are ways in that nobody needs closed?", yes(
    "a device answers its own verbs and no other; enrolment works once and never again",
    "page docs/enrolment.md", "test tests/rooms/test_device_enrolment.py"))  # fmt: skip
_fixed(
    "SAHD",
    "memory",
    "Is software that people wrote in a language without memory errors?",
    yes("Python throughout; parsers are fuzzed", "test tests/fuzz/test_fuzz.py"),
)
_fixed("SGUD", "pages", "Is there guidance for who runs it?", yes(
    "formats, refusals with cause and remedy, keys, threats", "page docs/index.md", "page docs/refusal-codes.md",
    "page keys/README.md", "page docs/threat-model.md"))  # fmt: skip
_fixed("SGUD", "disposal", "Is there guidance for taking a device out of use?", yes(
    "`device decommission`, and a certificate of it", "page docs/enrolment.md"))  # fmt: skip


@_rule("STCF", "keys", "Are private keys encrypted where they lie?")
def _encrypted(facts: Facts) -> Said:
    if not facts.keys:
        return absent("this home holds no private keys", "file keys/")
    plain = [one for one in facts.keys if one.custody == "open"]
    evidence = tuple(f"key {one.name} {one.custody}" for one in facts.keys)
    if [one for one in plain if one.role != "station"]:
        return no("keys of persons lie in files that nothing protects", *evidence)
    if plain:
        return yes("but for the station's own, which signs while nobody is there", *evidence,
                   "page docs/decisions/0006-station-key-without-passphrase.md")  # fmt: skip
    return yes("", *evidence)


_fixed("STCF", "records", "Are records encrypted where they lie?", no(
    "they hold no secrets and no data of patients; whoever runs the station encrypts its disk, `doctor` looks",
    "page docs/evidence.md"))  # fmt: skip


def _secured(facts: Facts, why: str, *evidence: str) -> Said:
    """What devguard's own conversation gives and MCUmgr does not."""
    old = [f"model {one.name}" for one in facts.models if one.only_smp]
    more = "; not with models that speak MCUmgr alone" if old else ""
    return yes(why + more, *evidence, *([*old, "page docs/smp.md"] if old else []))


@_rule("TXCF", "line", "Is what goes over the line encrypted?")
def _sealed(facts: Facts) -> Said:
    return _secured(facts, "by AEAD under keys of each session", "page docs/edhoc-profile.md",
                    "test tests/rooms/test_session_records.py")  # fmt: skip


@_rule("TXIG", "line", "Is a change of what goes over the line found?")
def _whole(facts: Facts) -> Said:
    return _secured(facts, "the session ends, and both sides record it", "page docs/link.md",
                    "test tests/rooms/test_link_attacks.py")  # fmt: skip


_fixed(
    "RMOT",
    "service",
    "Can the vendor reach a device from afar?",
    no("nothing here listens or calls out; a technician is at the line", "page docs/threat-model.md"),
)
_fixed(
    "RMOT",
    "approval",
    "Can a second person approve from another place?",
    yes(
        "by file, text or QR code, signed, for one push", "page docs/approval.md", "test tests/cli/test_approve_text.py"
    ),
)
_fixed("DIDT", "erase", "Can a device be emptied for good?", yes(
    "keys, credential, trust document and therapy are erased on the word of two, and the device signs that they are",
    "page docs/enrolment.md", "test tests/cli/test_device_life.py"))  # fmt: skip


@_rule("CNFS", "checked", "Is the configuration itself checked?")
def _configured(facts: Facts) -> Said:
    if facts.settings:
        return yes("unknown names and wrong kinds are refused", *(f"config {name}" for name in sorted(facts.settings)))
    return yes("there is no config.toml, every option has its safer default", "file config.toml absent")


@_rule("CNFS", "policy", "Is the security policy signed, and does it run out?")
def _policy(facts: Facts) -> Said:
    if facts.trust is None:
        return no(_NO_TRUST, _TRUST)
    return yes(
        f"by the root; version {facts.trust.version} expires on {facts.trust.expires[:10]}",
        f"trust version {facts.trust.version}",
    )


def answers(facts: Facts) -> tuple[Answer, ...]:
    """Every answer, in the order of `SECTIONS`; each section has at least one."""
    found = [Answer(section, name, question, *rule(facts)) for section, name, question, rule in RULES]
    order = list(SECTIONS)
    return tuple(sorted(found, key=lambda one: order.index(one.section)))
