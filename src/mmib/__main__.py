"""Runs the command `mmib` as `python -m mmib`."""

from mmib.cli import main

raise SystemExit(main())
