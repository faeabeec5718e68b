"""`make test-containers`: build the images and run the compose file with a real engine, as root on Debian."""
