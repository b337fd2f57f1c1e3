"""Pictures and sound of a recording: drawn and played from its source, without web or index."""
