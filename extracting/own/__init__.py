"""Your own videos and streams, outside any data set."""
