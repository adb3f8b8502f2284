"""A folder of videos as one run that can be stopped at any time and continued."""
