"""Batches as SLURM jobs. Begin with `launcher.py`; `batch.py` follows one batch to its end.

`batching` and `script` are pure: they plan how many units go into a SLURM job, and write its batch
script. `context` is what all batches of a job share; `cluster` the files and commands of a cluster;
`queue` and `record` read what SLURM says about jobs, and `watch` draws the conclusions; `state` is
what is known about a batch, `mirror` what the cluster has sent back.
"""
