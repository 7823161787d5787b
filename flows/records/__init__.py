"""All SQL that records what happened: history, accounting and events. Begin with `runs.py`.

`jobs` has the job itself, `runs` the HistoryRuns of its workflow tasks, `units` the HistoryUnits
and the HistoryImageCache, `events` and `outbox` what Prefect is to hear of; `usage` sums up,
`statuses` tells how tasks stand.
"""
