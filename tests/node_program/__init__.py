"""Tests of the program that runs on nodes, as a process of its own."""
