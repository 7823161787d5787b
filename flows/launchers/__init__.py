"""Launchers start batches of units where they are to run, and follow them to their end.

`base` holds what all launchers share (a batch, its results, the protocol), `local` runs batches on
this machine. Whatever the place, `flows/unit_runner.py` executes the units.
"""
