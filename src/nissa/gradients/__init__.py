"""Gradients: optimizer hooks in, one packed tensor per sampled step out, read on another thread."""
