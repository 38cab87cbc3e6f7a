"""The reference platform: a small SaaS's own tables, for the demo and the tests. Never created on a real platform."""
