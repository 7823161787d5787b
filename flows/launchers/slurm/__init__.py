"""Batches as SLURM jobs. Begin with `launcher.py`; `batch.py` follows one batch to its end.

`batching` and `script` are pure: they plan how many units go into a SLURM job, and write its batch
script. `context` is what all batches of a job share; `cluster` the files and commands of a cluster;
`submitter` and `pace` decide when something is submitted. `queue` and `record` read what SLURM says
about jobs, `watch` draws the conclusions, `verdict` says what follows for units, and `pending` why
jobs wait. `state` is what is known about a batch, `mirror` what the cluster has sent back.
"""
