"""A small shop as applications write it: the same tables and questions through two object mappers."""
