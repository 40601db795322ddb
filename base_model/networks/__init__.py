"""Networks and their parts: the Magvit VAE, rotary tables, attention backends, text encoding."""
