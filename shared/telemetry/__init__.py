"""Telemetry: probing what customers run, and rolling up what was seen."""
