"""One training of a whole model spread over several devices: torch's `fully_shard`, a process for each device."""
