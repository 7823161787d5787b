"""Programs that are sent to where tasks run, each one file for Python 3.8 and newer.

They import nothing but the standard library. Begin with `unit_runner.py`, which executes units.
"""
