"""A body that each operation takes, with all of its fields."""

from collections.abc import Callable
from typing import Any

from tests.differential.servers import DIRECTORY, Form, Fresh, Id
from tests.differential.world import images, resource

_ZARRS = f"{DIRECTORY}/zarrs"
_TYPES = {"is_3D": True, "raw": False}
_FILTERS = {
    "attribute_filters": {"well": ["A1", "B2"], "n": [1]},
    "type_filters": {"raw": True},
}
_ARGUMENTS = {
    "args_parallel": {"a": 1, "b": {"c": [1.5, None, "x"]}},
    "args_non_parallel": {"d": True},
}
_META = {"meta_parallel": {"cpus_per_task": 2}, "meta_non_parallel": {"mem": "1G"}}
_ENTRY = {
    **_ARGUMENTS,
    **_META,
    "type_filters": {"is_3D": True},
    "alias": "an alias",
    "description": "What it is for.",
}
_IMPORTED = {"pkg_name": "not there", "name": "nothing", "version": "1.0"}
_MANIFEST = {
    "manifest_version": "2",
    "has_args_schemas": True,
    "args_schema_version": "pydantic_v2",
    "authors": "Somebody",
    "task_list": [
        {
            "name": "a task",
            "executable_parallel": "task.py",
            "executable_non_parallel": "init.py",
            "input_types": {"raw": True},
            "output_types": {"done": True},
            "meta_parallel": {"cpus_per_task": 1},
            "meta_non_parallel": {},
            "args_schema_parallel": {"properties": {"a": {"type": "integer"}}},
            "args_schema_non_parallel": {"properties": {}},
            "docs_info": "What it does.",
            "docs_link": "https://example.org",
            "category": "Conversion",
            "modality": "HCS",
            "tags": ["x"],
            "type": "compound",
        }
    ],
}
_SLURM = {
    "default_slurm_config": {
        "partition": "main",
        "cpus_per_task": 1,
        "mem": "100M",
        "time": "1:00:00",
        "nodelist": "n1",
        "exclude": "n2",
        "constraint": "gpu",
        "gres": "gpu:1",
        "gpus": "1",
        "account": "lab",
        "extra_lines": ["export A=1"],
        "shebang_line": "#!/bin/sh",
        "use_mem_per_cpu": False,
        "nodes": 1,
    },
    "gpu_slurm_config": {"partition": "gpu", "extra_lines": []},
    "batching_config": {
        "target_cpus_per_job": 1,
        "max_cpus_per_job": 2,
        "target_mem_per_job": "1G",
        "max_mem_per_job": 2000,
        "target_num_jobs": 1,
        "max_num_jobs": 2,
    },
    "user_local_exports": {"A": "b"},
}
_SUDO = {
    "type": "slurm_sudo",
    "jobs_slurm_python_worker": "/usr/bin/python3",
    "jobs_runner_config": _SLURM,
}
_SSH_PROFILE = {
    "resource_type": "slurm_ssh",
    "username": "somebody",
    "ssh_key_path": "/keys/id",
    "jobs_remote_dir": "/remote/jobs",
    "tasks_remote_dir": "/remote/tasks",
}

_DATASET = "/api/v2/project/{project_id}/dataset/"
_WORKFLOW = "/api/v2/project/{project_id}/workflow/"
_IMAGES = f"{_DATASET}{{dataset_id}}/images/"
_TASKS = f"{_WORKFLOW}{{workflow_id}}/wftask/"


def bodies(operation: str) -> list[Any]:
    """Bodies that an operation takes."""
    make = _BODIES.get(operation)
    return make() if make else []


def _task() -> list[Any]:
    task = {
        "name": Fresh("new"),
        "version": "1.2.3",
        **_META,
        "args_schema_parallel": {"type": "object", "properties": {"a": {"type": "integer"}}},
        "args_schema_non_parallel": {"type": "object", "properties": {}},
        "args_schema_version": "pydantic_v2",
        "input_types": _TYPES,
        "output_types": {"done": True},
        "category": "Segmentation",
        "modality": "HCS",
        "authors": "Somebody",
        "tags": ["one", "two"],
        "docs_info": "What it does.",
        "docs_link": "https://example.org",
    }
    of_type = {
        "parallel": ("command_parallel",),
        "non_parallel": ("command_non_parallel",),
        "compound": ("command_parallel", "command_non_parallel"),
        "converter_compound": ("command_parallel", "command_non_parallel"),
        "converter_non_parallel": ("command_non_parallel",),
    }
    return [
        {**task, "type": type_, **dict.fromkeys(commands, "python task.py")}
        for type_, commands in of_type.items()
    ]


def _register() -> list[Any]:
    user = {
        "email": Fresh("new@example.org"),
        "password": "a good password",
        "project_dirs": [DIRECTORY, "/data/more"],
        "slurm_accounts": ["lab"],
        "is_active": True,
        "is_superuser": False,
        "is_verified": True,
        "is_guest": False,
        "profile_id": None,
    }
    return [user]


