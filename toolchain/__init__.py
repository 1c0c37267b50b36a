"""Builds and finds the parts of the platform that no package registry ships as a binary."""
