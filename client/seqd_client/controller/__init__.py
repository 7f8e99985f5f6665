"""The imaging controller's side of the protocol."""
