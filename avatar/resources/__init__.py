"""What the jobs of one machine share: admission, working folders and caches."""
