"""The program that gameday runs on a node: it changes something there, and surely takes it back.

It is shipped to the node as it is, in a ConfigMap, so that whoever is on call can read what runs there.
Therefore it needs nothing but Python 3.9 and its standard library.
"""
