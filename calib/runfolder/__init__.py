"""The run folder of archived images, and how its tiles are numbered."""
