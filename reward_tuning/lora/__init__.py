"""LoRA adapters: on the model, into files and out of files."""
