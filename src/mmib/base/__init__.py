"""Basic utilities: files, seeding, ranks and devices, resampling, and the commands' argument parser."""
