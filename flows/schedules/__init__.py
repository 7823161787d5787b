"""Jobs that begin by themselves, as Prefect deployments whose owners Fractal knows.

Begin with `plan.py`: what a schedule's deployment is to be. `occurrences` and `times` are pure,
`deployments` asks Prefect, `rows` the database.
"""
