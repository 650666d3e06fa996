"""Upstream's own code, one module a family: run by make_golden.py where it is checked out, never by the tests."""
