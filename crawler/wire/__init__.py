"""The one part that speaks HTTP: libcurl on one thread, for sources and step 1 functions alike."""
