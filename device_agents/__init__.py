"""Scripts that run on the device: one file each, standard library and the runtime only, Python 3.7+."""
