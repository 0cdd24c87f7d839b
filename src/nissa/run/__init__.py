"""Life of a run: start, environments, validation and shutdown."""
