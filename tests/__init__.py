"""The suite; a package so that tests can import `tests.support`."""
