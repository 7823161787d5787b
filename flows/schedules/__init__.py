"""Schedules: jobs that begin by themselves, as Prefect deployments whose owners Fractal knows.

`occurrences`, `plan` and `times` are pure but for what they look up; `deployments` asks Prefect,
`rows` the database; `keeper` and `missed` look after what went wrong.
"""
