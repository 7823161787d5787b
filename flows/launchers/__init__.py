"""Launchers start batches of units where they are to run, and follow them to their end.

`base` holds what all launchers share (a batch, its results, the protocol), `of_job` chooses one.
`local` runs batches on this machine. `slurm` runs them on a cluster: `batching` and `sbatch` plan,
`slurm_batch` follows, by what `cluster`, `slurm_queue` and `transport` reach. Whatever the place,
`flows/unit_runner.py` executes the units.
"""
