"""File names in a checkpoint of a run, from which an adapter can be read, too."""

ADAPTER_FILE, EMA_FILE, OPTIMISER_FILE, RNG_FILE, STATE_FILE = (
    "adapter.safetensors",
    "ema.safetensors",
    "optimiser.pt",
    "rng.pt",
    "state.json",
)
