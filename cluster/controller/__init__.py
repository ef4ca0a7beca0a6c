"""The controller: keeps RenderPools and the farm in agreement, and drains nodes that will go."""
