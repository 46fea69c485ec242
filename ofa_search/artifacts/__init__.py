"""Files with weights: those of the package, those that the OFA authors publish, and their readers."""
