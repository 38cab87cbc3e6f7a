"""The whole plane on one machine: database, object store, bus, functions, jobs and scheduler. Never deployed."""
