"""ClickHouse keeps spans for the 30 days that everything else keeps raw telemetry."""

import re

import yaml

from shared.strict_yaml import parse
from tests.terraform.workspace import ROOT

OTEL = ROOT / "terraform" / "otel"
DAYS = parse((ROOT / "terraform/data/buckets.yaml").read_text(), "buckets.yaml")["telemetry"]["delete_after_days"]


def test_spans_live_as_long_as_raw_telemetry() -> None:
    collector = yaml.safe_load((OTEL / "collector.yaml").read_text())
    assert DAYS == {"env": "RAW_TELEMETRY_RETENTION_DAYS", "default": 30}
    assert collector["exporters"]["clickhouse"]["ttl"] == f"{DAYS['default'] * 24}h"
    assert set(re.findall(r"toIntervalDay\((\d+)\)", (OTEL / "ttl.sql").read_text())) == {str(DAYS["default"])}


def test_every_span_passes_the_filter_and_ends_in_clickhouse() -> None:
    collector = yaml.safe_load((OTEL / "collector.yaml").read_text())
    (pipeline,) = collector["service"]["pipelines"].values()
    assert pipeline["exporters"] == ["clickhouse"]
    assert pipeline["processors"] == ["memory_limiter", "attributes/no_personal_data", "batch"]
    for part in ("receivers", "processors", "exporters"):
        assert set(pipeline[part]) <= set(collector[part]), part
    assert set(collector["service"]["extensions"]) <= set(collector["extensions"])


def test_both_of_the_exporters_tables_are_given_the_limit() -> None:
    text = (OTEL / "ttl.sql").read_text()
    for table in ("otel_traces", "otel_traces_trace_id_ts"):
        assert f"alter table otel.{table} modify ttl" in text
        assert f"alter table otel.{table} materialize ttl" in text
        assert f"'{table}'" in (OTEL / "check.sql").read_text()


def test_no_password_stands_in_the_collectors_configuration() -> None:
    collector = yaml.safe_load((OTEL / "collector.yaml").read_text())
    exporter = collector["exporters"]["clickhouse"]
    assert all(exporter[key].startswith("${env:") for key in ("endpoint", "username", "password"))
