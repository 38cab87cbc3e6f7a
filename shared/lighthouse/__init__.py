"""Page scans: the real Lighthouse in a real Chromium, which reaches the public internet and nothing else."""
