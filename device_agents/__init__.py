"""The code for devices: the agent, and the script that manages its files. It imports nothing else of this project."""
