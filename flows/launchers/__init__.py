"""Launchers start batches of units in the right place, and follow them to their end.

`base` is the protocol of all launchers, `choice` chooses one for a job. `local` runs batches on
this machine, `slurm/` on a cluster. In both places `programs/unit_runner.py` executes the units.
"""
