"""Other people's programs for the same duty, driven as their documentation says. Needs requirements-bench.txt."""
