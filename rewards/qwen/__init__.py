"""Qwen2-VL as a judge: folders, frames to patches, the model, merged adapters, templates."""
