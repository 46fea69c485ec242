"""The answer of a search for people: a page, and the changes of `--explain`."""
