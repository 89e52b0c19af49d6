"""Sources: what a page is, its address, its headers, and how a body becomes info."""
