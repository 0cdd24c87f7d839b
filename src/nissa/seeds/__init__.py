"""Seeds: the stage table, the state of each seed, and the handle returned to users."""
