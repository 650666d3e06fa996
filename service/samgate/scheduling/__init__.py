"""Who runs what when: pure state, no I/O, no clock of its own."""
