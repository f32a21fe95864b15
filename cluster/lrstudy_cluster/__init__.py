"""Launches studies on clusters: fills in the templates of a target, checks them, submits them.

    profile.py     what is asked for: the site's profile, and options of the command line
    templates.py   the files in cluster/<target>/, filled in
    target.py      the contract of a target
    catalogue.py   the targets by name
    launching.py   the way from a study file to a submitted run

Every other file is a target, or what one target needs beside it:

    slurm_site.py    what a SLURM site says of a job before it is submitted
    node_network.py  a node's address and its block of ports; runs on the nodes of a job
"""
