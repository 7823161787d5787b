"""The REST API of Fractal, in the shape of its contract: who may, what is valid, one answer.

`app.py` makes the application, `dependencies.py` holds every right, `routes/` has one subject per
file, `queries/` the SQL that is more than a lookup. Jobs and commands are run by `flows`.
"""
