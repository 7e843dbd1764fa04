"""What a model gets on a CPU: packed weights, compiled kernels, and whole passes without Python in between."""
