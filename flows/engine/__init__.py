"""Prefect, as Fractal sees it. Begin with `client.py`, which has everything that it is asked.

`publication` and `work_pools` make a work pool of a resource; `wait_reasons` is why runs wait;
`pauses` are suspensions of flow runs; `descriptions` is what people read at the deployments.
"""
