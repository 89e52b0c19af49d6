"""The doctor: whether a crawl would work, looked at before it starts."""
