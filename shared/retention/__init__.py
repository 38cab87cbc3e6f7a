"""Retention: which rows are past their time, and how they go.

`rules` says what a policy is and turns it into predicates; `purge` plans and acts by those same predicates.
"""
