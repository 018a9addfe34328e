"""What an administrator asks a running server. It sees the running flows, and nothing of how a session goes on."""
