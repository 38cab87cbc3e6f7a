"""Analytics: raw telemetry into hours and days, and into windows that models learn from."""
