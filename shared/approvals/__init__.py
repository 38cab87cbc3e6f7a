"""Approvals over HTTP: who may decide what, and what follows."""
