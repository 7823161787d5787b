"""What each worker checks again and again, so that nothing is forgotten.

`watcher` is the base class of all. Begin with `jobs`, the reconciler of submitted jobs. The others
watch flow runs without a job, activities, schedules, missed occurrences, events and the resource
itself; `turns` decides which flow runs may begin next. `unattended` runs in the REST API, for
resources without a worker.
"""
