"""CALL: the streaming client, for every endpoint that streams."""
