"""Threat feeds: fetched with caps, read by their documented formats, merged into one table that says why."""
