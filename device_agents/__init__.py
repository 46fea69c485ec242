"""What runs on the device: the agent, and the script that keeps its files there. Nothing of ours is imported."""
