"""Training, the only place that needs torch: small nets, on the CPU, the same weights from the same rows."""

import io
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from shared.errors import Unavailable
from shared.models.dataset import Dataset, Floats, Mask
from shared.models.net import ARRAYS, QUANTILES, Net, bins, scaled

_HIDDEN = 32
_STEPS = 200
_BATCH = 16_384
_RATE = 0.04
_BINS = 8
_SEED = 20_260_101


class _Shape(NamedTuple):
    """Its share in what is said, whether it sees bins, and what its weights cost: 1 is logistic regression's ridge."""

    share: float
    bins: int
    linear: float
    hidden: float
    out: float


# What has steps is best seen with bins, what curves gently without them; nobody knows beforehand, and together they are
# hardly worse than the better one, often better. Bins have the larger share: without them steps cannot be said at all.
_SHAPES = (_Shape(0.2, 0, linear=1.0, hidden=0.0, out=16.0), _Shape(0.8, _BINS, linear=1.0, hidden=1.0, out=4.0))


def torch_here() -> Any:
    """torch, told to be deterministic. Raises Unavailable where it is not installed."""
    try:
        import torch
    except ImportError:
        raise Unavailable(
            "torch is not installed: the image `torch` has it; on a laptop `make setup`, where a build for this "
            "machine is offered"
        ) from None
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(1)  # the nets are small: threads would wait for each other
    return torch


def fit(data: Dataset, rows: Mask, *, seed: int = _SEED) -> Net:
    """A net trained on these rows alone, their scale and their mean too: one of each shape, by its share."""
    torch = torch_here()
    center, scale = scale_of(data.x[rows])
    target = np.array([0.0, 1.0])
    if data.kind != "probability":
        target = np.array([np.median(data.y[rows]), max(float(np.std(data.y[rows])), 1e-9)])
    x = scaled(data.x[rows], center, scale)
    knots = np.quantile(x, np.linspace(0, 1, _BINS + 1), axis=0).T
    z = torch.tensor(x, dtype=torch.float32)
    y = torch.tensor((data.y[rows] - target[0]) / target[1], dtype=torch.float32)
    w = torch.tensor(data.weight[rows] / data.weight[rows].mean(), dtype=torch.float32)
    modules = []
    for shape in _SHAPES:
        torch.manual_seed(seed)
        own = knots[:, : shape.bins + 1]
        module = _module(torch, data.kind, own.size, start=_start(data.kind, data.y[rows]))
        _train(torch, module, shape, data.kind, own, z, y, w, order=torch.Generator().manual_seed(seed))
        modules.append(module)
    weights = _joined(modules, inputs=x.shape[1] * (1 + _BINS))
    return Net(data.kind, data.features, center, scale, knots, target=target, **weights)


def _train(
    torch: Any, module: Any, shape: _Shape, kind: str, knots: Floats, z: Any, y: Any, w: Any, *, order: Any
) -> None:
    edge, slope = (torch.tensor(part, dtype=torch.float32) for part in bins(knots))

    def seen(z: Any) -> Any:  # as `encoded` of what is scored
        return torch.cat([z, ((z[:, :, None] - edge) * slope).clamp(0, 1).flatten(1)], dim=1)

    every = seen(z) if len(y) <= _BATCH else None  # of more rows it would take more memory than time
    optimiser = torch.optim.Adam(module.parameters(), lr=_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=_RATE, total_steps=_STEPS)
    for _ in range(_STEPS):
        batch = slice(None)
        if len(y) > _BATCH:
            batch = torch.randint(len(y), (_BATCH,), generator=order)
        optimiser.zero_grad()
        raw = module(seen(z[batch]) if every is None else every)
        loss = (w[batch] * _loss(torch, kind, raw, y[batch])).mean()
        penalty = sum(
            getattr(shape, name) * getattr(module, name).square().sum() for name in ("linear", "hidden", "out")
        )
        (loss + penalty / (2 * len(y))).backward()
        optimiser.step()
        schedule.step()


