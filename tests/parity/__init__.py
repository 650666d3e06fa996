"""Upstream's answers, made once with upstream's own code, and the scripts that made them."""
