"""Files in object storage and on disks: read, written, listed, removed, with patience."""
