"""Weights: fetched, checked, converted and stored without ever running code from a weights file."""
