"""Importing this module imports and makes everything that our processes need when they run.

What is there before a fork is shared by all of them; what each makes is its own.
"""

import importlib
import logging
from collections.abc import Iterator

from pydantic import BaseModel
from sqlalchemy.orm import configure_mappers

import migrations
from deployments.flow_run_process import clients_before_fork
from deployments.imported_late import BY_OURS, import_what_is_there
from deployments.plain_logging import log_without_colours

for _module in (
    "deployments.cli",
    "deployments.mail",
    "deployments.maintenance",
    "deployments.worker",
    "deployments.workers",
    "flows.activities.activation",
    "flows.activities.collect",
    "flows.activities.delete",
    "flows.activities.reset",
    "flows.job.flow",
    "flows.job.rehearsal",
    "prefect.engine",
    "prefect.flow_engine",
    "prefect.task_engine",
):
    importlib.import_module(_module)
import_what_is_there(BY_OURS)


def _models(above: type[BaseModel] = BaseModel) -> Iterator[type[BaseModel]]:
    for model in above.__subclasses__():
        yield model
        yield from _models(model)


configure_mappers()
clients_before_fork()
migrations.revisions()
# What Prefect declares is built by Pydantic only when it is used.
for _model in list(_models()):
    if not _model.__pydantic_complete__:
        _model.model_rebuild(raise_errors=False)
for _name in ("", "uvicorn", "fastapi"):
    log_without_colours(logging.getLogger(_name))
