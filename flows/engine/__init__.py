"""Prefect, as Fractal sees it. Begin with `client.py`, which has all requests to Prefect.

`publication` and `work_pools` make a work pool of a resource; `wait_reasons` says why flow runs
wait; `pauses` suspends flow runs; `descriptions` are the texts that people read at deployments.
"""
