"""What is inside a release, and what is known about it: bill of materials, snapshots of known holes, statements.

Nothing here is fetched: snapshots are files that a person brings, dated and hashed. Nothing is imported by this
package itself; take what you need from its modules (`bom`, `snapshot`, `match`, `vex`, `judge`).
"""
