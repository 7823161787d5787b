"""Processes here and on other machines: locks, signals, OS users, and how to run commands there.

Begin with `transport.py`, which runs commands here, as another user, and by SSH.
"""
