"""Picks the best architecture of a search space for a latency budget, and cuts it out of the supernet."""
