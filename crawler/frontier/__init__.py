"""The frontier: all policy of a crawl, pace, retries, pauses, circuit and budget, once."""
