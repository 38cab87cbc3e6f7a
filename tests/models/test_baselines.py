"""A baseline is only worth beating when it is as good as it can be."""

import numpy as np
import pytest

from shared.models.baselines import THREAT
from shared.models.dataset import Dataset


@pytest.mark.parametrize("seed", range(20))
def test_logistic_regression_arrives_where_few_answers_are_yes_and_features_have_spikes(seed: int) -> None:
    """Newton's whole steps go back and forth here; at the least loss, what is said adds up to what there was."""
    rng, n = np.random.default_rng(seed), 1500
    x = np.where(rng.random((n, 6)) < 0.05, 8.0, rng.normal(size=(n, 6)) / 2)
    y = (x[:, :3].sum(1) + 2 * rng.normal(size=n) > 12).astype(np.float64)
    at = 3600 * np.arange(n)
    data = Dataset("threat", "probability", tuple("abcdef"), x, y, at, at, np.ones(n), {})
    every = np.ones(n, dtype=bool)
    said = THREAT["logistic regression"].predict(data, every, every)
    assert said.sum() == pytest.approx(y.sum(), abs=1e-3)
    assert np.mean(y * np.log(said) + (1 - y) * np.log(1 - said)) > -0.05
