"""Which of several processes this one is."""
