"""Benchmarks, by hand: `python -m bench NAME [--json]`. Ratios within one run count; see docs/benchmarks.md."""
