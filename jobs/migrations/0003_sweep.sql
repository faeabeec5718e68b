-- What the sweep looks for, and when it has compared the store with the jobs.

CREATE INDEX jobs_with_inputs ON jobs (finished_at) WHERE finished_at IS NOT NULL AND input_bytes > 0;
CREATE INDEX jobs_with_expired_results ON jobs (expires_at) WHERE state = 'expired' AND result_bytes > 0;

CREATE TABLE sweeps (
    only_row    boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    compared_at timestamptz NOT NULL DEFAULT '-infinity'
);
INSERT INTO sweeps DEFAULT VALUES;
