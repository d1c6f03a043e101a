"""Runs gates and test layers, counts what passed, and says so in one line each."""
