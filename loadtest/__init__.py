"""Load tests of a running server with Locust, in an open loop. docs/load-tests.md says how to run and read them."""
