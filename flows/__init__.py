"""Jobs, schedules and task packages as Prefect flows. Knows nothing of HTTP.

Each room may import only rooms below it; `tests/test_house.py` holds the list. Begin with
`submission.py`, then `job/flow.py`.

7. `watchers/`: what a worker looks after again and again.
6. `job/`: a job as a flow, from its first workflow task to its end.
5. `schedules/`: jobs that begin by themselves.
4. `submission.py`: from a request to a job; `control.py`: how people stop and end it;
   `activities/`: task packages, as flows.
3. `launchers/`: where units run; `records/`: the SQL of history, accounting and events.
2. `engine/`: Prefect; `units/`: what runs and what it leaves; `process/`: locks, signals, other
   users, other machines.
1. `parameters.py`: what a flow run of a job is asked to do; `programs/`: what runs elsewhere;
   `reports/`: words for people.
"""
