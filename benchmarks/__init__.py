"""What `make bench` runs: our crawler and other clients on the same pages, in the same minutes."""
