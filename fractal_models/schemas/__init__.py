"""Pydantic schemas of the REST contract: what is read, created and updated.

Some input schemas refuse unknown fields and some do not, as the contract says; output schemas are
filled from table rows.
"""
