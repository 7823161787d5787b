"""Moves a database from fractal-server to fractal-prefect, and back.

Both have the same tables with nearly the same columns. Those of the one are in the schema `public`,
the emptied ones of the other in a schema of its name, until they are filled again. What only one of
them knows is kept there beside them.
"""
