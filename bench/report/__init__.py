"""Leaderboards as pure functions of the records: no model, no data, no GPU."""
