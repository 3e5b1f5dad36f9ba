"""Pytest fixtures for programs that call LLMs."""
