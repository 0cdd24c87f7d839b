"""What became of seeds, by the blueprint that they were built from: for people, and for the reward of a policy."""
