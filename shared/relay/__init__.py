"""The outbox's way out: claim events by state, hand them to a broker in the order of their keys, write down how each
fared. At least once, never lost; what comes twice bears the same event id, for which `shared.inbox` is there.
"""
