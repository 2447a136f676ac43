"""Analyses of poison and of trained victims: they read what the suite makes, and change nothing."""
