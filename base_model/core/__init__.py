"""Token counts and the latent grid."""
