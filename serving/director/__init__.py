"""Decides what is rendered where and when, and what a job may become. Knows neither HTTP nor the command line."""
