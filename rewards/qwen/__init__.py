"""Qwen2-VL judges: folders, frames to patches, the model, merged adapters, prompt templates."""
