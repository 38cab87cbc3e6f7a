"""Backups that are proven: a dump with counts and hashes from its own snapshot, and the drill that restores it."""
