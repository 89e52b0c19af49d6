"""Settings: environment, arguments and their bounds, read once at the edge."""
