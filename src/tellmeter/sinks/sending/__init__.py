"""How a batch gets to a backend that speaks HTTP; for every sink whose backend does."""
