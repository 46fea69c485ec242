"""Which units of a network can be removed, from what `torch.export` traces."""
