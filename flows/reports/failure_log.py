"""The log of a failed job, laid out for Fractal's clients.

`fractal-web` shows of a failed job the first line of its log, if that begins with TASK ERROR, JOB
ERROR or UNKNOWN ERROR, and what follows the word TRACEBACK (or else the last Python error in it),
in all five lines; of any other log the first five lines.
"""


def log_of_failure(job_id: int, reason: str, story: str) -> str:
    """Why a job failed, and then what was logged while it ran.

    The first line of the reason is a sentence; what follows, if anything does, is the evidence.
    """
    sentence, _, evidence = reason.strip().partition("\n")
    head = [f"JOB ERROR in Fractal job {job_id}: {sentence or 'it gave no reason.'}"]
    if evidence:
        head += ["TRACEBACK:", evidence]
    return "\n".join([*head, "", story] if story else head)
