"""The only room that imports pyiceberg: change detection, reads, writes, seals, publishes, watermarks."""
