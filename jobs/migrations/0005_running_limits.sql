-- Limits of running jobs, which claims respect (jobs/repository/running.py): `held` is a queued job that waits for its
-- owner's other jobs.

CREATE TABLE running_limits (
    tenant  text PRIMARY KEY,
    running integer NOT NULL
);

ALTER TABLE jobs ADD COLUMN held boolean NOT NULL DEFAULT false;
CREATE INDEX jobs_held ON jobs (tenant, start_tag, queue_id) WHERE held AND state = 'queued';
