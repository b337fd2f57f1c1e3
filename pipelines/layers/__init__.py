"""The front end of a recipe as a layer of PyTorch, Keras or JAX."""
