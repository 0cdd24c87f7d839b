"""Gradient measurement: optimizer hooks produce one packed tensor per sampled step; a worker thread reads it."""
