"""Campaigns: one release to a set of devices, in rings and hours, with a rule that stops it.

A campaign schedules and counts. It adds no power: behind every single push stand a technician and a grant, and what
became of a device is read from what the device signed. Decision record 0036.
"""
