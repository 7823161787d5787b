"""Jobs that begin by themselves: Prefect deployments, whose owners are in Fractal's database.

Begin with `changes.py`, which makes and changes schedules. `occurrences` and `times` are pure;
`deployments` talks to Prefect, `rows` to the database.
"""
