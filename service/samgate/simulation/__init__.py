"""The scheduler under a virtual clock: workloads, fleets, and what becomes of requests."""
