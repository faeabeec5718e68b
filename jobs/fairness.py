"""Who is next: start-time fair queueing between the flows, one flow for each class of each tenant.

A job gets a start tag when it is submitted: the later of the virtual time and the finish tag of its flow's last job.
The queue serves the lowest start tag first, and the virtual time is the start tag of the job that was served last. So a
flow that submits a thousand jobs at once gets tags far in the future, and the first job of another flow is next. From:
Goyal, Vin, Cheng, "Start-time Fair Queueing", SIGCOMM 1996.
"""

from __future__ import annotations

from .records import JobClass

# What one job adds to its flow's tag. Of two flows that always have jobs waiting, one gets four times as many served.
COSTS = {JobClass.INTERACTIVE: 1, JobClass.BATCH: 4}


def start_tag(virtual_time: int, flow_finish_tag: int) -> int:
    """Return the start tag of a new job."""
    return max(virtual_time, flow_finish_tag)


def finish_tag(start: int, job_class: JobClass) -> int:
    """Return the finish tag of a job, which the next job of its flow starts from."""
    return start + COSTS[job_class]


def priority(start: int) -> int:
    """Return the priority for PgQueuer, which serves the highest first, and among equal ones the oldest."""
    return -start
