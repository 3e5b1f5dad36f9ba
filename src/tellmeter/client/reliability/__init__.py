"""What keeps a call of the LLMClient from failing, and a failing provider from being called."""
