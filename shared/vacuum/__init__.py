"""Tables in shape: which need VACUUM or ANALYZE, doing it without being felt, and proof that it happened."""
