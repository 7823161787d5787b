"""The REST API of Fractal, in the shape of its contract: who may, what is valid, one answer.

`app.py` makes the application. `services.py` is what endpoints work with, `rights.py` what they are
about, with every right; `errors.py` says which errors are which answers. `routes/` has one subject
per file, `queries/` the SQL that several of them share or that is long, `lists.py` what lists have
in common, `readers.py` who reads them. Jobs and commands are run by `flows`.

The endpoint commits, at its end, and queries never do. Two others have to: `flows`, where Prefect
is to begin what must be written before; and `UserManager`, whose base commits each change of a
user.
"""
