"""Students for the gateway: image encoders distilled from those of other variants. Needs the ``compile`` extra."""
