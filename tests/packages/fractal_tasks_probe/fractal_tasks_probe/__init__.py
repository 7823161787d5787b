"""Small Fractal tasks of every type, which do what their arguments tell them."""
