"""Weight files on disk and on the hub, shipped checkpoints, the cache folder."""
