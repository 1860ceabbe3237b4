"""Readers of the data sets that image-editing papers report on, one module a set.

A reader takes the folder that the user has on disk, in the layout in which the set is published, and returns rows: one
dict an edit, its keys the columns, its values text or a picture that is opened only when it is asked for. Nothing is
downloaded, nothing outside the folder is opened. Every error says which file and row, what was found and what was
expected.
"""
