"""Processes, here and elsewhere: locks, signals, OS users, and how commands reach other machines.

Begin with `transport.py`: commands here, as another user, and by SSH.
"""
