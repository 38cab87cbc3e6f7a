"""A trained model as it is kept and scored: plain arrays, no pickle, no torch.

A linear part, and a small hidden layer beside it for what is not linear. Features are put on a robust scale first and
cut at eight of its units, so that one wild value does not rule a prediction. Both parts see each feature also as how
far it has come through each of its bins (piecewise linear encoding; Gorishniy et al., 2022): steps, as a tree makes.
"""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from zipfile import BadZipFile

import numpy as np

from shared.models.dataset import Floats

QUANTILES = (0.5, 0.9, 0.95)
ARRAYS = ("center", "scale", "knots", "linear", "hidden", "hidden_bias", "out", "bias", "target")
_CUT = 8.0
_LEAST_WIDTH = 1e-9
_FORM = 2  # of what is kept: 1 had no knots


class NotLoadable(Exception):
    """What was kept is no model of ours."""


@dataclass(frozen=True)
class Net:
    """`knots` is features by the edges of bins, in ascending order and on the scale of the features.

    `linear` is inputs by outputs, `hidden` inputs by units, `out` units by outputs; `target` is shift, scale. Inputs
    are the features and then the bins of each, in `encoded`'s order.
    """

    kind: str
    features: tuple[str, ...]
    center: Floats
    scale: Floats
    knots: Floats
    linear: Floats
    hidden: Floats
    hidden_bias: Floats
    out: Floats
    bias: Floats
    target: Floats

    def predict(self, x: Floats) -> Floats:
        """A probability or a level a row, or its quantiles in ascending order."""
        z = encoded(scaled(x, self.center, self.scale), self.knots)
        raw = z @ self.linear + np.tanh(z @ self.hidden + self.hidden_bias) @ self.out + self.bias
        return finished(self.kind, raw, self.target)

    def save(self) -> bytes:
        """As the bytes of an .npz file."""
        stream = io.BytesIO()
        arrays: dict[str, Any] = {name: getattr(self, name) for name in ARRAYS}
        np.savez(stream, form=np.array(_FORM), kind=np.array(self.kind), features=np.array(self.features), **arrays)
        return stream.getvalue()

    @classmethod
    def load(cls, content: bytes) -> "Net":
        """From `save`'s bytes; nothing in them is ever executed. Raises NotLoadable."""
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as read:
                kept = dict(read)
                form = int(kept.get("form", 1))
                if form > _FORM:
                    raise NotLoadable(f"the weights are of form {form}, this code knows forms up to {_FORM}: update it")
                if form == 1:
                    kept["knots"] = np.zeros((len(kept["features"]), 1))  # one knot makes no bin
                arrays: Mapping[str, Floats] = {name: kept[name].astype(np.float64) for name in ARRAYS}
                net = cls(str(kept["kind"]), tuple(str(name) for name in kept["features"]), **arrays)
            shown = net.predict(np.tile(net.center, (2, 1)))
        except (ValueError, KeyError, OSError, TypeError, EOFError, BadZipFile) as error:
            raise NotLoadable("the weights are not those of a model of ours") from error
        if not all(np.isfinite(arrays[name]).all() for name in ARRAYS) or not np.isfinite(shown).all():
            raise NotLoadable("the weights are not finite numbers")
        return net


def scaled(x: Floats, center: Floats, scale: Floats) -> Floats:
    """Features on the model's scale."""
    return np.asarray(np.clip((x - center) / scale, -_CUT, _CUT))


def encoded(z: Floats, knots: Floats) -> Floats:
    """Scaled features, and the share of each bin that they have come through: from 0 to 1."""
    start, slope = bins(knots)
    come = np.repeat(z, start.shape[1], axis=1)
    come -= start.ravel()  # in place, since scoring spends its time here
    come *= slope.ravel()
    return np.concatenate([z, np.clip(come, 0, 1, out=come)], axis=1)


def bins(knots: Floats) -> tuple[Floats, Floats]:
    """Where each bin starts, and the share of it that a unit comes through; nothing, where it has no width."""
    width = np.diff(knots, axis=1)
    return knots[:, :-1], np.where(width > _LEAST_WIDTH, 1 / np.maximum(width, _LEAST_WIDTH), 0.0)


def finished(kind: str, raw: Floats, target: Floats) -> Floats:
    """Outputs of the last layer as what they mean."""
    if kind == "probability":
        return np.asarray(1 / (1 + np.exp(-np.clip(raw[:, 0], -30, 30))))
    if kind == "level":
        return np.asarray(np.clip(raw[:, 0] * target[1] + target[0], 0, 100))
    steps = np.concatenate([raw[:, :1], np.logaddexp(0, raw[:, 1:])], axis=1)  # each above the one before
    return np.asarray(np.cumsum(steps, axis=1) * target[1] + target[0])