def _resources() -> list[Any]:
    local = {**resource(Fresh("new")), "prevent_new_submissions": False}
    local["tasks_python_config"] = {
        **local["tasks_python_config"],
        "pip_cache_dir": "/cache/pip",
    }
    local["tasks_pixi_config"] = {
        "default_version": "0.41.0",
        "versions": {"0.41.0": "/pixi/0.41.0"},
        "TOKIO_WORKER_THREADS": 2,
        "PIXI_CONCURRENT_SOLVES": 4,
        "PIXI_CONCURRENT_DOWNLOADS": 4,
        "DEFAULT_ENVIRONMENT": "default",
    }
    sudo = {**local, **_SUDO}
    return [local, local, sudo, {**sudo, "type": "slurm_ssh", "host": "cluster"}]


def _profiles() -> list[Any]:
    name = Fresh("new")
    return [
        {"resource_type": "local", "name": name},
        {"resource_type": "slurm_sudo", "name": name, "username": "somebody"},
        {**_SSH_PROFILE, "name": name, "pixi_cache_dir": "/cache/pixi"},
    ]


def _import() -> dict[str, Any]:
    entry = {**_ENTRY, "task": _IMPORTED}
    return {"name": Fresh("new"), "description": "Imported.", "task_list": [entry]}


def _imports() -> list[Any]:
    return [{**_import(), "task_list": []}, _import()]


