"""Event hub: passes each event to every backend."""
