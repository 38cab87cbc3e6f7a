-- What the exporter's tables keep, for tables that existed before collector.yaml named a TTL.
-- The first statement changes metadata only; rows that have expired go with the merges that follow, or at once with
-- the second one, which rewrites parts: run it when the disk is idle.
alter table otel.otel_traces modify ttl toDateTime(Timestamp) + toIntervalDay(30) settings materialize_ttl_after_modify = 0;
alter table otel.otel_traces materialize ttl;
alter table otel.otel_traces_trace_id_ts modify ttl toDateTime(Start) + toIntervalDay(30) settings materialize_ttl_after_modify = 0;
alter table otel.otel_traces_trace_id_ts materialize ttl;
