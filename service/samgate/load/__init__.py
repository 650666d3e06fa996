"""Sends a workload to a real server, in an open loop: what the simulator predicts, measured."""
