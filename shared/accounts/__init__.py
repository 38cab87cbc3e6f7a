"""Accounts: what one leaves behind when its owner deletes it, and in which order it goes."""
