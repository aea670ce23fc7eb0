"""Golden vectors: inputs and outputs of the published systems' own code, and thin adapters that put ours beside them.

``data/<slug>.json`` holds the cases of a system, ``<slug with underscores>.py`` its adapter: one function ``run(name, inputs, params)``
that calls the library's public functions and returns the outputs. Adapters re-implement nothing: a method's loss is what the method's own
update minimises, and its advantages are its own annotation's (``methods.py``).
``python -m tests.vectors FILE.json ...`` runs files of this layout, wherever they are.
"""
