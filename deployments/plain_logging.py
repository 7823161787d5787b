"""Logging without Prefect's colours."""

import logging


def log_without_colours(logger: logging.Logger) -> None:
    """Have Python write the lines of a logger as Prefect words them.

    For each, Prefect's handler looks for what to colour, which takes long beside a short answer,
    and imports for that a table of all emoji.
    """
    for handler in list(logger.handlers):
        plain = logging.StreamHandler()
        plain.setFormatter(handler.formatter)
        logger.removeHandler(handler)
        logger.addHandler(plain)
