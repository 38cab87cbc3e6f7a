"""Numbers of things as people say them."""


def counted(count: int, nouns: str) -> str:
    """`1 row`, `2 rows`, `1,000 rows`; `nouns` in the singular or, as a plan's units are, in the plural."""
    noun = nouns.removesuffix("s")
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
