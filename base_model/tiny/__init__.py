"""The embedded world: rendered clips of moving shapes, their captions, and an oracle."""
