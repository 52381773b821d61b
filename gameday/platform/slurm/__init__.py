"""Slurm, asked and changed through slurmrestd, or through scontrol here or in a pod, whichever there is.

Answers become the few facts of model.py, so that nobody else knows of Slurm's versions.
"""
