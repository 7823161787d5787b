"""The log of a failed job, in the layout that Fractal's clients expect.

If the first line of a failed job's log begins with TASK ERROR, JOB ERROR or UNKNOWN ERROR,
`fractal-web` shows that line and what follows the word TRACEBACK (without that word: the last
Python error in the log), in all five lines. Of any other log it shows the first five lines.
"""


def log_of_failure(job_id: int, reason: str, story: str) -> str:
    """The log of a failed job: why it failed, then what was logged while it ran (`story`).

    The first line of `reason` is a sentence. Further lines, if there are any, are the evidence.
    """
    sentence, _, evidence = reason.strip().partition("\n")
    head = [f"JOB ERROR in Fractal job {job_id}: {sentence or 'it gave no reason.'}"]
    if evidence:
        head += ["TRACEBACK:", evidence]
    return "\n".join([*head, "", story] if story else head)
