"""The generator: EasyAnimateV5.1, loaded, sampled, differentiated."""
