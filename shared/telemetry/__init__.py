"""Telemetry: probing what customers run, and keeping what was seen."""
