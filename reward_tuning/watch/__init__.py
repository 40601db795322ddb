"""A live page of runs that train: their files, read as they change, for this machine alone."""
