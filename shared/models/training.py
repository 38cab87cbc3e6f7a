"""Training, the only place that needs torch: small nets, on the CPU, the same weights from the same rows."""

import io
from typing import Any

import numpy as np

from shared.errors import Unavailable
from shared.models.dataset import Dataset, Floats, Mask
from shared.models.net import QUANTILES, Net, scaled

_HIDDEN = 32
_STEPS = 200
_BATCH = 16_384
_RATE = 0.04
_RIDGE = 1.0  # of the linear part, as logistic regression's; what is not linear has to earn more
_RIDGE_HIDDEN = 16.0
_SEED = 20_260_101


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
    """A net trained on these rows alone: their scale, their mean, their weights."""
    torch = torch_here()
    torch.manual_seed(seed)
    center, scale = scale_of(data.x[rows])
    target = np.array([0.0, 1.0])
    if data.kind != "probability":
        target = np.array([np.median(data.y[rows]), max(float(np.std(data.y[rows])), 1e-9)])
    z = torch.tensor(scaled(data.x[rows], center, scale), dtype=torch.float32)
    y = torch.tensor((data.y[rows] - target[0]) / target[1], dtype=torch.float32)
    w = torch.tensor(data.weight[rows] / data.weight[rows].mean(), dtype=torch.float32)
    outputs = len(QUANTILES) if data.kind == "quantiles" else 1
    module = _module(torch, data, outputs, start=_start(data.kind, data.y[rows]))
    optimiser = torch.optim.Adam(module.parameters(), lr=_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=_RATE, total_steps=_STEPS)
    order = torch.Generator().manual_seed(seed)
    for _ in range(_STEPS):
        batch = slice(None)
        if len(y) > _BATCH:
            batch = torch.randint(len(y), (_BATCH,), generator=order)
        optimiser.zero_grad()
        loss = (w[batch] * _loss(torch, data.kind, module(z[batch]), y[batch])).mean()
        loss = loss + (_RIDGE * module.linear.square().sum() + _RIDGE_HIDDEN * module.out.square().sum()) / (2 * len(y))
        loss.backward()
        optimiser.step()
        schedule.step()
    kept = {name: value.detach().numpy().astype(np.float64) for name, value in module.state_dict().items()}
    return Net(data.kind, data.features, center, scale, target=target, **kept)


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
    names = ("center", "scale", "linear", "hidden", "hidden_bias", "out", "bias", "target")
    torch.save({name: torch.tensor(getattr(net, name)) for name in names}, stream)
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


def _module(torch: Any, data: Dataset, outputs: int, *, start: float) -> Any:
    width = len(data.features)

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
