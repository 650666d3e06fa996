"""Who may call, how often, and over what connection. docs/security.md says what is promised."""
