"""Task packages: flows that collect, deactivate, reactivate, reset and delete them.

Begin with `activity.py`, which has what all these flows share. `environment` is the environment of
a task group, and `site` the machine where it is: here, or a cluster.
"""
