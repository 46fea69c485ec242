"""Latency tables: rows, files, and latency predictions of whole networks."""
