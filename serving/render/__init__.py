"""Rendering: gangs that denoise calls, the decoder and assembler that finish them, and the farm in one process."""
