"""What every part builds on: files, seeding, ranks and devices, resampling, and the parser of the commands."""
