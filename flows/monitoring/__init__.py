"""What those see who watch an installation: whether its parts answer, what waits, what has ended.

Imports `records`, `process` and `engine`; the REST API serves it. Read `observation` first: it asks
the database, Prefect and the `folders` of resources; `metrics` writes the answer for Prometheus,
with `request_times` of the API, and `health` tells it to people.
"""
