"""Files on disks and in object storage: read, write, list and remove them, with retries."""
