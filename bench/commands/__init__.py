"""What the command line calls: one file per command."""
