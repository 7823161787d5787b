"""Activities of task groups: a package is collected, deactivated, reactivated, each by a flow.

`activity` is what they have in common, `environment` what they do it to, at a `site`: here, or on a
cluster. `interrupted` looks after those whose process is gone.
"""
