"""What this machine's operating points cost and give: measured, kept in files, and read back only where they hold."""
