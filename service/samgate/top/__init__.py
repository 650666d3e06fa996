"""``samgate top``: scrapes of /metrics as figures for people. :mod:`scrape` fetches, :mod:`figures` calculates and
:mod:`view` draws."""
