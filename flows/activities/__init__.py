"""Activities of task groups, each by a flow.

A package is collected; its environment is removed, made again, or made anew with other choices; all
of it is deleted. `activity` is what they have in common, `environment` what they do it to, at a
`site`: here, or on a cluster. `interrupted` looks after those whose process is gone.
"""
