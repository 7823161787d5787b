"""Units: each is one execution of a task's command. Begin with `plan.py`, which is pure.

`batch` and `results` are the files through which a batch is given to `programs/unit_runner.py` and
followed; `job_folder` is where all files of a job are; `left_files` opens files that units have
left.
"""
