"""A function of the user as the objective: how it is called, its journal, and what a search sees of it."""
