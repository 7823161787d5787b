"""What each worker looks after again and again, so that nothing is left behind.

`loop` is how they all look; begin with `jobs`, the reconciler of submitted jobs. The others look
after flow runs without a job, activities, schedules, missed occurrences, events and the resource
itself; `turns` says who may begin next. `unattended` runs in the REST API, for resources without a
worker.
"""
