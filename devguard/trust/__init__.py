"""The trust document: which keys, held by which persons, count for what.

Its public names live in `devguard.trust.document` (types, reading, building), `devguard.trust.quorum`
(counting persons) and `devguard.trust.show` (rendering). Nothing here touches files, clocks or entropy.
"""
