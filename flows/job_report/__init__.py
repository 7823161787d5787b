"""The report of a job: one HTML file that shows what it did, took and failed at.

Begin with `report.py`, which gathers what the others show. It may import `records`, `units` and
`reports`. `charts`, `failures` and `page` are pure.
"""
