"""Task packages, as flows: collected, deactivated, reactivated, made anew, deleted.

Begin with `activity.py`, which all of them have in common. `environment` is what they do it to, at
a `site`: here, or on a cluster.
"""
