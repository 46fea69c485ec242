"""Pruning of any torch network: groups of channels, their latency, the choice of what goes, and the cut."""
