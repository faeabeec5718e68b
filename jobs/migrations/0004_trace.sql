-- The W3C traceparent of the request that submitted a job: the spans of its worker belong to the same trace.

ALTER TABLE jobs ADD COLUMN traceparent text;
