"""What holds when things go wrong, and for how long: soak and chaos runs against real servers, with a verdict."""
