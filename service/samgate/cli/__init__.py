"""The ``samgate`` command, one module a sub-command."""
