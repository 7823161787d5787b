"""Pydantic schemas of the REST contract: what is read, created and updated.

Input schemas refuse unknown fields; output schemas are filled from table rows.
"""
