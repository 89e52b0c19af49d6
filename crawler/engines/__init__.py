"""Engines: how lanes do HTTP, strictly and within bounds; all policy stays in the frontier."""
