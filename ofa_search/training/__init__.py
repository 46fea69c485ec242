"""Training: supernets by schedules of phases, single networks, and the data both learn from."""
