"""Pictures as users have them: read safely, turned, brought to sRGB and to the size of a film."""
