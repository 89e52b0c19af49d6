"""The fleet: a range of millions over many instances, through the task queue."""
