"""The HTTP API: the native /v1/jobs, the OpenAI-compatible /v1/videos, events, webhooks, keys. No Ray, no torch.

app.py puts it together from services.py, which says what it needs from the rest of the farm.
"""
