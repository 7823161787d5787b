"""SQLModel tables of the Fractal schema, with Fractal's table and column names.

So the database of a fractal-server can be adopted (`deployments/moving`). Columns that Fractal does
not have are marked.
"""

from fractal_models.tables.accounting import (
    AccountingRecord,
    AccountingRecordSlurm,
    Allocation,
)
from fractal_models.tables.dataset import DatasetImage, DatasetV2, FacetBlock, ImageFacet
from fractal_models.tables.event import EventOutbox
from fractal_models.tables.history import HistoryImageCache, HistoryRun, HistoryUnit
from fractal_models.tables.job import JobV2
from fractal_models.tables.observation import SignOfLife, Tally
from fractal_models.tables.project import LinkUserProjectV2, ProjectV2
from fractal_models.tables.resource import Profile, Resource
from fractal_models.tables.schedule import Schedule
from fractal_models.tables.task import TaskGroupActivityV2, TaskGroupV2, TaskV2
from fractal_models.tables.user import LinkUserGroup, OAuthAccount, UserGroup, UserOAuth
from fractal_models.tables.workflow import WorkflowTaskV2, WorkflowTemplate, WorkflowV2

__all__ = [
    "AccountingRecord",
    "AccountingRecordSlurm",
    "Allocation",
    "DatasetImage",
    "DatasetV2",
    "EventOutbox",
    "FacetBlock",
    "HistoryImageCache",
    "HistoryRun",
    "HistoryUnit",
    "ImageFacet",
    "JobV2",
    "LinkUserGroup",
    "LinkUserProjectV2",
    "OAuthAccount",
    "Profile",
    "ProjectV2",
    "Resource",
    "Schedule",
    "SignOfLife",
    "Tally",
    "TaskGroupActivityV2",
    "TaskGroupV2",
    "TaskV2",
    "UserGroup",
    "UserOAuth",
    "WorkflowTaskV2",
    "WorkflowTemplate",
    "WorkflowV2",
]
