"""Training loops in the style of public ones, each compared with a float64 reference."""
