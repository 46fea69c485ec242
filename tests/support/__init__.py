"""Helpers of the tests: real servers, devices, kits and files to test with."""
