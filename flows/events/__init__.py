"""Events: what happens to jobs, written down with the fact and sent to Prefect until it has it."""
