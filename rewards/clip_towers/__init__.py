"""CLIP-style image and text towers: OpenCLIP, Hugging Face CLIP and SigLIP layouts."""
