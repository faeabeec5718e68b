"""The build: choose, make and place the files of a model repository."""
