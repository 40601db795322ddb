"""Training the generator's own parts: VAE, text encoder, flow-matching transformer."""
