"""Numbers of the model family: strides, kinds of checkpoint, token counts, the latent grid."""