def _joined(modules: Sequence[Any], *, inputs: int) -> dict[str, Floats]:
    """The weights of one net that says what these say, each by its share: their hidden units side by side."""
    shares = [shape.share for shape in _SHAPES]
    every = [{name: v.detach().numpy().astype(np.float64) for name, v in m.state_dict().items()} for m in modules]

    def whole(weights: Floats) -> Floats:  # a net without bins gives them no weight
        return np.pad(weights, ((0, inputs - len(weights)), (0, 0)))

    return {
        "linear": np.average([whole(one["linear"]) for one in every], axis=0, weights=shares),
        "hidden": np.concatenate([whole(one["hidden"]) for one in every], axis=1),
        "hidden_bias": np.concatenate([one["hidden_bias"] for one in every]),
        "out": np.concatenate([share * one["out"] for share, one in zip(shares, every, strict=True)]),
        "bias": np.average([one["bias"] for one in every], axis=0, weights=shares),
    }


def scale_of(x: Floats) -> tuple[Floats, Floats]:
    """The median and the spread of each feature; a constant one has spread 1."""
    center = np.median(x, axis=0)
    spread = 1.4826 * np.median(np.abs(x - center), axis=0)
    fallback = np.std(x, axis=0)
    spread = np.where(spread > 1e-9, spread, fallback)
    return center, np.where(spread > 1e-9, spread, 1.0)


def state(net: Net) -> bytes:
    """The net as the bytes of a .pt file: tensors by name, for whoever works with torch."""
    torch = torch_here()
    stream = io.BytesIO()
    torch.save({name: torch.tensor(getattr(net, name)) for name in ARRAYS}, stream)
    return stream.getvalue()


def from_state(content: bytes, kind: str, features: tuple[str, ...]) -> Net:
    """A net from `state`'s bytes, read as weights only: nothing in them is executed."""
    torch = torch_here()
    kept = torch.load(io.BytesIO(content), weights_only=True)
    return Net(kind, features, **{name: tensor.numpy() for name, tensor in kept.items()})


def _start(kind: str, y: Floats) -> float:
    """Where the output begins: the answer's mean, so that training spends no steps on finding it."""
    if kind != "probability":
        return 0.0
    share = min(max(float(y.mean()), 1e-4), 1 - 1e-4)
    return float(np.log(share / (1 - share)))


def _module(torch: Any, kind: str, width: int, *, start: float) -> Any:
    """`width` inputs: each feature and its bins, as many as it has knots."""
    outputs = len(QUANTILES) if kind == "quantiles" else 1

    class Module(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.linear = torch.nn.Parameter(torch.zeros(width, outputs))
            self.hidden = torch.nn.Parameter(torch.randn(width, _HIDDEN) / width**0.5)
            self.hidden_bias = torch.nn.Parameter(torch.zeros(_HIDDEN))
            self.out = torch.nn.Parameter(torch.zeros(_HIDDEN, outputs))
            self.bias = torch.nn.Parameter(torch.full((outputs,), start))

        def forward(self, z: Any) -> Any:
            return z @ self.linear + torch.tanh(z @ self.hidden + self.hidden_bias) @ self.out + self.bias

    return Module()


def _loss(torch: Any, kind: str, raw: Any, y: Any) -> Any:
    if kind == "probability":
        return torch.nn.functional.binary_cross_entropy_with_logits(raw[:, 0], y, reduction="none")
    if kind == "level":
        return (raw[:, 0] - y).abs()
    steps = torch.cat([raw[:, :1], torch.nn.functional.softplus(raw[:, 1:])], dim=1)
    off = y[:, None] - torch.cumsum(steps, dim=1)
    at = torch.tensor(QUANTILES)
    return torch.maximum(at * off, (at - 1) * off).sum(dim=1)
