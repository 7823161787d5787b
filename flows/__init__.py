"""One job as a Prefect flow: its tasks, state hooks, units and launchers. Knows nothing of HTTP."""
