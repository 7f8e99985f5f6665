"""From tile images to committed calls, with an engine that is opened again when it fails."""
