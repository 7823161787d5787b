"""Backups of an installation, and how they are restored, with the programs of PostgreSQL."""
