"""Texts for people: logs, artifacts of the Prefect UI, errors, quantities. Begin with `job_log.py`.

All modules are pure, except `artifacts.py`, which shows things in Prefect.
"""
