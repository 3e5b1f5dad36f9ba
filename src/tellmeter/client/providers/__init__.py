"""The official SDKs behind the LLMClient, a file each."""
