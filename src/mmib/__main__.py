"""`python -m mmib` is the command `mmib`."""

from mmib.cli import main

raise SystemExit(main())
