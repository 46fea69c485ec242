"""The latency of a network as a function of the units that it keeps, and the units to keep within a budget."""
