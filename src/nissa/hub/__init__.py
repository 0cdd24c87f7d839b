"""The hub: events in, a carbon copy to each backend out."""
