"""Units: one execution of a task's command each. Begin with `plan.py`, which is pure.

`batch` and `results` are the files by which a batch is handed to `programs/unit_runner.py` and
followed; `job_folder` is where all files of a job are; `left_files` opens what units have left.
"""
