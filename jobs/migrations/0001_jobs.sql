-- Jobs, their events, kept faces, idempotency keys, and webhooks. PgQueuer's own tables are in the same schema.

CREATE TABLE jobs (
    id             uuid PRIMARY KEY,
    number         bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
    tenant         text NOT NULL,
    class          text NOT NULL CHECK (class IN ('interactive', 'batch')),
    state          text NOT NULL DEFAULT 'queued'
                   CHECK (state IN ('queued', 'running', 'succeeded', 'failed', 'canceled', 'expired')),
    attempt        integer NOT NULL DEFAULT 0,
    given_back     integer NOT NULL DEFAULT 0,
    worker         text,
    queue_id       bigint UNIQUE,
    start_tag      integer NOT NULL,
    form           jsonb NOT NULL,
    inputs         jsonb NOT NULL DEFAULT '{}',
    input_bytes    bigint NOT NULL DEFAULT 0,
    urls           jsonb NOT NULL DEFAULT '{}',
    avatar         uuid,
    result_url     text,
    webhook        text,
    webhook_events text[] NOT NULL DEFAULT '{}',
    request_id     text NOT NULL DEFAULT '-',
    stage          text,
    frames_done    integer,
    frames_total   integer,
    error          jsonb,
    result         jsonb,
    result_bytes   bigint NOT NULL DEFAULT 0,
    created_at     timestamptz NOT NULL DEFAULT now(),
    started_at     timestamptz,
    finished_at    timestamptz,
    expires_at     timestamptz
);
CREATE INDEX jobs_by_tenant ON jobs (tenant, number DESC);
CREATE INDEX jobs_by_tenant_and_state ON jobs (tenant, state, number DESC);
CREATE INDEX jobs_by_tenant_and_time ON jobs (tenant, created_at);
CREATE INDEX jobs_queued ON jobs (start_tag, queue_id) WHERE state = 'queued';
CREATE INDEX jobs_running ON jobs (number) WHERE state = 'running';
CREATE INDEX jobs_expiring ON jobs (expires_at) WHERE state = 'succeeded';
CREATE INDEX jobs_finished ON jobs (finished_at) WHERE finished_at IS NOT NULL;

CREATE TABLE job_events (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    job_id uuid NOT NULL REFERENCES jobs ON DELETE CASCADE,
    kind   text NOT NULL,
    data   jsonb NOT NULL DEFAULT '{}',
    at     timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX job_events_of_job ON job_events (job_id, number);

-- Start-time fair queueing (jobs/fairness.py): a flow is one class of one tenant.
CREATE TABLE flows (
    tenant     text NOT NULL,
    class      text NOT NULL,
    finish_tag integer NOT NULL,
    PRIMARY KEY (tenant, class)
);
CREATE TABLE virtual_time (
    only_row  boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    start_tag integer NOT NULL DEFAULT 0
);
INSERT INTO virtual_time DEFAULT VALUES;

CREATE TABLE idempotency_keys (
    tenant     text NOT NULL,
    key        text NOT NULL,
    digest     text NOT NULL,
    job_id     uuid NOT NULL REFERENCES jobs ON DELETE CASCADE,
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (tenant, key)
);
CREATE INDEX idempotency_keys_of_job ON idempotency_keys (job_id);
CREATE INDEX idempotency_keys_expiring ON idempotency_keys (expires_at);

CREATE TABLE avatars (
    id         uuid PRIMARY KEY,
    number     bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
    tenant     text NOT NULL,
    file       jsonb NOT NULL,
    file_bytes bigint NOT NULL,
    face_type  text NOT NULL,
    looked_at  jsonb NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT now(),
    used_at    timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX avatars_by_tenant ON avatars (tenant, number DESC);

CREATE TABLE webhook_deliveries (
    id              uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    job_id          uuid NOT NULL REFERENCES jobs ON DELETE CASCADE,
    event           text NOT NULL,
    body            text NOT NULL,
    state           text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'delivered', 'failed')),
    attempts        integer NOT NULL DEFAULT 0,
    last_status     integer,
    last_error      text,
    created_at      timestamptz NOT NULL DEFAULT now(),
    last_attempt_at timestamptz
);
CREATE INDEX webhook_deliveries_of_job ON webhook_deliveries (job_id, created_at);
CREATE INDEX webhook_deliveries_pending ON webhook_deliveries (created_at) WHERE state = 'pending';
