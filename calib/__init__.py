"""Calibration: registration, template, joint fit and calls at run time, and the offline learning behind them."""
