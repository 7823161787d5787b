"""What a job would do before it does it: its units and what they take, and what is wrong with it.

Begin with `job.py`, which reads what is needed; what follows from that is pure, in `tasks.py`.
"""
