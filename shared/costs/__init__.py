"""What the plane costs a month, from task.yaml and public prices. Pure functions; no task uses them."""
