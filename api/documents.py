"""Answers that PostgreSQL has written as JSON already."""

from fastapi import Response


class JsonDocument(Response):
    """JSON text; the endpoint's `response_model` says what is in it."""

    media_type = "application/json"
