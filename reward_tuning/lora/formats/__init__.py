"""LoRA file formats: one reader for all layouts, one writer per format."""