_BODIES: dict[str, Callable[[], list[Any]]] = {
    "POST /admin/v2/accounting/": lambda: [
        {
            "user_id": Id("user"),
            "fractal_job_id": 10**6,
            "timestamp_min": "2020-01-01T00:00:00+00:00",
            "timestamp_max": "2021-01-01T00:00:00Z",
        }
    ],
    "POST /admin/v2/accounting/slurm/": lambda: [
        {
            "user_id": Id("user"),
            "fractal_job_id": 10**6,
            "resource_id": Id("resource"),
            "timestamp_min": "2020-01-01T00:00:00+00:00",
            "timestamp_max": "2021-01-01T00:00:00Z",
        }
    ],
    "PATCH /admin/v2/job/{job_id}/": lambda: [{"status": "failed"}],
    "PUT /admin/v2/profile/{profile_id}/": _profiles,
    "POST /admin/v2/resource/": _resources,
    "PUT /admin/v2/resource/{resource_id}/": _resources,
    "POST /admin/v2/resource/{resource_id}/profile/": _profiles,
    "PATCH /admin/v2/task-group/{task_group_id}/": lambda: [{"user_group_id": Id("group")}],
    "POST /admin/v2/task-group/{task_group_id}/reset/pip/": lambda: [
        {
            "python_version": "3.12",
            "pip_extras": "a,b",
            "pinned_package_versions_pre": "a==1",
            "pinned_package_versions_post": "b==2",
        }
    ],
    "POST /admin/v2/task-group/{task_group_id}/reset/pixi/": lambda: [{"use_pixi_lockfile": True}],
    "POST /admin/v2/task/make-core/": lambda: [[Id("task")]],
    "POST /admin/v2/task/make-not-core/": lambda: [[Id("task")]],
    "POST /api/v2/project/": lambda: [{"name": Fresh("new"), "description": "For tests."}],
    "PATCH /api/v2/project/{project_id}/": lambda: [
        {"name": Fresh("new"), "description": "For tests."}
    ],
    f"POST {_DATASET}": lambda: [
        {"name": Fresh("new"), "project_dir": DIRECTORY, "zarr_subfolder": "a/b"}
    ],
    f"POST {_DATASET}import/": lambda: [
        {"name": Fresh("new"), "zarr_dir": _ZARRS, "images": images(_ZARRS)}
    ],
    f"PATCH {_DATASET}{{dataset_id}}/": lambda: [{"name": Fresh("new")}],
    f"POST {_IMAGES}": lambda: [
        {
            "zarr_url": f"{_ZARRS}/new",
            "origin": f"{_ZARRS}/plate.zarr/A1/0",
            "attributes": {"well": "Z9", "x": 1.5, "y": True, "z": 7},
            "types": _TYPES,
        }
    ],
    f"PATCH {_IMAGES}": lambda: [
        {
            "zarr_url": f"{_ZARRS}/plate.zarr/A1/0",
            "attributes": {"well": "Z9", "x": 1.5, "y": True, "z": 7},
            "types": _TYPES,
        }
    ],
    f"POST {_IMAGES}query/": lambda: [
        {**_FILTERS, "zarr_url": f"{_ZARRS}/plate.zarr/A1/1"},
        _FILTERS,
        {"type_filters": {"is_3D": False}},
        {"attribute_filters": {"well": ["A1"]}},
    ],
    f"POST {_IMAGES}non-processed/": lambda: [_FILTERS],
    f"POST {_IMAGES}verify-unique-types/": lambda: [_FILTERS, {"type_filters": {}}],
    "PATCH /api/v2/project/{project_id}/guest/": lambda: [{"permissions": "rw"}],
    "POST /api/v2/project/{project_id}/guest/": lambda: [{"permissions": "r"}],
    "POST /api/v2/project/{project_id}/job/submit/": lambda: [
        {
            **_FILTERS,
            "first_task_index": 0,
            "last_task_index": 0,
            "slurm_account": None,
            "worker_init": "echo begin",
        }
    ],
    "POST /api/v2/project/{project_id}/status/image-log/": lambda: [
        {
            "dataset_id": Id("dataset"),
            "workflowtask_id": Id("wftask"),
            "zarr_url": f"{_ZARRS}/plate.zarr/A1/0",
        }
    ],
    "POST /api/v2/project/{project_id}/status/images/": lambda: [
        _FILTERS,
        {},
        {"attribute_filters": {"__wftask_dataset_image_status__": ["done", "unset"]}},
    ],
    f"POST {_WORKFLOW}": lambda: [{"name": Fresh("new"), "description": "What it does."}],
    f"POST {_WORKFLOW}import-from-template/": lambda: [
        {"name": Fresh("new"), "override_versions": {}}
    ],
    f"POST {_WORKFLOW}import/": _imports,
    f"PATCH {_WORKFLOW}{{workflow_id}}/": lambda: [
        {
            "name": Fresh("new"),
            "description": "What it does.",
            "reordered_workflowtask_ids": [Id("wftask")],
        }
    ],
    f"POST {_TASKS}": lambda: [[{"task_id": Id("task"), **_ENTRY}]],
    f"POST {_TASKS}replace-task/": lambda: [_ARGUMENTS],
    f"PATCH {_TASKS}{{workflow_task_id}}/": lambda: [_ENTRY],
    "PATCH /api/v2/task-group/{task_group_id}/": lambda: [{"user_group_id": None}],
    "POST /api/v2/task/": _task,
    "POST /api/v2/task/collect/custom/": lambda: [
        {
            "label": Fresh("new"),
            "manifest": _MANIFEST,
            "python_interpreter": "/usr/bin/python3",
            "package_root": "/tmp",
            "package_name": None,
            "version": "1.0",
        }
    ],
    # Nothing that could be installed: the package index is not asked for names that are made up.
    "POST /api/v2/task/collect/pip/": lambda: [
        Form({"package": "not a name"}),
        Form({"package": "fractal-tasks-core", "python_version": "2.7"}),
        Form({"python_version": "3.12"}, {"file": ("garbage.whl", "garbage")}),
        Form({"package_version": "1.0"}, {"file": ("garbage.tar.gz", "garbage")}),
        Form({"package": "not a name", "pinned_package_versions_pre": "x"}),
        Form({"package": "not a name", "package_extras": "a b"}),
    ],
    "POST /api/v2/task/collect/pixi/": lambda: [
        Form({"pixi_version": "0.1"}, {"file": ("a-1.0.tar.gz", "garbage")}),
        Form({"pixi_version": "0.1"}, {"file": ("garbage", "garbage")}),
        Form({"use_pixi_lockfile": "true"}),
    ],
    "PATCH /api/v2/task/{task_id}/": lambda: [
        {
            "command_parallel": "python new.py",
            "command_non_parallel": "python new_init.py",
            "input_types": _TYPES,
            "output_types": {"done": False},
            "category": "New",
            "modality": "lightsheet",
            "authors": "Somebody else",
            "tags": ["new"],
        }
    ],
    "POST /api/v2/workflow-template/": lambda: [
        {"name": Fresh("new"), "version": 2, "description": "A template."}
    ],
    "POST /api/v2/workflow-template/import/": lambda: [
        {
            "name": Fresh("new"),
            "version": 3,
            "description": "A template.",
            "data": {**_import(), "task_list": []},
        }
    ],
    "PATCH /api/v2/workflow-template/{template_id}/": lambda: [
        {"description": "Another one.", "user_group_id": None}
    ],
    "PATCH /auth/current-user/": lambda: [{"slurm_accounts": ["lab", "lab-2"]}],
    "POST /auth/group/": lambda: [{"name": Fresh("new")}],
    "POST /auth/register/": _register,
    "POST /auth/token/login/": lambda: [
        Form({"username": "nobody@example.org", "password": "wrong", "grant_type": "password"})
    ],
    "PATCH /auth/users/{user_id}/": lambda: [
        {
            **_register()[0],
            "profile_id": Id("profile"),
        }
    ],
    "POST /auth/users/{user_id}/set-groups/": lambda: [
        {"group_ids": [Id("group"), Id("default group")]}
    ],
}
