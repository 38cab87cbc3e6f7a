"""Rotates application logs into an archive and removes archives older than seven days.

It never replaces an archive, follows a link, or takes a line away that is not in an archive on disk; a file whose
writer keeps it open is emptied instead of deleted.
"""

from dataclasses import dataclass

from shared.storage import rotate
from shared.storage.logs import place_of
from shared.storage.rotation import Rotation
from shared.task import Context, entrypoint


@dataclass(frozen=True)
class Params:
    rotation: Rotation


def run(ctx: Context, params: Params) -> dict[str, int]:
    place = place_of(ctx, params.rotation.place)
    night = rotate.look(ctx, place, params.rotation)
    ctx.authorize(night.plan)
    return rotate.act(ctx, place, params.rotation, night)


main = entrypoint(__file__, run)
