"""Statistics of seed outcomes by blueprint, for reports and for the reward of a policy."""
