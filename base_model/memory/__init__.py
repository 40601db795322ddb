"""Memory modes: offloading and quantised weights."""
