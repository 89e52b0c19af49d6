"""The deployment: the steps of `deploy.sh` that need judgement; not uploaded with the function."""
