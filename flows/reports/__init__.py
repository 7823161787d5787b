"""Words for people: logs, artifacts of the Prefect UI, errors, quantities. Begin with `job_log.py`.

Pure, but for `artifacts.py`, which shows things in Prefect.
"""
