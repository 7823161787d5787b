"""What jobs have left that ended long ago: in Prefect, in folders, in logs; counted or removed.

Data, and the rows of jobs, their history and accounting stay, and all that an open job needs.
"""
