"""Envelope encryption of integrations' credentials: data keys in rows, wrapped by a key that never leaves KMS."""
