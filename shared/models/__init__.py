"""Models that are promoted only where they are better: data, baselines, backtests, a gate, a registry, scores."""
