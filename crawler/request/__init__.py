"""Requests: what a caller asked for becomes one checked `CrawlRequest`, or one clear error."""
