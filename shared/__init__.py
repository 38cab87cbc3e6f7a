"""Groundskeeper's product code: the core in this folder's modules, each domain in a room (sub-package) of its own.

The core imports no room, rooms do not import each other, and nothing imports a task (tests/house/test_layers.py).
"""
