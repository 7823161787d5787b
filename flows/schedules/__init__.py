"""Jobs that begin by themselves: Prefect deployments, whose owners are in Fractal's database.

Begin with `plan.py`, which plans the deployment of a schedule. `occurrences` and `times` are pure;
`deployments` talks to Prefect, `rows` to the database.
"""
