"""Programs that are sent to where tasks run; each is one file for Python 3.8 and newer.

They import only the standard library. Begin with `unit_runner.py`, which executes units.
"""
