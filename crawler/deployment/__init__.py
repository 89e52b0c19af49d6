"""The deployment: what `deploy.sh` asks, because it is better said in Python."""
