"""Flow-matching training on a user's own clips: LoRA or all weights. Knows no reward."""
