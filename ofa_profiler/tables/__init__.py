"""Latency tables: rows, files, and the milliseconds of whole networks."""
