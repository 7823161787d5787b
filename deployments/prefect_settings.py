"""Variables from which Prefect reads its settings, the same for all services of a stack.

A process that is forked has read them. To read them again takes long, and 7 to 12 MB of memory.
"""

# Our workers wait by themselves until there is something to do; Prefect reports that a worker is
# away after three times the seconds between its signs of life.
OF_WORKERS = {
    "PREFECT_WORKER_QUERY_SECONDS": "0.01",
    "PREFECT_WORKER_HEARTBEAT_SECONDS": "10",
}


def log_prefix(name: str) -> str:
    """The beginning of each log line of a service."""
    return f"{name:<7} | "


def log_format(prefix: str) -> dict[str, str]:
    """The variables that make Prefect's log lines begin with this and the date."""
    begin = f"{prefix}%(asctime)s.%(msecs)03d | %(levelname)-7s | "
    formats = {
        "FORMAT": f"{begin}%(name)s - %(message)s",
        "FLOW_RUN_FMT": f"{begin}Flow run %(flow_run_name)r - %(message)s",
        "TASK_RUN_FMT": f"{begin}Task run %(task_run_name)r - %(message)s",
        "DATEFMT": "%Y-%m-%d %H:%M:%S",
    }
    return {f"PREFECT_LOGGING_FORMATTERS_STANDARD_{key}": text for key, text in formats.items()}


# Of processes that are forked, and have the name of their service.
LOG_FORMAT = log_format("%(processName)-7s | ")
