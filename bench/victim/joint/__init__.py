"""Several victims in one pass over unpadded tokens: frozen weights are shared, trained ones have a member axis."""
