"""Provide what all jobs of one machine share: the job queue, working folders and caches."""
