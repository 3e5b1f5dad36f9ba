"""WATCH: meters of running streams."""
