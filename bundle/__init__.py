"""Bundles: all that a site without internet needs for a stack, in one folder or tar, with a signature."""
