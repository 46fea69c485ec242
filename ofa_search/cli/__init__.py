"""The commands of the search and of training."""
