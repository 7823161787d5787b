"""Pydantic schemas of the REST contract: request and response bodies.

Some input schemas refuse unknown fields and some do not, as in the contract; output schemas are
filled from table rows.
"""
