"""Other networks that judges use: BLIP, RAFT, TransNetV2, MPS, the latent tower."""
