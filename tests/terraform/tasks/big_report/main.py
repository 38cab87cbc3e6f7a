"""A throwaway task, so that a plan has one of each kind."""

from dataclasses import dataclass

from shared.task import Context, entrypoint


@dataclass(frozen=True)
class Params:
    pass


def run(ctx: Context, params: Params) -> dict[str, int]:
    return {"seen": 1}


main = entrypoint(__file__, run)
