-- What the metrics count. Rows of jobs and webhooks are removed after a while; these numbers only grow.

CREATE TABLE totals (
    only_row         boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    attempts         bigint NOT NULL DEFAULT 0,
    lease_losses     bigint NOT NULL DEFAULT 0,
    webhook_failures bigint NOT NULL DEFAULT 0
);
INSERT INTO totals DEFAULT VALUES;
