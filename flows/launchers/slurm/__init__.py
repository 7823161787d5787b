"""Batches as SLURM jobs. Begin with `launcher.py`; `batch.py` follows one batch to its end.

`batching` and `script` plan (pure): how many units per SLURM job, and what `sbatch` is told.
`context` is what all batches of a job share; `cluster` the files and commands of a cluster;
`queue` and `record` what SLURM says of jobs, and `watch` what follows from it; `state` what is
known of a batch, `mirror` what came back of it.
"""
