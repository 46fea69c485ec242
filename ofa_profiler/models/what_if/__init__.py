"""What a user could change in a network to make it faster: edited networks, to be measured beside the original.

`variants.py` lists the ideas, a file each. `onnx_net.py` and `tflite_net.py` edit files. Weights that a change
needs are made up, so an edited network has the time of the real one, and not its outputs. It is only measured.
"""
