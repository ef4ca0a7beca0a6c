"""Which latents, which gang, which maths: the engine, pure. torch and numpy only; no Ray, HTTP, disk or Kubernetes."""
