"""When calling lags: images go to disk, the flow cell is held, and it is foretold what will be full."""
