-- One row per table of spans: the TTL in force and the oldest row. `kept` is wrong when it is not 30, and `oldest` when
-- it is more than 31 days back (expired rows go with merges, some hours late).
select
    t.name as "table",
    extract(t.create_table_query, 'toIntervalDay\\((\\d+)\\)') as kept,
    (select toDate(min(Timestamp)) from otel.otel_traces) as oldest
from system.tables as t
where t.database = 'otel' and t.name in ('otel_traces', 'otel_traces_trace_id_ts')
order by t.name
