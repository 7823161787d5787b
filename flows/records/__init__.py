"""All SQL that records what happened: history, accounting and events. Begin with `runs.py`.

`jobs` is about the job itself, `runs` about the HistoryRuns of its workflow tasks, `units` about
the HistoryUnits and the HistoryImageCache, `events` and `outbox` about the events for Prefect;
`usage` sums up, `statuses` reads the statuses of workflow tasks.
"""
