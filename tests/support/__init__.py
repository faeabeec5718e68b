"""Helpers of the tests: servers, fakes, media and checks."""
