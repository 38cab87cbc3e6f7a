"""Ingest: events of streams into tables, each once; what can never be handled is kept with its reason."""
