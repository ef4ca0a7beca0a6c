"""Adapters from diffusers' models to the protocols of sharding, and pocket, the checkpoint that ships."""
