"""Google's public list prices, US dollars, tier-1 regions, as looked up in November 2026; without discounts.

https://cloud.google.com/run/pricing (functions are request-based, jobs and always-on workers instance-based),
/scheduler/pricing, /pubsub/pricing, /secret-manager/pricing, /kms/pricing, /stackdriver/pricing.
"""

from dataclasses import dataclass

# 30.4 days: a twelfth of a year.
MONTH_S = 30.4 * 86400
GIB = 2**30


@dataclass(frozen=True)
class Compute:
    """Dollars a vCPU-second, a GiB-second and a million requests, and what of each is free every month."""

    vcpu_s: float
    gib_s: float
    million_requests: float
    free_vcpu_s: float
    free_gib_s: float
    free_requests: float


@dataclass(frozen=True)
class Prices:
    """A list of prices; every `free_` is a month's and the billing account's, not the project's."""

    functions: Compute = Compute(0.000024, 0.0000025, 0.40, 180_000, 360_000, 2_000_000)
    instances: Compute = Compute(0.000018, 0.000002, 0.0, 240_000, 450_000, 0)
    schedule: float = 0.10
    free_schedules: int = 3
    secret_version: float = 0.06
    free_secret_versions: int = 6
    key_version: float = 0.06
    pubsub_tib: float = 40.0
    free_pubsub_gib: float = 10.0
    alert_condition: float = 0.10


LIST = Prices()
