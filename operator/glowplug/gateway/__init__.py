"""The data plane: an OpenAI-compatible proxy that holds requests until a replica can answer."""
