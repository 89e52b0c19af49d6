"""The embedded song site: a loopback stand-in for the Genius API, with songs made up."""
