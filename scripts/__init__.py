"""Scripts for the targets of the Makefile."""
