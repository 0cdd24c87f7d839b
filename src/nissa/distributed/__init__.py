"""Distributed training: ranks, sharded tensors, and consensus between ranks."""
