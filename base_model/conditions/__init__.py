"""Images, clips, masks, controls, cameras and trajectories to condition latents."""
