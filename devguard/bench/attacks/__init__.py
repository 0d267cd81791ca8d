"""The attack catalogue: every row an attack, made against the real host program and the real emulated device.

    oracle.py   who has to refuse, what has to be unchanged, what has to stand in which log
    world.py    made once for a model: a vendor, a technicians' station with its log, a device that runs 1.1.0
    scene.py    one row being played: what an attacker can do, and the oracles that compare before and after
    run.py      plays the rows; `devguard bench attacks` and the pytest plugin call it
    CLASS.py    the rows of one class of attack

How to add a row
    1. Open the file of its class. Write a `Row` with `id`, `title` (the catalogue's, to the letter), `precedent`,
       `attacker`, `regulation`, and a `play(scene)`; put it into `ROWS`.
    2. An attempt is a function that gives the code it ended with. `scene.pushing(file or build)` and
       `scene.commanding("verify", ...)` are the honest host; `scene.offering(build)` and `scene.hostile(script)` are
       hosts that check nothing; `scene.under(rule, attempt)` does either while the tap meddles (`meddle.py` has rules).
       What a host would stop is also tried without one.
    3. `scene.refuses(what, attempt, code, by=By...)` is the oracle: device unchanged, old records byte for byte, the
       refusal once in the log of whoever refused. `comes_to_nothing` is for what nobody answers; `holds` for facts.
    4. `scene.goes_through(what, attempt)` shows that the honest way is still open: a bench that refuses all proves
       nothing. `scene.runs_whole` says which image it left. After anything that went through: `scene.again()`.
    5. Releases: `scene.old`, `.current` (runs), `.next` (honest), `scene.release(version, sequence, signers=..., ...)`.
       Grants: `scene.grant(name, **scope)`. Keys: `scene.signer(name)`, see `vendor.PEOPLE`.
    6. A wait is `scene.world.clock.advance(seconds)`; the host's calendar is wrong by `clock.wrong`. A program that
       waits while the attacker keeps silent runs under `scene.device.hurry()` (`under` does that).
    7. Power: `scene.device.power_off()`, `.power_on()`, `.fault`, `.backend` (its flash), `.counters`, `.busy()`,
       `.battery`, `.self_test`. Counts in the thousands only when `scene.full`.
    8. Try it: `devguard bench attacks --only G01 --model insulin-pump`. Break the check it is about: it must go red.

A row that cannot apply, because devguard has no such part, says so in `absent`; docs/threat-model.md has the reason.
"""
