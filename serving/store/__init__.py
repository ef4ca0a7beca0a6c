"""What lasts: jobs and all about them in a database, latents, frames and films among the artifacts."""
