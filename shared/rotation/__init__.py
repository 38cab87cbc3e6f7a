"""Rotation of secrets: a rotator for each kind, one way of steps for all, a way back at each."""
