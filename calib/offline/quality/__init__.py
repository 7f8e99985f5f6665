"""Fit of quality scores.

The modules that call in the daemon call runs whose truth is known. From these calls one quality table is fitted for
each readout (see :class:`engines.bundles.bundle.Readout`).
"""
