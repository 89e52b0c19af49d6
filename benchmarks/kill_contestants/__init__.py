"""What other crawlers are, and how they are meant to be gone on with after an interruption."""
