"""The watchdog: what should have happened and did not, told once when it begins and once when it is over."""
