"""The Fractal schema: SQLModel tables, Pydantic schemas, sessions, settings, the rules of images.

Knows nothing of Prefect or HTTP.
"""
