"""samgate: every efficient Segment Anything variant behind one gRPC API."""

__version__ = "0.1.0"
