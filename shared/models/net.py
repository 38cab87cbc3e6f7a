"""A trained model as it is kept and scored: plain arrays, no pickle, no torch.

A linear part, and a small hidden layer beside it for what is not linear. Features are put on a robust scale first and
cut at eight of its units, so that one wild value does not rule a prediction.
"""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from shared.models.dataset import Floats

QUANTILES = (0.5, 0.9, 0.95)
_CUT = 8.0
_ARRAYS = ("center", "scale", "linear", "hidden", "hidden_bias", "out", "bias", "target")


class NotLoadable(Exception):
    """What was kept is no model of ours."""


@dataclass(frozen=True)
class Net:
    """`linear` is features by outputs, `hidden` features by units, `out` units by outputs; `target` is shift, scale."""

    kind: str
    features: tuple[str, ...]
    center: Floats
    scale: Floats
    linear: Floats
    hidden: Floats
    hidden_bias: Floats
    out: Floats
    bias: Floats
    target: Floats

    def predict(self, x: Floats) -> Floats:
        """A probability or a level a row, or its quantiles in ascending order."""
        z = scaled(x, self.center, self.scale)
        raw = z @ self.linear + np.tanh(z @ self.hidden + self.hidden_bias) @ self.out + self.bias
        return finished(self.kind, raw, self.target)

    def save(self) -> bytes:
        """As the bytes of an .npz file."""
        stream = io.BytesIO()
        arrays: dict[str, Any] = {name: getattr(self, name) for name in _ARRAYS}
        np.savez(stream, kind=np.array(self.kind), features=np.array(self.features), **arrays)
        return stream.getvalue()

    @classmethod
    def load(cls, content: bytes) -> "Net":
        """From `save`'s bytes; nothing in them is ever executed. Raises NotLoadable."""
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as kept:
                arrays: Mapping[str, Floats] = {name: kept[name].astype(np.float64) for name in _ARRAYS}
                net = cls(str(kept["kind"]), tuple(str(name) for name in kept["features"]), **arrays)
            shown = net.predict(np.tile(net.center, (2, 1)))
        except (ValueError, KeyError, OSError, TypeError, EOFError) as error:
            raise NotLoadable("the weights are not those of a model of ours") from error
        if not all(np.isfinite(arrays[name]).all() for name in _ARRAYS) or not np.isfinite(shown).all():
            raise NotLoadable("the weights are not finite numbers")
        return net


def scaled(x: Floats, center: Floats, scale: Floats) -> Floats:
    """Features on the model's scale."""
    return np.asarray(np.clip((x - center) / scale, -_CUT, _CUT))


def finished(kind: str, raw: Floats, target: Floats) -> Floats:
    """Outputs of the last layer as what they mean."""
    if kind == "probability":
        return np.asarray(1 / (1 + np.exp(-np.clip(raw[:, 0], -30, 30))))
    if kind == "level":
        return np.asarray(np.clip(raw[:, 0] * target[1] + target[0], 0, 100))
    steps = np.concatenate([raw[:, :1], np.logaddexp(0, raw[:, 1:])], axis=1)  # each above the one before
    return np.asarray(np.cumsum(steps, axis=1) * target[1] + target[0])
